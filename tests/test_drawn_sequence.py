"""The drawn clip: the truth is that of its pictures, and its hands do what they are there for."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_pipeline.synthetic.sequence import SIZE_PX, draw_sequence
from er_jax.mano import HANDS, mano_forward

SECONDS, RATE = 20.0, 15.0


@pytest.fixture(scope="module", params=[1, 2])
def clip(request):
    return draw_sequence(3, SECONDS, RATE, request.param)


def test_it_is_the_same_for_the_same_seed_and_another_for_another():
    first, again, other = (draw_sequence(seed, 0.4, 10.0) for seed in (1, 1, 2))
    assert len(first) == 4
    np.testing.assert_array_equal(first.joints, again.joints)
    np.testing.assert_array_equal(first.frame(2), list(again.frames())[2])
    assert np.abs(first.joints - other.joints).max() > 0.01
    assert (first.frame(0) != first.frame(1)).mean() > 0.3  # of the noise


def test_joints_are_those_of_the_parameters(clip):
    for person, side in np.ndindex(clip.present.shape[1:]):
        hand = clip.hand_model.hand(HANDS[side])
        some = slice(0, None, 37)
        arrays = (
            np.broadcast_to(clip.betas[person, side], (len(clip), 10))[some],
            clip.rotations[some, person, side],
            clip.transl[some, person, side],
        )
        mesh = mano_forward(hand, *(x.astype(np.float32) for x in arrays))
        for own, true in ((mesh.joints, clip.joints), (mesh.vertices, clip.vertices)):
            np.testing.assert_allclose(own, true[some, person, side], atol=2e-6)
    np.testing.assert_allclose(clip.camera.project(clip.joints), clip.keypoints_px)
    np.testing.assert_array_equal(clip.betas[:, 0], clip.betas[:, 1])


def test_one_hand_leaves_and_comes_back_and_no_other(clip):
    present = clip.present.reshape(len(clip), -1)
    assert present[0].all() and present[-1].all()
    leaving = np.flatnonzero(np.diff(present[:, 0].astype(int)) == -1)
    coming = np.flatnonzero(np.diff(present[:, 0].astype(int)) == 1)
    away = np.flatnonzero(~present[:, 0])
    assert len(leaving) and len(coming)
    assert 0.7 < np.ptp(away) / RATE / (0.2 * SECONDS) < 1.3
    assert present[:, 1:].mean() > 0.9
    x = clip.keypoints_px[:, 0, 0, :, 0]
    assert x[int(SECONDS / 2 * RATE)].max() < 0
    inside = ((clip.keypoints_px >= 0) & (clip.keypoints_px < SIZE_PX)).all(-1).sum(-1)
    assert (inside[clip.present] >= 11).all()
    assert (inside[~clip.present] < 12).all()


def test_a_persons_hands_cross_now_the_one_before_and_now_the_other(clip):
    apart = clip.joints[:, :, 1].mean(2) - clip.joints[:, :, 0].mean(2)
    for person in range(apart.shape[1]):
        crossing = np.flatnonzero(np.diff(np.sign(apart[:, person, 0])))
        nearer = np.sign(apart[crossing, person, 2])
        assert {-1.0, 1.0} <= set(nearer)


def test_motion_is_smooth_and_no_faster_than_people_are(clip):
    speed = np.linalg.norm(np.diff(clip.joints, axis=0), axis=-1) * RATE
    acceleration = np.linalg.norm(np.diff(clip.joints, 2, axis=0), axis=-1) * RATE**2
    assert 0.05 < np.median(speed) < 0.5
    assert speed.max() < 3 and acceleration.max() < 25
    turns = np.swapaxes(clip.rotations[:-1], -1, -2) @ clip.rotations[1:]
    turning = Rotation.from_matrix(turns.reshape(-1, 3, 3)).magnitude().reshape(turns.shape[:-2])
    assert (turning.max((0, 1, 2)) > 0.02).all()  # each joint moves
    assert turning.max() * RATE < 15


def test_pictures_show_the_hands_where_the_keypoints_are(clip):
    """A picture of the clip differs from that of another time where the hands are."""
    number, other = 10, 60
    difference = np.abs(clip.frame(number).astype(int) - clip.frame(other)).max(-1)
    own, others = (
        np.rint(clip.keypoints_px[k][clip.present[k]][:, 1:]).astype(int).reshape(-1, 2)
        for k in (number, other)
    )
    far = np.linalg.norm(own[:, None] - others, axis=-1).min(1) > 40
    there = own[far & ((own >= 0) & (own < SIZE_PX)).all(1)]
    assert len(there) > 10
    assert np.mean(difference[there[:, 1], there[:, 0]] > 25) > 0.8
    assert np.mean(difference[:40] > 25) < 0.1


@pytest.mark.parametrize(("seconds", "people"), [(0.0, 1), (1.0, 3)])
def test_what_cannot_be_drawn_is_said(seconds, people):
    with pytest.raises(ValueError, match=r"no frame|people=3"):
        draw_sequence(0, seconds, 30.0, people)
