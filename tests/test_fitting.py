"""The fit: joints without a mesh, anatomical axes, the solver, hands from evidence."""

import dataclasses
from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
from drawn_hands import CAMERA, MIDDLE, Truth, drawn
from official_files import write_official_folder
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from er_jax.fitting.fit import COUPLING, COUPLING_SIGMA, LOWER, PALM, SPREAD, UPPER
from er_jax.fitting.fitter import (
    Fitter,
    HandEvidence,
    Observation,
    PersonEvidence,
)
from er_jax.fitting.levenberg_marquardt import Terms, minimize
from er_jax.fitting.posed_joints import anatomical_angles, joint_model, posed_joints
from er_jax.mano import HAND21, HANDS, MANO16, axis_angle_to_matrix, load_hands, mano_forward


@cache
def fitter() -> Fitter:
    return Fitter(load_hands())


def person(truth: Truth, index: int, *, sigma_px=1.0, joints=True, **changes) -> PersonEvidence:
    hands = tuple(
        HandEvidence(
            HANDS[side],
            (
                Observation(
                    truth.keypoints[index, column],
                    np.full(21, sigma_px),
                    truth.joints[index, column] - 1.0 if joints else None,
                    np.full(21, 0.01) if joints else None,
                ),
            ),
        )
        for column, side in enumerate(truth.sides)
    )
    return dataclasses.replace(PersonEvidence(hands, CAMERA), **changes)


def relative_mm(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    difference = (found - found[..., :1, :]) - (truth - truth[..., :1, :])
    return 1000 * np.linalg.norm(difference, axis=-1).mean(-1)


# Joints and axes


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("official", [False, True])
def test_joints_without_a_mesh_are_the_layers(side, official, tmp_path):
    hands = load_hands(write_official_folder(tmp_path) if official else None)
    model = joint_model(hands)
    own = model.hands(side)
    random = np.random.default_rng(side)
    betas, pose = random.normal(size=10), random.normal(0, 0.5, 48)
    transl = random.normal(size=3)
    expected = mano_forward(hands.hand(HANDS[side]), betas, pose, transl).joints
    full = (pose[3:] + np.asarray(hands.mean_pose[side])).reshape(15, 3)
    angles = anatomical_angles(own, jnp.asarray(full))
    wrist = axis_angle_to_matrix(jnp.asarray(pose[:3]))
    found = posed_joints(own, jnp.asarray(betas), wrist, angles, jnp.asarray(transl))
    np.testing.assert_allclose(found, expected, atol=5e-6)


@pytest.mark.parametrize("side", [0, 1])
def test_flexion_goes_to_the_palm_and_the_second_angle_to_the_thumb(side):
    """The palm's side of the flat hand is where the mean pose, gently curled, brings the tips."""
    hands = load_hands()
    hand = hands.hand(HANDS[side])
    axes = np.asarray(joint_model(hands).axes[side])
    flat = -np.asarray(hand.mean_pose)
    still = np.asarray(mano_forward(hand, np.zeros(10), np.r_[np.zeros(3), flat]).joints)
    curled = np.asarray(mano_forward(hand, np.zeros(10), np.zeros(48)).joints)
    tip, thumb = HAND21.index("Middle_4"), HAND21.index("Thumb_4")
    palm, thumbs_side = curled[tip] - still[tip], still[thumb] - still[tip]
    for angle, way in ((0, palm), (1, thumbs_side)):
        vectors = np.zeros((15, 3))
        joint = MANO16[1:].index("Middle_1")
        vectors[joint] = 0.3 * axes[joint, :, angle]
        pose = np.r_[np.zeros(3), flat + vectors.ravel()]
        moved = np.asarray(mano_forward(hand, np.zeros(10), pose).joints)[tip] - still[tip]
        assert moved @ way / np.linalg.norm(moved) / np.linalg.norm(way) > 0.5


def test_a_hand_at_rest_is_in_its_mean_pose():
    hands = load_hands()
    model = joint_model(hands)
    for number, side in enumerate(HANDS):
        rest = np.asarray(model.rest_angles[number])
        found = posed_joints(model.hands(number), np.zeros(10), np.eye(3), rest, np.zeros(3))
        expected = mano_forward(hands.hand(side), np.zeros(10), np.zeros(48)).joints
        np.testing.assert_allclose(found, expected, atol=5e-6)


def test_the_palm_that_starts_are_aligned_by_is_the_hands_at_rest():
    """To 1 mm, by which a skinned mesh's joints leave the skeleton's."""
    hands = load_hands()
    for side, palm in zip(HANDS, fitter()._rest_palms, strict=True):
        expected = mano_forward(hands.hand(side), np.zeros(10), np.zeros(48)).joints
        np.testing.assert_allclose(palm, np.asarray(expected)[PALM], atol=1e-3)


# The solver


def squares(residuals, outputs) -> Terms:
    return Terms(residuals, jnp.sum(residuals**2) / 2, outputs)


def test_linear_least_squares():
    random = np.random.default_rng(0)
    matrix, wanted = jnp.asarray(random.normal(size=(12, 5))), jnp.asarray(random.normal(size=12))
    found = minimize(
        lambda x: squares(matrix @ x - wanted, 2 * x[:3]),
        jnp.zeros(5),
        most_steps=12,
        tolerance=1e-9,
    )
    best = np.linalg.lstsq(np.asarray(matrix), np.asarray(wanted), rcond=None)[0]
    np.testing.assert_allclose(found.position, best, atol=1e-3)
    np.testing.assert_allclose(found.normal, matrix.T @ matrix, rtol=1e-5)
    np.testing.assert_allclose(found.outputs, 2 * best[:3], atol=2e-3)
    np.testing.assert_allclose(found.output_jacobian, 2 * np.eye(3, 5), atol=1e-6)


def test_the_solver_gets_through_a_curved_valley_and_stops():
    """Rosenbrock's function, whose minimum is (1, 1)."""
    valley = lambda x: squares(jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]]), x)  # noqa: E731
    found = minimize(valley, jnp.array([-1.2, 1.0]), most_steps=60, tolerance=1e-6)
    np.testing.assert_allclose(found.position, [1, 1], atol=1e-3)
    assert int(found.steps) < 60


