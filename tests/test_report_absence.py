"""Reports of whatever is absent, and of names that are anybody's: a page without any warning."""

import dataclasses
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from exported import exported_truth
from made_up_errors import PROVENANCE, made_up

from data_pipeline.annotated_split import AnnotatedSplit, Labels, Sample
from er_jax.commands.compare import report_on
from er_jax.evaluation.bootstrap import Interval, compare
from er_jax.evaluation.breakdowns import Breakdown
from er_jax.evaluation.predictions_file import PredictionsError, read_predictions, write_predictions
from er_jax.evaluation.results import Evaluated, evaluated
from er_jax.evaluation.summary import select, summarize
from er_jax.mano import HandModel, load_hands
from er_jax.report.charts import breakdown_chart, draw_hands, hand_chart, pck_chart, seeds_chart
from er_jax.report.sample_images import SampleImage, ranked, sample_images
from er_jax.report.tables import markdown_row
from er_jax.report.write import write_report

HOSTILE = "<script>alert('1')</script>\"&"
NAMES = [
    "a$b_{c$",
    "$\\undefined$",
    "_hidden",
    "手の再構成",
    "line\nbreak | --> \t",
    "long " * 80,
    HOSTILE,
    "half \ud800 a pair, and \x00\x07",
    "",
]


@pytest.fixture(scope="module")
def hands() -> HandModel:
    return load_hands(None)


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def page_of(folder: Path, hands: HandModel, *predictors: Evaluated, **others) -> str:
    """The page as one line, so that sentences can be found in it."""
    page = write_report(folder, "A report", predictors, hands=hands, **others)
    return " ".join(page.read_text().split())


def without(predictor: Evaluated, *, joints: bool = False, meshes: bool = False) -> Evaluated:
    """The predictor with some errors not valid, of joints or of meshes.

    Without either it says nothing of where hands are and which are there.
    """

    def emptied(path: tuple, values: np.ndarray) -> np.ndarray:
        name = jax.tree_util.keystr(path)
        kinds = [("joint_", joints), ("rel_trans_", joints), ("vert", meshes)]
        gone = any(kind in name and absent for kind, absent in kinds)
        return np.zeros_like(values) if gone else values

    errors = jax.tree_util.tree_map_with_path(emptied, predictor.errors)
    if joints and meshes:
        errors = dataclasses.replace(errors, camera_space=None, presence=None)
    return dataclasses.replace(predictor, errors=errors)


def named(predictor: Evaluated, name: str) -> Evaluated:
    return dataclasses.replace(predictor, name=name)


def test_nothing_of_a_stranger_s_file_is_html(hands, tmp_path):
    count = 40
    predictor = made_up(HOSTILE, count=count)
    labels = Labels(
        predictor.labels.sample_id,
        np.array([f"{HOSTILE} {i % 2}" for i in range(count)]),
        np.array([f"{HOSTILE} {i % 3}" for i in range(count)]),
        np.array([f"{HOSTILE} {i % 2}" for i in range(count)]),
        predictor.labels.frame,
    )
    metadata = dict.fromkeys(("dataset", "split", "checkpoint_step", "hand_model"), HOSTILE)
    metadata |= {HOSTILE: {HOSTILE: [HOSTILE]}}
    predictor = evaluated(HOSTILE, predictor.errors, labels, metadata)
    other = named(predictor, f"--><img src=x> {HOSTILE}")
    image = SampleImage(HOSTILE, HOSTILE, b"jpeg")
    page = write_report(
        tmp_path, HOSTILE, [predictor, other], hands=hands, baselines=(), images=[image]
    )
    text = page.read_text()
    assert "&lt;script&gt;" in text
    assert "<script" not in text.lower() and "<img src=x" not in text
    assert text.count("<img") == 1


def test_names_are_not_read_as_anything_by_charts(hands, tmp_path):
    predictors = [made_up(name, count=60) for name in NAMES]
    labels = dataclasses.replace(
        predictors[0].labels, sequence=np.array([NAMES[i % len(NAMES)] for i in range(60)])
    )
    predictors = [dataclasses.replace(predictor, labels=labels) for predictor in predictors]
    text = page_of(tmp_path, hands, *predictors)
    assert text.count("a$b_{c$") > 5
    assert all(f"> {name}</text>" in text or f">{name}</text>" in text for name in NAMES[:4])
    assert len(list(tmp_path.glob("*.errors.npz"))) == len(NAMES)
    row = (tmp_path / "row.md").read_text().splitlines()[7]
    assert row.startswith("| line break \\| --> | 60 | ")


