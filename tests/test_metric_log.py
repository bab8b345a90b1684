"""The log of a run's numbers."""

from er_jax.training.metric_log import MetricLog, read_metric_log


def test_what_was_written_is_read_and_the_last_line_of_a_step_counts(tmp_path):
    with MetricLog(tmp_path) as log:
        log.write(2, {"train/loss": 2.5})
    with MetricLog(tmp_path) as log:
        log.write(1, {"train/loss": 3.5})
        log.write(2, {"train/loss": 1.5})
    assert read_metric_log(tmp_path / "metrics.jsonl") == [
        {"step": 1, "train/loss": 3.5},
        {"step": 2, "train/loss": 1.5},
    ]


def test_a_line_cut_short_is_dropped(tmp_path):
    with MetricLog(tmp_path) as log:
        log.write(1, {"train/loss": 3.5})
    file = tmp_path / "metrics.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:9])
    with MetricLog(tmp_path) as log:
        log.write(2, {"train/loss": 2.5})
    assert [entry["step"] for entry in read_metric_log(file)] == [1, 2]
