"""What the pace of a run says of made-up moments."""

import pytest

from er_jax.training import throughput as pace_module
from er_jax.training.throughput import Throughput


class Clock:
    """Time that passes only where the test says so."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("batch_seconds", "step_seconds", "starved_share"),
    [(1.0, 4.0, 0.0), (4.0, 1.0, 0.75), (3.0, 3.0, 0.0)],
)
def test_devices_that_wait(monkeypatch, batch_seconds, step_seconds, starved_share):
    """The devices take a step at a time; the host reads one batch while they do."""
    clock = Clock()
    monkeypatch.setattr(pace_module, "time", clock)
    monkeypatch.setattr(pace_module, "_when_ready", lambda moment: moment)

    def batches():
        while True:
            clock.now += batch_seconds
            yield "batch"

    loader, ready = batches(), 0.0
    with Throughput() as throughput:
        for _ in range(11):
            assert throughput.read(loader) == "batch"
            before, ready = ready, max(ready, clock.now) + step_seconds
            throughput.enqueued(ready)
            clock.now = max(clock.now, before)
    assert throughput.total.steps == 9  # neither the first nor the one under way
    seconds = max(batch_seconds, step_seconds)
    assert throughput.total.steps_per_second == pytest.approx(1 / seconds)
    assert throughput.total.waiting_for_data == pytest.approx(starved_share)
