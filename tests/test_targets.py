"""Targets against the reference's numbers, and what an augmentation may not change."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.augmentation import Augmentation
from data_pipeline.build import __main__ as build
from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.loader import prepare_sample
from er_jax.mano import load_hands, mano_forward
from er_jax.supervision.targets import make_targets as make_targets_eagerly

make_targets = jax.jit(make_targets_eagerly)
SHARED = Path(__file__).parents[2] / "shared"
MASKS = {
    "joint_cam": "joint_valid",
    "joint_img": "joint_trunc",
    "mano_joint_img": "mano_joint_trunc",
    "mano_mesh_cam": "mano_hand_valid",
    "mano_pose": "mano_hand_valid",
    "mano_shape": "mano_hand_valid",
    "rel_trans": "rel_trans_valid",
}


@pytest.fixture(scope="module")
def reference_batch(tmp_path_factory):
    """The 40 augmented samples of the reference, read through the real builder and loader."""
    if not (SHARED / "fixtures").is_dir():
        pytest.skip("the shared fixtures are not beside this checkout")
    expected = dict(np.load(SHARED / "fixtures/expected/targets_expected.npz"))
    folder = tmp_path_factory.mktemp("reference")
    raw = SHARED / "fixtures/ih26m"
    assert build.main(["interhand26m", f"--raw_dir={raw}", f"--data_dir={folder}"]) == 0
    source = RecordSource(find_dataset(folder, "interhand26m"), "train")
    records = [source[index] for index in range(len(source))]
    by_id = {int(record["annotation_id"]): record for record in records}
    samples = []
    for annotation, index, box in zip(
        expected["annotation_id"],
        expected["augmentation_index"],
        expected["bbox_xywh"],
        strict=True,
    ):
        scale, degrees, flip = expected["augmentations"][index]
        augmentation = Augmentation(float(scale), float(degrees), bool(flip))
        samples.append(prepare_sample(by_id[annotation] | {"bbox_px": box}, augmentation, 256))
    batch = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    return batch, expected


@pytest.fixture(scope="module")
def reference_hands():
    if not (SHARED / "fixtures").is_dir():
        pytest.skip("the shared fixtures are not beside this checkout")
    return load_hands(str(SHARED / "fixtures/mano"))


def test_targets_are_the_references(reference_batch, reference_hands):
    batch, expected = reference_batch
    targets = make_targets(reference_hands, batch)
    for name in sorted({*MASKS.values()}):
        ours = np.asarray(getattr(targets, name))
        np.testing.assert_array_equal(ours, expected[name].reshape(ours.shape) > 0, err_msg=name)
    for name, mask_name in MASKS.items():
        ours, mask = np.asarray(getattr(targets, name)), np.asarray(getattr(targets, mask_name))
        theirs = expected[name].reshape(ours.shape)
        np.testing.assert_allclose(ours[mask], theirs[mask], atol=1e-4, rtol=0, err_msg=name)


def test_crops_are_the_references(reference_batch):
    batch, expected = reference_batch
    np.testing.assert_allclose(batch["img2bb"], expected["img2bb"], atol=1e-4, rtol=1e-6)
    chosen = np.flatnonzero(expected["augmentation_index"] == 2)
    mean = batch["image"][chosen].mean((1, 2))
    np.testing.assert_allclose(mean, expected["crop_mean_rgb_augmentation2"], atol=1.0)


def random_batch(rng, samples=3):
    rotation = np.linalg.qr(rng.normal(size=(samples, 3, 3)))[0]
    rotation *= np.linalg.det(rotation)[:, None, None]
    return {
        "camera_rotation": rotation,
        "camera_translation_mm": rng.normal(size=(samples, 3)) * 30 + [0, 0, 900],
        "camera_valid": np.ones(samples, bool),
        "focal_px": rng.uniform(1000, 1300, (samples, 2)),
        "princpt_px": rng.uniform(100, 300, (samples, 2)),
        "joint_world_mm": rng.normal(size=(samples, 2, 21, 3)) * 60,
        "joint_valid_world": np.ones((samples, 2, 21), bool),
        "joint_valid_view": np.ones((samples, 2, 21), bool),
        "joint_px": np.zeros((samples, 2, 21, 2)),
        "joint_px_valid": np.zeros((samples, 2, 21), bool),
        "label_confidence": np.ones((samples, 2)),
        "mano_valid": np.ones((samples, 2), bool),
        "mano_pose": rng.normal(size=(samples, 2, 48)) * 0.5,
        "mano_betas": rng.normal(size=(samples, 2, 10)),
        "mano_trans_m": rng.normal(size=(samples, 2, 3)) * 0.1,
        "hand_type": np.arange(samples) % 3,
        "hand_type_valid": np.ones(samples, bool),
        "image_size_px": np.tile([512.0, 334.0], (samples, 1)),
        "img2bb": np.tile([[1.0, 0, 0], [0, 1.0, 0]], (samples, 1, 1)),
        "augmentation": np.tile([1.0, 0.0, 0.0], (samples, 1)),
    }


def test_the_pose_target_gives_the_mesh_target_back():
    """MANO of the target pose and shape is the mesh target, augmented or not."""
    with jax.enable_x64(True):
        hands = load_hands(None)
        batch = random_batch(np.random.default_rng(0), samples=4)
        batch["augmentation"][1:] = [[1.1, 40.0, 0.0], [0.9, 0.0, 1.0], [1.0, -55.0, 1.0]]
        batch = jax.tree.map(jnp.asarray, batch)
        targets = make_targets(hands, batch)
        mesh = jax.jit(mano_forward)(hands, targets.mano_shape, targets.mano_pose)
        relative = mesh.vertices - mesh.joints[:, :, :1]
        np.testing.assert_allclose(relative, targets.mano_mesh_cam, atol=1e-9)


def test_a_flip_twice_is_no_flip():
    with jax.enable_x64(True):
        hands = load_hands(None)
        batch = random_batch(np.random.default_rng(1))
        plain = make_targets(hands, jax.tree.map(jnp.asarray, batch))
        flipped = make_targets(
            hands, jax.tree.map(jnp.asarray, batch | {"augmentation": np.tile([1.0, 0, 1], (3, 1))})
        )
        mirror = np.array([-1.0, 1.0, 1.0])
        for name in ("joint_cam", "mano_mesh_cam", "mano_joint_cam"):
            ours, other = getattr(plain, name), getattr(flipped, name)
            np.testing.assert_allclose(other[:, ::-1] * mirror, ours, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(-flipped.rel_trans * mirror, plain.rel_trans, atol=1e-12)
        x = 512 - 1 - flipped.joint_img[:, ::-1, :, 0] * 32
        np.testing.assert_allclose(x, plain.joint_img[..., 0] * 32, atol=1e-8)


def test_absent_hands_are_masked_and_finite():
    hands = load_hands(None)
    batch = random_batch(np.random.default_rng(2))
    for name in ("joint_valid_world", "joint_valid_view", "mano_valid"):
        batch[name][:, 1] = False
    for name in ("joint_world_mm", "mano_pose", "mano_betas", "mano_trans_m"):
        batch[name][:, 1] = 0
    batch["camera_translation_mm"][:] = 0  # the absent hand in the very centre of the camera
    targets = make_targets(hands, batch)
    assert not np.asarray(targets.joint_trunc[:, 1]).any()
    assert not np.asarray(targets.mano_joint_trunc[:, 1]).any()
    assert not np.asarray(targets.rel_trans_valid).any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(targets))


def test_joints_marked_in_the_image_go_before_their_projection():
    """Where the image is mirrored and turned, too; of a hand without a camera they are all."""
    rng = np.random.default_rng(7)
    batch = random_batch(rng, samples=4)
    batch["img2bb"] = np.tile([[0.4, 0.1, 7.0], [-0.1, 0.4, 20.0]], (4, 1, 1))
    batch["augmentation"][1:3, 2] = 1.0
    batch["joint_px"] = rng.uniform(150, 350, (4, 2, 21, 2))
    batch["joint_px_valid"] = rng.random((4, 2, 21)) < 0.5
    batch["joint_valid_world"][3] = False
    batch["camera_valid"][2] = False
    batch["label_confidence"] = rng.random((4, 2))
    targets = make_targets(load_hands(None), batch)
    plain = {
        **batch,
        "joint_px_valid": np.zeros((4, 2, 21), bool),
        "camera_valid": np.ones(4, bool),
    }
    projected = make_targets(load_hands(None), plain)
    for i, mirrored in enumerate([False, True, True, False]):
        for hand in range(2):
            source = 1 - hand if mirrored else hand
            marked = batch["joint_px_valid"][i, source]
            x, y = batch["joint_px"][i, source].T
            x = batch["image_size_px"][i, 0] - 1 - x if mirrored else x
            cells = np.stack([0.4 * x + 0.1 * y + 7, -0.1 * x + 0.4 * y + 20], -1) / 32
            expected = np.where(marked[:, None], cells, projected.joint_img[i, hand, :, :2])
            np.testing.assert_allclose(targets.joint_img[i, hand, :, :2], expected, atol=2e-4)
            known = {0: np.ones(21, bool), 1: np.ones(21, bool), 2: marked, 3: marked}[i]
            np.testing.assert_array_equal(targets.joint_xy_valid[i, hand], known)
            np.testing.assert_allclose(
                targets.confidence[i, hand], batch["label_confidence"][i, source], rtol=1e-6
            )
    inside = np.all((targets.joint_img[..., :2] >= 0) & (targets.joint_img[..., :2] < 8), axis=-1)
    near = (targets.joint_img[..., 2] >= 0) & (targets.joint_img[..., 2] < 8)
    assert inside[3].any() and not targets.joint_trunc[3].any()
    np.testing.assert_array_equal(targets.joint_xy_trunc[3], targets.joint_xy_valid[3] & inside[3])
    # Without a camera a joint in 3D still teaches its depth, and none of its place.
    unknown = ~targets.joint_xy_valid[2]
    np.testing.assert_array_equal(
        targets.joint_trunc[2], np.where(unknown, near[2], near[2] & inside[2])
    )
    assert not targets.wrist_cam_valid[2].any() and targets.wrist_cam_valid[0].all()
    assert not targets.mano_joint_trunc[2].any() and targets.mano_joint_trunc[0].any()


def test_meshes_stand_for_the_joints_of_hands_without():
    batch = random_batch(np.random.default_rng(8), samples=2)
    batch["joint_valid_world"][1] = False
    batch["mano_vertices_m"] = np.random.default_rng(9).normal(0, 0.1, (2, 2, 778, 3))
    batch["mano_vertices_valid"] = np.ones((2, 2), bool)
    hands = load_hands(None)
    targets = make_targets(hands, batch)
    without = {name: value for name, value in batch.items() if "vertices" not in name}
    annotated = make_targets(hands, without)
    np.testing.assert_allclose(targets.joint_cam[0], annotated.joint_cam[0], atol=1e-6)
    np.testing.assert_allclose(targets.joint_cam[1], targets.mano_joint_cam[1], atol=1e-6)
    assert targets.joint_valid.all()
