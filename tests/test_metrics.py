"""Per-sample errors, their reduction, and the laws that both obey."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from er_jax.mano import HAND21, INTERHAND21, joint_order, joints_from_vertices, load_hands
from er_jax.metric_summary import collect, summarize
from er_jax.metrics import ReconstructedMeshes, sample_errors

SHARED = Path(__file__).parents[2] / "shared"
HAND_TYPES = ("right", "left", "interacting")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Truth:
    joint_cam: jax.Array
    joint_trunc: jax.Array
    mano_mesh_cam: jax.Array
    mano_joint_cam: jax.Array
    mano_hand_valid: jax.Array
    rel_trans: jax.Array
    rel_trans_valid: jax.Array


@jax.jit
def errors_of(prediction, truth, hand_type):
    return sample_errors(
        prediction, truth, hand_type=hand_type, sample_mask=jnp.ones(hand_type.shape, bool)
    )


@pytest.fixture(scope="module")
def expected():
    folder = SHARED / "fixtures" / "expected"
    if not folder.is_dir():
        pytest.skip("the reference numbers of the specification are not beside the repository")
    inputs = np.load(folder / "metrics_inputs.npz")
    return inputs, json.loads((folder / "metrics_expected.json").read_text())


@pytest.fixture(scope="module")
def reference(expected):
    inputs, _ = expected
    hands = load_hands(SHARED / "fixtures" / "mano")
    vertices = np.stack([inputs["pred_vertices_right"], inputs["pred_vertices_left"]], axis=1)
    target = inputs["target_vertices"].reshape(-1, 2, 778, 3)
    order = joint_order(INTERHAND21, HAND21)
    joint_cam = inputs["joint_cam_mm"].reshape(-1, 2, 21, 3)[:, :, order] / 1000
    joint_trunc = inputs["joint_trunc"].reshape(-1, 2, 21)[:, :, order] > 0
    prediction = ReconstructedMeshes(
        vertices, joints_from_vertices(hands, vertices), inputs["pred_rel_trans"]
    )
    truth = Truth(
        joint_cam=joint_cam,
        joint_trunc=joint_trunc,
        mano_mesh_cam=target,
        mano_joint_cam=joints_from_vertices(hands, target),
        mano_hand_valid=inputs["has_mano"],
        rel_trans=joint_cam[:, 1, 0] - joint_cam[:, 0, 0],
        rel_trans_valid=joint_trunc[:, :, 0].all(1),
    )
    hand_type = np.array([HAND_TYPES.index(name) for name in inputs["hand_type"]])
    return prediction, truth, hand_type


def per_joint(values, names):
    """A published list of 42 in Hand 21 order."""
    values = np.array([np.nan if v is None else v for v in values], float).reshape(2, 21)
    return values[:, joint_order(names, HAND21)].reshape(-1)


def assert_protocol(result, numbers, names):
    for subset in ("single", "interacting"):
        wanted = per_joint(numbers[f"MPJPE_{subset}_per_joint"], names)
        found = np.array(result["MPJPE"][subset]["per_joint"], float)
        np.testing.assert_allclose(found, wanted, atol=1e-3, rtol=0)
    for key in ("MPJPE_single", "MPJPE_interacting", *(f"MPVPE_{s}" for s in result["MPVPE"])):
        metric, subset = key.split("_")
        assert result[metric][subset]["value"] == pytest.approx(numbers[key], abs=1e-3)


def test_wrist_aligned_reproduces_the_reference(reference, expected):
    numbers = expected[1]["wrist_aligned"]
    result = summarize(collect([errors_of(*reference)]))["wrist_aligned"]
    assert_protocol(result, numbers, INTERHAND21)
    assert result["MRRPE"]["interacting"]["value"] == pytest.approx(numbers["MRRPE"], abs=1e-3)
    assert result["RRVE"]["interacting"]["value"] == pytest.approx(numbers["RRVE"], abs=1e-3)
    both = numbers["MPJPE_single_per_joint"] + numbers["MPJPE_interacting_per_joint"]
    mean = np.mean([value for value in both if value is not None])
    assert result["MPJPE"]["all"]["value"] == pytest.approx(mean, abs=1e-3)


def test_scale_aligned_reproduces_the_reference(reference, expected):
    """With all joints of a present hand valid, as the published evaluation effectively has it."""
    inputs, numbers = expected[0], expected[1]["scale_aligned"]
    prediction, truth, hand_type = reference
    truth = dataclasses.replace(truth, joint_trunc=np.ones_like(truth.joint_trunc))
    errors = collect([errors_of(prediction, truth, hand_type)])
    assert_protocol(summarize(errors)["scale_aligned"], numbers, HAND21)
    used = inputs["annotation_id"][errors.scale_aligned.vertex_valid.any(1)]
    assert sorted(used) == sorted(numbers["used"])
