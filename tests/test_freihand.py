"""FreiHAND: its folder to records, its protocol, and the file for its server."""

import argparse
import dataclasses
import json
import re
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from freihand_tree import BACKGROUNDS, EVALUATION, SIDE, TRAINING, bones_of, joints_of, write_tree
from made_up_errors import made_up
from scipy.integrate import trapezoid
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import cKDTree

from data_pipeline.annotated_split import AnnotatedSplit
from data_pipeline.boxes import JOINT_FIELDS, joint_pixels
from data_pipeline.build import __main__ as build
from data_pipeline.datasets import REPORT, RecordSource, find_dataset
from data_pipeline.loader import make_train_loader
from data_pipeline.readers import freihand as reader
from data_pipeline.records import BOX_SOURCES, HAND_TYPES
from er_jax.commands.evaluate import run_evaluation
from er_jax.commands.train import run_training
from er_jax.configs.tiny import get_config
from er_jax.evaluation import freihand
from er_jax.evaluation.freihand import RightHands, freihand_numbers
from er_jax.mano import load_hands, mano_forward
from er_jax.mano.stand_in import stand_in_arrays
from er_jax.report.write import write_report
from er_jax.utils.errors import ConfigError, DataError

OPTIONS = ("--mano_dir=stand_in", "--val_every=4", "--workers=1")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> tuple[Path, dict]:
    """The folder, and what its annotation files hold."""
    raw_dir = tmp_path_factory.mktemp("freihand")
    return raw_dir, write_tree(raw_dir)


@pytest.fixture(scope="module")
def built(tree, tmp_path_factory) -> Path:
    data_dir = tmp_path_factory.mktemp("built")
    arguments = [f"--raw_dir={tree[0]}", f"--data_dir={data_dir}", *OPTIONS]
    assert build.main(["freihand", *arguments]) == 0
    return data_dir


@pytest.fixture
def copy(tree, tmp_path) -> Path:
    """A folder of the same files, to be changed; its pictures are links."""
    shutil.copytree(tree[0], tmp_path / "raw", copy_function=lambda a, b: Path(b).symlink_to(a))
    return tmp_path / "raw"


def request_of(raw_dir: Path, *options: str):
    parser = argparse.ArgumentParser()
    parser.add_argument("--raw_dir", type=Path, default=raw_dir)
    reader.add_arguments(parser)
    return reader.make_request(parser.parse_args([*OPTIONS[:2], *options]))


def table_of(raw_dir: Path, split: str, *options: str):
    return request_of(raw_dir, *options).read_split(split, lambda *_: None)