def test_a_step_to_what_is_no_number_is_refused():
    fenced = lambda x: squares(jnp.stack([jnp.sqrt(1.05 - x[0]), 3 * (x[1] - 2)]), x)  # noqa: E731
    found = minimize(fenced, jnp.zeros(2), most_steps=40)
    assert np.isfinite(np.asarray(found.position)).all()
    assert float(found.cost) < 0.3


# Hands


def test_hands_are_recovered_from_what_was_seen_of_them():
    truth = drawn(8, (0,))
    found = fitter()([person(truth, index) for index in range(8)])
    joints = np.array([one.joints for (one,) in found])
    assert relative_mm(joints, truth.joints[:, 0]).max() < 6
    assert max(one.reprojection_px for (one,) in found) < 2
    angles = np.array([_angles(one) for (one,) in found])
    beyond = np.maximum(angles - UPPER, LOWER - angles).max()
    assert beyond < np.radians(5)


def _angles(hand) -> np.ndarray:
    """Angles about the anatomical axes of a fitted hand's fingers, by SciPy's logarithm."""
    axes = np.asarray(joint_model(load_hands()).axes[HANDS.index(hand.side)])
    return np.einsum("jxa,jx->ja", axes, Rotation.from_matrix(hand.rotations[1:]).as_rotvec())


@pytest.mark.parametrize("turn", [(0, 0, np.pi), (np.pi, 0, 0), (0, np.pi, 0), (0.3, 2.0, -1.0)])
def test_keypoints_alone_find_a_hand_whichever_way_up(turn):
    """From 2D keypoints of a hand turned about the line of sight, upside down, palm and back."""
    truth = drawn(1, (1,), seed=4)
    middle = truth.joints.mean((0, 1, 2))
    rotation = Rotation.from_rotvec(turn).as_matrix()
    joints = (truth.joints - middle) @ rotation.T + middle
    turned = dataclasses.replace(truth, joints=joints, keypoints=CAMERA.project(joints))
    ((found,),) = fitter()([person(turned, 0, joints=False)])
    assert found.reprojection_px < 2.5


def test_a_mirrored_picture_gives_the_mirrored_hand():
    truth = drawn(3, (0,), seed=2)
    joints = truth.joints * [-1, 1, 1]
    camera = dataclasses.replace(CAMERA, princpt_px=(-MIDDLE[0], MIDDLE[1]))
    mirrored = dataclasses.replace(
        truth, sides=np.array([1]), joints=joints, keypoints=truth.keypoints * [-1, 1]
    )
    right = fitter()([person(truth, index) for index in range(3)])
    left = fitter()([person(mirrored, index, camera=camera) for index in range(3)])
    for (one,), (other,) in zip(right, left, strict=True):
        np.testing.assert_allclose(other.joints, one.joints * [-1, 1, 1], atol=1e-3)
        np.testing.assert_allclose(other.betas, one.betas, atol=0.05)


