"""Per-sample errors, their reduction, and the laws that both obey."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from er_jax.evaluation.metrics import ReconstructedMeshes, sample_errors
from er_jax.evaluation.summary import collect, select, summarize
from er_jax.mano import HAND21, INTERHAND21, joint_order, joints_from_vertices, load_hands
from er_jax.supervision.targets import Targets

SHARED = Path(__file__).parents[2] / "shared"
HAND_TYPES = ("right", "left", "interacting")


def truth_of(**fields) -> Targets:
    """Targets of which the metrics' fields alone are given; the others hold nothing to compare."""
    others = {
        field.name: np.full(len(fields["rel_trans"]), np.nan)
        for field in dataclasses.fields(Targets)
    }
    return Targets(**{**others, **fields})


@jax.jit
def batch_errors(prediction, truth, hand_type, sample_mask):
    return sample_errors(
        prediction,
        truth,
        sample_id=jnp.arange(len(hand_type)),
        hand_type=hand_type,
        sample_mask=sample_mask,
    )


def errors_of(prediction, truth, hand_type):
    return collect([batch_errors(prediction, truth, hand_type, np.ones(len(hand_type), bool))])


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
    truth = truth_of(
        joint_cam=joint_cam,
        joint_img=joint_cam,
        joint_valid=joint_trunc,
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
    result = summarize(errors_of(*reference))["wrist_aligned"]
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
    errors = errors_of(prediction, truth, hand_type)
    assert_protocol(summarize(errors)["scale_aligned"], numbers, HAND21)
    used = inputs["annotation_id"][errors.scale_aligned.vertex_valid.any(1)]
    assert sorted(used) == sorted(numbers["used"])


def samples(count=20, noise=0.01):
    """Random point clouds in place of hands: the metrics know no anatomy."""
    rng = np.random.default_rng(0)
    hand_type = np.arange(count) % 3
    present = (hand_type[:, None] == 2) | (hand_type[:, None] == np.arange(2))
    mesh = rng.normal(0, 0.05, (count, 2, 778, 3)).astype(np.float32)
    joints = mesh[:, :, :21]
    rel_trans = rng.normal(0, 0.1, (count, 3)).astype(np.float32)
    truth = truth_of(
        joint_cam=joints,
        joint_img=rng.uniform(0, 8, joints.shape).astype(np.float32),
        joint_valid=np.broadcast_to(present[..., None], (count, 2, 21)),
        joint_trunc=present[..., None] & (rng.random((count, 2, 21)) > 0.1),
        mano_mesh_cam=mesh,
        mano_joint_cam=joints,
        mano_hand_valid=present.copy(),
        rel_trans=rel_trans,
        rel_trans_valid=present.all(1),
    )

    def noisy(x):
        return (x + rng.normal(0, noise, x.shape)).astype(np.float32)

    return ReconstructedMeshes(noisy(mesh), noisy(joints), noisy(rel_trans)), truth, hand_type


def leaves(summary):
    """Every number of a summary by its path."""
    return {jax.tree_util.keystr(p): x for p, x in jax.tree.leaves_with_path(summary)}


def rows(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def transformed(prediction, function):
    return dataclasses.replace(
        prediction, vertices=function(prediction.vertices), joints=function(prediction.joints)
    )


def test_errors_against_float64():
    prediction, truth, hand_type = samples()
    errors = errors_of(prediction, truth, hand_type)
    p, t = (np.asarray(x, np.float64) for x in (prediction.vertices, truth.mano_mesh_cam))
    p, t = p - prediction.joints[:, :, :1], t - truth.mano_joint_cam[:, :, :1]
    valid = truth.mano_hand_valid
    vertex = 1000 * np.linalg.norm(p - t, axis=-1)
    np.testing.assert_allclose(
        errors.wrist_aligned.vertex_mm, np.where(valid, vertex.mean(-1), 0), rtol=1e-6
    )
    error = (prediction.rel_trans - truth.rel_trans).astype(np.float64)
    p[:, 1] += error[:, None]
    rel = 1000 * np.linalg.norm(p - t, axis=-1).mean((1, 2))
    pairs = truth.rel_trans_valid
    np.testing.assert_allclose(errors.rel_vertex_mm, np.where(pairs, rel, 0), rtol=1e-6)
    wanted = np.where(pairs, 1000 * np.linalg.norm(error, axis=-1), 0)
    np.testing.assert_allclose(errors.rel_trans_mm, wanted, rtol=1e-6)


def test_perfect_prediction_has_no_error():
    _, truth, hand_type = samples()
    prediction = ReconstructedMeshes(truth.mano_mesh_cam, truth.joint_cam, truth.rel_trans)
    summary = summarize(errors_of(prediction, truth, hand_type))
    for protocol, metrics in summary.items():
        for metric, subsets in metrics.items():
            best = 1.0 if metric == "PCK" or metric.startswith("F@") else 0.0
            for subset, number in subsets.items():
                if number["count"]:
                    assert number["value"] == pytest.approx(best, abs=1e-4), (protocol, metric)
                else:
                    assert (metric, subset) in {("MRRPE", "single"), ("RRVE", "single")}


def test_rotation_and_scale_leave_procrustes():
    prediction, truth, hand_type = samples()
    before = summarize(errors_of(prediction, truth, hand_type))["procrustes"]
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    moved = transformed(prediction, lambda x: (1.3 * x @ rotation.T + 0.2).astype(np.float32))
    after = summarize(errors_of(moved, truth, hand_type))
    assert leaves(after["procrustes"]) == pytest.approx(leaves(before), rel=1e-4)
    assert after["wrist_aligned"]["MPVPE"]["all"]["value"] > 30


def test_scale_leaves_scale_aligned():
    prediction, truth, hand_type = samples()
    before = summarize(errors_of(prediction, truth, hand_type))["scale_aligned"]
    scaled = transformed(prediction, lambda x: np.float32(2.5) * x)
    after = summarize(errors_of(scaled, truth, hand_type))
    assert leaves(after["scale_aligned"]) == pytest.approx(leaves(before), rel=1e-4)


def test_order_and_batching_change_nothing():
    data = samples()
    whole = summarize(errors_of(*data))
    permuted = rows(data, np.random.default_rng(0).permutation(20))
    assert leaves(summarize(errors_of(*permuted))) == pytest.approx(leaves(whole), rel=1e-9)
    parts = [rows(data, slice(0, 1)), rows(data, slice(1, 20))]
    errors = collect(batch_errors(*part, np.ones(len(part[2]), bool)) for part in parts)
    assert leaves(summarize(errors)) == pytest.approx(leaves(whole), rel=1e-9)


def test_padding_counts_for_nothing():
    prediction, truth, hand_type = samples()
    whole = errors_of(prediction, truth, hand_type)
    mask = np.arange(20) < 15
    prediction.vertices[15:] = np.nan
    padded = batch_errors(prediction, truth, hand_type, mask)
    expected = summarize(select(whole, mask))
    assert leaves(summarize(collect([padded]))) == leaves(expected)


def test_a_missing_fit_changes_counts_and_no_other_sample():
    prediction, truth, hand_type = samples()
    before = errors_of(prediction, truth, hand_type)
    fits = truth.mano_hand_valid.copy()
    fits[2, 0] = False  # of an interacting sample
    after = errors_of(prediction, dataclasses.replace(truth, mano_hand_valid=fits), hand_type)
    others = np.arange(len(hand_type)) != 2
    jax.tree.map(np.testing.assert_array_equal, select(after, others), select(before, others))
    counts = {
        protocol: [summarize(e)[protocol][metric]["interacting"]["count"] for e in (before, after)]
        for protocol, metric in [("wrist_aligned", "MPVPE"), ("scale_aligned", "MPVPE")]
    }
    assert counts["wrist_aligned"][0] == counts["wrist_aligned"][1]  # its left hand still counts
    assert counts["scale_aligned"][0] == counts["scale_aligned"][1] + 1
    assert summarize(after)["wrist_aligned"]["MPJPE"] == summarize(before)["wrist_aligned"]["MPJPE"]


def test_nothing_selected_gives_null_and_count_zero():
    errors = errors_of(*samples())
    summary = summarize(select(errors, np.zeros(len(errors.sample_mask), bool)))
    for metrics in summary.values():
        for subsets in metrics.values():
            for number in subsets.values():
                assert number["value"] is None
                assert number["count"] == 0
                assert set(number.get("per_joint", [None])) == {None}
    json.dumps(summary, allow_nan=False)


def test_counts_hands_and_fingers():
    errors = errors_of(*samples())
    mpjpe = summarize(errors)["wrist_aligned"]["MPJPE"]
    assert [mpjpe[s]["count"] for s in ("single", "interacting", "all")] == [14, 6, 20]
    per_joint = np.array(mpjpe["interacting"]["per_joint"]).reshape(2, 21)
    assert mpjpe["interacting"]["per_hand"]["left"] == pytest.approx(per_joint[1].mean())
    thumb = [i for i, name in enumerate(HAND21) if name.startswith("Thumb")]
    assert mpjpe["interacting"]["per_finger"]["Thumb"] == pytest.approx(per_joint[:, thumb].mean())
    both = mpjpe["single"]["per_joint"] + mpjpe["interacting"]["per_joint"]
    assert mpjpe["all"]["value"] == pytest.approx(np.mean(both))


def test_pck_is_the_share_of_joints_within_and_its_area():
    errors = errors_of(*samples(noise=0.03)).wrist_aligned
    pck = summarize(errors_of(*samples(noise=0.03)))["wrist_aligned"]["PCK"]["all"]
    values = errors.joint_mm[errors.joint_valid].astype(np.float64)
    np.testing.assert_allclose(pck["curve"], [(values <= t).mean() for t in range(51)])
    fine = np.linspace(0, 50, 20001)
    share = np.searchsorted(np.sort(values), fine, side="right") / values.size
    assert pck["value"] == pytest.approx(share.mean(), abs=1e-4)


def test_traits_tell_what_a_sample_is():
    prediction, truth, hand_type = samples()
    box = np.array([[0, 0], [4, 2]], np.float32)  # two joints span each hand's box
    joint_img, trunc = np.zeros((20, 2, 21, 3), np.float32), np.zeros((20, 2, 21), bool)
    trunc[:, :, :2] = True
    joint_img[:, 0, :2, :2], joint_img[:, 1, :2, :2] = box, box + np.array([2, 0])
    joint_img[0, 1, :2, 0] += 5
    truth = dataclasses.replace(truth, joint_img=joint_img, joint_trunc=trunc)
    attributes = errors_of(prediction, truth, hand_type).attributes
    np.testing.assert_allclose(attributes.hand_overlap[1:], 4 / 12, rtol=1e-6)
    assert attributes.hand_overlap[0] == 0
    interacting = hand_type == 2
    distance = 1000 * np.linalg.norm(truth.rel_trans, axis=-1)
    np.testing.assert_allclose(attributes.wrist_distance_mm[interacting], distance[interacting])
    assert np.isnan(attributes.wrist_distance_mm[~interacting]).all()
    np.testing.assert_allclose(attributes.visible_share[interacting], 4 / 42)


def test_hands_with_few_joints_are_not_aligned():
    prediction, truth, hand_type = samples()
    trunc = np.zeros_like(truth.joint_trunc)
    trunc[2, 0, :7] = trunc[5, 1, :6] = True
    errors = errors_of(prediction, dataclasses.replace(truth, joint_trunc=trunc), hand_type)
    assert errors.procrustes.joint_valid.sum() == 7
    assert errors.procrustes.joint_valid[2, 0, :7].all()


def test_nan_of_a_present_hand_is_an_error():
    prediction, truth, hand_type = samples()
    prediction.vertices[0, 0, 3] = np.nan
    with pytest.raises(ValueError, match=r"wrist_aligned\.vertex_mm"):
        errors_of(prediction, truth, hand_type)


def test_a_prediction_without_extent_stays_finite():
    _, truth, hand_type = samples()
    prediction = ReconstructedMeshes(
        np.zeros_like(truth.mano_mesh_cam), np.zeros_like(truth.joint_cam), truth.rel_trans
    )
    summary = summarize(errors_of(prediction, truth, hand_type))
    assert summary["scale_aligned"]["MPJPE"]["all"]["value"] > 0