def rewrite(path: Path, content) -> None:
    path.unlink(missing_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def records_of(data_dir: Path, split: str) -> list[dict]:
    source = RecordSource(find_dataset(data_dir, "freihand"), split)
    records = [dict(source[i]) for i in range(len(source))]
    return sorted(records, key=lambda record: record["annotation_id"])


@pytest.mark.parametrize(("split", "folder"), [("train", "training"), ("test", "evaluation")])
def test_records_are_the_hands_that_the_files_say(tree, built, split, folder):
    raw_dir, content = tree
    said = {key: np.array(value) for key, value in content[folder].items()}
    records = records_of(built, split)
    entries = [r["annotation_id"] % len(said["K"]) for r in records]
    given = {n: np.stack([r[n][0] for r in records]) for n in ("mano_betas", "mano_pose")}
    place = np.stack([r["mano_trans_m"][0] for r in records])
    right = load_hands().hand("right")
    found = np.asarray(mano_forward(right, given["mano_betas"], given["mano_pose"], place).vertices)
    np.testing.assert_allclose(found, said["verts"][entries], atol=1e-5)

    mano = stand_in_arrays("right")
    pixels, valid = joint_pixels({n: np.stack([r[n] for r in records]) for n in JOINT_FIELDS})
    assert valid[:, 0].all() and not valid[:, 1].any()
    for row, (record, entry) in enumerate(zip(records, entries, strict=True)):
        bones = bones_of(mano, given["mano_betas"][row], given["mano_pose"][row]) + place[row]
        np.testing.assert_allclose(joints_of(bones, found[row]), said["xyz"][entry], atol=1e-5)
        np.testing.assert_allclose(
            record["joint_world_mm"][0] / 1000, said["xyz"][entry], atol=1e-6
        )
        u, v, w = said["K"][entry] @ said["xyz"][entry].T
        np.testing.assert_allclose(pixels[row, 0], np.stack([u / w, v / w], -1), atol=1e-3)
        name = f"{folder}/rgb/{record['annotation_id']:08d}.jpg"
        assert record["image"] == (raw_dir / name).read_bytes()
        assert record["file_name"].decode() == name
        assert HAND_TYPES[record["hand_type"]] == "right" and record["hand_type_valid"]
        assert record["mano_valid"].tolist() == [True, False]
        assert record["joint_valid_view"][0].all() and not record["joint_valid_view"][1].any()
        assert record["bbox_px"].tolist() == [0, 0, SIDE, SIDE]
        assert BOX_SOURCES[record["bbox_source"]] == "given"


def test_validation_has_whole_moments_with_all_their_backgrounds(tree, built):
    raw_dir, content = tree
    fingers = [tuple(entry[0][3:58]) for entry in content["training"]["mano"]]
    ids = {
        split: [r["annotation_id"] for r in records_of(built, split)] for split in ("train", "val")
    }
    assert sorted(ids["train"] + ids["val"]) == list(range(TRAINING * BACKGROUNDS))
    of_train, of_val = ({fingers[i % TRAINING] for i in ids[split]} for split in ("train", "val"))
    assert len(of_val) == 1 and len(of_train) == 3 and not of_val & of_train
    assert len(ids["val"]) == 2 * BACKGROUNDS
    assert request_of(raw_dir, "--val_every=0").splits == ("train", "test")
    names = {r["seq_name"].decode() for r in records_of(built, "val")}
    assert names == {"gs", "hom", "sample", "auto"}


def test_some_backgrounds(tree):
    request = request_of(tree[0], "--backgrounds=auto,hom", "--val_every=0")
    assert request.config == "hom-auto"
    found = request.read_split("train", lambda *_: None)
    ids = [int(i) for i in found.table.columns["annotation_id"]]
    assert ids == [*range(TRAINING, 2 * TRAINING), *range(3 * TRAINING, 4 * TRAINING)]
    assert found.part == "backgrounds hom, auto of gs, hom, sample, auto"
    with pytest.raises(DataError, match="'white' is none of gs, hom, sample, auto"):
        request_of(tree[0], "--backgrounds=gs,white")


def test_boxes_around_the_joints(tree):
    columns = table_of(tree[0], "test", "--box=joints").table.columns
    assert {BOX_SOURCES[i] for i in columns["bbox_source"]} == {"joints"}
    assert (columns["bbox_px"][:, 2] < SIDE).all()


def test_evaluation_of_which_less_was_published(tree, copy):
    verts = np.array(tree[1]["evaluation"]["verts"])
    (copy / "evaluation_mano.json").unlink()
    table = table_of(copy, "test").table
    np.testing.assert_allclose(table.columns["mano_vertices_m"][:, 0], verts, atol=1e-6)
    assert "evaluation_verts.json" in request_of(copy).source_files
    assert not table.columns["mano_valid"][:].any()
    for key in ("verts", "xyz"):
        (copy / f"evaluation_{key}.json").unlink()
    bare = table_of(copy, "test")
    assert len(bare.table) == EVALUATION and "predicted on, not evaluated" in bare.notes[0]
    assert not bare.table.columns["joint_valid_world"][:].any()
    (copy / "evaluation_K.json").unlink()
    assert request_of(copy).splits == ("train", "val")
    (copy / "training_K.json").unlink()
    with pytest.raises(DataError, match=r"neither training_K\.json nor evaluation_K\.json"):
        request_of(copy)


def _without(key):
    def change(raw_dir: Path, content: dict) -> None:
        (raw_dir / f"training_{key}.json").unlink()

    return change


def _changed(key, change):
    def apply(raw_dir: Path, content: dict) -> None:
        rewrite(raw_dir / f"training_{key}.json", change(content["training"][key]))

    return apply


def _with_mean_pose(mano: list) -> list:
    mean = stand_in_arrays("right")["hands_mean"]
    return [[[*e[0][:3], *(np.array(e[0][3:48]) + mean), *e[0][48:]]] for e in mano]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("xyz"), r"training_xyz\.json: cannot be read \(No such file"),
        (
            _changed("xyz", lambda x: x[:-1]),
            "training_xyz.json has 7 entries and training_K.json 8",
        ),
        (
            _changed("K", lambda x: json.dumps(x)[:-9]),
            r"training_K\.json: no valid list in JSON .*cut",
        ),
        (_changed("K", lambda x: {"a": 1}), r"training_K\.json: no valid list in JSON"),
        (
            _changed("mano", lambda x: [*x[:3], [x[3][0][:-1]], *x[4:]]),
            r"training_mano\.json: entry 3 has 60 numbers instead of 61",
        ),
        (
            _changed("xyz", lambda x: [[[1.0], [2.0, 3.0]], *x[1:]]),
            r"training_xyz\.json: entry 0 has no regular list of numbers instead of 21×3",
        ),
        (
            _changed("xyz", lambda x: [*x[:5], [[None, 0, 0], *x[5][1:]], *x[6:]]),
            r"training_xyz\.json: entry 5 has a value that is no number",
        ),
        (
            _changed("mano", lambda x: [[[*x[0][0][:60], 0.0]], *x[1:]]),
            r"training_mano\.json: entry 0 has the scale 0",
        ),
        (_changed("mano", _with_mean_pose), r"typically \d+ mm from those of training_xyz\.json"),
        (
            lambda raw_dir, _: (raw_dir / "training/rgb/00000031.jpg").unlink(),
            r"00000031\.jpg is missing, of 8 pictures of 'auto' .* --backgrounds",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(tree, copy, change, said):
    change(copy, tree[1])
    with pytest.raises(DataError, match=said):
        table_of(copy, "train")


# The protocol


def server_scores(pred: list, xyz: list, verts: list) -> dict[str, float]:
    """FreiHAND's numbers, a hand and a point at a time, by SciPy in float64; centimetres."""
    curves = np.linspace(0.0, 0.05, 100)

    def moved(truth: np.ndarray, points: np.ndarray) -> np.ndarray:
        a, b = truth - truth.mean(0), points - points.mean(0)
        size_a, size_b = np.linalg.norm(a) + 1e-8, np.linalg.norm(b) + 1e-8
        turn, scale = orthogonal_procrustes(a / size_a, b / size_b)
        return (b / size_b) @ turn.T * scale * size_a + truth.mean(0)

    def of_points(name: str, letter: str, predicted: list, truth: list) -> dict[str, float]:
        off = np.linalg.norm(np.array(predicted) - np.array(truth), axis=-1)
        areas = [
            trapezoid([(off[:, point] <= t).mean() for t in curves], curves) / curves[-1]
            for point in range(off.shape[1])
        ]
        return {name: 100 * off.mean(0).mean(), letter: float(np.mean(areas))}

    def score(points: np.ndarray, truth: np.ndarray, limit: float) -> float:
        precision = (cKDTree(truth).query(points)[0] < limit).mean()
        recall = (cKDTree(points).query(truth)[0] < limit).mean()
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    truths = [np.array(xyz), np.array(verts)]
    given = [np.array(pred[0]), np.array(pred[1])]
    after = [
        np.array([moved(t, p) for t, p in zip(*pair, strict=True)])
        for pair in zip(truths, given, strict=True)
    ]
    scores: dict[str, float] = {}
    for prefix, points in (("", given), ("PA-", after)):
        scores |= of_points(f"{prefix}MPJPE", f"{prefix}AUC-J", points[0], truths[0])
        scores |= of_points(f"{prefix}MPVPE", f"{prefix}AUC-V", points[1], truths[1])
        for mm in (5, 15):
            each = [score(p, t, mm / 1000) for p, t in zip(points[1], truths[1], strict=True)]
            scores[f"{prefix}F@{mm}"] = float(np.mean(each))
    return scores


def values_of(numbers: dict) -> dict[str, float]:
    return {name: subsets["all"]["value"] for name, subsets in numbers.items()}


@pytest.fixture
def split(built) -> AnnotatedSplit:
    return AnnotatedSplit(built, "freihand/all", "test")


def parameters_of(built: Path) -> dict[str, np.ndarray]:
    """What a network would put out that is right, in another order than that of the pictures."""
    records = records_of(built, "test")[::-1]
    found = {n: np.stack([r[f"mano_{n}"] for r in records]) for n in ("betas", "pose", "trans_m")}
    mesh = mano_forward(load_hands(), found["betas"], found["pose"], found["trans_m"])
    ids = np.array([r["annotation_id"] for r in records])
    wrists = np.asarray(mesh.joints)[:, :, 0]
    return {"sample_id": ids, "betas": found["betas"], "pose": found["pose"], "wrists": wrists}


def test_the_truth_predicted_has_no_error(tree, built, split):
    predicted = freihand.predicted_hands(load_hands(), parameters_of(built))
    said = tree[1]["evaluation"]
    np.testing.assert_array_equal(predicted.sample_id, range(EVALUATION))
    np.testing.assert_allclose(predicted.joints, said["xyz"], atol=1e-5)
    np.testing.assert_allclose(predicted.vertices, said["verts"], atol=1e-5)
    numbers = freihand_numbers(predicted, split, load_hands())
    for name, value in values_of(numbers).items():
        assert value == pytest.approx(1 if "AUC" in name or "F@" in name else 0, abs=0.01), name
    assert numbers["PA-MPJPE"]["all"]["count"] == EVALUATION
    assert numbers["PA-MPJPE"]["interacting"]["count"] == 0


@pytest.mark.parametrize("spread_m", [0.002, 0.03])
def test_numbers_are_those_of_its_server(tree, split, tmp_path, spread_m):
    """Of hands that are turned, shifted, noisy, one of them mirrored, one a single point."""
    random = np.random.default_rng(0)
    said = {key: np.array(tree[1]["evaluation"][key]) for key in ("xyz", "verts")}

    def spoiled(points: np.ndarray) -> np.ndarray:
        points = 1.1 * points + random.normal(0, spread_m, points.shape) + [0.003, 0.004, 0.03]
        points[1, :, 0] *= -1
        points[2] = 0
        return points

    predicted = RightHands(np.arange(EVALUATION), spoiled(said["xyz"]), spoiled(said["verts"]))
    path = tmp_path / "out" / "pred.zip"
    freihand.write_submission(path, predicted, split)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["pred.json"]
        pred = json.loads(archive.read("pred.json"))
    for part, whole in zip(pred, (predicted.joints, predicted.vertices), strict=True):
        np.testing.assert_allclose(part, whole, atol=6e-7)
    of_server = server_scores(pred, said["xyz"], said["verts"])
    found = values_of(freihand_numbers(predicted, split, load_hands()))
    assert found.keys() == of_server.keys()
    for name, value in of_server.items():
        if "MP" in name:
            assert found[name] == pytest.approx(10 * value, rel=1e-4), name
        else:
            assert found[name] == pytest.approx(value, abs=1e-3), name
    assert 0.01 < of_server["PA-F@5"] < 0.99


def test_evaluation_given_by_vertices_counts_the_same(tree, copy, built, split, tmp_path):
    (copy / "evaluation_mano.json").unlink()
    arguments = [f"--raw_dir={copy}", f"--data_dir={tmp_path}", *OPTIONS]
    assert build.main(["freihand", *arguments]) == 0
    truth = freihand.predicted_hands(load_hands(), parameters_of(built))
    shifted = dataclasses.replace(truth, vertices=truth.vertices + np.float32(0.004))
    expected = values_of(freihand_numbers(shifted, split, load_hands()))
    found = freihand_numbers(shifted, dataclasses.replace(split, data_dir=tmp_path), load_hands())
    assert expected["MPVPE"] == pytest.approx(4 * 3**0.5, rel=1e-3)
    for name, value in values_of(found).items():
        assert value == pytest.approx(expected[name], abs=5e-3), name


def test_evaluation_without_annotations_is_predicted_on(copy, built, split, tmp_path):
    for key in ("mano", "verts", "xyz"):
        (copy / f"evaluation_{key}.json").unlink()
    assert build.main(["freihand", f"--raw_dir={copy}", f"--data_dir={tmp_path}", *OPTIONS]) == 0
    bare = dataclasses.replace(split, data_dir=tmp_path)
    predicted = freihand.predicted_hands(load_hands(), parameters_of(built))
    with warnings.catch_warnings(action="error"):
        numbers = freihand_numbers(predicted, bare, load_hands())
    assert values_of(numbers) == dict.fromkeys(numbers)
    freihand.write_submission(tmp_path / "pred.zip", predicted, bare)
    assert (tmp_path / "pred.zip").exists()


def test_what_cannot_be_submitted_is_refused(built, split, tmp_path):
    truth = freihand.predicted_hands(load_hands(), parameters_of(built))
    part = RightHands(truth.sample_id[:-1], truth.joints[:-1], truth.vertices[:-1])
    with pytest.raises(DataError, match=r"1 of 4 pictures .* such as 00000003\.jpg"):
        freihand.write_submission(tmp_path / "pred.zip", part, split)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="sample 3 of the split was not predicted"):
        freihand_numbers(part, split, load_hands())
    with pytest.raises(ConfigError, match="not for split 'val' of freihand/all"):
        freihand.check_submittable(dataclasses.replace(split, split="val"))