@pytest.mark.parametrize(("joints", "meshes"), [(True, False), (False, True), (True, True)])
def test_a_method_without_metrics_has_a_page(hands, tmp_path, joints, meshes):
    predictor = without(made_up("bare"), joints=joints, meshes=meshes)
    kind = summarize(predictor.errors)["scale_aligned"]
    assert (kind["MPJPE"]["all"]["value"] is None) == joints
    assert (kind["MPVPE"]["all"]["value"] is None) == meshes
    text = page_of(tmp_path / "alone", hands, predictor)
    assert ("No joint of a sample counts under any protocol" in text) == joints
    assert ("No sample counts under this protocol" in text) == (joints and meshes)
    assert "–<br><small>0</small>" in text
    assert ("<svg" in text) == (not joints)
    full = made_up("full")
    beside = page_of(
        tmp_path / "beside", hands, full, predictor, baselines=[named(predictor, "base")]
    )
    assert ("there is no metric that all have" in beside) == (joints and meshes)
    assert "None" not in beside and "nan" not in beside
    page_of(tmp_path / "both", hands, predictor, named(predictor, "other"))


def test_what_only_one_method_says_is_a_dash_of_the_other(hands, tmp_path):
    full, bare = made_up("full"), made_up("bare")
    errors = dataclasses.replace(bare.errors, camera_space=None, presence=None)
    bare = dataclasses.replace(bare, errors=errors)
    text = page_of(tmp_path, hands, full, bare)
    numbers = summarize(full.errors, full.labels)
    for protocol, metric, decimals in [
        *(("camera_space", "CS-MPJPE", 2), ("camera_space", "MRPE", 2)),
        *(("camera_space", "depth", 3), ("handedness", "AUC", 3)),
    ]:
        number = numbers[protocol][metric]["all"]
        assert (
            f"{metric} <small>all</small></td><td>{number['value']:.{decimals}f}<br>"
            f"<small>{number['count']}</small></td><td>–<br><small>0</small></td>" in text
        ), metric
    assert "acceleration <small>all</small></td>" in text
    row = (tmp_path / "row.md").read_text().splitlines()[-2:]
    mrpe = numbers["camera_space"]["MRPE"]["all"]["value"]
    share = numbers["handedness"]["accuracy"]["all"]["value"]
    assert row[0].endswith(f"| {mrpe:.2f} | {share:.3f} |")
    assert row[1].endswith("| – | – |")
    compared = json.loads((tmp_path / "numbers.json").read_text())["comparison"]["values"]
    assert "camera_space/MRPE/all" not in compared
    reverse = page_of(tmp_path / "reverse", hands, bare, full)
    assert "MRPE <small>all</small></td><td>–<br>" in reverse
    assert "None" not in reverse and "nan" not in reverse


def test_charts_of_nothing(hands):
    pck_chart("no method", {})
    assert "<svg" in pck_chart("no curve", {"a": [None] * 51})
    breakdown_chart(Breakdown("camera", "Camera", {}), [])
    group = {"samples": 3, "scale_aligned/MPJPE/all": {"value": None, "count": 0}}
    breakdown_chart(Breakdown("camera", "Camera", {"a": group}), ["scale_aligned/MPJPE/all"])
    breakdown_chart(Breakdown("camera", "Camera", {"a": group, "b": group}), [])
    hand_chart(draw_hands(hands), np.full((2, 21), np.nan), "no joint", 1.0)
    seeds_chart("no variant", {}, [])
    assert "a$b" in seeds_chart("one", {"a$b_{c$": [1.0]}, [Interval(1.0, None, None)])


def test_errors_of_zero_are_drawn(hands, tmp_path):
    predictor = made_up("exact")
    errors = jax.tree.map(lambda x: x * 0 if x.dtype.kind == "f" else x, predictor.errors)
    text = page_of(tmp_path, hands, dataclasses.replace(predictor, errors=errors))
    assert "0.00<br>" in text


def test_what_is_left_out_is_said(hands, tmp_path):
    predictor = made_up(count=1)
    alone = page_of(tmp_path, hands, predictor)
    assert "No baseline was evaluated" in alone
    assert "There are no images" in alone
    assert "there are no groups to compare" in alone
    assert "Comparison" not in alone
    beside = page_of(tmp_path, hands, predictor, baselines=[made_up("rest", count=1)])
    assert "No baseline" not in beside


def test_of_no_sample_at_all(hands, tmp_path):
    predictor = made_up()
    nothing = evaluated(
        "none", select(predictor.errors, np.arange(0)), predictor.labels, PROVENANCE
    )
    assert "0 samples" in page_of(tmp_path, hands, nothing)
    assert [len(part) for part in ranked(nothing)[1:]] == [0, 0]
    assert sample_images(nothing, Records(), hands, reconstruct=None) == []


class Records:
    """A split that has samples, none of them looked at."""

    sample_ids = np.arange(3)


