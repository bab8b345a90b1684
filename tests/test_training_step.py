"""Laws of the training step: accumulation, moving averages, schedules, updates that are skipped."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from er_jax.configs.tiny import get_config
from er_jax.mano import load_hands
from er_jax.models import ERConfig
from er_jax.supervision.loaders import train_loader
from er_jax.training.checkpoints import Checkpoints
from er_jax.training.optimizer import make_optimizer
from er_jax.training.state import TrainState, create_state, moved_ema
from er_jax.training.step import StepSettings, accumulated, make_train_step
from er_jax.utils import distributed


def optimizer_of(config, steps_per_epoch=10):
    """The optimizer of a run and its schedule."""
    return make_optimizer(
        config.optimizer,
        epochs=config.epochs,
        batch_size=config.batch_size,
        steps_per_epoch=steps_per_epoch,
    )


def steps_of(config, batches, optimizer, schedule):
    """The states from before the first batch to after the last, and the metrics of each."""
    step = make_train_step(StepSettings.of(config), optimizer, schedule)
    state = create_state(
        ERConfig.from_dict(config.model),
        optimizer,
        config.seed,
        with_ema=bool(config.optimizer.ema_decay),
    )
    state, hands = distributed.replicate((state, load_hands(None)))
    states, metrics = [jax.device_get(distributed.first_replica(state))], []
    for batch in batches:
        state, numbers = step(state, hands, distributed.shard(batch))
        states.append(jax.device_get(distributed.first_replica(state)))
        metrics.append(jax.device_get(distributed.first_replica(numbers)))
    return states, metrics


def assert_close(ours, theirs, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), ours, theirs)


@pytest.mark.slow
def test_accumulation_and_moving_average(tiny_config):
    config = tiny_config
    config.batch_size = 32
    config.model.frozen = (r".*\.bn\d?\.",)
    config.optimizer.ema_decay = 0.5
    batches = [next(train_loader(config)) for _ in range(3)]
    descent = optax.identity(), optax.constant_schedule(1e-2)
    whole, metrics = steps_of(config, batches, *descent)
    config.optimizer.accumulation = 4
    in_parts, metrics_in_parts = steps_of(config, batches, *descent)
    moved = optax.tree.norm(jax.tree.map(np.subtract, whole[-1].params, whole[0].params))
    assert moved > 1e-2
    assert_close(in_parts[-1].params, whole[-1].params, 1e-5)
    assert_close(metrics_in_parts, metrics, 1e-4)

    average = whole[0].params
    for step, state in enumerate(whole[1:]):
        decay = min(0.5, (1 + step) / (10 + step))
        average = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, average, state.params)
    assert_close(whole[-1].evaluated().params, average, 1e-6)


@pytest.mark.slow
def test_dropout_follows_from_the_step(tiny_config):
    config = tiny_config
    config.model.frozen = (".*",)  # only dropout tells steps apart
    batch = next(train_loader(config))
    descent = optax.identity(), optax.constant_schedule(1e-2)

    def losses_of_two_steps():
        return [float(numbers["loss"]) for numbers in steps_of(config, [batch] * 2, *descent)[1]]

    same = losses_of_two_steps()
    assert same[0] == same[1]
    config.model.dropout = 0.5
    first = losses_of_two_steps()
    assert len({*first, same[0]}) == 3
    assert losses_of_two_steps() == first


def test_an_update_that_is_not_finite_is_skipped(tiny_config):
    batches = [next(train_loader(tiny_config)) for _ in range(2)]
    batches[1]["joint_world_mm"][2, 0, 5] = np.nan
    optimizer, schedule = optimizer_of(tiny_config, 6)
    (_, before, after), metrics = steps_of(tiny_config, batches, optimizer, schedule)
    assert [int(numbers["skipped"]) for numbers in metrics] == [0, 1]
    assert np.isfinite(metrics[0]["loss"])
    assert int(after.step) == 2
    jax.tree.map(
        np.testing.assert_array_equal, dataclasses.replace(after, step=before.step), before
    )


def test_a_checkpoint_keeps_the_averages_for_evaluation_and_the_weights_for_training(tmp_path):
    trained = {"w": jnp.arange(3.0)}, {"mean": jnp.ones(2)}
    average = {"w": jnp.zeros(3)}, {"mean": jnp.full(2, 0.5)}
    state = TrainState(jnp.array(3), *trained, {"momentum": jnp.full(3, 7.0)}, average)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, {}, {}, score=1.0)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        saved = checkpoints.restore_newest(state, lambda run, folder: None)
        jax.tree.map(np.testing.assert_array_equal, saved.state, state)
        model = checkpoints.restore_weights(3, state.weights)
    assert_close((model.params, model.batch_stats), average, 0)


def test_learning_rate_grows_with_the_batch():
    config = get_config()
    config.optimizer.reference_batch_size = 2 * config.batch_size
    config.optimizer.schedule = "step"
    _, schedule = optimizer_of(config)
    peak, factor = config.optimizer.learning_rate / 2, config.optimizer.decay_factor
    rates = [float(schedule(step)) for step in (0, 149, 150, 169, 170)]
    expected = [peak, peak, peak * factor, peak * factor, peak * factor**2]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_warm_up_and_cosine():
    config = get_config()
    config.optimizer.warmup_epochs = 0.5
    _, schedule = optimizer_of(config, 20)
    end = 20 * config.epochs
    rates = np.array([float(schedule(step)) for step in range(end + 1)])
    rising = np.linspace(0, config.optimizer.learning_rate, 11)
    np.testing.assert_allclose(rates[:11], rising, rtol=1e-5)
    halfway = 10 + (end - 10) // 2
    np.testing.assert_allclose(rates[halfway], config.optimizer.learning_rate / 2, rtol=1e-5)
    assert rates[end] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_first_step_of_the_optimizers(name):
    """Adam's first step is the gradient's sign; AdamW adds weight_decay · kernel."""
    config = get_config()
    config.optimizer.name, config.optimizer.weight_decay = name, 0.1
    config.optimizer.gradient_clip = 1.0
    optimizer, _ = optimizer_of(config)
    params = dict.fromkeys(("kernel", "bias", "scale", "position"), jnp.array([2.0, -4.0]))
    params = {"layer": params}
    gradients = jax.tree.map(lambda x: x * jnp.array([150.0, 100.0]), params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    for part, update in updates["layer"].items():
        decay = 0.1 * params["layer"][part] if (name, part) == ("adamw", "kernel") else 0
        np.testing.assert_allclose(update, jnp.sign(params["layer"][part]) + decay, rtol=1e-5)


def test_gradients_are_clipped_before_adam():
    """Adam of the clipped gradients, written out: a short gradient after a long one tells."""
    config = get_config()
    config.optimizer.gradient_clip = 2.0
    optimizer, _ = optimizer_of(config)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    state = optimizer.init(params)
    mean, square = np.zeros(3), np.zeros(3)
    for step, gradient in enumerate(([300.0, -400.0, 0.0], [0.3, 0.1, -0.2], [6.0, 8.0, 0.0]), 1):
        tree = {"a": jnp.array(gradient[:2]), "b": jnp.array(gradient[2:])}
        updates, state = optimizer.update(tree, state, params)
        clipped = np.array(gradient) * min(1, 2 / np.linalg.norm(gradient))
        mean, square = 0.9 * mean + 0.1 * clipped, 0.999 * square + 0.001 * clipped**2
        expected = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        found = np.concatenate([updates["a"], updates["b"]])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_clipping_bounds_the_norm_of_an_update(monkeypatch):
    """With plain descent in Adam's place an update is the gradient, no longer than the limit."""
    monkeypatch.setattr(optax, "scale_by_adam", optax.identity)
    config = get_config()
    for limit, gradient, norm in ((2.0, 50.0, 2.0), (2.0, 1.5, 1.5), (0.0, 50.0, 50.0)):
        config.optimizer.gradient_clip = limit
        optimizer, _ = optimizer_of(config)
        params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
        tree = {"a": gradient * jnp.array([0.6, 0.0]), "b": gradient * jnp.array([-0.8])}
        updates, _ = optimizer.update(tree, optimizer.init(params), params)
        assert float(optax.tree.norm(updates)) == pytest.approx(norm, rel=1e-5)