def test_its_protocol_stands_in_the_report_of_the_network_alone(built, split, tmp_path):
    truth = freihand.predicted_hands(load_hands(), parameters_of(built))
    shifted = dataclasses.replace(truth, vertices=truth.vertices + np.float32(0.004))
    more = {freihand.PROTOCOL: freihand_numbers(shifted, split, load_hands())}
    page = write_report(
        tmp_path,
        "A report",
        [made_up("network")],
        baselines=[made_up("mean pose", worse_mm=5)],
        hands=load_hands(),
        more=more,
    )
    rows = [row.split(",") for row in page.with_name("numbers.csv").read_text().splitlines()]
    found = {(row[0], row[2], row[3]): row[5:] for row in rows if row[1] == "freihand"}
    assert {name for name, _, _ in found} == {"network"}
    assert float(found["network", "MPVPE", "all"][0]) == pytest.approx(4 * 3**0.5, rel=1e-3)
    assert found["network", "MPVPE", "all"][1] == str(EVALUATION)
    text = page.read_text()
    assert "<h3>freihand</h3>" in text and "server counts, which prints centimetres" in text
    cells = dict(re.findall(r"<td>(\S+) <small>all</small></td>\s*<td>([^<]+)<br>", text))
    assert cells["MPVPE"] == "6.93"


