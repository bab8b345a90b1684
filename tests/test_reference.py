"""Targets, losses and metrics against `reference.py`, and both against literal numbers."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from data_pipeline.augmentation import Augmentation
from data_pipeline.boxes import JOINT_FIELDS, joint_pixels
from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.records import absent_fields
from data_pipeline.samples import ANNOTATION_FIELDS, prepare_sample, stack_samples
from er_jax.evaluation.metrics import sample_errors
from er_jax.evaluation.summary import collect, summarize
from er_jax.evaluation.types import ReconstructedMeshes
from er_jax.mano import load_hands
from er_jax.mano.stand_in import stand_in_arrays
from er_jax.supervision.losses import LOSS_WEIGHTS, losses
from er_jax.supervision.targets import Targets, TargetSizes, compiled_targets, make_targets

HAND_TYPES = ("right", "left", "interacting")
AUGMENTATIONS = [  # scale, rotation in degrees, flip
    (1.0, 0.0, False),
    (0.8, 35.0, False),
    (1.2, -50.0, True),
    (1.0, 0.0, True),
    (0.75, 60.0, True),
]
MASKS = {  # where a target means something; what float32 may be off: metres, cells, radians
    "joint_cam": ("joint_valid", 1e-6),
    "joint_img": ("joint_valid", 1e-4),
    "mano_joint_cam": ("mano_hand_valid", 1e-6),
    "mano_joint_img": ("mano_hand_valid", 1e-4),
    "mano_mesh_cam": ("mano_hand_valid", 1e-6),
    "mano_pose": ("mano_pose_valid", 2e-5),
    "mano_shape": ("mano_pose_valid", 1e-6),
    "rel_trans": ("rel_trans_valid", 2e-6),
    "wrist_cam": ("wrist_valid", 2e-6),
    "cells_to_rays": ("always", 2e-6),
    "confidence": ("always", 0.0),
}
GOLDEN_TARGETS = {  # Σ cos(1 + i)·x_i and Σ|x_i| over the unmasked; of masks how many are set
    "joint_cam": (0.303408, 82.7625),
    "joint_img": (-6.57478, 6086.58),
    "mano_joint_cam": (0.187506, 73.6599),
    "mano_joint_img": (2.95017, 5490.29),
    "mano_mesh_cam": (-0.879191, 2431.94),
    "mano_pose": (-5.35329, 298.11),
    "mano_shape": (-1.23685, 133.008),
    "rel_trans": (0.465548, 1.48856),
    "wrist_cam": (0.70961, 23.459),
    "cells_to_rays": (-0.0240166, 4.86599),
    "confidence": (-0.151509, 40.0),
    "joint_valid": 489,
    "joint_xy_valid": 489,
    "wrist_cam_valid": 23,
    "joint_trunc": 320,
    "joint_xy_trunc": 320,
    "mano_joint_trunc": 384,
    "mano_hand_valid": 21,
    "mano_pose_valid": 21,
    "rel_trans_valid": 5,
    "hand_present": 26,
    "hand_present_valid": 18,
}
GOLDEN_LOSSES = {
    "rel_trans": 0.019468,
    "mano_pose": 0.147687,
    "mano_shape": 0.293627,
    "joint_cam": 0.425101,
    "mano_joint_cam": 0.389016,
    "joint_img": 1.077222,
    "mano_joint_img": 1.316849,
    "joint_proj": 1.794266,
    "presence": 0.240124,
    "depth": 0.0948519,
}
GOLDEN_METRICS = {  # mm, shares, and counts of samples
    "wrist_aligned/MPJPE/single": (27.3318, 14),
    "wrist_aligned/MPJPE/interacting": (27.615, 6),
    "wrist_aligned/MPJPE/all": (27.4734, 20),
    "scale_aligned/MPJPE/single": (9.19915, 6),
    "scale_aligned/MPJPE/interacting": (9.90067, 5),
    "scale_aligned/MPJPE/all": (9.54991, 11),
    "procrustes/PA-MPJPE/single": (13.6982, 13),
    "procrustes/PA-MPJPE/interacting": (13.726, 6),
    "procrustes/PA-MPJPE/all": (13.7121, 19),
    "wrist_aligned/MPVPE/single": (18.9029, 6),
    "wrist_aligned/MPVPE/interacting": (18.2251, 5),
    "wrist_aligned/MPVPE/all": (18.4793, 11),
    "procrustes/PA-MPVPE/single": (6.89979, 6),
    "procrustes/PA-MPVPE/interacting": (6.88954, 5),
    "procrustes/PA-MPVPE/all": (6.89338, 11),
    "procrustes/F@5/single": (0.532909, 6),
    "procrustes/F@5/interacting": (0.563723, 5),
    "procrustes/F@5/all": (0.552167, 11),
    "procrustes/F@15/single": (1, 6),
    "procrustes/F@15/interacting": (1, 5),
    "procrustes/F@15/all": (1, 11),
    "scale_aligned/MPVPE/single": (10.707, 6),
    "scale_aligned/MPVPE/interacting": (11.6528, 5),
    "scale_aligned/MPVPE/all": (11.1369, 11),
    "wrist_aligned/MRRPE/interacting": (26.4347, 5),
    "wrist_aligned/MRRPE/all": (26.4347, 5),
    "wrist_aligned/RRVE/interacting": (23.1859, 4),
    "wrist_aligned/RRVE/all": (23.1859, 4),
    "camera_space/CS-MPJPE/single": (69.5114, 12),
    "camera_space/CS-MPJPE/interacting": (75.4432, 6),
    "camera_space/CS-MPJPE/all": (72.4773, 18),
    "camera_space/MRPE/all": (61.6342, 18),
    "camera_space/depth/all": (0.0381370, 18),
    "handedness/accuracy/single": (0.416667, 12),
    "handedness/accuracy/all": (0.277778, 18),
    "handedness/AP/all": (0.630618, 18),
    "handedness/AUC/all": (0.444444, 18),
    "handedness/side_accuracy/all": (0.583333, 12),
}
BOOLEANS = ("joint_valid", "joint_trunc", "mano_joint_trunc")
BOOLEANS += ("mano_hand_valid", "mano_pose_valid", "rel_trans_valid")
BOOLEANS += ("hand_present", "hand_present_valid")
BOOLEANS += ("joint_xy_valid", "joint_xy_trunc", "wrist_cam_valid")


@pytest.fixture(scope="module")
def hands():
    return load_hands(None)


@pytest.fixture(scope="module")
def manos():
    return [stand_in_arrays("right"), stand_in_arrays("left")]


@pytest.fixture(scope="module")
def records(data_dir):
    """Twenty records of the stand-in dataset; of two joints are hidden and the type unsure."""
    source = RecordSource(find_dataset(data_dir, "interhand26m"), "train")
    found = [dict(source[index]) for index in range(20)]
    for record in found[1:3]:
        record["joint_valid_view"] = record["joint_valid_view"].copy()
        record["joint_valid_view"][0, 1:17] = False
        record["hand_type_valid"] = np.False_
    return found


def batch_and_truth(manos, records, augmentations, sizes=None):
    """A batch as the loader makes it, and the reference's targets of each of its samples."""
    sizes = sizes or TargetSizes()
    names = {
        "grid": sizes.heatmap_size,
        **{n: getattr(sizes, n) for n in ("input_size", "depth_bins", "depth_box_m")},
    }
    samples, truth = [], []
    for record, (scale, degrees, flip) in zip(records, augmentations, strict=True):
        varied = Augmentation(scale, degrees, flip)
        samples.append(prepare_sample(record, varied, sizes.input_size))
        truth.append(reference.targets_of(manos, record, (scale, degrees, flip), **names))
    return stack_samples(samples), truth


