"""Predictions files: round trips, and recognition of what cannot be meant."""

import dataclasses

import jax
import numpy as np
import pytest
from exported import exported_truth

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax.evaluation.predictions_file import (
    FORMAT,
    PredictionsError,
    read_predictions,
    write_predictions,
)
from er_jax.evaluation.predictors import evaluate_predictors, file_predictor
from er_jax.evaluation.summary import summarize
from er_jax.mano import (
    HAND21,
    INTERHAND21,
    MANO16,
    TIP_VERTICES,
    axis_angle_to_matrix,
    joint_order,
    load_hands,
)

METADATA = {"method": "exact"}


@pytest.fixture(scope="module")
def hands():
    return load_hands(None)


@pytest.fixture(scope="module")
def split(data_dir):
    return AnnotatedSplit(data_dir, "interhand26m", "test", batch_size=8)


@pytest.fixture(scope="module")
def exact(split, hands):
    return exported_truth(split, hands)


def meshes_of(arrays):
    return {name: arrays[name] for name in ("vertices", "rel_trans")}


def parameters_of(arrays):
    return {name: arrays[name] for name in ("betas", "pose", "rel_trans")}


def rotations_of(arrays):
    return {name: arrays[name] for name in ("betas", "rotations", "rel_trans")}


def joints_of(arrays):
    return {name: arrays[name] for name in ("joints", "rel_trans")}


def evaluated(path, split, hands, **options):
    """The summary of a predictions file, checked as from the command line."""
    method = file_predictor(read_predictions(path), split, hands, **options)
    (result,) = evaluate_predictors([method], split, hands)
    return summarize(result.errors, result.labels)


@pytest.mark.parametrize("kind", [meshes_of, parameters_of, rotations_of])
def test_the_truth_has_no_error(kind, exact, split, hands, tmp_path):
    ids, arrays = exact
    path = tmp_path / "exact.npz"
    write_predictions(
        path,
        ids[::-1],
        {k: v[::-1] for k, v in kind(arrays).items()},
        metadata=METADATA,
        pose_includes_mean=kind is rotations_of,
    )
    method = file_predictor(read_predictions(path), split, hands)
    (result,) = evaluate_predictors([method], split, hands)
    assert result.name == "exact"
    summary = summarize(result.errors)
    for protocol, metric in [("wrist_aligned", "MPVPE"), ("wrist_aligned", "MRRPE")]:
        assert summary[protocol][metric]["all"]["count"] > 0
        assert summary[protocol][metric]["all"]["value"] == pytest.approx(0, abs=1e-2)
    assert summary["scale_aligned"]["MPJPE"]["all"]["value"] == pytest.approx(0, abs=1e-2)


def test_relative_translation_follows_from_translations(exact, split, hands, tmp_path):
    ids, arrays = exact
    parameters = parameters_of(arrays)
    without = {name: parameters[name] for name in ("betas", "pose")}
    write_predictions(tmp_path / "bare.npz", ids, without, metadata=METADATA)
    bare = read_predictions(tmp_path / "bare.npz")
    assert not bare.has_rel_trans
    (result,) = evaluate_predictors([file_predictor(bare, split, hands)], split, hands)
    assert summarize(result.errors)["wrist_aligned"]["MRRPE"]["all"] == {"value": None, "count": 0}

    rng = np.random.default_rng(0)
    translation = rng.normal(0, 0.1, (len(ids), 2, 3)).astype(np.float32)
    rows = np.arange(len(ids))
    placed = dataclasses.replace(bare, arrays={**without, "translation": translation})
    origin = dataclasses.replace(bare, arrays={**without, "translation": 0 * translation})
    difference = (
        placed.reconstruct(hands, rows).rel_trans - origin.reconstruct(hands, rows).rel_trans
    )
    np.testing.assert_allclose(difference, translation[:, 1] - translation[:, 0], atol=1e-6)


