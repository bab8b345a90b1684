"""Per-sample errors, their reduction, and the laws that both obey."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from data_pipeline.annotated_split import Labels
from er_jax.evaluation.handedness import handedness
from er_jax.evaluation.metrics import sample_errors
from er_jax.evaluation.summary import collect, select, summarize, unit_of
from er_jax.evaluation.types import Presence, ReconstructedMeshes
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
def published(expected):
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


def test_wrist_aligned_reproduces_the_reference(published, expected):
    numbers = expected[1]["wrist_aligned"]
    result = summarize(errors_of(*published))["wrist_aligned"]
    assert_protocol(result, numbers, INTERHAND21)
    assert result["MRRPE"]["interacting"]["value"] == pytest.approx(numbers["MRRPE"], abs=1e-3)
    assert result["RRVE"]["interacting"]["value"] == pytest.approx(numbers["RRVE"], abs=1e-3)
    both = numbers["MPJPE_single_per_joint"] + numbers["MPJPE_interacting_per_joint"]
    mean = np.mean([value for value in both if value is not None])
    assert result["MPJPE"]["all"]["value"] == pytest.approx(mean, abs=1e-3)


def test_scale_aligned_reproduces_the_reference(published, expected):
    """With all joints of a present hand valid, as the published evaluation effectively has it."""
    inputs, numbers = expected[0], expected[1]["scale_aligned"]
    prediction, truth, hand_type = published
    truth = dataclasses.replace(truth, joint_trunc=np.ones_like(truth.joint_trunc))
    errors = errors_of(prediction, truth, hand_type)
    assert_protocol(summarize(errors)["scale_aligned"], numbers, HAND21)
    used = inputs["annotation_id"][errors.scale_aligned.vertex_valid.any(1)]
    assert sorted(used) == sorted(numbers["used"])


def samples(count=20, noise=0.01, hand_type=None):
    """Random point clouds in place of hands: the metrics know no anatomy."""
    rng = np.random.default_rng(0)
    hand_type = np.arange(count) % 3 if hand_type is None else hand_type
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
        wrist_cam=rng.uniform([-0.2, -0.2, 0.6], [0.2, 0.2, 1.2], (count, 2, 3)).astype(np.float32),
        wrist_cam_valid=np.broadcast_to(present, (count, 2)),
        hand_present=present,
        hand_present_valid=rng.random(count) > 0.1,
    )

    def noisy(x):
        return (x + rng.normal(0, noise, x.shape)).astype(np.float32)

    prediction = ReconstructedMeshes(
        *(noisy(mesh), noisy(joints), noisy(rel_trans), noisy(truth.wrist_cam)),
        presence=rng.integers(0, 5, (count, 2)).astype(np.float32) / 4,
        joint_spread=rng.random((count, 2, 21)).astype(np.float32),
    )
    return prediction, truth, hand_type


def exact(truth):
    """The prediction that is the truth."""
    presence = truth.hand_present.astype(np.float32)
    points = truth.mano_mesh_cam, truth.joint_cam, truth.rel_trans, truth.wrist_cam
    return ReconstructedMeshes(*points, presence=presence)


def recorded(count=40, step=3):
    """Labels of four recordings, two cameras of two sequences, and each recording's hand type.

    The frames of one start where those of the one before end.
    """
    index = np.arange(count)
    recording = index % 4
    labels = Labels(
        sample_id=index,
        camera=np.array(["400262", "400263"])[recording % 2],
        sequence=np.array(["0/a", "0/b"])[recording // 2],
        box_source=np.full(count, "joints"),
        frame=7 + step * (index // 4 + count // 4 * recording),
    )
    return labels, np.array([2, 0, 1, 2])[recording]


def labels_rows(labels, samples):
    return Labels(*(column[samples] for column in vars(labels).values()))


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
    labels, hand_type = recorded()
    _, truth, _ = samples(40, hand_type=hand_type)
    summary = summarize(errors_of(exact(truth), truth, hand_type), labels)
    nowhere = {("MRRPE", "single"), ("RRVE", "single")}
    nowhere |= {(metric, "interacting") for metric in ("AP", "AUC", "side_accuracy")}
    for protocol, metrics in summary.items():
        for metric, subsets in metrics.items():
            best = 0.0 if unit_of(metric) or metric == "depth" else 1.0
            for subset, number in subsets.items():
                if number["count"]:
                    assert number["value"] == pytest.approx(best, abs=1e-4), (protocol, metric)
                else:
                    assert (metric, subset) in nowhere


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
    labels, hand_type = recorded(20)
    data = samples(hand_type=hand_type)
    whole = summarize(errors_of(*data), labels)
    assert whole["wrist_aligned"]["acceleration"]["all"]["count"] == 12
    order = np.random.default_rng(0).permutation(20)
    permuted = summarize(errors_of(*rows(data, order)), labels_rows(labels, order))
    assert leaves(permuted) == pytest.approx(leaves(whole), rel=1e-9)
    parts = [rows(data, slice(0, 1)), rows(data, slice(1, 20))]
    errors = collect(batch_errors(*part, np.ones(len(part[2]), bool)) for part in parts)
    assert leaves(summarize(errors, labels)) == pytest.approx(leaves(whole), rel=1e-9)


def test_padding_counts_for_nothing():
    prediction, truth, hand_type = samples()
    whole = errors_of(prediction, truth, hand_type)
    mask = np.arange(20) < 15
    for part in (prediction.vertices, prediction.wrists, prediction.presence):
        part[15:] = np.nan
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
    nothing = np.zeros(20, bool)
    labels = labels_rows(recorded(20)[0], nothing)
    summary = summarize(select(errors_of(*samples()), nothing), labels)
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


def test_moving_the_hands_moves_them_in_camera_space_alone():
    _, truth, hand_type = samples()
    moved = dataclasses.replace(exact(truth), wrists=truth.wrist_cam + np.float32([0.03, 0, -0.04]))
    summary = summarize(errors_of(moved, truth, hand_type))
    for metric in ("CS-MPJPE", "MRPE"):
        for number in summary["camera_space"][metric].values():
            assert number["value"] == pytest.approx(50, rel=1e-4)
    assert summary["camera_space"]["MRPE"]["all"]["count"] == 20
    for metric in ("MPJPE", "MRRPE"):
        assert summary["wrist_aligned"][metric]["all"]["value"] == pytest.approx(0, abs=1e-4)


def test_joints_in_camera_space_are_off_by_hand_and_place():
    """Of one joint that is off by (0, 3, 0) mm about a wrist that is off by (4, 0, 0)."""
    _, truth, hand_type = samples()
    prediction = exact(truth)
    joints = prediction.joints.copy()
    joints[:, :, 5, 1] += 0.003
    off = dataclasses.replace(
        prediction, joints=joints, wrists=prediction.wrists + np.float32([0.004, 0, 0])
    )
    errors = errors_of(off, truth, hand_type).camera_space
    valid = truth.joint_trunc
    np.testing.assert_allclose(errors.joint_mm[:, :, 5], 5 * valid[:, :, 5], rtol=1e-3)
    np.testing.assert_allclose(errors.joint_mm[:, :, 6], 4 * valid[:, :, 6], rtol=1e-3)


def test_the_depth_s_error_is_relative():
    _, truth, hand_type = samples(22)
    factors = np.where(np.arange(22) % 3 == 2, 1.3, 1.1)  # of two hands deeper than of one
    wrists = truth.wrist_cam * np.array([1, 1, 1.0])
    wrists[..., 2] *= factors[:, None]
    placed = dataclasses.replace(exact(truth), wrists=wrists.astype(np.float32))
    depth = summarize(errors_of(placed, truth, hand_type))["camera_space"]["depth"]
    assert depth["single"]["value"] == pytest.approx(0.1, rel=1e-4)
    assert depth["interacting"]["median"] == pytest.approx(0.3, rel=1e-4)
    assert depth["all"]["value"] == pytest.approx((15 * 0.1 + 14 * 0.3) / 29, rel=1e-4)
    assert depth["all"]["median"] == pytest.approx(0.1, rel=1e-4)


def test_only_annotated_wrists_of_hands_that_are_there_have_a_place():
    prediction, truth, hand_type = samples()
    wrist_valid, present = truth.wrist_cam_valid.copy(), truth.hand_present.copy()
    wrist_valid[2, 1] = present[5, 0] = False  # of two pairs of hands
    truth = dataclasses.replace(truth, wrist_cam_valid=wrist_valid, hand_present=present)
    prediction.wrists[2, 1] = prediction.wrists[5, 0] = np.nan
    errors = errors_of(prediction, truth, hand_type).camera_space
    expected = truth.wrist_cam_valid & truth.hand_present
    np.testing.assert_array_equal(errors.wrist_valid, expected)
    np.testing.assert_array_equal(errors.joint_valid, truth.joint_trunc & expected[..., None])
    prediction.wrists[2, 0] = np.nan
    with pytest.raises(ValueError, match=r"camera_space\.wrist_mm"):
        errors_of(prediction, truth, hand_type)


def presence_of(score, truth, valid=None):
    score, truth = np.float32(score), np.array(truth, bool)
    return Presence(score, truth, np.ones(len(score), bool) if valid is None else valid)


def numbers_of(presence):
    everything = {"all": np.ones(len(presence.score), bool)}
    return {name: number["all"] for name, number in handedness(presence, everything).items()}


def test_handedness_against_the_definitions():
    rng = np.random.default_rng(0)
    truth = np.array([[True, False], [False, True], [True, True]])[rng.integers(3, size=200)]
    score = (rng.integers(0, 9, (200, 2)) + 3 * truth) / 11  # many ties
    valid = rng.random(200) > 0.2
    numbers = numbers_of(presence_of(score, truth, valid))
    score, truth = np.float64(np.float32(score[valid])), truth[valid]
    flat = score.ravel(), truth.ravel()
    assert numbers["AP"]["value"] == pytest.approx(reference.average_precision(*flat), rel=1e-12)
    assert numbers["AUC"]["value"] == pytest.approx(reference.area_under_roc(*flat), rel=1e-12)
    decisions = zip((score > 0.5).tolist(), truth.tolist(), strict=True)
    right = [said == there for said, there in decisions]
    assert numbers["accuracy"]["value"] == pytest.approx(np.mean(right))
    single = [(s[t][0], s[~t][0]) for s, t in zip(score, truth, strict=True) if t.sum() == 1]
    assert numbers["side_accuracy"]["value"] == pytest.approx(np.mean([a > b for a, b in single]))
    counts = {name: number["count"] for name, number in numbers.items()}
    samples = int(valid.sum())
    assert counts == dict.fromkeys(("accuracy", "AP", "AUC"), samples) | {
        "side_accuracy": len(single)
    }


def test_handedness_where_scores_say_nothing():
    truth = [[True, False], [False, True], [True, True]]
    tied = numbers_of(presence_of(np.full((3, 2), 0.7), truth))
    assert tied["AUC"]["value"] == 0.5
    assert tied["AP"]["value"] == pytest.approx(4 / 6)
    assert tied["accuracy"]["value"] == pytest.approx(1 / 3)
    assert tied["side_accuracy"]["value"] == 0
    reversed_order = numbers_of(presence_of(1 - np.float32(truth), truth))
    assert reversed_order["AUC"]["value"] == 0
    assert reversed_order["accuracy"]["value"] == 0


@pytest.mark.parametrize("there", [True, False])
def test_hands_of_one_kind_cannot_be_told_apart(there):
    numbers = numbers_of(presence_of([[0.2, 0.9]], [[there, there]]))
    for name in ("AP", "AUC", "side_accuracy"):
        assert numbers[name] == {"value": None, "count": 0}
    assert numbers["accuracy"] == {"value": 0.0, "count": 1}


def test_what_a_method_does_not_say_is_null_and_changes_nothing_else():
    prediction, truth, hand_type = samples()
    whole = summarize(errors_of(prediction, truth, hand_type))
    bare = dataclasses.replace(prediction, wrists=None, presence=None, joint_spread=None)
    errors = errors_of(bare, truth, hand_type)
    assert errors.camera_space is errors.presence is errors.joint_spread is None
    summary = summarize(errors)
    for protocol in ("camera_space", "handedness"):
        assert summary[protocol].keys() == whole[protocol].keys()
        for metric in summary[protocol].values():
            assert list(metric.values()) == [{"value": None, "count": 0}] * 3
    for protocol in whole.keys() - {"camera_space", "handedness"}:
        assert leaves(summary[protocol]) == leaves(whole[protocol])


def test_joints_alone_have_no_error_of_vertices():
    prediction, truth, hand_type = samples()
    whole = summarize(errors_of(prediction, truth, hand_type))
    alone = summarize(errors_of(dataclasses.replace(prediction, vertices=None), truth, hand_type))
    for protocol, metric in [
        *(("wrist_aligned", "MPVPE"), ("wrist_aligned", "RRVE")),
        *(("scale_aligned", "MPVPE"), ("procrustes", "PA-MPVPE")),
    ]:
        for number in alone[protocol][metric].values():
            assert number == {"value": None, "count": 0}
    assert not any(metric.startswith("F@") for metric in alone["procrustes"])
    for protocol, metric in [
        *(("wrist_aligned", "MPJPE"), ("wrist_aligned", "MRRPE"), ("wrist_aligned", "PCK")),
        *(("procrustes", "PA-MPJPE"), ("camera_space", "CS-MPJPE")),
    ]:
        assert leaves(alone[protocol][metric]) == leaves(whole[protocol][metric])


def test_joints_alone_have_the_middle_fingertip_of_everywhere_else():
    """Vertex 444, IntagHand's, is another point than the regressor's joint in these clouds."""
    _, truth, hand_type = samples()
    alone = dataclasses.replace(exact(truth), vertices=None)
    number = summarize(errors_of(alone, truth, hand_type))["scale_aligned"]["MPJPE"]["all"]
    assert number["count"] == 20
    assert number["value"] == pytest.approx(0, abs=1e-4)
    tip = HAND21.index("Middle_4")
    joints = truth.joint_cam.copy()
    joints[:, :, tip, 0] += 0.01
    off = errors_of(dataclasses.replace(alone, joints=joints), truth, hand_type).scale_aligned
    valid = off.joint_valid[:, :, tip]
    np.testing.assert_allclose(off.joint_mm[:, :, tip][valid], 10, rtol=1e-3)


def with_offsets(truth, offsets_mm):
    """The prediction whose wrist-relative joints are off by (N, 3) mm, but for the wrists."""
    joints = truth.joint_cam.copy()
    joints[:, :, 1:] += np.float32(offsets_mm)[:, None, None] / 1000
    return dataclasses.replace(exact(truth), joints=joints)


def acceleration_of(prediction, truth, hand_type, labels):
    errors = errors_of(prediction, truth, hand_type)
    return summarize(errors, labels)["wrist_aligned"]["acceleration"]


def test_an_error_that_moves_at_constant_velocity_has_no_acceleration():
    labels, hand_type = recorded()
    _, truth, _ = samples(40, hand_type=hand_type)
    time = (np.arange(40) // 4)[:, None]
    still = acceleration_of(
        with_offsets(truth, [4, -8, 2] + time * [2, 0.5, -1.5]), truth, hand_type, labels
    )
    for subset, count in (("single", 16), ("interacting", 16), ("all", 32)):
        assert still[subset] == {
            "value": pytest.approx(0, abs=1e-9),
            "count": count,
            "frame_step": 3,
        }
    truth = dataclasses.replace(truth, joint_trunc=truth.joint_valid)
    faster = acceleration_of(with_offsets(truth, time**2 * [1.5, 0, -2]), truth, hand_type, labels)
    # 2·|(1.5, 0, −2)| of every joint but the wrist
    assert faster["all"]["value"] == pytest.approx(5 * 20 / 21, rel=1e-3)


def test_acceleration_against_triples_written_out():
    """Frames in any order, one missing, one recording at another rate, joints that come and go."""
    labels, hand_type = recorded()
    frame = labels.frame.copy()
    frame[3::4] *= 2  # of the last recording: twice the step
    order = np.random.default_rng(1).permutation(40)
    order = order[~np.isin(frame[order], (19, 49))]  # the fifth of the first two
    labels = labels_rows(dataclasses.replace(labels, frame=frame), order)
    prediction, truth, hand_type = rows(samples(40, hand_type=hand_type), order)
    found = acceleration_of(prediction, truth, hand_type, labels)
    places = zip(labels.sequence, labels.camera, labels.frame, strict=True)
    place = {key: index for index, key in enumerate(places)}
    expected = []
    for (sequence, camera, frame), middle in place.items():
        around = [place.get((sequence, camera, frame + step)) for step in (-3, 3)]
        if None in around:
            continue
        three = [around[0], middle, around[1]]
        used = truth.joint_trunc[three].all(0)
        predicted, true = (
            np.float64(x.joints[three]) - np.float64(x.joints[three])[:, :, :1]
            for x in (prediction, exact(truth))
        )
        expected.append(reference.acceleration_error(predicted, true, used))
    assert found["all"]["count"] == len(expected) == 2 * 5 + 8
    assert found["all"]["value"] == pytest.approx(np.mean(expected), abs=0.02)
    assert found["all"]["frame_step"] == 3


def test_joints_far_from_all_that_can_be_are_still_numbers():
    """Halves end at 65 m: a file in millimetres, trusted, must not end an evaluation."""
    prediction, truth, hand_type = samples()
    errors = errors_of(transformed(prediction, lambda x: 1e4 * x), truth, hand_type)
    assert np.isfinite(errors.joint_off_mm).all()
