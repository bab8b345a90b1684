"""The confidence of joints: that it is what errors say, and that a report of it tells the truth."""

import dataclasses
import json
import math

import numpy as np
import pytest
from made_up_errors import made_up

from er_jax.evaluation.calibration import (
    LEFT_OUT,
    Calibration,
    calibrated,
    reliability,
)
from er_jax.training.run_record import calibration_of

TRUE = Calibration(tuple(np.linspace(8, 30, 21).tolist()), 0.8)


def network_errors(count=4000, seed=0):
    """Errors whose spread is `TRUE`'s, of joints of which some are not annotated."""
    rng = np.random.default_rng(seed)
    errors = made_up(count=20).errors  # of which only what is replaced is looked at
    spread = rng.uniform(0.2, 2.5, (count, 2, 21))
    error_mm = np.linalg.norm(rng.normal(size=(count, 2, 21, 3)), axis=-1) / math.sqrt(3)
    valid = rng.random((count, 2, 21)) < 0.7
    wrist = dataclasses.replace(
        errors.wrist_aligned,
        joint_mm=np.where(valid, error_mm * TRUE.sigma_mm(spread), 0),
        joint_valid=valid,
    )
    return dataclasses.replace(errors, wrist_aligned=wrist, joint_spread=spread)


def with_joints(errors, **changes):
    wrist = dataclasses.replace(errors.wrist_aligned, **changes)
    return dataclasses.replace(errors, wrist_aligned=wrist)


def test_a_calibration_finds_what_made_the_errors():
    found = calibrated(network_errors())
    assert found.slope == pytest.approx(TRUE.slope, abs=0.1)
    np.testing.assert_allclose(found.scale_mm, TRUE.scale_mm, rtol=0.05)


def test_every_joints_mean_square_is_what_it_was():
    errors = network_errors(300)
    spread, valid = errors.joint_spread, errors.wrist_aligned.joint_valid
    sigma = calibrated(errors).sigma_mm(spread)
    for joint in range(21):
        here = valid[..., joint]
        expected = (sigma[..., joint][here] ** 2).mean()
        assert expected == pytest.approx(
            (errors.wrist_aligned.joint_mm[..., joint][here] ** 2).mean()
        )


def test_spreads_that_foretell_nothing_have_no_slope_and_spreads_against_the_errors_neither():
    errors = network_errors(300)
    alike = dataclasses.replace(errors, joint_spread=np.ones_like(errors.joint_spread))
    assert calibrated(alike).slope == 0
    against = dataclasses.replace(errors, joint_spread=1 / errors.joint_spread)
    assert calibrated(against).slope == 0


def test_spreads_that_are_all_but_equal_do_not_make_errors_of_any_size():
    errors = network_errors(300)
    spread = 1 + 1e-3 * errors.joint_spread
    found = calibrated(dataclasses.replace(errors, joint_spread=spread))
    assert found.slope == 2
    assert found.sigma_mm(np.full(21, 3.0)).max() < 1000


def test_depths_are_scaled_to_be_right_in_the_median():
    errors = network_errors(20)
    ratio = np.random.default_rng(1).uniform(1.1, 1.5, (20, 2))
    valid = np.arange(40).reshape(20, 2) % 3 > 0
    camera = dataclasses.replace(
        errors.camera_space, relative_depth=np.where(valid, ratio - 1, 0), wrist_valid=valid
    )
    found = calibrated(dataclasses.replace(errors, camera_space=camera)).depth_scale
    assert np.median(ratio[valid] * found) == pytest.approx(1)
    for silent in (None, dataclasses.replace(camera, wrist_valid=np.zeros_like(valid))):
        assert calibrated(dataclasses.replace(errors, camera_space=silent)).depth_scale == 1


def test_joints_that_are_not_annotated_do_not_matter():
    errors = network_errors(300)
    valid = errors.wrist_aligned.joint_valid
    spoiled = dataclasses.replace(
        with_joints(errors, joint_mm=np.where(valid, errors.wrist_aligned.joint_mm, 1e6)),
        joint_spread=np.where(valid, errors.joint_spread, 1e3),
    )
    assert calibrated(spoiled) == calibrated(errors)
    report = reliability(TRUE, spoiled)
    assert report == reliability(TRUE, errors)
    assert report.joints == valid[..., 1:].sum()


def test_a_joint_that_no_sample_has_is_as_unsure_as_all_together():
    errors = network_errors(300)
    valid = errors.wrist_aligned.joint_valid & (np.arange(21) != 7)
    found = calibrated(with_joints(errors, joint_valid=valid))
    others = np.delete(found.scale_mm, 7)
    assert others.min() < found.scale_mm[7] < others.max()


def test_without_spread_or_annotation_there_is_none():
    errors = network_errors(20)
    silent = dataclasses.replace(errors, joint_spread=None)
    nothing = with_joints(errors, joint_valid=np.zeros((20, 2, 21), bool))
    assert calibrated(silent) is calibrated(nothing) is None
    assert (
        reliability(TRUE, silent) is reliability(TRUE, nothing) is reliability(None, errors) is None
    )


def test_a_true_confidence_is_reliable_and_a_false_one_is_not():
    report = reliability(TRUE, network_errors())
    assert len(report.bins) == 10
    for expected, observed, joints in report.bins:
        assert joints > 5000
        assert observed == pytest.approx(expected, rel=0.05)
    doubled = Calibration(tuple(2 * np.array(TRUE.scale_mm)), TRUE.slope)
    for expected, observed, _ in reliability(doubled, network_errors()).bins:
        assert expected == pytest.approx(2 * observed, rel=0.05)


def test_what_is_kept_is_the_mean_of_the_surest():
    errors = network_errors(60)
    rows = []
    for sample, hand, joint in np.ndindex(60, 2, 21):
        if joint and errors.wrist_aligned.joint_valid[sample, hand, joint]:
            spread = errors.joint_spread[sample, hand, joint]
            sigma = TRUE.scale_mm[joint] * (spread + 0.05) ** TRUE.slope
            rows.append((sigma, errors.wrist_aligned.joint_mm[sample, hand, joint]))
    by_sigma = [error for _, error in sorted(rows)]
    by_error = sorted(error for _, error in rows)
    report = reliability(TRUE, errors)
    for share, kept, best in zip(LEFT_OUT, report.kept_mm, report.best_mm, strict=True):
        count = round(len(rows) * (1 - share))
        assert kept == pytest.approx(sum(by_sigma[:count]) / count)
        assert best == pytest.approx(sum(by_error[:count]) / count)
    assert report.kept_mm[0] > report.kept_mm[1] > report.kept_mm[2] > report.kept_mm[3]


def test_a_record_keeps_the_calibration_of_each_validation():
    other = dataclasses.replace(TRUE, slope=0.1)
    record = json.loads(
        json.dumps(
            {
                "validation": [
                    {"step": 10, "score": 3.0, "calibration": TRUE.to_json()},
                    {"step": 20, "score": 2.0, "calibration": other.to_json()},
                    {"step": 30, "score": 1.0},
                ]
            }
        )
    )
    assert calibration_of(record, 10) == TRUE
    assert calibration_of(record, 30) == calibration_of(record, None) == other
    for nothing in ([], None):
        assert calibration_of({"validation": nothing}, 10) is None