def test_parts_of_a_batch_give_the_gradient_of_the_whole():
    """Of a mean of squares, whose gradient is known; each part moves the statistics in turn."""

    def gradients_of(params, batch_stats, hands, batch, key):
        def loss(params):
            return jnp.mean((batch["x"] - params) ** 2)

        value, gradient = jax.value_and_grad(loss)(params)
        return gradient, batch_stats + batch["x"].mean(), {"loss": value}

    numbers = np.arange(12, dtype=np.float32)
    arguments = jnp.float32(2), jnp.float32(0), None, {"x": jnp.asarray(numbers)}
    for parts in (1, 3):
        parted = accumulated(gradients_of, parts)
        gradient, statistics, metrics = parted(*arguments, jax.random.key(0))
        assert float(gradient) == pytest.approx(-2 * (numbers - 2).mean())
        assert float(metrics["loss"]) == pytest.approx(((numbers - 2) ** 2).mean())
        assert float(statistics) == pytest.approx(parts * numbers.mean())


def test_the_moving_average_keeps_its_share():
    """decay · average + (1 − decay) · weights; early on (1 + step) / (10 + step) in its place."""
    average = jnp.zeros(2), jnp.ones(1)
    for step, kept in ((0, 0.1), (8, 0.5), (1000, 0.9)):
        state = TrainState(jnp.array(step), jnp.ones(2), jnp.ones(1), (), average)
        params, statistics = moved_ema(state, jnp.full(2, 10.0), jnp.full(1, 3.0), 0.9)
        np.testing.assert_allclose(params, (1 - kept) * 10, rtol=1e-5)
        np.testing.assert_allclose(statistics, kept + (1 - kept) * 3, rtol=1e-5)
        assert state.evaluated().params is average[0]


def test_a_batch_that_does_not_divide():
    distributed.check_batch_size(12, parts=4)
    with pytest.raises(ValueError, match=r"batch_size=10 .* in 4 parts each: use 8 or 12"):
        distributed.check_batch_size(10, parts=4)


@pytest.mark.slow
def test_weights_that_are_not_trained_stay_to_the_last_bit(tiny_config):
    """Beside running statistics, which are averaged over devices and in time."""
    config = tiny_config
    config.model.frozen = (r"backbone\.layer1\.",)
    config.sync_batch_norm = False
    config.optimizer.ema_decay = 0.7
    batches = [next(train_loader(config))] * 3
    states, _ = steps_of(config, batches, optax.identity(), optax.constant_schedule(1e-2))
    first, last = states[0].batch_stats["backbone"], states[-1].batch_stats["backbone"]
    for now in (last, states[-1].ema[1]["backbone"]):
        kernels = [tree["layer1"][0]["conv1"]["kernel"] for tree in (first, now)]
        np.testing.assert_array_equal(*kernels)
        assert not np.array_equal(first["bn1"]["mean"], now["bn1"]["mean"])