def test_a_folder_of_arrays_is_the_same_file(exact, hands, tmp_path):
    ids, arrays = exact
    write_predictions(tmp_path / "one.npz", ids, meshes_of(arrays), metadata=METADATA)
    folder = tmp_path / "many"
    folder.mkdir()
    with np.load(tmp_path / "one.npz") as file:
        for name in file.files:
            np.save(folder / f"{name}.npy", file[name])
    one, many = read_predictions(tmp_path / "one.npz"), read_predictions(folder)
    rows = np.array([3, 0])
    assert many.metadata == one.metadata
    jax.tree.map(
        np.testing.assert_array_equal, one.reconstruct(hands, rows), many.reconstruct(hands, rows)
    )


def test_the_mean_pose_may_be_in_the_pose(exact, hands, tmp_path):
    ids, arrays = exact
    parameters = parameters_of(arrays)
    write_predictions(tmp_path / "a.npz", ids, parameters, metadata=METADATA)
    full = parameters["pose"].copy()
    full[..., 3:] += np.asarray(hands.mean_pose)
    write_predictions(
        tmp_path / "b.npz",
        ids,
        {**parameters, "pose": full},
        metadata=METADATA,
        pose_includes_mean=True,
    )
    rows = np.arange(len(ids))
    a, b = (
        read_predictions(tmp_path / name).reconstruct(hands, rows) for name in ("a.npz", "b.npz")
    )
    np.testing.assert_allclose(a.vertices, b.vertices, atol=1e-6)


def placed_of(arrays):
    return {name: arrays[name] for name in ("vertices", "rel_trans", "wrists")}


def opengl_rotations(arrays):
    rotations = arrays["rotations"].copy()
    rotations[:, :, 0] = np.diag(np.float32([1, -1, -1])) @ rotations[:, :, 0]
    return {**arrays, "rotations": rotations}


def swapped(arrays):
    per_hand = {k: v[:, ::-1] for k, v in arrays.items() if k != "rel_trans"}
    return {**arrays, **per_hand}


def mean_added(arrays):
    mean = np.asarray(load_hands(None).mean_pose)
    pose = arrays["pose"].copy()
    pose[..., 3:] += mean
    return {**arrays, "pose": pose}


def test_joints_alone_have_errors_of_joints_and_dashes(exact, split, hands, tmp_path):
    ids, arrays = exact
    path = tmp_path / "joints.npz"
    write_predictions(path, ids, joints_of(arrays), metadata=METADATA)
    method = file_predictor(read_predictions(path), split, hands)
    assert "no mesh" in method.metadata["joints"]
    summary = evaluated(path, split, hands)
    for protocol, metric in [
        *(("wrist_aligned", "MPJPE"), ("wrist_aligned", "MRRPE"), ("procrustes", "PA-MPJPE")),
        ("scale_aligned", "MPJPE"),
    ]:
        assert summary[protocol][metric]["all"]["count"] > 0
        assert summary[protocol][metric]["all"]["value"] == pytest.approx(0, abs=1e-2)
    for protocol, metric in [("wrist_aligned", "MPVPE"), ("wrist_aligned", "RRVE")]:
        assert summary[protocol][metric]["all"] == {"value": None, "count": 0}


@pytest.mark.parametrize("kind", [meshes_of, joints_of])
def test_the_place_and_presence_of_hands_are_taken_from_the_file(
    kind, exact, split, hands, tmp_path
):
    """And the relative translation from the wrists, where it is not given."""
    ids, arrays = exact
    content = {k: v for k, v in kind(arrays).items() if k != "rel_trans"}
    content |= {
        "wrists": arrays["wrists"] + np.float32([0, 0.006, 0.008]),
        "presence": 0.5 + 0.4 * (arrays["presence"] - 0.5),
    }
    write_predictions(tmp_path / "placed.npz", ids, content, metadata=METADATA)
    summary = evaluated(tmp_path / "placed.npz", split, hands)
    assert summary["camera_space"]["MRPE"]["all"]["value"] == pytest.approx(10, rel=1e-3)
    joints_mm = summary["camera_space"]["CS-MPJPE"]["all"]["value"]
    if kind is joints_of:  # of hands without a fit the meshes are none
        assert joints_mm == pytest.approx(10, rel=1e-3)
    assert summary["wrist_aligned"]["MRRPE"]["all"]["value"] == pytest.approx(0, abs=1e-2)
    for metric in ("accuracy", "AP", "AUC", "side_accuracy"):
        number = summary["handedness"][metric]["all"]
        assert number["value"] == 1 and number["count"] > 0
    bare = {k: v for k, v in content.items() if k not in ("wrists", "presence")}
    write_predictions(tmp_path / "bare.npz", ids, bare, metadata=METADATA)
    summary = evaluated(tmp_path / "bare.npz", split, hands)
    for protocol in ("camera_space", "handedness"):
        for metric in summary[protocol].values():
            assert metric["all"] == {"value": None, "count": 0}