def test_a_person_is_fitted_the_same_in_any_company():
    truth = drawn(3, (0,), seed=3)
    people = [person(truth, index) for index in range(3)]
    alone = [fitter()([one])[0][0].joints for one in people]
    together = [hands[0].joints for hands in fitter()(people)]
    np.testing.assert_allclose(together, alone, atol=2e-4)


def test_one_wrong_keypoint_moves_little():
    """On a mean of five hands; 45 mm where errors count squared."""
    others = np.arange(21) != HAND21.index("Ring_4")
    moved = []
    for seed in range(5, 10):
        truth = drawn(1, (0,), seed=seed)
        wrong = dataclasses.replace(truth, keypoints=truth.keypoints.copy())
        wrong.keypoints[0, 0, HAND21.index("Ring_4")] += 150
        ((right,),) = fitter()([person(truth, 0)])
        ((found,),) = fitter()([person(wrong, 0)])
        moved.append(found.joints - found.joints[0] - right.joints + right.joints[0])
    assert 1000 * np.linalg.norm(moved, axis=-1)[:, others].mean() < 4


def test_a_keypoint_that_was_not_seen_does_not_count():
    truth = drawn(1, (0,), seed=6)
    whole = person(truth, 0)
    (seen,) = whole.hands[0].seen
    sigma, keypoints = seen.keypoint_sigma_px.copy(), seen.keypoints_px.copy()
    sigma[8] = np.inf
    results = []
    for garbage in (0.0, np.nan, 1e5):
        keypoints[8] = garbage
        part = dataclasses.replace(seen, keypoints_px=keypoints.copy(), keypoint_sigma_px=sigma)
        hand = dataclasses.replace(whole.hands[0], seen=(part,))
        results.append(fitter()([dataclasses.replace(whole, hands=(hand,))])[0][0].joints)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    assert relative_mm(results[0], truth.joints[0, 0]) < 8


def test_of_two_sources_that_disagree_the_surer_is_followed():
    truth = drawn(1, (0,), seed=10)
    whole = person(truth, 0, joints=False)
    (seen,) = whole.hands[0].seen
    vague = Observation(seen.keypoints_px + 60, np.full(21, 40.0))
    hand = dataclasses.replace(whole.hands[0], seen=(seen, vague))
    ((found,),) = fitter()([dataclasses.replace(whole, hands=(hand,))])
    assert found.reprojection_px < 2


def test_a_last_joint_that_was_not_seen_bends_with_the_one_before_it():
    """Its flexion is the mean of the resting pose's and of a share of its neighbour's."""
    truth = drawn(4, (0,), seed=11)
    tip = HAND21.index("Middle_4")
    middle, last = (MANO16[1:].index(name) for name in ("Middle_2", "Middle_3"))
    people = []
    for index in range(4):
        whole = person(truth, index)
        (seen,) = whole.hands[0].seen
        seen.keypoint_sigma_px[tip] = seen.joint_sigma_m[tip] = np.inf
        people.append(whole)
    flexion = np.array([_angles(hand)[[middle, last], 0] for (hand,) in fitter()(people)])
    rest = np.asarray(joint_model(load_hands()).rest_angles)[0, last, 0]
    weights = np.array([SPREAD[last, 0], COUPLING_SIGMA]) ** -2.0
    expected = np.stack([np.full(4, rest), COUPLING * flexion[:, 0]], -1) @ weights / weights.sum()
    np.testing.assert_allclose(flexion[:, 1], expected, atol=np.radians(3))
    assert np.ptp(expected) > np.radians(10)


def test_two_hands_share_their_shape_and_keep_their_places():
    truth = drawn(4, (0, 1), seed=7)
    rel_trans = truth.joints[:, 1, 0] - truth.joints[:, 0, 0]
    people = [person(truth, i, rel_trans_m=rel_trans[i], rel_trans_sigma_m=0.005) for i in range(4)]
    for index, (right, left) in enumerate(fitter()(people)):
        np.testing.assert_array_equal(right.betas, left.betas)
        found = left.joints[0] - right.joints[0]
        assert 1000 * np.linalg.norm(found - rel_trans[index]) < 6
        assert relative_mm(right.joints, truth.joints[index, 0]) < 6


