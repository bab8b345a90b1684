"""When a run has stopped improving, and when it is validated."""

from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from er_jax.training import validation as module
from er_jax.training.state import TrainState
from er_jax.training.validation import Validation


def validation(scores, *, stop_after=3, improvement=0.5, every_steps=10, last_step=95):
    """A validation with a history of scores, of which nothing but its decisions is made."""
    made = object.__new__(Validation)
    made._settings = SimpleNamespace(stop_after=stop_after, improvement=improvement)
    made._every_steps, made._last_step = every_steps, last_step
    made.history = [
        {"step": every_steps * (index + 1), "score": score} for index, score in enumerate(scores)
    ]
    return made


@pytest.mark.parametrize(
    ("scores", "stops"),
    [
        ([], False),
        ([9.0, 9.0, 9.0], False),  # patience has not run out
        ([9.0, 9.0, 9.0, 9.0], True),
        ([9.0, 8.0, 7.0, 6.0], False),  # lower is better
        ([6.0, 7.0, 8.0, 9.0], True),
        ([9.0, 8.4, 9.0, 9.0], False),  # one improvement among the newest is enough
        ([9.0, 8.6, 8.6, 8.6], True),  # but not one that is too small
        ([9.0, 8.4, 9.0, 9.0, 9.0], True),  # … nor one that is too long ago
        ([5.0, 9.0, 8.0, 7.0], True),  # better than the newest, but not than the best
    ],
)
def test_stopped_improving(scores, stops):
    assert validation(scores).stopped_improving is stops


def test_without_patience_a_run_never_stops():
    assert not validation([1.0] * 50, stop_after=0).stopped_improving


def test_due_at_the_end_of_an_epoch_and_of_the_run_once():
    due = [step for step in range(96) if validation([1.0, 1.0]).is_due(step)]
    assert due == [30, 40, 50, 60, 70, 80, 90, 95]


class Evaluated(Exception):
    """Evaluation would begin now; its argument is of which weights."""


def test_the_average_of_the_weights_is_validated(monkeypatch):
    def stop(step, weights, *rest, **settings):
        raise Evaluated(weights.params)

    monkeypatch.setattr(module, "evaluate", stop)
    made = validation([])
    made._settings.images = 0
    for name in ("_step", "_replicated_hands", "_split", "_stop", "_watchdog"):
        setattr(made, name, None)
    for average, wanted in (((), 1.0), ((jnp.float32(2), jnp.float32(0)), 2.0)):
        state = TrainState(jnp.array(10), jnp.float32(1), jnp.float32(0), (), average)
        with pytest.raises(Evaluated) as evaluated:
            made(10, state)
        assert float(evaluated.value.args[0]) == wanted
