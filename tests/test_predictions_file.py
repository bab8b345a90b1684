"""Predictions files: round trips, and recognition of what cannot be meant."""

import dataclasses

import jax
import numpy as np
import pytest
from exported import exported_truth

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax.evaluation.predictions_file import PredictionsError, read_predictions, write_predictions
from er_jax.evaluation.predictors import evaluate_predictors, file_predictor
from er_jax.evaluation.summary import summarize
from er_jax.mano import load_hands

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


@pytest.mark.parametrize("kind", [meshes_of, parameters_of])
def test_the_truth_has_no_error(kind, exact, split, hands, tmp_path):
    ids, arrays = exact
    path = tmp_path / "exact.npz"
    write_predictions(
        path, ids[::-1], {k: v[::-1] for k, v in kind(arrays).items()}, metadata=METADATA
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


def swapped(arrays):
    per_hand = {k: v[:, ::-1] for k, v in arrays.items() if k != "rel_trans"}
    return {**arrays, **per_hand}


def mean_added(arrays):
    mean = np.asarray(load_hands(None).mean_pose)
    pose = arrays["pose"].copy()
    pose[..., 3:] += mean
    return {**arrays, "pose": pose}


MISREAD = {
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
    write_predictions(tmp_path / "wrong.npz", ids, changed, metadata=METADATA)
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
    with pytest.raises(PredictionsError, match="either `vertices`, or `betas` and `pose`"):
        write_predictions(path, ids, {"rel_trans": arrays["rel_trans"]}, metadata=METADATA)
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