@pytest.fixture(scope="module")
def varied(manos, records):
    augmentations = [AUGMENTATIONS[i % len(AUGMENTATIONS)] for i in range(len(records))]
    return batch_and_truth(manos, records, augmentations)


@pytest.fixture(scope="module")
def unvaried(manos, records):
    return batch_and_truth(manos, records, [AUGMENTATIONS[0]] * len(records))


def stacked(truth, name):
    return np.stack([sample[name] for sample in truth])


def mask_of(truth, name):
    if name == "always":
        return np.ones(len(truth), bool)
    return stacked(truth, "joint_valid")[..., 0] if name == "wrist_valid" else stacked(truth, name)


def assert_targets(targets, truth):
    """Every field agrees wherever its mask is set, and every mask everywhere."""
    assert {*MASKS, *BOOLEANS} == {field.name for field in dataclasses.fields(Targets)}
    for name in BOOLEANS:
        np.testing.assert_array_equal(getattr(targets, name), stacked(truth, name), err_msg=name)
    for name, (mask_name, tolerance) in MASKS.items():
        ours, theirs, mask = (
            np.asarray(x)
            for x in (getattr(targets, name), stacked(truth, name), mask_of(truth, mask_name))
        )
        assert ours.shape == theirs.shape, name
        np.testing.assert_allclose(
            ours[mask], theirs[mask], atol=tolerance, rtol=1e-6, err_msg=name
        )


