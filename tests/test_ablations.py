"""Ablations: statistics over seeds and samples, and the runner on a tiny config."""

import dataclasses
import json

import numpy as np
import pytest
from made_up_errors import PROVENANCE, made_up
from ml_collections import ConfigDict
from scipy import stats

from er_jax.commands import ablations
from er_jax.evaluation.bootstrap import COMPARED
from er_jax.evaluation.seeds import ablation, holm, mean_over_seeds, over_seeds
from er_jax.evaluation.summary import headline, summarize
from er_jax.report.ablation import markdown, write_ablation

VARIANTS = ["full", "poor", "alike"]


def trained(variant, seed, *, worse_mm=0.0, luck_mm=0.0, steps=100):
    """A made-up run: the same samples, and luck that alternates with the seed."""
    luck = luck_mm * (-1) ** seed * VARIANTS.index(variant)
    run = made_up(variant, count=200, worse_mm=worse_mm + luck)
    facts = {**PROVENANCE, "checkpoint_step": steps, "parameters": 1000, "hand_model": "stand-in"}
    return dataclasses.replace(run, provenance={**run.provenance, **facts})


def grid(seeds=6, *, worse_mm=4.0, luck_mm=0.3):
    return [
        [
            trained(name, seed, worse_mm=worse_mm * (name == "poor"), luck_mm=luck_mm)
            for name in VARIANTS
        ]
        for seed in range(seeds)
    ]


def test_errors_averaged_over_seeds_have_the_average_metrics():
    runs = [trained("full", seed, worse_mm=seed) for seed in range(3)]
    average = headline(summarize(mean_over_seeds("full", runs).errors), COMPARED)
    for metric in COMPARED:
        each = [headline(summarize(run.errors), [metric])[metric] for run in runs]
        assert len(set(each)) == 3
        assert average[metric] == pytest.approx(np.mean(each), rel=1e-9)


def test_the_interval_over_seeds_is_student_s():
    values = np.array([20.1, 21.3, 19.8, 20.6])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    interval = over_seeds(values)
    np.testing.assert_allclose([interval.low, interval.high], expected, rtol=1e-12)
    assert interval.value == pytest.approx(values.mean())


def test_holm_s_correction():
    """By hand: the smallest of three times 3, the next times 2, never falling, at most 1."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.6])), [1, 1])


def test_a_difference_larger_than_luck_is_called_one_and_another_is_not():
    compared = ablation(VARIANTS, range(6), grid())
    assert [compared.verdict(place) for place in range(2)] == ["worse", "not significant"]
    same = [[of_seed[0], of_seed[0], of_seed[1]] for of_seed in grid(2)]
    assert ablation(VARIANTS, range(2), same).p_values[0] == 1
    better = ablation(VARIANTS, range(6), grid(worse_mm=-4))
    assert better.verdict(0) == "better"


def test_what_every_sample_shows_may_still_be_the_luck_of_the_seeds():
    """The bootstrap over samples, which knows these networks only, is sure; the seeds are not."""
    compared = ablation(VARIANTS, range(2), grid(2, worse_mm=0.5, luck_mm=1.0))
    assert compared.resampled["scale_aligned/MPJPE/all"][0].excludes_zero
    assert not compared.differences["scale_aligned/MPJPE/all"][0].excludes_zero
    assert compared.verdict(0) == "not significant"


def test_runs_that_cannot_be_compared():
    with pytest.raises(ValueError, match="two of them or more"):
        ablation(VARIANTS, [0], grid(1))
    longer = grid(2)
    longer[1][0] = trained("full", 1, steps=200)
    with pytest.raises(ValueError, match=r"\[100, 200\] steps"):
        ablation(VARIANTS, [0, 1], longer)


def test_the_table_says_what_it_measured(tmp_path):
    table = write_ablation(tmp_path, VARIANTS, range(6), grid(), made_up("constant", worse_mm=20))
    text = table.read_text()
    assert "neither confirms nor refutes" in " ".join(text.split())
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:6]] == ["| full", "| poor", "| alike", "| constant"]
    content = json.loads((tmp_path / "ablations.json").read_text())
    assert content["verdicts"] == ["worse", "not significant"]
    assert len(content["values"]["scale_aligned/MPJPE/all"][0]) == 6
    assert (tmp_path / "ablations.svg").read_text().startswith("<svg")


def test_of_one_sequence_the_table_says_that_samples_were_drawn():
    runs = grid(2)
    for of_seed in runs:
        for run in of_seed:
            run.labels.sequence[:] = "one"
    compared = ablation(VARIANTS, range(2), runs)
    assert compared.sequences == 1
    text = " ".join(markdown(compared, "constant", None).split())
    assert "200 samples of 1 sequences" in text
    assert "over samples (all of one sequence) the paired bootstrap" in text


def plan(config, **changes):
    run = config.copy_and_resolve_references()
    run.epochs, run.validation.every_epochs = 1, 1
    variants = (("full network", {}), ("without DeOcc", {"model.use_deocc": False}))
    return ConfigDict({"run": run, "seeds": (3, 4), "variants": variants} | changes)


def test_without_fits_the_joints_decide():
    def without_fits(run):
        scale = run.errors.scale_aligned
        none = dataclasses.replace(
            scale,
            joint_valid=np.zeros_like(scale.joint_valid),
            vertex_valid=np.zeros_like(scale.vertex_valid),
        )
        return dataclasses.replace(run, errors=dataclasses.replace(run.errors, scale_aligned=none))

    results = [[without_fits(run) for run in of_seed] for of_seed in grid()]
    compared = ablation(VARIANTS, range(len(results)), results)
    assert compared.metric == "wrist_aligned/MPJPE/all"
    assert compared.verdict(0) == "worse"


def test_runs_are_planned_seed_by_seed(tiny_config, tmp_path):
    (full, without), _ = ablations.planned_runs(plan(tiny_config), tmp_path)
    assert (full.config.model.use_deocc, without.config.model.use_deocc) == (True, False)
    assert without.config.seed == 3
    assert without.folder == tmp_path / "runs/without-DeOcc/seed-3"
    for changes in ({"seeds": (1,)}, {"seeds": (1, 1)}, {"variants": (("full", {}),)}):
        with pytest.raises(ValueError, match="give two or more, each once"):
            ablations.planned_runs(plan(tiny_config, **changes), tmp_path)
    with pytest.raises(ValueError, match=r"variants, .b.: .*use_deoc"):
        changes = {"variants": (("a", {}), ("b", {"model.use_deoc": False}))}
        ablations.planned_runs(plan(tiny_config, **changes), tmp_path)


@pytest.mark.slow
def test_ablations_go_on_where_they_were_interrupted(tiny_config, tmp_path, monkeypatch):
    config, train, trainings = plan(tiny_config), ablations.run_training, []

    def stopped_at_the_third(run, folder):
        trainings.append(folder)
        if len(trainings) == 3:
            raise KeyboardInterrupt
        return train(run, folder)

    monkeypatch.setattr(ablations, "run_training", stopped_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        ablations.run_ablations(config, tmp_path)
    assert not (tmp_path / "ablations.md").exists()
    table = ablations.run_ablations(config, tmp_path)
    assert trainings[2:] == [trainings[2], trainings[2], trainings[-1]]
    before = table.read_text()
    assert ablations.run_ablations(config, tmp_path).read_text() == before
    assert len(trainings) == 5
    config.run.epochs = 2
    with pytest.raises(ValueError, match="another config"):
        ablations.run_ablations(config, tmp_path)
