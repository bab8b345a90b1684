"""Laws of smoothing: what must not change, what must commute with it, what must become less."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from er_jax.mano import HAND21, MANO16, load_hands
from er_jax.mano.conventions import kinematic_joints, rest_wrist
from er_jax.video.least_squares import smooth_points, smooth_rotations
from er_jax.video.smoothing import LiveFilter, smooth
from er_jax.video.track import HandTrack

RATE = 30.0
STEP = 1 / RATE
HANDS = load_hands()
PALM = [0] + [MANO16.index(f"{name}_1") for name in ("Index", "Middle", "Ring", "Pinky", "Thumb")]


def exp(vectors):
    vectors = np.asarray(vectors, np.float64)
    return Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(*vectors.shape, 3)


def angles(first, second):
    """Between rotations, radians."""
    between = np.swapaxes(first, -1, -2) @ second
    turns = Rotation.from_matrix(between.reshape(-1, 3, 3))
    return turns.magnitude().reshape(between.shape[:-2])


def track(frames, betas, rotations, transl, side="right", **changed) -> HandTrack:
    count = len(frames)
    return dataclasses.replace(
        HandTrack(
            person=0,
            side=side,
            frames=np.asarray(frames),
            filled=np.zeros(count, bool),
            score=np.full(count, 0.9),
            betas=np.broadcast_to(betas, (count, 10)).copy(),
            rotations=np.broadcast_to(rotations, (count, 16, 3, 3)).copy(),
            transl=np.broadcast_to(transl, (count, 3)).copy(),
            keypoints_px=np.full((count, 21, 2), 100.0),
            confidence=np.full((count, 21), 0.8),
            joint_sigma_m=np.full((count, 21), 0.012),
            depth_sigma_m=np.full(count, 0.045),
        ),
        **changed,
    )


def moving(count=60, seed=0, side="right") -> HandTrack:
    """Uniform turning of all joints and uniform motion, no noise."""
    random = np.random.default_rng(seed)
    time = np.arange(count) * STEP
    spin = random.normal(0, 1.5, (16, 3))
    rotations = exp(random.normal(0, 0.6, (16, 3))) @ exp(time[:, None, None] * spin)
    betas = random.normal(0, 1, 10)
    root = rotations[:, 0]
    # The palm's middle is what moves uniformly: the wrist goes round it.
    path = np.array([0.05, -0.02, 0.6]) + time[:, None] * np.array([0.2, -0.1, 0.15])
    at_zero = middle(betas, root, np.zeros((count, 3)), side)
    return track(np.arange(count), betas, rotations, path - at_zero, side)


def middle(betas, root, transl, side="right"):
    """The palm's, by the kinematic joints of a flat hand."""
    rotations = np.broadcast_to(np.eye(3), (len(root), 16, 3, 3)).copy()
    rotations[:, 0] = root
    hand = HANDS.hand(side)
    return kinematic_joints(hand, betas, rotations, transl)[:, PALM].mean(1)


def noisy(clean: HandTrack, seed=1, angle=0.05, across=0.002, along=0.02, shape=0.3) -> HandTrack:
    random = np.random.default_rng(seed)
    count = len(clean)
    rotations = clean.rotations @ exp(random.normal(0, angle, (count, 16, 3)))
    transl = clean.transl + random.normal(0, 1, (count, 3)) * (across, across, along)
    betas = clean.betas + random.normal(0, shape, (count, 10))
    return dataclasses.replace(clean, rotations=rotations, transl=transl, betas=betas)


def times(count=200):
    return np.arange(count) * STEP


def assert_same(result, expected, tolerance=1e-6):
    np.testing.assert_allclose(result.betas, expected.betas, atol=tolerance)
    np.testing.assert_allclose(result.rotations, expected.rotations, atol=tolerance)
    np.testing.assert_allclose(result.transl, expected.transl, atol=tolerance)


# What must not change


@pytest.mark.parametrize("cutoff_hz", [0.5, 3.0, np.inf])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_hand_at_rest_stays(cutoff_hz, side):
    still = track(np.arange(50), 0.5, moving().rotations[3], [0.1, 0.0, 0.7], side)
    assert_same(smooth(still, times(), HANDS, cutoff_hz=cutoff_hz), still)


@pytest.mark.parametrize("cutoff_hz", [0.5, 3.0])
def test_uniform_motion_without_noise_is_untouched(cutoff_hz):
    clean = moving()
    assert_same(smooth(clean, times(), HANDS, cutoff_hz=cutoff_hz), clean)


