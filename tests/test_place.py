"""The place of hands in the camera's metres: exact for exact input, and least squares else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.augmentation import Augmentation
from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.samples import prepare_sample, stack_samples
from er_jax.mano import load_hands
from er_jax.models.place import NEAREST_DEPTH_M, place_by_rays, place_hands, place_pair
from er_jax.supervision.targets import compiled_targets

AUGMENTATIONS = [(1.0, 0.0, False), (0.8, 35.0, False), (1.2, -150.0, True), (1.0, 0.0, True)]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def seen(rng):
    """Two hands of made-up joints before a camera: places, joints about them, rays."""
    places = np.array([[0.1, -0.05, 0.7], [-0.15, 0.02, 0.9]])
    joints = rng.normal(0, 0.06, (2, 21, 3))
    joints[:, 0] = 0
    points = places[:, None] + joints
    return places, joints, points[..., :2] / points[..., 2:]


def place_of(joints, rays, rel_trans, weights=None):
    weights = jnp.ones((2, 21)) if weights is None else weights
    return place_pair(jnp.asarray(joints), jnp.asarray(rel_trans), jnp.asarray(rays), weights)


def test_the_place_is_exact_for_exact_input():
    places, joints, rays = seen(np.random.default_rng(0))
    found = place_of(joints, rays, places[1] - places[0])
    np.testing.assert_allclose(found, places, atol=1e-12)


def test_the_truth_of_a_dataset_lies_where_it_was_annotated(data_dir):
    """Through crop, camera, turn and mirror of every kind, and back."""
    source = RecordSource(find_dataset(data_dir, "interhand26m"), "train")
    samples = [
        prepare_sample(dict(source[i]), Augmentation(*AUGMENTATIONS[i % 4]), 256) for i in range(24)
    ]
    truth = compiled_targets(load_hands(None), stack_samples(samples))
    known = truth.joint_valid.all(-1)  # of half a hand the joints that are missing say nothing
    found = place_hands(
        truth.joint_cam, truth.rel_trans, truth.joint_img, truth.cells_to_rays, known
    )
    assert known.all(-1).sum() > 5
    assert (known.any(-1) & ~known.all(-1)).sum() > 2
    np.testing.assert_allclose(found[known], truth.wrist_cam[known], atol=2e-4)


def test_hands_that_look_smaller_than_they_are_lie_where_they_are():
    """Heatmaps whose joints are drawn together by a share that is known."""
    places, joints, rays = seen(np.random.default_rng(7))
    middle = rays.mean(1, keepdims=True)
    together = np.concatenate([middle + 0.8 * (rays - middle), np.zeros((2, 21, 1))], -1)
    arguments = joints, places[1] - places[0], together, np.eye(2, 3), np.ones(2, bool)
    found = place_hands(*map(jnp.asarray, arguments), depth_scale=0.8)
    np.testing.assert_allclose(found, places, atol=1e-12)
    farther = place_hands(*map(jnp.asarray, arguments))
    assert (farther[:, 2] > 1.1 * places[:, 2]).all()


def test_hands_are_apart_by_the_relative_translation_whatever_is_seen():
    rng = np.random.default_rng(1)
    joints, rays, rel_trans = (
        rng.normal(0, 0.1, shape) for shape in ((5, 2, 21, 3), (5, 2, 21, 2), (5, 3))
    )
    found = place_of(joints, rays, rel_trans, jnp.asarray(rng.random((5, 2, 21))))
    np.testing.assert_allclose(found[:, 1] - found[:, 0], rel_trans, atol=1e-12)


@pytest.mark.parametrize("there", [0, 1])
def test_a_hand_that_is_not_there_has_no_say(there):
    places, joints, rays = seen(np.random.default_rng(2))
    joints[1 - there], rays[1 - there] = 7.0, -3.0
    found = place_hands(
        jnp.asarray(joints),
        jnp.asarray(places[1] - places[0]),
        jnp.concatenate([rays, np.zeros((2, 21, 1))], -1),
        jnp.eye(2, 3),
        jnp.arange(2) == there,
    )
    np.testing.assert_allclose(found, places, atol=1e-12)


def test_depth_follows_from_the_size_and_not_from_a_wrong_relative_translation():
    """Where wrists are apart on the picture may contradict it: each hand's own size does not."""
    places, joints, rays = seen(np.random.default_rng(3))
    found = place_of(joints, rays, places[1] - places[0] + [0.05, -0.04, 0])
    np.testing.assert_allclose(found[:, 2], places[:, 2], atol=1e-12)
    np.testing.assert_allclose(found[:, :2].mean(0), places[:, :2].mean(0), atol=0.01)


def test_weights_are_those_of_least_squares():
    rng = np.random.default_rng(4)
    _, joints, rays = seen(rng)
    joints, rays, weights = joints[0] + rng.normal(0, 0.02, (21, 3)), rays[0], rng.random(21)
    rows = np.zeros((21, 2, 3))
    rows[:, 0, 0] = rows[:, 1, 1] = 1
    rows[..., 2] = -rays
    root = np.sqrt(weights)[:, None]
    right = root * (rays * joints[:, 2:] - joints[:, :2])
    expected = np.linalg.lstsq((rows * root[..., None]).reshape(-1, 3), right.ravel(), rcond=None)
    found = place_by_rays(*(jnp.asarray(x)[None] for x in (joints, rays, weights)))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-9)


def test_hands_are_never_behind_the_camera_and_always_finite():
    for joints, rays in (
        (np.zeros((2, 21, 3)), np.zeros((2, 21, 2))),
        (np.ones((2, 21, 3)), -np.ones((2, 21, 2))),
    ):
        found = place_of(joints, rays, np.zeros(3))
        assert np.isfinite(found).all()
        assert (found[:, 2] >= NEAREST_DEPTH_M).all()


def test_gradients_are_finite_differences():
    places, joints, rays = seen(np.random.default_rng(5))
    rng = np.random.default_rng(6)
    arguments = (joints + rng.normal(0, 0.01, joints.shape), rays, places[1] - places[0])
    pull = jnp.asarray(rng.normal(size=(2, 3)))

    def pulled(joints, rays, rel_trans):
        return jnp.sum(pull * place_of(joints, rays, rel_trans))

    gradients = jax.grad(pulled, (0, 1, 2))(*map(jnp.asarray, arguments))
    for number, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
        for place in list(np.ndindex(argument.shape))[::5]:
            values = []
            for step in (1e-5, -1e-5):
                moved = [np.array(x) for x in arguments]
                moved[number][place] += step
                values.append(float(pulled(*moved)))
            assert gradient[place] == pytest.approx(
                (values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-8
            )
