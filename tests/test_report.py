"""Reports: breakdowns, comparisons and files, from errors made up and from a dataset."""

import csv
import dataclasses
import html.parser
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from exported import exported_truth
from made_up_errors import PROVENANCE, made_up

from data_pipeline.annotated_split import AnnotatedSplit, Labels
from er_jax.commands.compare import report_on
from er_jax.evaluation.bootstrap import COMPARED, compare, metric_sums
from er_jax.evaluation.breakdowns import breakdowns
from er_jax.evaluation.calibration import calibrated, reliability
from er_jax.evaluation.predictions_file import write_predictions
from er_jax.evaluation.results import evaluated, load_errors, paired, save_errors
from er_jax.evaluation.summary import select, summarize
from er_jax.mano import load_hands
from er_jax.report.tables import csv_table, markdown_row
from er_jax.report.write import write_report


@pytest.fixture(scope="module")
def hands():
    return load_hands(None)


def test_labels_come_into_the_order_of_the_errors():
    predictor = made_up()
    np.testing.assert_array_equal(predictor.labels.sample_id, predictor.sample_id)
    assert predictor.provenance["box_sources"] == {"rootnet": 60}
    assert predictor.provenance["samples"] == 60
    stranger = Labels(*(column[:-1] for column in vars(predictor.labels).values()))
    with pytest.raises(ValueError, match=str(predictor.sample_id[-1])):
        evaluated("method", predictor.errors, stranger, PROVENANCE)