def test_the_samples_are_of_every_kind(varied, records):
    """None of the tests below passes because all that differs is masked."""
    batch, truth = varied
    assert {*batch["hand_type"].tolist()} == {0, 1, 2}
    flip, turned = batch["augmentation"][:, 2] > 0, batch["augmentation"][:, 1] != 0
    for of_kind in (flip & turned, flip & ~turned, ~flip & turned, ~flip & ~turned):
        assert of_kind.sum() >= 3
    for name in BOOLEANS:
        assert {*np.unique(stacked(truth, name)).tolist()} == {False, True}, name
        for kind in (flip, ~flip):
            mask = stacked(truth, name)[kind]
            assert 0.3 < mask.mean() < 1, name
    valid, seen = stacked(truth, "joint_valid"), stacked(truth, "joint_trunc")
    assert (valid & ~seen).sum() > 30  # outside the crop or not visible
    present = valid.any(-1)
    assert (present & ~stacked(truth, "mano_hand_valid")).any()  # joints without a fit
    assert (valid.any(-1) & ~valid.all(-1)).any()  # of a hand some joints
    fit_seen = stacked(truth, "mano_joint_trunc")[stacked(truth, "mano_hand_valid")]
    assert (fit_seen.any(-1) & ~fit_seen.all(-1)).any()


def test_crops(varied, records):
    batch, _ = varied
    for affine, record, (scale, degrees, flip) in zip(
        batch["img2bb"], records, batch["augmentation"].tolist(), strict=True
    ):
        width = int(record["image_size_px"][0])
        wanted = reference.image_to_crop(record["bbox_px"], width, scale, degrees, flip > 0, 256)
        np.testing.assert_allclose(affine, wanted, rtol=1e-5, atol=1e-3)


def test_targets(hands, varied):
    batch, truth = varied
    assert_targets(compiled_targets(hands, batch), truth)


def test_targets_of_meshes_in_other_sizes(hands, manos, records):
    """Fits that are meshes stand for the joints and give no pose; joints leave the depth box."""
    sizes = TargetSizes(heatmap_size=4, depth_bins=6, depth_box_m=0.12, input_size=128)
    chosen = []
    for index, record in enumerate(records[:8]):
        mesh = np.stack([mano["v_template"] for mano in manos])
        where = np.array([[0.02 * index - 0.05, 0.01, 0.8], [0.05, -0.02, 0.9]])
        given = np.array([index % 2 == 0, index % 3 != 0])
        chosen.append(
            {
                **record,
                "mano_vertices_m": np.float32(mesh + where[:, None]),
                "mano_vertices_valid": given,
                "mano_valid": record["mano_valid"] & ~given,
            }
        )
    varied = [AUGMENTATIONS[(2 * i) % len(AUGMENTATIONS)] for i in range(8)]
    batch, truth = batch_and_truth(manos, chosen, varied, sizes)
    known, posed = stacked(truth, "mano_hand_valid"), stacked(truth, "mano_pose_valid")
    assert (known & ~posed).any()
    assert posed.any()
    depth = stacked(truth, "joint_img")[..., 2]
    assert (stacked(truth, "joint_valid") & ((depth < 0) | (depth >= 6))).any()
    assert_targets(jax.jit(partial(make_targets, sizes=sizes))(hands, batch), truth)