@pytest.mark.parametrize("unit", ["sequence", "sample"])
def test_of_one_sequence_samples_are_drawn_and_the_page_says_so(hands, tmp_path, unit):
    predictors = [made_up("a", sequences=1), made_up("b", sequences=1, worse_mm=1)]
    text = page_of(tmp_path, hands, *predictors, unit=unit)
    assert "paired bootstrap over 60 samples" in text
    assert "All samples are of one sequence" in text and "take them as a hint" in text
    comparison = json.loads((tmp_path / "numbers.json").read_text())["comparison"]
    assert (comparison["unit"], comparison["sequences"], comparison["units"]) == ("sample", 1, 60)
    interval = comparison["differences"]["wrist_aligned/MPVPE/all"][0]
    assert interval["low"] < 1 < interval["high"]


def test_of_one_sample_there_is_no_interval(hands, tmp_path):
    predictors = [made_up("a", count=1), made_up("b", count=1, worse_mm=5)]
    text = page_of(tmp_path, hands, *predictors)
    assert "<small>[–]</small>" in text and '<span class="">+' in text
    result = compare(predictors)
    assert all(d.low is None and not d.excludes_zero for (d,) in result.differences.values())


def test_a_metric_of_one_sequence_has_no_interval_and_others_have():
    """The same value at every draw is no certainty."""
    predictors = [made_up("a"), made_up("b", worse_mm=5)]
    first = predictors[0].labels.sequence == predictors[0].labels.sequence[0]
    attributes = predictors[0].errors.attributes
    kind = np.where(first & (np.asarray(attributes.hand_type) == 2), 2, 0)
    kept = [
        dataclasses.replace(
            predictor,
            errors=dataclasses.replace(
                predictor.errors, attributes=dataclasses.replace(attributes, hand_type=kind)
            ),
        )
        for predictor in predictors
    ]
    assert (kind == 2).any()
    differences = compare(kept, resamples=100).differences
    assert differences["scale_aligned/MPJPE/interacting"][0].low is None
    assert differences["scale_aligned/MPJPE/single"][0].excludes_zero


def test_a_table_in_markdown_stays_one(hands):
    summary = summarize(made_up().errors)
    lines = markdown_row({"a | b\nc": summary}, "x --> <script>").splitlines()
    assert lines[0].count("-->") == 1 and lines[-1].startswith("| a \\| b c | 60 |")


class WithoutFits(AnnotatedSplit):
    """No sample has a MANO fit."""

    gone: tuple[str, ...] = ("mano_valid", "mano_vertices_valid")

    def __iter__(self) -> Iterator[Sample]:
        return map(self._bare, super().__iter__())

    def image(self, index: int) -> tuple[np.ndarray, Sample]:
        image, sample = super().image(index)
        return image, self._bare(sample)

    def _bare(self, sample: Sample) -> Sample:
        return {k: np.zeros_like(v) if k in self.gone else v for k, v in sample.items()}


class WithoutAnything(WithoutFits):
    """Nor a joint."""

    gone: tuple[str, ...] = (*WithoutFits.gone, "joint_valid_world")


@pytest.mark.parametrize("kind", [WithoutFits, WithoutAnything])
def test_predictions_on_a_split_without_fits(data_dir, hands, tmp_path, kind):
    kept = shutil.ignore_patterns("mean_hands-*")  # of the same dataset with its fits
    data_dir = shutil.copytree(data_dir, tmp_path / "datasets", ignore=kept)
    ids, arrays = exported_truth(AnnotatedSplit(data_dir, "interhand26m", "test", 8), hands)
    content = {key: arrays[key] for key in ("betas", "pose", "rel_trans")}
    write_predictions(tmp_path / "p.npz", ids, content, metadata={"method": "m"})
    split, train = (kind(data_dir, "interhand26m", s, 8) for s in ("test", "train"))
    page = report_on([str(tmp_path / "p.npz")], split, train, hands, tmp_path, trust=True)
    text = " ".join(page.read_text().split())
    results = json.loads((tmp_path / "numbers.json").read_text())["results"]
    assert list(results) == ["m", "rest pose"]
    assert results["m"]["scale_aligned"]["MPVPE"]["all"] == {"value": None, "count": 0}
    assert ("data:image/jpeg" in text) == (kind is WithoutFits)
    assert ("There are no images" in text) == (kind is WithoutAnything)


def test_facts_that_are_no_json_are_kept_as_words_or_refused(tmp_path):
    arrays = {"vertices": np.zeros((1, 2, 778, 3), np.float32)}
    metadata = {"method": "m", "loss": float("nan")}
    write_predictions(tmp_path / "p.npz", np.arange(1), arrays, metadata=metadata)
    assert read_predictions(tmp_path / "p.npz").metadata == {"method": "m", "loss": "NaN"}
    with np.load(tmp_path / "p.npz") as file:
        content = {**file, "metadata": np.array("[1]")}
    np.savez(tmp_path / "q.npz", **content)
    with pytest.raises(PredictionsError, match="no JSON object but a list"):
        read_predictions(tmp_path / "q.npz")
