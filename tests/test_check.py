"""The check before a training: what it reads, compiles and finds."""

import jax
import jax.numpy as jnp
import pytest

from er_jax.commands import check
from er_jax.commands.check import run_check
from er_jax.utils.errors import ConfigError, DataError


@pytest.mark.slow  # compiles all that a run consists of
def test_a_training_that_fits(tiny_config, capsys):
    run_check(tiny_config)
    said = " ".join(capsys.readouterr().out.split())
    assert "Checking on 1 device (cpu) in 1 process" in said
    for program in ("training step", "evaluation step", "prediction of 1"):
        assert said.count(program) == 2  # compiled for here, lowered for CUDA
    assert "f32 at full precision" in said
    assert "float64" not in said
    assert "calls of the host" not in said
    assert "how much it has, JAX cannot say" in said


def test_a_batch_that_does_not_fit(tiny_config, monkeypatch):
    program = check.Program("small", jax.pmap(lambda x: x + 1), (jnp.zeros((1, 1000)),))
    monkeypatch.setattr(check, "_programs", lambda config: [program])
    monkeypatch.setattr(check, "_memory_limit", lambda: 7999)
    with pytest.raises(ConfigError, match=r"batch_size=\d+ does not fit: make it smaller, or set"):
        run_check(tiny_config)
    monkeypatch.setattr(check, "_memory_limit", lambda: 8001)
    run_check(tiny_config)


def test_what_slipped_in_is_told(tiny_config, monkeypatch, capsys):
    def with_callback(x):
        jax.debug.print("{}", x[0])
        return x @ x.T

    program = check.Program("chatty", jax.pmap(with_callback), (jnp.zeros((1, 4, 4)),))
    monkeypatch.setattr(check, "_programs", lambda config: [program])
    run_check(tiny_config)
    said = " ".join(capsys.readouterr().out.split())
    assert "chatty: calls of the host" in said
    assert "chatty cannot be lowered for CUDA" in said
    silent = check.Program("silent", jax.pmap(lambda x: x @ x.T), (jnp.zeros((1, 4, 4)),))
    monkeypatch.setattr(check, "_programs", lambda config: [silent])
    run_check(tiny_config)
    said = " ".join(capsys.readouterr().out.split())
    assert "1 f32 by default" in said
    assert "silent:" not in said
    with jax.enable_x64(True):
        text = jax.jit(lambda x: x * 2).lower(jnp.zeros(3)).as_text()
    assert check._slipped_in(text) == ["arithmetic in float64"]


def test_settings_and_data_are_checked_first(tiny_config):
    tiny_config.data.test_split = "tset"
    with pytest.raises(DataError, match="tset"):
        run_check(tiny_config)
    tiny_config.data.test_split = "test"
    tiny_config.optimizer.name = "adma"
    with pytest.raises(ConfigError, match="adma"):
        run_check(tiny_config)