def test_rotations_may_leave_the_mean_pose_out(exact, hands, tmp_path):
    ids, arrays = exact
    rotations = np.asarray(axis_angle_to_matrix(arrays["pose"].reshape(-1, 2, 16, 3)))
    content = {"betas": arrays["betas"], "rotations": rotations}
    write_predictions(tmp_path / "bent.npz", ids, content, metadata=METADATA)
    rows = np.arange(len(ids))
    found = read_predictions(tmp_path / "bent.npz").reconstruct(hands, rows)
    parameters = {name: arrays[name] for name in ("betas", "pose")}
    write_predictions(tmp_path / "pose.npz", ids, parameters, metadata=METADATA)
    same = read_predictions(tmp_path / "pose.npz").reconstruct(hands, rows)
    np.testing.assert_allclose(found.vertices, same.vertices, atol=2e-6)


def test_rotations_say_whether_the_mean_pose_is_in_them(exact, tmp_path):
    """Left out or added twice it costs no more than a poor method's error: it is not guessed."""
    ids, arrays = exact
    path = tmp_path / "unsaid.npz"
    content = {"format": np.array(FORMAT), "sample_id": ids}
    np.savez(path, **content, betas=arrays["betas"], rotations=arrays["rotations"])
    with pytest.raises(
        PredictionsError, match=r"unsaid.npz: `rotations` need `pose_includes_mean`"
    ):
        read_predictions(path)
    np.savez(path, **content, betas=arrays["betas"], pose=arrays["pose"])
    assert not read_predictions(path).pose_includes_mean


def scaled(rotation):
    return 1.02 * rotation


