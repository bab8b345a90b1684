"""Painted hands lie where their cameras put them, the nearer one in front."""

import cv2
import numpy as np
import pytest

from er_jax.mano import HAND21
from er_jax.rendering.overlays import HAND_COLOURS, draw_skeleton, overlay, side_view
from er_jax.rendering.rasterizer import PerspectiveCamera

GREY = np.full((100, 120, 3), 128, np.uint8)


def ball(radius_m=0.05, rings=10):
    """A ball about the origin: its vertices and outward faces."""
    down = np.linspace(0, np.pi, rings + 1)[:, None]
    round_ = np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    parts = np.sin(down) * np.cos(round_), np.sin(down) * np.sin(round_), np.cos(down) + 0 * round_
    index = np.arange((rings + 1) * 2 * rings).reshape(rings + 1, -1)
    here, below = index[:-1], index[1:]
    right, right_below = np.roll(here, -1, 1), np.roll(below, -1, 1)
    first, second = [here, below, right_below], [here, right_below, right]
    faces = np.concatenate([np.stack(first, -1), np.stack(second, -1)]).reshape(-1, 3)
    return radius_m * np.stack(parts, -1).reshape(-1, 3), faces


@pytest.fixture(scope="module")
def two_balls():
    vertices, faces = ball()
    return np.stack([vertices, vertices]), np.stack([faces, faces])


def painted(image, hand):
    """Where an image has a hand's hue: amber has more red than blue, blue the reverse."""
    difference = image[..., 0].astype(int) - image[..., 2].astype(int)
    return difference > 20 if hand == 0 else difference < -20


def test_hands_lie_at_their_wrists_in_their_sizes(two_balls):
    centres = np.array([[35.0, 40.0], [85.0, 60.0]])
    image = overlay(GREY, *two_balls, np.array([300.0, 500.0]), centres, 0.0, opacity=1.0)
    for hand, radius in ((0, 15), (1, 25)):
        rows, columns = np.nonzero(painted(image, hand))
        np.testing.assert_allclose([columns.mean(), rows.mean()], centres[hand], atol=1.5)
        assert np.sqrt(rows.size / np.pi) == pytest.approx(radius, abs=1.5)
    only_left = overlay(GREY, *two_balls, np.array([300.0, 500.0]), centres, 0.0, hands=(1,))
    assert not painted(only_left, 0).any()
    assert painted(only_left, 1).any()


@pytest.mark.parametrize("rel_depth_m", [0.2, -0.2])
def test_the_nearer_hand_is_in_front(two_balls, rel_depth_m):
    """A left wrist of greater depth lies behind the right hand."""
    centres = np.array([[60.0, 50.0], [64.0, 50.0]])
    image = overlay(GREY, *two_balls, np.array([400.0, 400.0]), centres, rel_depth_m, opacity=1.0)
    front = 0 if rel_depth_m > 0 else 1
    assert painted(image, front)[45:55, 57:67].all()


def test_the_turned_view_is_from_the_cameras_right(two_balls):
    """Seen from the right, what is farther from the camera lies to the right."""
    rel_trans = np.array([0.3, 0.0, 0.25])  # the left wrist: to the right, and farther away
    middles = []
    for degrees in (0.0, 90.0):
        image = side_view(*two_balls, rel_trans, 120, degrees=degrees)
        middles.append([np.nonzero(painted(image, hand))[1].mean() for hand in range(2)])
    (right, left), (right_turned, left_turned) = middles
    assert left - right > 30
    assert left_turned - right_turned > 30
    above = side_view(*two_balls, np.array([0.0, 0.3, 0.0]), 120)
    assert np.nonzero(painted(above, 1))[0].mean() > np.nonzero(painted(above, 0))[0].mean() + 30


def test_joints_that_are_not_seen_are_hollow():
    image = np.zeros((60, 260, 3), np.uint8)
    points = np.column_stack([10 + 12 * np.arange(21), np.full(21, 30)])
    known, seen = np.arange(21) < 15, np.arange(21) % 2 == 0
    draw_skeleton(image, points, known, (1.0, 1.0, 1.0), seen=seen)
    lines = np.zeros_like(image)
    bones = [(0 if HAND21[j].endswith("_1") else j - 1, j) for j in range(1, 15)]
    for start, end in bones:
        cv2.line(lines, points[start], points[end], (255, 255, 255), 1, cv2.LINE_AA)
    for joint in range(21):
        x, y = points[joint]
        disc = image[y - 2, x] if lines[y - 2, x].any() else image[y - 1, x]
        assert bool(disc.max() > 200) == bool(known[joint] and seen[joint]), joint
    assert len(HAND_COLOURS) == 2


def test_a_perspective_camera():
    camera = PerspectiveCamera((500.0, 600.0), (160.0, 120.0))
    points = np.array([[0.1, -0.05, 0.5], [0.0, 0.0, 2.0], [-0.2, 0.3, 1.0]])
    expected = [[260.0, 60.0], [160.0, 120.0], [60.0, 300.0]]
    np.testing.assert_allclose(camera.project(points), expected)
    assert camera.sees(np.array([[0, 0, 1.0], [0, 0, -1.0]])).tolist() == [True, False]