def test_targets_of_hands_outside_the_crop(hands, manos, records):
    """A hand is there if an annotated joint is in the crop, at any depth; or if none is known."""
    sizes = TargetSizes(depth_box_m=0.02)
    random = np.random.default_rng(0)
    both = [r for r in records if r["hand_type"] == HAND_TYPES.index("interacting")]
    chosen, varied = [], []
    for record in 3 * both:
        hand, joint = random.integers(2), random.integers(21)
        pixels, _ = joint_pixels({name: record[name][None] for name in JOINT_FIELDS})
        box = np.float32([*(pixels[0, hand, joint] - 15), 30, 30])
        valid = record["joint_valid_world"].copy()
        valid[hand, joint] &= random.random() < 0.7
        valid[1 - hand] &= random.random() < 0.7
        chosen.append({**record, "bbox_px": box, "joint_valid_world": valid})
        varied.append(AUGMENTATIONS[random.integers(len(AUGMENTATIONS))])
    batch, truth = batch_and_truth(manos, chosen, varied, sizes)
    there, valid = stacked(truth, "hand_present"), stacked(truth, "joint_valid")
    kinds, counts = np.unique(there, axis=0, return_counts=True)
    assert len(kinds) == 4
    assert counts.min() >= 2
    assert (there & ~valid.any(-1)).any()
    targets = jax.jit(partial(make_targets, sizes=sizes))(hands, batch)
    for name in BOOLEANS:  # cells of so thin a box are finer than float32 resolves
        np.testing.assert_array_equal(getattr(targets, name), stacked(truth, name), err_msg=name)