def closed(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Corners (F, 3, 3) of a mesh's faces and of a fan that closes its one hole, the wrist's."""
    edges = {
        (a, b) for face in faces.tolist() for a, b in zip(face, face[1:] + face[:1], strict=True)
    }
    border = [(b, a) for a, b in edges if (b, a) not in edges]
    middle = vertices[[a for a, _ in border]].mean(0)
    fan = [[vertices[a], vertices[b], middle] for a, b in border]
    return np.concatenate([vertices[faces], fan])


def deepest_mm(one, other, faces) -> float:
    """How deep vertices of one hand lie inside the other: within by the winding number."""
    deepest = 0.0
    for inside, outside in ((one, other), (other, one)):
        corners = closed(outside.vertices, faces[HANDS.index(outside.side)])
        a, b, c = (corners[:, i] - inside.vertices[:, None] for i in range(3))
        la, lb, lc = (np.linalg.norm(x, axis=-1) for x in (a, b, c))
        volume = (a * np.cross(b, c)).sum(-1)
        below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
        winding = np.arctan2(volume, below).sum(-1) / (2 * np.pi)  # Van Oosterom and Strackee 1983
        distance, _ = cKDTree(outside.vertices).query(inside.vertices)
        deepest = max(deepest, float(distance[winding > 0.5].max(initial=0.0)))
    return 1000 * deepest


def test_hands_that_are_seen_in_one_place_do_not_run_into_each_other():
    """Keypoints of hands inside each other; the depths, which no keypoint tells, give way."""
    truth = drawn(6, (0, 1), seed=8, apart=0.02)
    people = [person(truth, index, sigma_px=3.0) for index in range(6)]
    faces = np.asarray(load_hands().faces)
    inside = [
        deepest_mm(
            *(fitter()([dataclasses.replace(one, hands=(hand,))])[0][0] for hand in one.hands),
            faces,
        )
        for one in people
    ]
    assert max(inside) > 8  # each alone they do
    assert max(deepest_mm(*hands, faces) for hands in fitter()(people)) < 3


def test_the_stated_deviation_is_what_noise_makes_of_the_joints():
    """The spread of fits to noisy evidence, against what each fit says of itself."""
    truth = drawn(1, (0,), seed=9)
    random = np.random.default_rng(0)
    people = []
    for _ in range(24):
        noisy = dataclasses.replace(
            truth,
            keypoints=truth.keypoints + random.normal(0, 2.0, truth.keypoints.shape),
            joints=truth.joints + random.normal(0, 0.01, truth.joints.shape),
        )
        people.append(person(noisy, 0, sigma_px=2.0))
    found = [hands[0] for hands in fitter()(people)]
    joints = np.array([one.joints - one.joints[0] for one in found])
    spread = np.sqrt(joints.var(0).sum(-1))[1:].mean()
    stated = np.mean([one.joint_sigma_m[1:].mean() for one in found])
    assert (
        0.4 < spread / stated < 1.2
    )  # the prior holds fits together, and is part of what is stated


def test_evidence_that_cannot_be_meant():
    truth = drawn(1, (0,))
    good = person(truth, 0)
    with pytest.raises(ValueError, match="one hand, or one right and one left"):
        fitter()([dataclasses.replace(good, hands=good.hands * 2)])
    (seen,) = good.hands[0].seen
    blind = dataclasses.replace(seen, keypoint_sigma_px=np.full(21, np.inf))
    with pytest.raises(ValueError, match="3 are needed"):
        hand = dataclasses.replace(good.hands[0], seen=(blind,))
        fitter()([dataclasses.replace(good, hands=(hand,))])


@pytest.mark.parametrize("sides", [(0,), (0, 1)])
def test_a_fit_that_starts_where_another_ended_stays_there(monkeypatch, sides):
    fit_hands_of = fitter()
    truth = drawn(3, sides, seed=11)
    people = [person(truth, i) for i in range(3)]
    first = fit_hands_of(people)
    again = [
        dataclasses.replace(
            one,
            hands=tuple(
                dataclasses.replace(hand, start=found.rotations)
                for hand, found in zip(one.hands, hands, strict=True)
            ),
        )
        for one, hands in zip(people, first, strict=True)
    ]
    for one, hands in zip(again, first, strict=True):
        for hand, found in zip(one.hands, hands, strict=True):
            wrist, angles = fit_hands_of._given_start(hand)
            np.testing.assert_array_equal(wrist, found.rotations[0])
            own = fit_hands_of._on_host.hands(HANDS.index(hand.side))
            vectors = np.einsum("jxa,ja->jx", own.axes, angles)
            rotations = Rotation.from_rotvec(vectors).as_matrix()
            np.testing.assert_allclose(rotations, found.rotations[1:], atol=1e-5)
    starts = []
    fit = fit_hands_of._fit
    monkeypatch.setattr(fit_hands_of, "_fit", lambda *a: starts.append(len(a[1])) or fit(*a))
    second = fit_hands_of(again)
    assert sum(starts) == 3  # one start a person
    for one, other in zip(first, second, strict=True):
        for before, after in zip(one, other, strict=True):
            assert relative_mm(after.joints, before.joints).max() < 1.0