def reflected(rotation):
    return rotation * np.float32([-1, 1, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [(scaled, "off the identity by 0.04.*SVD"), (reflected, "reflection.*M·R·M")],
)
def test_what_is_no_rotation_is_refused_with_its_place(
    change, message, exact, split, hands, tmp_path
):
    ids, arrays = exact
    row = int(np.flatnonzero(arrays["presence"].all(1))[-1])
    for name, hand in (("there", 1), ("absent", None)):
        rotations = arrays["rotations"].copy()
        if hand is None:
            absent = arrays["presence"] < 0.5
            rotations[absent] = change(rotations[absent])
        else:
            rotations[row, hand, 3] = change(rotations[row, hand, 3])
        content = {**rotations_of(arrays), "rotations": rotations}
        path = tmp_path / f"{name}.npz"
        write_predictions(path, ids, content, metadata=METADATA, pose_includes_mean=True)
    place = rf"there.npz.*\[{row}, 1, 3\] \(sample_id {ids[row]}, left Index_3\)"
    with pytest.raises(PredictionsError, match=f"{place}.*{message}"):
        evaluated(tmp_path / "there.npz", split, hands)
    with pytest.raises(PredictionsError, match=place):
        evaluated(tmp_path / "there.npz", split, hands, trust=True)
    assert evaluated(tmp_path / "absent.npz", split, hands)["wrist_aligned"]["MPVPE"]["all"][
        "count"
    ]


@pytest.mark.parametrize("score", [-0.1, 1.5, np.nan])
def test_presence_is_a_score_of_every_hand(score, exact, tmp_path):
    ids, arrays = exact
    presence = arrays["presence"].copy()
    presence[3, 1] = score
    content = {**meshes_of(arrays), "presence": presence}
    message = rf"p.npz: `presence` is {score:g} at index \[3, 1\], sample_id {ids[3]}.*sigmoid"
    with pytest.raises(PredictionsError, match=message):
        write_predictions(tmp_path / "p.npz", ids, content, metadata=METADATA)


def in_order(names):
    """Joints as a method gives them that has them in the order of these names."""
    order = joint_order(HAND21, names)
    return lambda a: {**a, "joints": a["joints"][:, :, order]}


MISREAD = {
    "InterHand2.6M's joints": (joints_of, in_order(INTERHAND21), "another order, InterHand2.6M"),
    "MANO's joints": (joints_of, in_order((*MANO16, *TIP_VERTICES)), "another order, MANO"),
    "joints in millimetres": (joints_of, lambda a: {"joints": a["joints"] * 1000}, "millimetres"),
    "swapped joints": (joints_of, swapped, "hands are swapped"),
    "OpenGL's joints": (joints_of, lambda a: {k: v * [1, -1, -1] for k, v in a.items()}, "OpenGL"),
    "transposed": (
        rotations_of,
        lambda a: {**a, "rotations": np.swapaxes(a["rotations"], -1, -2)},
        "rotations are transposed",
    ),
    "swapped rotations": (rotations_of, swapped, "hands are swapped"),
    "OpenGL's rotations": (rotations_of, opengl_rotations, "OpenGL"),
    "mean pose left out": (rotations_of, lambda a: a, "mean pose is part of `rotations`"),
    "wrists in millimetres": (
        placed_of,
        lambda a: {**a, "wrists": a["wrists"] * 1000},
        "wrists are away from the camera.*millimetres",
    ),
    "OpenGL's wrists": (
        placed_of,
        lambda a: {**a, "wrists": a["wrists"] * [1, -1, -1]},
        "y of `wrists` pointed up",
    ),
    "millimetres": (meshes_of, lambda a: {k: v * 1000 for k, v in a.items()}, "millimetres"),
    "metres and millimetres": (
        parameters_of,
        lambda a: {**a, "rel_trans": a["rel_trans"] * 1000},
        "wrists are apart.*millimetres",
    ),
    "degrees": (parameters_of, lambda a: {**a, "pose": np.rad2deg(a["pose"])}, "degrees"),
    "swapped meshes": (meshes_of, swapped, "hands are swapped"),
    "swapped parameters": (parameters_of, swapped, "hands are swapped"),
    "OpenGL": (meshes_of, lambda a: {k: v * [1, -1, -1] for k, v in a.items()}, "OpenGL"),
    "mean pose twice": (parameters_of, mean_added, "mean pose is part of"),
    "right minus left": (
        meshes_of,
        lambda a: {**a, "rel_trans": -a["rel_trans"]},
        "right wrist minus the left",
    ),
    "NaN": (meshes_of, lambda a: {**a, "vertices": a["vertices"] * np.nan}, "NaN or infinite"),
}


@pytest.mark.parametrize("case", MISREAD)
def test_what_cannot_be_meant_is_said(case, exact, split, hands, tmp_path):
    kind, change, message = MISREAD[case]
    ids, arrays = exact
    changed = {k: np.asarray(v, np.float32) for k, v in change(kind(arrays)).items()}
    includes_mean = kind is rotations_of and not case.startswith("mean pose")
    write_predictions(
        tmp_path / "wrong.npz",
        ids,
        changed,
        metadata=METADATA,
        pose_includes_mean=includes_mean,
    )
    with pytest.raises(PredictionsError, match=f"wrong.npz.*{message}"):
        file_predictor(read_predictions(tmp_path / "wrong.npz"), split, hands)


def test_poor_predictions_are_evaluated_all_the_same(exact, split, hands, tmp_path):
    """The checks are of misreadings, not of quality."""
    ids, arrays = exact
    rng = np.random.default_rng(1)
    poor = {k: v + rng.normal(0, 0.3, v.shape) for k, v in parameters_of(arrays).items()}
    write_predictions(tmp_path / "poor.npz", ids, poor, metadata=METADATA)
    method = file_predictor(read_predictions(tmp_path / "poor.npz"), split, hands)
    (result,) = evaluate_predictors([method], split, hands)
    assert summarize(result.errors)["wrist_aligned"]["MPVPE"]["all"]["value"] > 5


def test_padding_has_no_say_in_the_checks(exact, hands, data_dir, tmp_path):
    """In a batch of 64 of eight samples the last one stands 57 times."""
    ids, arrays = exact
    split = AnnotatedSplit(data_dir, "interhand26m", "test", batch_size=64)
    last = int(np.flatnonzero(ids == split.sample_ids[-1])[0])
    meshes = meshes_of(arrays)
    right_way_round = meshes["vertices"][last].copy()
    meshes = swapped(meshes) | {"rel_trans": arrays["rel_trans"]}
    meshes["vertices"] = meshes["vertices"].copy()
    meshes["vertices"][last] = right_way_round
    write_predictions(tmp_path / "padded.npz", ids, meshes, metadata=METADATA)
    with pytest.raises(PredictionsError, match="hands are swapped"):
        file_predictor(read_predictions(tmp_path / "padded.npz"), split, hands)


def test_missing_samples_are_named(exact, split, hands, tmp_path):
    ids, arrays = exact
    some = {k: v[2:] for k, v in meshes_of(arrays).items()}
    write_predictions(tmp_path / "some.npz", ids[2:], some, metadata=METADATA)
    predictions = read_predictions(tmp_path / "some.npz")
    with pytest.raises(PredictionsError, match="no prediction for 2 samples") as error:
        file_predictor(predictions, split, hands)
    assert all(str(i) in str(error.value) for i in ids[:2])


def test_unknown_content_is_refused(exact, tmp_path):
    ids, arrays = exact
    path = tmp_path / "file.npz"
    meshes = meshes_of(arrays)
    twice = np.where(np.arange(len(ids)) == 1, ids[0], ids)
    with pytest.raises(PredictionsError, match=f"more than once, such as {ids[0]}"):
        write_predictions(path, twice, meshes, metadata=METADATA)
    parts = [("rel_trans",), ("betas",), ("vertices", "joints"), ("betas", "pose", "rotations")]
    for names in parts:
        some = {name: arrays[name] for name in names}
        message = "one of `vertices`, `joints`, .*there are " + ", ".join(sorted(names))
        with pytest.raises(PredictionsError, match=message):
            write_predictions(path, ids, some, metadata=METADATA)
    moved = {**joints_of(arrays), "translation": arrays["wrists"]}
    with pytest.raises(PredictionsError, match="`translation` goes with `betas` only"):
        write_predictions(path, ids, moved, metadata=METADATA)
    with pytest.raises(PredictionsError, match=r"`vertices` is float32 \(8, 2, 777, 3\)"):
        write_predictions(path, ids, {"vertices": arrays["vertices"][:, :, 1:]}, metadata=METADATA)
    assert not list(tmp_path.iterdir())
    np.savez(path, sample_id=ids, **meshes)
    with pytest.raises(PredictionsError, match="`format` is 'none'"):
        read_predictions(path)
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(PredictionsError, match=r"no readable \.npz"):
        read_predictions(path)


def test_rows_are_found_without_sorting_anew(tmp_path, monkeypatch):
    """A split is read in thousands of batches."""
    arrays = {
        "vertices": np.zeros((3, 2, 778, 3), np.float32),
        "rel_trans": np.zeros((3, 3), np.float32),
    }
    write_predictions(tmp_path / "p.npz", np.array([7, 3, 5]), arrays, metadata=METADATA)
    predictions = read_predictions(tmp_path / "p.npz")
    assert predictions.rows_of(np.array([3, 7])).tolist() == [1, 0]
    monkeypatch.setattr(np, "argsort", None)
    assert predictions.rows_of(np.array([5])).tolist() == [2]
