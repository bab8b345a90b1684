"""A run learns, from the images that evaluation sees, by gradients that go where they should.

The compiled programs are those of `test_run.py`'s run, so that they are compiled once for both.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from pooled_network import Pooled

from er_jax.configs.tiny import get_config
from er_jax.evaluation.evaluate import make_evaluation_step
from er_jax.mano import load_hands
from er_jax.models import ERConfig, ERNet, functional
from er_jax.models.functional import NetworkWeights
from er_jax.models.layers import BATCH_NORM_MOMENTUM
from er_jax.supervision.loaders import train_loader
from er_jax.supervision.losses import losses
from er_jax.training.optimizer import make_optimizer
from er_jax.training.state import create_state
from er_jax.training.step import StepSettings, make_train_step
from er_jax.utils import distributed

PEAK = 3  # the step of the warm-up's end, where the rate is the config's


@pytest.fixture(scope="module")
def config(data_dir):
    config = get_config()
    config.data_dir = str(data_dir)
    return config


def program(config):
    """The compiled step of a run, and its state before the first."""
    optimizer, schedule = make_optimizer(
        config.optimizer,
        epochs=config.epochs,
        batch_size=config.batch_size,
        steps_per_epoch=6,
    )
    step = make_train_step(StepSettings.of(config), optimizer, schedule)
    state = create_state(ERConfig.from_dict(config.model), optimizer, config.seed)
    hands = distributed.replicate(load_hands(None))

    def on_host(state, batch):
        """The state after one step from a state, and the step's metrics, on the host."""
        after, metrics = step(distributed.replicate(state), hands, distributed.shard(batch))
        return jax.device_get(distributed.first_replica((after, metrics)))

    return on_host, dataclasses.replace(jax.device_get(state), step=np.int32(PEAK))


@pytest.fixture(scope="module")
def start(config):
    """The program of the config's own network, traced once."""
    return program(config)


@pytest.fixture(scope="module")
def batches(config):
    loader = train_loader(config)
    return [next(loader) for _ in range(2)]


def loss_in_evaluation(config, weights, batch):
    """The loss terms of what evaluation predicts of a batch and takes for its truth."""
    step = make_evaluation_step(
        ERConfig.from_dict(config.model), config.depth_box_m, f_scores=False
    )
    weights, hands = distributed.replicate((weights, load_hands(None)))
    found = step(weights, hands, {}, distributed.shard(batch))
    prediction, truth = distributed.gather((found.prediction, found.truth))
    terms = losses(prediction, truth, dict(config.loss))
    return {name: float(term) for name, term in terms.items()}


def enlarged(params):
    """Weights so large that every output depends on the image, which at first it hardly does."""

    def enlarge(path, value):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name.startswith("backbone") or not name.endswith("kernel"):
            return value
        return value * (200 if value.ndim == 4 else 20)

    return jax.tree_util.tree_map_with_path(enlarge, params)


@pytest.mark.parametrize("network", ["pooled", "ER"])
def test_training_and_evaluation_see_the_same(config, batches, network, request, monkeypatch):
    """With the batch's statistics for running ones, evaluation's loss terms are the step's.

    Training normalises by the batch's statistics, and moves the running ones towards them by a
    tenth: from before and after a step follow those of the batch.
    """
    if network == "pooled":
        monkeypatch.setattr(functional, "ERNet", Pooled)
    step, before = program(config) if network == "pooled" else request.getfixturevalue("start")
    before = dataclasses.replace(before, params=enlarged(before.params))
    after, metrics = step(before, batches[0])
    kept = BATCH_NORM_MOMENTUM

    def of_batch(old, new):
        assert np.abs(new - old).max() > 1e-4
        return (new - kept * old) / (1 - kept)

    statistics = jax.tree.map(of_batch, before.batch_stats, after.batch_stats)
    seen = loss_in_evaluation(config, NetworkWeights(before.params, statistics), batches[0])
    trained = {name: float(metrics[name]) for name in seen}
    assert trained == pytest.approx(seen, rel=1e-3)
    assert metrics["loss"] == pytest.approx(sum(seen.values()), rel=1e-3)
    running = NetworkWeights(before.params, before.batch_stats)
    other = loss_in_evaluation(config, running, batches[0])
    assert max(abs(other[name] / seen[name] - 1) for name in seen if seen[name]) > 0.01  # matters


def test_a_few_samples_are_learnt(start, batches):
    """Sixty steps on eight samples bring the loss below a third.

    The config's rate is for hundreds of steps: here each of them goes five times as far.
    """
    step, state = start
    found = []
    for turn in range(60):
        after, metrics = step(state, batches[turn % 2])
        params = jax.tree.map(lambda a, b: a + 5 * (b - a), state.params, after.params)
        state = dataclasses.replace(after, params=params, step=np.int32(PEAK))
        found.append(float(metrics["loss"]))
        assert metrics["learning_rate"] == pytest.approx(1.5e-3)
    print(f"loss {found[0]:.2f} → {found[-1]:.2f}")
    assert np.mean(found[-4:]) < np.mean(found[:2]) / 3


class Colours(nnx.Module):
    """A backbone of one linear map, which compiles fast."""

    channels = 6

    def __init__(self, rngs):
        self.linear = nnx.Linear(3, self.channels, rngs=rngs)

    def __call__(self, image):
        cells = image.reshape(len(image), 2, 32, 2, 32, 3).mean((2, 4))
        return self.linear(cells)


def test_the_pose_does_not_move_the_heatmaps(monkeypatch):
    """Joint_h enters FuseJoint and the pose without gradient; all else before it has one."""
    monkeypatch.setattr("er_jax.models.er.make_backbone", lambda config, rngs: Colours(rngs))
    config = ERConfig.from_dict(get_config().model)
    net = ERNet(config, rngs=nnx.Rngs(0))
    net.eval()
    graphdef, params, others = nnx.split(net, nnx.Param, ...)
    params = jax.tree.map(lambda x: 20 * x, params)
    random = np.random.default_rng(0)
    image = jnp.asarray(random.uniform(size=(2, 64, 64, 3)), jnp.float32)
    weights = jnp.asarray(random.normal(size=2 * 2 * 63), jnp.float32)

    def outputs(params):
        found = nnx.merge(graphdef, params, others)(image, load_hands(None))
        return found.pose, found.joint_img

    @jax.jit
    def gradients(params):
        (pose, joint_img), pulled_back = jax.vjp(outputs, params)
        of_pose = weights[: pose.size].reshape(pose.shape)
        of_joints = weights[: joint_img.size].reshape(joint_img.shape)
        zero = jnp.zeros_like
        return pulled_back((of_pose, zero(joint_img))) + pulled_back((zero(pose), of_joints))

    pose, joint_img = (nnx.to_pure_dict(x) for x in gradients(params))
    largest = {
        name: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(part))
        for name, part in pose.items()
    }
    moved = {name for name, value in largest.items() if value > 0}
    assert moved == {"backbone", "hand_stream", "desim", "deocc", "fusejoint", "pose"}
    for leaf in jax.tree.leaves(joint_img["joint_heatmaps"]):
        assert float(jnp.abs(leaf).max()) > 0
    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(joint_img["pose"]))