def test_errors_files_give_back_what_was_saved(tmp_path):
    predictor = made_up()
    save_errors(tmp_path / "m.errors.npz", predictor)
    again = load_errors(tmp_path / "m.errors.npz")
    assert (again.name, again.provenance) == (predictor.name, predictor.provenance)
    expected = summarize(predictor.errors, predictor.labels)
    assert summarize(again.errors, again.labels) == expected
    np.testing.assert_array_equal(again.errors.joint_spread, predictor.errors.joint_spread)
    bare = dataclasses.replace(
        predictor.errors, camera_space=None, presence=None, joint_spread=None, f_score=None
    )
    save_errors(tmp_path / "bare.errors.npz", dataclasses.replace(predictor, errors=bare))
    found = load_errors(tmp_path / "bare.errors.npz").errors
    assert found.camera_space is found.presence is found.joint_spread is found.f_score is None
    np.testing.assert_array_equal(again.labels.sequence, predictor.labels.sequence)
    np.savez(tmp_path / "other.errors.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="no file of errors"):
        load_errors(tmp_path / "other.errors.npz")
    metadata = np.array(json.dumps({"format": "er_jax errors 1"}))
    np.savez(tmp_path / "old.errors.npz", metadata=metadata)
    with pytest.raises(ValueError, match="but 'er_jax errors 1': evaluate again"):
        load_errors(tmp_path / "old.errors.npz")


def test_groups_are_the_summaries_of_their_samples():
    predictor = made_up(count=300)
    parts = {part.attribute: part for part in breakdowns(predictor)}
    overlap = np.asarray(predictor.errors.attributes.hand_overlap)
    chosen = (overlap >= 0.1) & (overlap < 0.25)
    group = parts["hand_overlap"].groups["0.1–0.25"]
    expected = summarize(select(predictor.errors, chosen))
    assert group["samples"] == chosen.sum()
    number = expected["scale_aligned"]["MPJPE"]["all"]
    assert group["scale_aligned/MPJPE/all"] == {k: number[k] for k in ("value", "count")}
    both = np.isfinite(overlap).sum()
    for attribute, total in [("hand_overlap", both), ("wrist_distance_mm", both), ("camera", 300)]:
        assert sum(group["samples"] for group in parts[attribute].groups.values()) == total
    assert sum(group["samples"] for group in parts["visible_share"].groups.values()) == 300
    assert "box_source" not in parts  # all samples have the same


@pytest.mark.parametrize("metric", COMPARED)
def test_compared_numbers_are_those_of_the_summary(metric):
    predictor = made_up()
    totals, counts = metric_sums(predictor.errors, metric)
    with np.errstate(invalid="ignore"):
        value = np.nanmean(totals.sum(0) / counts.sum(0))
    protocol, name, subset = metric.split("/")
    number = summarize(predictor.errors)[protocol][name][subset]
    assert value == pytest.approx(number["value"], rel=1e-9)
    assert counts.any(1).sum() == number["count"]


def test_intervals_agree_with_the_bootstrap_written_out():
    predictors = [made_up("a"), made_up("b", worse_mm=0.3)]
    metric = "wrist_aligned/MPVPE/all"
    result = compare(predictors, resamples=300)
    names, group = np.unique(predictors[0].labels.sequence, return_inverse=True)
    random = np.random.default_rng(0)
    draws = random.integers(len(names), size=(300, len(names)))
    differences = []
    for draw in draws:
        samples = np.concatenate([np.flatnonzero(group == unit) for unit in draw])
        means = []
        for predictor in predictors:
            hands = predictor.errors.wrist_aligned
            values = np.asarray(hands.vertex_mm, float)[samples]
            means.append(values[np.asarray(hands.vertex_valid)[samples]].mean())
        differences.append(means[1] - means[0])
    interval = result.differences[metric][0]
    np.testing.assert_allclose(
        [interval.low, interval.high], np.quantile(differences, [0.025, 0.975]), rtol=1e-9
    )
    assert (result.unit, result.units, result.samples) == ("sequence", 12, 60)


def test_a_clear_difference_excludes_zero_and_none_does_not():
    reference, same, worse = made_up("a"), made_up("b"), made_up("c", worse_mm=4)
    result = compare([reference, same, worse], resamples=200)
    for same_interval, worse_interval in result.differences.values():
        assert (same_interval.value, same_interval.low, same_interval.high) == (0, 0, 0)
        assert worse_interval.excludes_zero


def test_intervals_hold_the_true_value_about_as_often_as_they_say():
    """Of sequences drawn from a known population; independent frames would be far too sure."""
    truth = 8 + 3 * 0.5
    held = 0
    for seed in range(30):
        predictor = made_up(seed=seed, count=150, sequences=30)
        interval = compare([predictor, predictor], resamples=100).values["wrist_aligned/MPVPE/all"][
            0
        ]
        held += interval.low <= truth <= interval.high
    assert held >= 25


def test_only_common_samples_are_paired_and_only_of_one_dataset():
    a, b = made_up("a"), made_up("b")
    part = select(b.errors, np.arange(40)[::-1])
    short = evaluated("b", part, b.labels, PROVENANCE)
    first, second = paired([a, short])
    np.testing.assert_array_equal(first.sample_id, second.sample_id)
    assert set(first.sample_id) == set(short.sample_id)
    other = evaluated("c", b.errors, b.labels, {**PROVENANCE, "split": "val"})
    with pytest.raises(ValueError, match="their split differs"):
        paired([a, other])


def test_tables_hold_the_same_numbers():
    predictor = made_up()
    summary, parts = summarize(predictor.errors), breakdowns(predictor)
    rows = list(csv.DictReader(csv_table({"m": summary}, {"m": parts}).splitlines()))

    def value(metric, group=""):
        protocol, name, subset = metric.split("/")
        (row,) = (
            r
            for r in rows
            if (r["protocol"], r["metric"], r["subset"], r["group"])
            == (protocol, name, subset, group)
        )
        return float(row["value"])

    mpjpe = summary["scale_aligned"]["MPJPE"]["single"]
    assert value("scale_aligned/MPJPE/single") == mpjpe["value"]
    assert value("scale_aligned/MPJPE/single", "left Thumb_4") == mpjpe["per_joint"][25]
    camera = next(part for part in parts if part.attribute == "camera").groups["400262"]
    metric = "wrist_aligned/MPVPE/all"
    assert value(metric, "camera: 400262") == camera[metric]["value"]
    cells = markdown_row({"m": summary}, "made up").splitlines()[-1].strip("| ").split(" | ")
    assert cells[:2] == ["m", "60"]
    assert float(cells[2]) == pytest.approx(
        summary["scale_aligned"]["MPJPE"]["all"]["value"], abs=0.01
    )


class Page(html.parser.HTMLParser):
    """Makes sure that tags are closed in order and that nothing is fetched."""

    void = frozenset({"meta", "img", "br", "use", "path", "rect"})

    def __init__(self):
        super().__init__()
        self.open, self.images = [], 0

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:", "#")), value
        self.images += tag == "img"
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag


def test_reports_without_some_subsets_or_images(hands, tmp_path):
    """A dataset of single hands has no interacting sample and no relative translation."""
    predictor = made_up("<a> & b")
    single = select(predictor.errors, np.asarray(predictor.errors.attributes.hand_type) != 2)
    predictor = evaluated(predictor.name, single, predictor.labels, PROVENANCE)
    page = write_report(tmp_path, "A & B", [predictor], hands=hands)
    parser = Page()
    parser.feed(page.read_text())
    assert not parser.open
    assert "&lt;a&gt; &amp; b" in page.read_text()
    numbers = json.loads((tmp_path / "numbers.json").read_text())["results"]["<a> & b"]
    assert numbers["wrist_aligned"]["RRVE"]["all"] == {"value": None, "count": 0}
    with pytest.raises(ValueError, match="two predictors have one name"):
        write_report(tmp_path, "twice", [predictor, predictor], hands=hands)


def test_a_report_says_how_sure_the_joints_are(hands, tmp_path):
    predictor = made_up("sure")
    confidence = calibrated(predictor.errors)
    page = write_report(tmp_path, "Sure", [predictor], hands=hands, confidence=confidence)
    parser = Page()
    parser.feed(page.read_text())
    assert not parser.open
    assert "joints left out [%]" in page.read_text()
    found = json.loads((tmp_path / "numbers.json").read_text())["confidence"]
    expected = reliability(confidence, predictor.errors)
    assert found["kept_mm"] == expected.kept_mm
    assert f"<td>{expected.kept_mm[-1]:.2f}</td>" in page.read_text()
    silent = write_report(tmp_path, "Silent", [predictor], hands=hands)
    assert "does not say how sure it is" in silent.read_text()
    assert json.loads((tmp_path / "numbers.json").read_text())["confidence"] is None


@pytest.fixture(scope="module")
def files(data_dir, hands, tmp_path_factory):
    """Predictions of the small dataset, a good and a poor predictor's."""
    folder = tmp_path_factory.mktemp("predictions")
    ids, arrays = exported_truth(AnnotatedSplit(data_dir, "interhand26m", "test", 8), hands)
    rng = np.random.default_rng(0)
    for name, noise in [("good", 0.05), ("poor", 0.4)]:
        pose = arrays["pose"] + rng.normal(0, noise, arrays["pose"].shape)
        content = {"betas": arrays["betas"], "pose": pose, "rel_trans": arrays["rel_trans"]}
        write_predictions(folder / f"{name}.npz", ids, content, metadata={"method": name})
    return folder


def test_report_on_predictions_and_baselines(data_dir, files, hands, tmp_path):
    split, train = (AnnotatedSplit(data_dir, "interhand26m", s, 8) for s in ("test", "train"))
    names = [str(files / "good.npz"), str(files / "poor.npz")]
    page = report_on(names, split, train, hands, tmp_path)
    assert page.stat().st_size < 5e6
    parser = Page()
    parser.feed(page.read_text())
    assert not parser.open
    assert parser.images >= 3
    assert not re.search(r"\bnan\b", page.read_text(), re.IGNORECASE)
    numbers = json.loads((page.parent / "numbers.json").read_text())
    assert list(numbers["results"]) == ["good", "poor", "rest pose", "mean pose and shape"]
    errors = {
        name: result["wrist_aligned"]["MPVPE"]["all"]["value"]
        for name, result in numbers["results"].items()
    }
    assert errors["good"] < errors["poor"] < errors["rest pose"]
    assert numbers["provenance"]["good"]["samples"] == 8
    again = load_errors(page.parent / "good.errors.npz")
    assert summarize(again.errors)["wrist_aligned"]["MPVPE"]["all"]["value"] == errors["good"]


def test_report_on_joints_beside_meshes(data_dir, files, hands, tmp_path):
    split, train = (AnnotatedSplit(data_dir, "interhand26m", s, 8) for s in ("test", "train"))
    ids, arrays = exported_truth(split, hands)
    joints = arrays["joints"] + np.random.default_rng(0).normal(0, 0.01, arrays["joints"].shape)
    content = {"joints": joints, "presence": arrays["presence"]}
    write_predictions(tmp_path / "joints.npz", ids, content, metadata={"method": "joints"})
    names = [str(tmp_path / "joints.npz"), str(files / "good.npz")]
    page = report_on(names, split, train, hands, tmp_path / "report")
    text = " ".join(page.read_text().split())
    assert "There are no images" in text
    assert "it has no mesh" in text
    assert re.search(r"MPVPE <small>all</small></td><td>–<br><small>0</small></td><td>\d", text)
    assert re.search(r"accuracy <small>all</small></td><td>1.000<br>.*?<td>–<br>", text)
    row = (page.parent / "row.md").read_text().splitlines()[-4]
    assert re.fullmatch(r"\| joints \| 8 \| [\d.]+ \| – \| [\d.]+ \| – \| – .* \| 1.000 \|", row)
    comparison = json.loads((page.parent / "numbers.json").read_text())["comparison"]
    assert "scale_aligned/MPJPE/all" in comparison["values"]
    assert "scale_aligned/MPVPE/all" not in comparison["values"]


def test_runs_are_compared_by_their_newest_evaluation(data_dir, files, hands, tmp_path):
    split, train = (AnnotatedSplit(data_dir, "interhand26m", s, 8) for s in ("test", "train"))
    report_on([str(files / "good.npz")], split, train, hands, tmp_path / "report")
    runs = [tmp_path / name for name in ("a", "b")]
    runs[0].mkdir()
    with pytest.raises(FileNotFoundError, match="a was not evaluated on interhand26m, test"):
        report_on([str(runs[0])], split, train, hands, tmp_path / "none")
    for run in runs:
        folder = run / "evaluation" / "interhand26m-test-7"
        folder.mkdir(parents=True)
        shutil.copy(tmp_path / "report" / "good.errors.npz", folder)
    report_on([str(run) for run in runs], split, train, hands, tmp_path / "both")
    comparison = json.loads((tmp_path / "both" / "numbers.json").read_text())["comparison"]
    assert comparison["names"] == [f"good ({run})" for run in runs]


@pytest.mark.slow
def test_command_line(data_dir, files, tmp_path):
    command = [sys.executable, "-m", "er_jax.commands.compare", f"--data_dir={data_dir}"]
    command += [f"--predictions={files}/poor.npz", f"--output={tmp_path}/first"]
    subprocess.run(command, check=True)
    command[-2:] = [f"--compare={files}/good.npz", f"{tmp_path}/first/poor.errors.npz"]
    subprocess.run([*command, f"--output={tmp_path}/second"], check=True)
    numbers = json.loads((tmp_path / "second" / "numbers.json").read_text())
    assert numbers["comparison"]["names"] == ["good", "poor"]