def test_it_is_trained_on_beside_interhand26m(built, data_dir, tmp_path):
    for folder, name in ((built, "freihand"), (data_dir, "interhand26m")):
        (tmp_path / name).symlink_to(folder / name)
    shares = {"interhand26m/all": 1, "freihand/all": 1}
    batch = next(make_train_loader(tmp_path, shares, batch_size=8, seed=0, input_size=32))
    assert (batch["focal_px"] < 600).all(axis=1).sum() == 4  # FreiHAND's, drawn with 440 to 520


@pytest.mark.slow
def test_trained_evaluated_and_submitted(tree, built, tmp_path):
    config = get_config()
    config.data_dir = str(built)
    config.data.dataset = "freihand/all"
    config.data.validation_split = "val"
    assert run_training(config, tmp_path / "run", (0, 0), allow_changes=False).finished
    submission = tmp_path / "pred.zip"
    results = run_evaluation(config, tmp_path / "run", step=None, split=None, submission=submission)
    numbers = json.loads(results.read_text())["results"]["network"]
    with zipfile.ZipFile(submission) as archive:
        pred = json.loads(archive.read("pred.json"))
    assert np.shape(pred[0]) == (EVALUATION, 21, 3) and np.shape(pred[1]) == (EVALUATION, 778, 3)
    said = tree[1]["evaluation"]
    of_server = server_scores(pred, said["xyz"], said["verts"])
    for name, value in of_server.items():
        found = numbers["freihand"][name]["all"]["value"]
        if "MP" in name:
            assert found == pytest.approx(10 * value, rel=1e-3), name
        else:
            assert found == pytest.approx(value, abs=2e-3), name
    of_mesh = numbers["procrustes"]["PA-MPVPE"]["all"]["value"]
    assert numbers["freihand"]["PA-MPVPE"]["all"]["value"] == pytest.approx(of_mesh, rel=1e-3)
    (page,) = results.parent.glob("*/report.html")
    assert (
        "FreiHAND&#39;s server counts" in page.read_text()
        or "FreiHAND's server" in page.read_text()
    )
    assert "freihand,PA-MPVPE,all" in page.with_name("numbers.csv").read_text()
    config.data.dataset = "interhand26m/all"
    with pytest.raises(ConfigError, match="--submission is for FreiHAND's evaluation"):
        run_evaluation(config, tmp_path / "run", step=None, split=None, submission=submission)


def test_report_of_the_build_says_how_far_its_sources_are_apart(built):
    report = json.loads((find_dataset(built, "freihand") / REPORT).read_text())
    assert report["splits"]["train"]["notes"] == [
        "joints of the MANO parameters are 0.00 mm (median of hands) from training_xyz.json"
    ]
