"""The mean-pose baseline."""

import dataclasses
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax.evaluation import mean_pose
from er_jax.evaluation.mean_pose import (
    NoFitsError,
    constant_prediction,
    mean_hands,
    mean_hands_of,
    rest_hands,
)
from er_jax.mano import axis_angle_to_matrix, load_hands, mano_forward
from er_jax.supervision.targets import Targets


@pytest.fixture(scope="module")
def hands():
    return load_hands(None)


def targets(pose, betas, rel_trans, hand_valid):
    count = len(pose)
    joints, mask = jnp.zeros((count, 2, 21, 3)), jnp.ones((count, 2, 21), bool)
    return Targets(
        joint_cam=joints,
        joint_img=joints,
        mano_joint_cam=joints,
        mano_joint_img=joints,
        mano_mesh_cam=jnp.zeros((count, 2, 778, 3)),
        mano_pose=jnp.asarray(pose),
        mano_shape=jnp.asarray(betas),
        rel_trans=jnp.asarray(rel_trans),
        joint_valid=mask,
        joint_trunc=mask,
        joint_xy_valid=mask,
        joint_xy_trunc=mask,
        mano_joint_trunc=mask,
        mano_hand_valid=jnp.ones((count, 2), bool),  # a mesh without parameters has no pose
        mano_pose_valid=jnp.asarray(hand_valid),
        rel_trans_valid=jnp.asarray(hand_valid).all(1),
        wrist_cam=jnp.zeros((count, 2, 3)),
        wrist_cam_valid=jnp.ones((count, 2), bool),
        hand_present=jnp.ones((count, 2), bool),
        hand_present_valid=jnp.ones(count, bool),
        cells_to_rays=jnp.zeros((count, 2, 3)),
        confidence=jnp.ones((count, 2)),
    )


def random_batch(seed, count=6):
    rng = np.random.default_rng(seed)
    pose = rng.normal(0, 0.4, (count, 2, 48))
    pose[:, :, :3] += rng.normal(0, 1, 3)
    valid = rng.random((count, 2)) > 0.3
    return pose, rng.normal(size=(count, 2, 10)), rng.normal(size=(count, 3)), valid


def test_one_pose_is_its_own_mean(hands):
    pose, betas, rel_trans, _ = random_batch(0, count=1)
    valid = np.ones((1, 2), bool)
    mean = mean_hands(hands, [(targets(pose, betas, rel_trans, valid), np.ones(1, bool))])
    prediction = constant_prediction(hands, mean)
    mesh = mano_forward(hands, jnp.asarray(betas), jnp.asarray(pose))
    truth = mesh.vertices - mesh.joints[:, :, :1]
    assert prediction.vertices.shape == (1, 2, 778, 3)
    np.testing.assert_allclose(prediction.vertices, truth, atol=1e-5)
    np.testing.assert_allclose(prediction.rel_trans, rel_trans, atol=1e-6)


def test_mean_of_valid_hands_only_and_independent_of_batching(hands):
    pose, betas, rel_trans, valid = random_batch(1)
    stream = [
        (targets(*(x[i : i + 3] for x in (pose, betas, rel_trans, valid))), None) for i in (0, 3)
    ]
    sample_mask = np.array([True, True, True, True, True, False])
    stream = [(batch, sample_mask[3 * i : 3 * i + 3]) for i, (batch, _) in enumerate(stream)]
    mean = mean_hands(hands, stream)

    for hand in range(2):
        rows = valid[:, hand] & sample_mask
        np.testing.assert_allclose(mean.betas[hand], betas[rows, hand].mean(0), atol=1e-6)
        full = pose[rows, hand].reshape(-1, 16, 3)
        full[:, 1:] += np.asarray(hands.mean_pose[hand]).reshape(15, 3)
        matrices = np.asarray(axis_angle_to_matrix(jnp.asarray(full)), float)
        arithmetic = matrices.mean(0)
        # The nearest rotation makes Rᵀ·mean symmetric with the largest trace.
        product = np.swapaxes(mean.rotations[hand], -1, -2) @ arithmetic
        np.testing.assert_allclose(product, np.swapaxes(product, -1, -2), atol=1e-6)
        np.testing.assert_allclose(np.linalg.det(mean.rotations[hand]), 1, atol=1e-9)
        assert (np.linalg.eigvalsh(product)[:, :2].sum(-1) >= 0).all()
    both = valid.all(1) & sample_mask
    np.testing.assert_allclose(mean.rel_trans, rel_trans[both].mean(0), atol=1e-6)


def test_a_hand_without_a_fit_stays_at_rest(hands):
    pose, betas, rel_trans, valid = random_batch(2)
    valid[:, 1] = False
    mean = mean_hands(hands, [(targets(pose, betas, rel_trans, valid), np.ones(6, bool))])
    np.testing.assert_array_equal(mean.rotations[1], rest_hands(hands).rotations[1])
    np.testing.assert_array_equal(mean.betas[1], 0)
    np.testing.assert_allclose(mean.betas[0], betas[valid[:, 0], 0].mean(0), atol=1e-6)


def test_no_fit_at_all_is_an_error(hands):
    pose, betas, rel_trans, valid = random_batch(2)
    nothing = targets(pose, betas, rel_trans, np.zeros_like(valid))
    with pytest.raises(NoFitsError, match="no MANO parameters"):
        mean_hands(hands, [(nothing, np.ones(6, bool))])


def test_the_mean_is_computed_once_for_each_hand_model(hands, data_dir, tmp_path, monkeypatch):
    copy = shutil.copytree(data_dir, tmp_path / "datasets")
    train = AnnotatedSplit(copy, "interhand26m", "train")
    first = mean_hands_of(train, hands)
    assert [file.name for file in train.folder.glob("mean_hands-*")] == [
        f"mean_hands-train-{hands.sha256[:16]}.npz"
    ]
    with monkeypatch.context() as patch:
        patch.setattr(mean_pose, "mean_hands", None)  # would be called to compute it again
        again = mean_hands_of(train, hands)
        for name, value in vars(first).items():
            np.testing.assert_array_equal(vars(again)[name], value)
        with pytest.raises(TypeError):
            mean_hands_of(train, dataclasses.replace(hands, sha256="0" * 64))
