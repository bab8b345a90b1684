"""Targets of datasets whose fits are meshes in camera axes, such as HIC."""

import dataclasses

import jax
import numpy as np
import pytest

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax.mano import load_hands, mano_forward
from er_jax.supervision.targets import make_targets


@pytest.fixture(scope="module")
def hands():
    return load_hands(None)


def test_meshes_stand_for_parameters_and_joints(data_dir, hands):
    """A dataset of parameters, told again in meshes, with every augmentation."""
    batch = next(iter(AnnotatedSplit(data_dir, "interhand26m", "test", 8)))
    batch["augmentation"] = np.array([[1, 20 * (i % 3), i % 2] for i in range(8)], np.float32)
    fits = batch["mano_valid"]
    assert fits.any()
    targets = jax.jit(make_targets)
    mesh = jax.jit(mano_forward)(
        hands, batch["mano_betas"], batch["mano_pose"], batch["mano_trans_m"]
    )
    world = np.einsum("bij,bhvj->bhvi", batch["camera_rotation"], mesh.vertices)
    told_again = {
        **batch,
        "mano_vertices_m": world + batch["camera_translation_mm"][:, None, None] / 1000,
        "mano_vertices_valid": fits,
        "mano_valid": np.zeros_like(fits),
        "joint_valid_world": np.zeros_like(batch["joint_valid_world"]),
    }
    known, again = targets(hands, batch), targets(hands, told_again)
    flipped = batch["augmentation"][:, 2] > 0
    shown = np.where(flipped[:, None], fits[:, ::-1], fits)
    np.testing.assert_array_equal(again.mano_hand_valid, shown)
    assert not again.mano_pose_valid.any()
    for field in ("mano_mesh_cam", "mano_joint_cam", "mano_joint_img"):
        wanted, found = (np.asarray(getattr(t, field))[shown] for t in (known, again))
        np.testing.assert_allclose(found, wanted, atol=2e-5, err_msg=field)
    joints, of_mesh = (np.asarray(x)[shown] for x in (again.joint_cam, again.mano_joint_cam))
    np.testing.assert_allclose(joints, of_mesh, atol=1e-6)
    np.testing.assert_array_equal(again.joint_valid, np.repeat(shown[..., None], 21, axis=-1))
    np.testing.assert_array_equal(again.rel_trans_valid, shown.all(1))


def test_without_meshes_nothing_changes(data_dir, hands):
    batch = next(iter(AnnotatedSplit(data_dir, "interhand26m", "test", 8)))
    none = {
        **batch,
        "mano_vertices_m": np.zeros((8, 2, 778, 3), np.float32),
        "mano_vertices_valid": np.zeros((8, 2), bool),
    }
    known, same = jax.jit(make_targets)(hands, batch), jax.jit(make_targets)(hands, none)
    for field in dataclasses.fields(known):
        wanted, found = (np.asarray(getattr(t, field.name)) for t in (known, same))
        np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=field.name)