def made_up_predictions(count, seed=0):
    """Outputs of no network, of about the right size."""
    random = np.random.default_rng(seed)

    def noise(spread, *shape):
        return np.float32(random.normal(0, spread, shape))

    return [
        {
            "rel_trans": noise(0.1, 3),
            "joint_img": 4 + noise(2, 2, 21, 3),
            "pose": noise(0.5, 2, 48),
            "betas": noise(1, 2, 10),
            "joints": noise(0.05, 2, 21, 3),
            "joint_proj": 4 + noise(2, 2, 21, 2),
            "presence_logit": noise(1, 2),
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("weights", [LOSS_WEIGHTS, dict.fromkeys(LOSS_WEIGHTS, 0.5)])
def test_losses(hands, varied, weights):
    batch, truth = varied
    predictions = made_up_predictions(len(truth))
    prediction = SimpleNamespace(
        **{name: np.stack([p[name] for p in predictions]) for name in predictions[0]}
    )
    terms = losses(prediction, compiled_targets(hands, batch), weights)
    expected = reference.loss_terms(predictions, truth, weights)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 0 or not weights[name], name
        np.testing.assert_allclose(terms[name], value, rtol=1e-5, err_msg=name)


def test_weights_of_the_loss():
    assert dict(LOSS_WEIGHTS) == reference.LOSS_WEIGHTS


def made_up_reconstructions(manos, truth, seed=2):
    """Meshes near the truth, enlarged, turned and deformed, their wrists anywhere."""
    random = np.random.default_rng(seed)
    found = []
    for sample in truth:
        turn = reference.rotation_matrix(random.normal(0, 0.1, 3))
        mesh = sample["mano_mesh_cam"] @ turn.T * random.uniform(0.9, 1.15, (2, 1, 1))
        mesh = mesh + random.normal(0, 0.004, mesh.shape) + random.normal(0, 0.05, (2, 1, 3))
        mesh = np.float32(mesh).astype(np.float64)
        joints = [reference.joints_of(*pair) for pair in zip(manos, mesh, strict=True)]
        off = random.normal(0, 0.02, 3)
        found.append(
            {
                "vertices": mesh,
                "joints": np.array(joints),
                "rel_trans": sample["rel_trans"] + off,
                "wrists": sample["wrist_cam"] + random.normal(0, 0.03, (2, 3)),
                "presence": random.integers(0, 5, 2) / 4,
            }
        )
    return found


@jax.jit
def all_errors(prediction, targets, hand_type):
    mask = jnp.ones(len(hand_type), bool)
    return sample_errors(prediction, targets, hand_type=hand_type, sample_mask=mask)


def errors_of(hands, batch, reconstructions):
    """What the package finds: path → (value, count)."""
    names = reconstructions[0]
    prediction = ReconstructedMeshes(
        **{name: jnp.asarray(np.stack([one[name] for one in reconstructions])) for name in names}
    )
    errors = all_errors(prediction, compiled_targets(hands, batch), batch["hand_type"])
    return {
        f"{protocol}/{metric}/{subset}": (number["value"], number["count"])
        for protocol, metrics in summarize(collect([errors])).items()
        for metric, subsets in metrics.items()
        if metric not in ("PCK", "acceleration")
        for subset, number in subsets.items()
    }


def test_metrics(hands, manos, unvaried):
    batch, truth = unvaried
    reconstructions = made_up_reconstructions(manos, truth)
    kinds = [HAND_TYPES[kind] for kind in batch["hand_type"]]
    expected = reference.evaluation(reconstructions, truth, kinds)
    found = errors_of(hands, batch, reconstructions)
    assert found.keys() == expected.keys()
    nowhere = {name for name, (value, _) in expected.items() if value is None}
    assert nowhere == {
        *("wrist_aligned/MRRPE/single", "wrist_aligned/RRVE/single"),
        *(f"handedness/{name}/interacting" for name in ("AP", "AUC", "side_accuracy")),
    }
    for name, (value, count) in expected.items():
        assert found[name][1] == count, name
        if value is not None:
            assert found[name][0] == pytest.approx(value, rel=1e-4), name


def wave(*shape, start, size=1.0):
    """Numbers that no generator, file or library decides."""
    return size * np.sin(start + 1.7 * np.arange(np.prod(shape))).reshape(shape)


@pytest.fixture(scope="module")
def made_up(manos):
    """Twenty samples of arithmetic and the stand-in hand alone."""
    samples, truth = [], []
    for index in range(20):
        scale, degrees, flip = AUGMENTATIONS[index % len(AUGMENTATIONS)]
        kind = index % 3
        present = np.array([kind != 1, kind != 0])
        seen = wave(2, 21, start=index) > -0.8
        seen[:, 0] = True
        record = {
            "hand_type": np.array(kind),
            "hand_type_valid": np.array(index % 7 != 6),
            "camera_rotation": reference.rotation_matrix(wave(3, start=index)),
            "camera_translation_mm": np.array([0, 0, 900]) + wave(3, start=index + 0.1, size=20),
            "focal_px": np.array([1200.0, 1190.0]),
            "princpt_px": np.array([256.0, 167.0]),
            "image_size_px": np.array([512, 334]),
            "bbox_px": np.array([130.0, 40.0, 240.0, 240.0]),
            "joint_valid_world": present[:, None] & (wave(2, 21, start=3 * index) > -0.95),
            "joint_valid_view": present[:, None] & seen,
            "mano_valid": present & (index % 5 != 4),
            "mano_pose": wave(2, 48, start=index + 0.3, size=0.4),
            "mano_betas": wave(2, 10, start=index + 0.4),
            "mano_trans_m": wave(2, 3, start=index + 0.5, size=0.04),
        }
        names = ("mano_betas", "mano_pose", "mano_trans_m")
        meshes = map(reference.hand_mesh, manos, *(record[name] for name in names))
        joints = [reference.joints_of(*pair) for pair in zip(manos, meshes, strict=True)]
        off = wave(2, 21, 3, start=index + 0.2, size=12)
        record["joint_world_mm"] = 1000 * np.array(joints) + off
        affine = reference.image_to_crop(record["bbox_px"], 512, scale, degrees, flip, 256)
        varied = {"img2bb": affine, "augmentation": np.array([scale, degrees, flip])}
        absent = absent_fields(record, ANNOTATION_FIELDS)
        samples.append({**absent, **record, **varied})
        truth.append(reference.targets_of(manos, record, (scale, degrees, flip)))
    batch = {
        name: np.float32(value) if value.dtype == np.float64 else value
        for name, value in stack_samples(samples).items()
    }
    return batch, truth


def test_golden_targets(hands, made_up):
    batch, truth = made_up
    targets = compiled_targets(hands, batch)
    assert_targets(targets, truth)
    for name, (mask_name, _) in MASKS.items():
        for values, masks in (
            (getattr(targets, name), mask_of(truth, mask_name)),
            (stacked(truth, name), mask_of(truth, mask_name)),
        ):
            values = np.asarray(values, np.float64)[np.asarray(masks)]
            numbers = np.cos(1 + np.arange(values.size)) @ values.ravel(), abs(values).sum()
            assert numbers == pytest.approx(GOLDEN_TARGETS[name], rel=1e-4, abs=1e-4), name
    for name in BOOLEANS:
        assert int(np.asarray(getattr(targets, name)).sum()) == GOLDEN_TARGETS[name], name


def test_golden_losses(hands, made_up):
    batch, truth = made_up
    found = [
        {
            "rel_trans": wave(3, start=index, size=0.1),
            "joint_img": wave(2, 21, 3, start=index + 0.1, size=4) + 4,
            "pose": wave(2, 48, start=index + 0.2, size=0.5),
            "betas": wave(2, 10, start=index + 0.3),
            "joints": wave(2, 21, 3, start=index + 0.4, size=0.08),
            "joint_proj": wave(2, 21, 2, start=index + 0.5, size=4) + 4,
            "presence_logit": wave(2, start=index + 0.6, size=2),
        }
        for index in range(len(truth))
    ]
    prediction = SimpleNamespace(**{name: np.stack([p[name] for p in found]) for name in found[0]})
    weights = {**LOSS_WEIGHTS, "depth": 1}
    terms = losses(prediction, compiled_targets(hands, batch), weights)
    assert {n: float(v) for n, v in terms.items()} == pytest.approx(GOLDEN_LOSSES, rel=1e-4)
    terms = reference.loss_terms(found, truth, weights)
    assert terms == pytest.approx(GOLDEN_LOSSES, rel=1e-4)


def test_golden_metrics(hands, manos, made_up):
    batch, truth = made_up
    found = []
    for index, sample in enumerate(truth):
        turn = reference.rotation_matrix(wave(3, start=index, size=0.15))
        mesh = 1.05 * sample["mano_mesh_cam"] @ turn.T
        mesh = mesh + wave(2, 778, 3, start=index + 0.1, size=0.006)
        joints = [reference.joints_of(*pair) for pair in zip(manos, mesh, strict=True)]
        rel_trans = sample["rel_trans"] + wave(3, start=index + 0.2, size=0.02)
        found.append(
            {
                "vertices": mesh,
                "joints": np.array(joints),
                "rel_trans": rel_trans,
                "wrists": sample["wrist_cam"] + wave(2, 3, start=index + 0.3, size=0.05),
                "presence": np.round(2 * wave(2, start=2 * index) + 2) / 4,
            }
        )
    kinds = [HAND_TYPES[kind] for kind in batch["hand_type"]]
    for numbers in (
        reference.evaluation(found, truth, kinds),
        errors_of(hands, batch, found),
    ):
        assert numbers.keys() >= GOLDEN_METRICS.keys()
        for name, (value, count) in GOLDEN_METRICS.items():
            assert numbers[name][1] == count, name
            assert numbers[name][0] == pytest.approx(value, rel=1e-4), name
