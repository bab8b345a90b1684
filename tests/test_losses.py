"""Loss terms against the reference's numbers, and the laws of their masks."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_targets import SHARED, reference_batch, reference_hands  # noqa: F401

from er_jax.mano import mano_forward, matrix_to_axis_angle, rotation_6d_to_matrix
from er_jax.models.heads import project_weakly
from er_jax.supervision.losses import LOSS_WEIGHTS, losses
from er_jax.supervision.targets import Targets, make_targets


def reference_losses(hands, batch, expected):
    """The terms, from the network's raw outputs on, as the reference was given them."""

    def both(name):
        return jnp.stack([expected[f"right_{name}"], expected[f"left_{name}"]], axis=1)

    rotations = rotation_6d_to_matrix(both("rotations_6d"))
    pose = matrix_to_axis_angle(rotations).reshape(-1, 2, 48)
    mesh = mano_forward(hands, both("shape"), pose)
    prediction = SimpleNamespace(
        rel_trans=jnp.asarray(expected["rel_trans"]),
        joint_img=both("joint_img"),
        pose=pose,
        betas=both("shape"),
        joints=mesh.joints - mesh.joints[:, :, :1],
        joint_proj=project_weakly(mesh.joints, both("cam")),
        presence_logit=None,
    )
    return losses(prediction, make_targets(hands, batch))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-6), (np.float32, 1e-4)])
def test_losses_are_the_references(reference_batch, reference_hands, dtype, tolerance):  # noqa: F811
    batch, _ = reference_batch
    expected = dict(np.load(SHARED / "fixtures/expected/losses_expected.npz"))
    floats = {
        name: value.astype(dtype) if value.dtype == np.float32 else value
        for name, value in batch.items()
    }
    with jax.enable_x64(dtype == np.float64):
        terms = jax.jit(reference_losses)(
            jax.tree.map(jnp.asarray, reference_hands),
            jax.tree.map(jnp.asarray, floats),
            {name: value.astype(dtype) for name, value in expected.items()},
        )
        for name in LOSS_WEIGHTS.keys() - {"presence", "depth"}:  # which the reference has not
            np.testing.assert_allclose(
                terms[name], expected[f"loss_{name}"], rtol=tolerance, err_msg=name
            )


def random_pair(rng, batch=3):
    shapes = {
        "joint_cam": (2, 21, 3),
        "joint_img": (2, 21, 3),
        "mano_joint_cam": (2, 21, 3),
        "mano_joint_img": (2, 21, 3),
        "mano_mesh_cam": (2, 778, 3),
        "mano_pose": (2, 48),
        "mano_shape": (2, 10),
        "rel_trans": (3,),
        "wrist_cam": (2, 3),
        "cells_to_rays": (2, 3),
    }
    masks = {
        "joint_valid": (2, 21),
        "joint_trunc": (2, 21),
        "joint_xy_valid": (2, 21),
        "joint_xy_trunc": (2, 21),
        "wrist_cam_valid": (2,),
        "mano_joint_trunc": (2, 21),
        "mano_hand_valid": (2,),
        "mano_pose_valid": (2,),
        "rel_trans_valid": (),
        "hand_present": (2,),
        "hand_present_valid": (),
    }
    values = {name: rng.normal(size=(batch, *shape)) for name, shape in shapes.items()}
    values["confidence"] = rng.random((batch, 2))
    values |= {name: rng.random((batch, *shape)) < 0.6 for name, shape in masks.items()}
    prediction = SimpleNamespace(
        rel_trans=rng.normal(size=(batch, 3)),
        joint_img=rng.normal(size=(batch, 2, 21, 3)),
        pose=rng.normal(size=(batch, 2, 48)),
        betas=rng.normal(size=(batch, 2, 10)),
        joints=rng.normal(size=(batch, 2, 21, 3)),
        joint_proj=rng.normal(size=(batch, 2, 21, 2)),
        presence_logit=rng.normal(size=(batch, 2)).astype(np.float32),
    )
    return prediction, Targets(**values)


def test_masked_values_do_not_matter_even_when_not_finite():
    rng = np.random.default_rng(0)
    prediction, targets = random_pair(rng)
    spoiled = {name: getattr(targets, name).copy() for name in Targets.__dataclass_fields__}
    spoiled["joint_cam"][~targets.joint_valid] = np.nan
    spoiled["mano_pose"][~targets.mano_pose_valid] = np.inf
    spoiled["rel_trans"][~targets.rel_trans_valid] = np.nan
    assert losses(prediction, targets) == losses(prediction, Targets(**spoiled))


def test_a_term_is_the_mean_over_all_elements_masked_ones_as_zero():
    prediction, targets = random_pair(np.random.default_rng(1))
    difference = np.abs(prediction.joints - targets.joint_cam) * targets.joint_valid[..., None]
    difference *= targets.confidence[..., None, None]
    np.testing.assert_allclose(
        losses(prediction, targets)["joint_cam"],
        10 * difference.sum() / (3 * 2 * 21 * 3),
        rtol=1e-6,
    )


def test_joints_marked_in_the_image_alone_teach_no_depth():
    prediction, targets = random_pair(np.random.default_rng(4))
    targets = dataclasses.replace(targets, joint_trunc=np.zeros((3, 2, 21), bool))
    off = np.abs(prediction.joint_img - targets.joint_img) * targets.joint_xy_trunc[..., None]
    off *= targets.confidence[..., None, None]
    expected = off[..., :2].sum() / (3 * 2 * 21 * 3)
    np.testing.assert_allclose(losses(prediction, targets)["joint_img"], expected, rtol=1e-6)


def test_the_place_of_two_hands_counts_as_the_less_sure_one():
    prediction, targets = random_pair(np.random.default_rng(5))
    off = np.abs(prediction.rel_trans - targets.rel_trans) * targets.rel_trans_valid[:, None]
    expected = (off * targets.confidence.min(axis=1)[:, None]).mean()
    np.testing.assert_allclose(losses(prediction, targets)["rel_trans"], expected, rtol=1e-6)


def test_the_depth_moves_the_heatmaps_alone():
    prediction, targets = random_pair(np.random.default_rng(3))
    targets = dataclasses.replace(targets, wrist_cam=np.abs(targets.wrist_cam) + 0.5)

    def depth(values):
        return losses(SimpleNamespace(**values), targets, {**LOSS_WEIGHTS, "depth": 1.0})["depth"]

    values = vars(prediction) | {
        "joint_img": 0.1 * prediction.joints + [0, 0, 0],  # so that a hand is as far as it looks
    }
    gradients = jax.grad(depth)(jax.tree.map(jnp.asarray, values))
    for name, gradient in gradients.items():
        assert (np.abs(gradient).max() > 0) == (name == "joint_img"), name


def test_weights_must_name_every_term():
    prediction, targets = random_pair(np.random.default_rng(2))
    with pytest.raises(KeyError, match="joint_prj"):
        losses(prediction, targets, {**LOSS_WEIGHTS, "joint_prj": 1.0})