def test_uniform_motion_at_uneven_times_is_untouched():
    random = np.random.default_rng(3)
    at = np.cumsum(random.uniform(0.02, 0.06, 40))
    rotations = exp(at[:, None] * np.array([1.0, -2.0, 0.5]))[None]
    result = smooth_rotations(rotations, np.ones((1, 40)), at, 1.0, STEP)
    np.testing.assert_allclose(result, rotations, atol=1e-6)
    points = np.array([0.1, 0.2, 0.6]) + at[:, None] * np.array([0.1, -0.2, 0.3])
    precision = np.broadcast_to(np.eye(3), (40, 3, 3))
    np.testing.assert_allclose(smooth_points(points, precision, at, 1.0, STEP), points, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_short_tracks_are_finite_and_keep_their_frames(count):
    short = noisy(moving(max(count, 1)))
    short = dataclasses.replace(
        short, **{n: v[:count] for n, v in vars(short).items() if isinstance(v, np.ndarray)}
    )
    result = smooth(short, times(), HANDS)
    np.testing.assert_array_equal(result.frames, short.frames)
    for name in ("betas", "rotations", "transl", "joint_sigma_m", "depth_sigma_m", "score"):
        assert np.isfinite(getattr(result, name)).all(), name
    if 0 < count <= 2:
        np.testing.assert_allclose(result.rotations, short.rotations, atol=1e-6)
    if count == 1:
        assert_same(result, short)


@pytest.mark.parametrize("seen", ["noisy", "any"])
def test_rotations_stay_rotations(seen):
    """Any at all, too: the mean of their matrices is as often a mirror's."""
    one = noisy(moving(), angle=0.5)
    if seen == "any":
        anyhow = Rotation.random(60 * 16, random_state=0).as_matrix().reshape(60, 16, 3, 3)
        one = dataclasses.replace(one, rotations=anyhow)
    result = smooth(one, times(), HANDS, cutoff_hz=0.5).rotations
    np.testing.assert_allclose(
        result @ np.swapaxes(result, -1, -2), np.broadcast_to(np.eye(3), result.shape), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(result), 1.0, atol=1e-9)


# What must commute


def turned(one: HandTrack, rotation, side="right") -> HandTrack:
    """All turned about the camera's centre."""
    wrist = rest_wrist(HANDS.hand(side), one.betas)
    rotations = one.rotations.copy()
    rotations[:, 0] = rotation @ rotations[:, 0]
    transl = (wrist + one.transl) @ rotation.T - wrist
    return dataclasses.replace(one, rotations=rotations, transl=transl)


@pytest.mark.parametrize("side", ["right", "left"])
def test_turning_about_the_camera_commutes(side):
    rotation = exp(np.array([0.3, -0.8, 0.4]))
    seen = noisy(moving(side=side))
    before = smooth(turned(seen, rotation, side), times(), HANDS)
    assert_same(before, turned(smooth(seen, times(), HANDS), rotation, side), 1e-6)


def test_rigid_motions_commute_with_points_that_are_alike_in_all_directions():
    random = np.random.default_rng(5)
    points = np.cumsum(random.normal(0, 0.01, (50, 3)), 0)
    weight = random.uniform(0.2, 2, (50, 1, 1)) * np.eye(3)
    rotation, shift = exp(np.array([0.3, -0.8, 0.4])), np.array([0.4, -2.0, 1.0])
    one = smooth_points(points @ rotation.T + shift, weight, times(50), 2.0, STEP, 3.0)
    two = smooth_points(points, weight, times(50), 2.0, STEP, 3.0) @ rotation.T + shift
    np.testing.assert_allclose(one, two, atol=1e-7)


def test_rotations_on_both_sides_commute():
    random = np.random.default_rng(6)
    rotations = noisy(moving()).rotations.swapaxes(0, 1)
    left, right = exp(random.normal(0, 1, (2, 3)))
    weights = random.uniform(0.1, 2, rotations.shape[:2])
    arguments = (weights, times(60), 2.0, STEP, 3.0)
    one = smooth_rotations(left @ rotations @ right, *arguments)
    two = left @ smooth_rotations(rotations, *arguments) @ right
    np.testing.assert_allclose(one, two, atol=1e-7)


def test_backwards_in_time_is_the_same():
    seen = noisy(moving())
    seen = dataclasses.replace(seen, score=np.random.default_rng(2).uniform(0.2, 1, 60))
    back = dataclasses.replace(
        seen,
        **{
            n: v[::-1] if n != "frames" else v
            for n, v in vars(seen).items()
            if isinstance(v, np.ndarray)
        },
    )
    forth = smooth(seen, times(60), HANDS)
    backwards = smooth(back, times(60), HANDS)
    np.testing.assert_allclose(backwards.rotations[::-1], forth.rotations, atol=1e-7)
    np.testing.assert_allclose(backwards.transl[::-1], forth.transl, atol=1e-7)


# Gaps and weights


def without(one: HandTrack, gone) -> HandTrack:
    kept = ~np.isin(one.frames, gone)
    return dataclasses.replace(
        one, **{n: v[kept] for n, v in vars(one).items() if isinstance(v, np.ndarray)}
    )


def test_short_gaps_are_filled_and_say_so():
    clean = moving()
    result = smooth(without(clean, [10, 30, 31, 32, 33, 34]), times(), HANDS)
    np.testing.assert_array_equal(result.frames, np.arange(60))
    np.testing.assert_array_equal(np.flatnonzero(result.filled), [10, 30, 31, 32, 33, 34])
    assert (result.score[result.filled] == 0).all()
    assert (result.confidence[result.filled] == 0).all()
    assert np.isnan(result.keypoints_px[result.filled]).all()
    assert not np.isnan(result.keypoints_px[~result.filled]).any()
    assert_same(result, clean)


@pytest.mark.parametrize(("missing", "stays"), [(7, False), (8, True), (20, True)])
def test_gaps_longer_than_the_limit_stay(missing, stays):
    gap = np.arange(20, 20 + missing)
    seen = noisy(moving())
    result = smooth(without(seen, gap), times(), HANDS, most_filled_s=7.2 * STEP)
    assert np.isin(gap, result.frames).any() != stays
    if stays:  # either side by itself: the second does not know of the first's motion
        other = dataclasses.replace(seen)
        other.rotations[:20] = other.rotations[:20] @ exp(np.array([0.5, 0.1, 0.0]))
        again = smooth(without(other, gap), times(), HANDS, most_filled_s=7.2 * STEP)
        after = result.frames > 20
        np.testing.assert_allclose(again.rotations[after], result.rotations[after], atol=1e-12)


def test_frames_filled_before_are_filled_anew():
    clean = moving()
    filled = np.isin(clean.frames, [25, 26])
    wrong = dataclasses.replace(clean, filled=filled, rotations=clean.rotations.copy())
    wrong.rotations[filled] = np.eye(3)
    result = smooth(wrong, times(), HANDS)
    np.testing.assert_array_equal(result.filled, filled)
    assert_same(result, clean)


@pytest.mark.parametrize("of", ["score", "confidence"])
def test_frames_without_weight_are_as_those_not_seen(of):
    clean = noisy(moving())
    gone = [15, 40, 41]
    wrong = dataclasses.replace(
        clean,
        rotations=clean.rotations.copy(),
        transl=clean.transl.copy(),
        score=clean.score.copy(),
        confidence=clean.confidence.copy(),
    )
    wrong.rotations[gone] = exp(np.array([0.5, 0.2, 0.1])) @ wrong.rotations[gone]
    if of == "score":
        wrong.score[gone] = 0.0
        wrong.transl[gone] += 0.1
    else:  # keypoints tell nothing of the place's weight
        wrong.confidence[gone] = 0.0
    result = smooth(wrong, times(), HANDS, outlier_sigmas=np.inf)
    expected = smooth(without(clean, gone), times(), HANDS, outlier_sigmas=np.inf)
    np.testing.assert_allclose(result.rotations, expected.rotations, atol=1e-6)
    if of == "score":
        np.testing.assert_allclose(result.transl, expected.transl, atol=1e-6)


@pytest.mark.parametrize("score", [0.0, 1e-9, 0.9])
def test_one_frame_that_is_sure_is_enough(score):
    seen = without(moving(), np.arange(1, 5))
    seen = without(seen, np.arange(6, 60))
    result = smooth(dataclasses.replace(seen, score=np.array([0.9, score])), times(), HANDS)
    np.testing.assert_array_equal(result.frames, np.arange(6))
    assert_same(result, without(moving(), np.arange(6, 60)), 1e-4)


def test_an_outlier_counts_little():
    clean = moving(120)
    seen = noisy(clean, angle=0.02, shape=0.0)
    seen.rotations[50] = exp(np.array([0.9, 0.2, 0.5])) @ seen.rotations[50]
    seen.transl[50] += np.array([0.1, 0.0, 0.2])
    near = slice(40, 60)

    def off(**options):
        result = smooth(seen, times(), HANDS, cutoff_hz=2.0, **options)
        turn = angles(result.rotations, clean.rotations)[near].max()
        return turn, np.linalg.norm(result.transl - clean.transl, axis=-1)[near].max()

    robust, plain = off(), off(outlier_sigmas=np.inf)
    assert robust[0] < 0.05 < 0.1 < plain[0]
    assert robust[1] < 0.5 * plain[1]


def test_the_hand_stays_where_it_is_in_the_picture_as_its_shape_changes():
    """A hand that is taken for a larger one is that much nearer."""
    betas = np.zeros((40, 10))
    betas[:, 0] = np.where(np.arange(40) % 2, 1.5, -1.5)
    rest = track(np.arange(40), 0.0, exp(np.zeros((16, 3))), [0.0, 0.0, 0.0])
    seen = dataclasses.replace(rest, betas=betas)
    bearing = np.array([0.2, -0.1, 1.0])
    at = middle(betas, seen.rotations[:, 0], seen.transl)

    def palms(one):
        hand = HANDS.hand("right")
        return kinematic_joints(hand, one.betas, one.rotations, one.transl)[:, PALM]

    def size(one):
        return np.linalg.norm(np.ptp(palms(one), axis=1), axis=-1)

    distance = 0.6 * size(seen) / size(seen).mean()
    assert np.ptp(distance) > 0.05
    seen = dataclasses.replace(seen, transl=bearing * distance[:, None] - at)
    shaped = smooth(seen, times(), HANDS, cutoff_hz=np.inf)
    for result, tolerance in ((shaped, 0.003), (live(seen, cutoff_hz=30.0), 0.01)):
        where = palms(result).mean(1)[20:]
        np.testing.assert_allclose(where[:, :2] / where[:, 2:], [[0.2, -0.1]] * 20, atol=1e-4)
        apparent = size(result)[20:] / where[:, 2]
        np.testing.assert_allclose(apparent, (size(seen) / distance)[20:], rtol=tolerance)
        assert np.ptp(where[:, 2]) < 0.2 * np.ptp(distance)


# What must become less


def test_points_are_those_of_a_dense_solution():
    random = np.random.default_rng(8)
    count, cutoff = 25, 1.7
    at = np.cumsum(random.uniform(0.5, 1.5, count)) * STEP
    points = np.cumsum(random.normal(0, 0.01, (count, 3)), 0)
    factors = random.normal(0, 1, (count, 3, 3))
    precision = factors @ factors.swapaxes(1, 2)
    # By the acceleration's finite differences as one matrix, and least squares.
    acceleration = np.zeros((count - 2, count))
    for k in range(1, count - 1):
        h, g = at[k] - at[k - 1], at[k + 1] - at[k]
        acceleration[k - 1, k - 1 : k + 2] = np.array([g, -(h + g), h]) * 2 / (h * g * (h + g))
        acceleration[k - 1] *= np.sqrt((h + g) / 2) * (2 * np.pi * cutoff) ** -2
    roots = np.linalg.cholesky(STEP * precision).swapaxes(1, 2)
    data = np.zeros((3 * count, 3 * count))
    for k in range(count):
        data[3 * k : 3 * k + 3, 3 * k : 3 * k + 3] = roots[k]
    system = np.concatenate([data, np.kron(acceleration, np.eye(3))])
    right = np.concatenate([data @ points.ravel(), np.zeros(3 * (count - 2))])
    expected = np.linalg.lstsq(system, right, rcond=None)[0].reshape(count, 3)
    result = smooth_points(points, precision, at, cutoff, STEP)
    np.testing.assert_allclose(result, expected, atol=1e-9)


def test_rotations_are_where_their_cost_is_least():
    """Of the cost as it is documented, written anew: no small step from there makes it less."""
    random = np.random.default_rng(9)
    count, cutoff = 12, 1.5
    at = np.cumsum(random.uniform(0.5, 1.5, count)) * STEP
    given = exp(0.3 * np.cumsum(random.normal(0, 1, (count, 3)), 0))
    weights = random.uniform(0.2, 2, count)

    def cost(rotations):
        turn = Rotation.from_matrix(rotations)
        off = (Rotation.from_matrix(given).inv() * turn).magnitude() ** 2
        velocity = (turn[:-1].inv() * turn[1:]).as_rotvec() / np.diff(at)[:, None]
        mean = (at[2:] - at[:-2]) / 2
        acceleration = np.diff(velocity, axis=0) / mean[:, None]
        bent = (2 * np.pi * cutoff) ** -4 * mean * (acceleration**2).sum(-1)
        return STEP * (weights * off).sum() + bent.sum()

    result = smooth_rotations(given[None], weights[None], at, cutoff, STEP)[0]
    assert cost(result) < 0.7 * cost(given)
    gradient = np.zeros((count, 3))
    for frame in range(count):
        for axis in range(3):
            step = np.zeros((count, 3))
            step[frame, axis] = 1e-5
            gradient[frame, axis] = cost(result @ exp(step)) - cost(result @ exp(-step))
    slopes = gradient / 2e-5
    first = STEP * np.linalg.norm(weights[:, None] * angles(given, result)[:, None])
    assert np.abs(slopes).max() < 1e-5 * first


def test_the_cut_off_is_where_half_of_the_amplitude_is_left():
    count = 900
    at = times(count)
    precision = np.broadcast_to(np.eye(3), (count, 3, 3))
    middle_part = slice(300, 600)
    for hz, left in ((2.0, 0.5), (1.0, 1 / (1 + 2.0**-4)), (4.0, 1 / (1 + 2.0**4))):
        wave = np.sin(2 * np.pi * hz * at)[:, None] * np.array([0.01, 0.0, 0.02])
        result = smooth_points(wave, precision, at, 2.0, STEP)
        ratio = np.abs(result[middle_part]).max() / np.abs(wave[middle_part]).max()
        assert ratio == pytest.approx(left, abs=0.03)
        rotations = exp(wave)[None]
        result = smooth_rotations(rotations, np.ones((1, count)), at, 2.0, STEP)[0]
        ratio = angles(result, np.eye(3))[middle_part].max() / np.abs(wave).max() * 2 / 5**0.5
        assert ratio == pytest.approx(left, abs=0.03)


def test_noise_becomes_less_and_its_acceleration_much_less():
    clean = moving(150)
    seen = noisy(clean)
    result = smooth(seen, times(), HANDS)
    before, after = (
        angles(seen.rotations, clean.rotations),
        angles(result.rotations, clean.rotations),
    )
    assert (after**2).mean() < 0.3 * (before**2).mean()

    def jerky(one):
        return np.linalg.norm(np.diff(one.transl - clean.transl, 2, axis=0), axis=-1).mean()

    assert jerky(result) < 0.05 * jerky(seen)
    assert (result.betas == result.betas[0]).all()


def test_the_place_along_the_ray_is_smoothed_more():
    def left(direction):
        rest = track(np.arange(300), 0.0, moving().rotations[0], [0.0, 0.0, 0.6])
        start = middle(rest.betas, rest.rotations[:, 0], rest.transl)
        wave = 0.01 * np.sin(2 * np.pi * 1.0 * times(300))[:, None] * np.array(direction)
        to_axis = np.array([0.0, 0.0, 0.6]) - start
        seen = dataclasses.replace(rest, transl=rest.transl + to_axis + wave)
        result = smooth(seen, times(300), HANDS, outlier_sigmas=np.inf, cutoff_hz=2.0)
        moved = (result.transl - rest.transl - to_axis)[100:200]
        return np.abs(moved @ np.array(direction)).max() / 0.01

    assert left([1.0, 0.0, 0.0]) > 0.9
    assert left([0.0, 0.0, 1.0]) < 0.2


# Live


def live(one: HandTrack, **options) -> HandTrack:
    own = LiveFilter(HANDS, one.side, **options)
    poses = [
        own(time, one.betas[k], one.rotations[k], one.transl[k])
        for k, time in enumerate(times(len(one)))
    ]
    betas, rotations, transl = (np.stack(each) for each in zip(*poses, strict=True))
    return dataclasses.replace(one, betas=betas, rotations=rotations, transl=transl)


def test_an_infinite_cut_off_filters_nothing():
    seen = noisy(moving())
    assert_same(live(seen, cutoff_hz=np.inf), seen, 1e-9)


@pytest.mark.parametrize("cutoff_hz", [0.1, 1.0, 10.0])
def test_a_hand_at_rest_stays_live(cutoff_hz):
    still = track(np.arange(50), 0.5, moving().rotations[3], [0.1, 0.0, 0.7])
    assert_same(live(still, cutoff_hz=cutoff_hz), still, 1e-9)


def test_a_filter_that_does_not_rise_with_the_speed_is_exponential():
    turn = np.array([0.0, 0.0, 0.3])
    jump = np.where(np.arange(40) > 0, 1.0, 0.0)
    seen = track(np.arange(40), 0.0, np.eye(3), [0.0, 0.0, 0.6])
    seen = dataclasses.replace(seen, rotations=seen.rotations @ exp(jump[:, None, None] * turn))
    result = live(seen, cutoff_hz=1.5, rotation_hz=0.0, place_hz=0.0)
    time_constant = 1 / (2 * np.pi * 1.5)
    kept = (1 - 1 / (1 + time_constant / STEP)) ** np.arange(40)
    expected = 0.3 * (1 - kept)
    np.testing.assert_allclose(angles(np.eye(3), result.rotations[:, 3]), expected, atol=1e-9)


def test_a_fast_hand_lags_less():
    fast = moving(90)

    def lag(**options):
        return angles(live(fast, **options).rotations, fast.rotations)[60:].mean()

    assert lag(rotation_hz=2.0) < 0.5 * lag(rotation_hz=0.0)


def test_live_noise_of_a_hand_at_rest_becomes_less():
    still = track(np.arange(200), 0.0, moving().rotations[3], [0.1, 0.0, 0.7])
    seen = noisy(still, angle=0.03)
    result = live(seen)
    before, after = (angles(x.rotations, still.rotations)[50:] for x in (seen, result))
    assert (after**2).mean() < 0.35 * (before**2).mean()
    np.testing.assert_allclose(
        result.rotations @ result.rotations.swapaxes(-1, -2),
        np.eye(3) + np.zeros((200, 16, 3, 3)),
        atol=1e-9,
    )
    assert result.betas[100:].std(0).max() < 0.3 * seen.betas.std(0).min()
    means = np.cumsum(seen.betas, 0) / np.arange(1, 201)[:, None]
    np.testing.assert_allclose(result.betas[:50], means[:50], atol=1e-9)


def test_after_a_long_time_without_the_hand_the_filter_begins_anew():
    own = LiveFilter(HANDS, "left", reset_s=0.5)
    first, second = (noisy(moving(seed=seed)) for seed in (1, 2))
    own(0.0, np.zeros(10), first.rotations[0], first.transl[0])
    near = own(0.4, np.zeros(10), second.rotations[0], second.transl[0])
    assert angles(near.rotations, second.rotations[0]).max() > 0.01
    far = own(1.0, np.zeros(10), first.rotations[9], first.transl[9])
    np.testing.assert_allclose(far.rotations, first.rotations[9], atol=1e-9)
    np.testing.assert_allclose(far.transl, first.transl[9], atol=1e-9)
    with pytest.raises(ValueError, match=r"1\.0 s"):
        own(1.0, np.zeros(10), first.rotations[9], first.transl[9])


@pytest.mark.parametrize("name", ["joint_sigma_m", "confidence"])
def test_joints_are_read_where_they_are(name):
    """A bad fingertip weakens its finger's last joint, and no other."""
    seen = noisy(moving(), angle=0.1)
    bad = getattr(seen, name).copy()
    bad[30, HAND21.index("Ring_4")] = 1.0 if name == "joint_sigma_m" else 0.01
    one, two = (
        smooth(x, times(), HANDS, outlier_sigmas=np.inf).rotations
        for x in (seen, dataclasses.replace(seen, **{name: bad}))
    )
    changed = np.abs(one - two).max((0, 2, 3))
    assert changed.argmax() == MANO16.index("Ring_3")
    assert changed.max() > 0.01
    assert np.delete(changed, MANO16.index("Ring_3")).max() < 1e-9


def test_a_place_that_is_less_sure_counts_less():
    seen = noisy(moving(), across=0.0, along=0.0, shape=0.0)
    seen.transl[30] += 0.1

    def off(sigma):
        own = seen.depth_sigma_m.copy()
        own[30] = sigma
        result = smooth(
            dataclasses.replace(seen, depth_sigma_m=own), times(), HANDS, outlier_sigmas=np.inf
        )
        return np.linalg.norm(result.transl - moving().transl, axis=-1)[30]

    assert off(0.45) < 0.1 * off(0.045)
