"""A walk over a split computes a batch while it loads the next one and fetches the one before."""

import contextlib
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from er_jax.evaluation.evaluate import NETWORK, Evaluation, evaluate, reconstruction_of
from er_jax.evaluation.types import PROTOCOLS, HandErrors, SampleAttributes, SampleErrors
from er_jax.utils import distributed

BATCHES, SIZE, REAL = 4, 3, 11  # the last batch is padded
PARAMETERS = ("betas", "wrists")


class Recorded:
    """A split of made-up batches, a step and a grid that note what happens when."""

    def __init__(self, monkeypatch):
        self.events: list[str] = []
        self.drawn: list[np.ndarray] = []
        self.full, self.closed = False, False
        monkeypatch.setattr(distributed, "shard", lambda batch: batch)
        gather = distributed.gather

        def noted(tree):
            if isinstance(tree, dict) and NETWORK in tree:
                first = int(np.asarray(tree[NETWORK].attributes.sample_id).flat[0])
                self.events.append(f"fetch {first // SIZE}")
            return gather(tree)

        monkeypatch.setattr(distributed, "gather", noted)

    def __len__(self):
        return BATCHES

    def __iter__(self):
        try:
            for number in range(BATCHES):
                self.events.append(f"load {number}")
                ids = np.arange(number * SIZE, (number + 1) * SIZE)
                yield {"annotation_id": ids, "sample_mask": ids < REAL}
        finally:
            self.closed = True

    def step(self, weights, hands, constants, batch):
        ids = batch["annotation_id"]
        self.events.append(f"step {int(ids[0]) // SIZE}")
        numbers = {name: jnp.asarray(ids, jnp.float32)[None, :, None] for name in PARAMETERS}
        truth = jnp.asarray(ids)[None]
        return Evaluation({NETWORK: errors_of(batch)}, truth, truth, numbers)

    def add(self, batch, prediction, truth):
        np.testing.assert_array_equal(truth, batch["annotation_id"])
        self.drawn.append(truth)


def errors_of(batch) -> SampleErrors:
    """Errors with a device axis that say which sample they are of."""
    ids = jnp.asarray(batch["annotation_id"])[None]
    one = ids.astype(jnp.float32)
    known = jnp.ones((1, SIZE), bool)
    hands = HandErrors(
        *(jnp.zeros((1, SIZE, 2, 21)), jnp.ones((1, SIZE, 2, 21), bool)),
        *(jnp.zeros((1, SIZE, 2)), jnp.ones((1, SIZE, 2), bool)),
    )
    attributes = SampleAttributes(ids, ids, one, one, one)
    mask = jnp.asarray(batch["sample_mask"])[None]
    off = jnp.zeros((1, SIZE, 2, 21, 3), jnp.float16)
    return SampleErrors(
        *[hands] * len(PROTOCOLS),
        *(one, known, one, known, None, off, None, None, None, attributes, mask),
    )


@pytest.fixture
def recorded(monkeypatch):
    return Recorded(monkeypatch)


def test_the_next_step_is_enqueued_before_results_are_fetched(recorded):
    walk = evaluate(
        recorded.step, None, None, recorded, title="", grid=recorded, keep_parameters=True
    )
    assert recorded.events == [
        *("load 0", "step 0"),
        *("load 1", "step 1", "fetch 0"),
        *("load 2", "step 2", "fetch 1"),
        *("load 3", "step 3", "fetch 2"),
        "fetch 3",
    ]
    samples = np.arange(REAL)
    np.testing.assert_array_equal(walk.errors[NETWORK].attributes.sample_id, samples)
    np.testing.assert_array_equal(walk.errors[NETWORK].rel_trans_mm, samples)
    for name in PARAMETERS:
        np.testing.assert_array_equal(walk.parameters[name][:, 0], samples)
    np.testing.assert_array_equal(walk.parameters["sample_id"], samples)
    np.testing.assert_array_equal(np.concatenate(recorded.drawn), np.arange(BATCHES * SIZE))


class CutShort:
    """A pass over a split that ends after two batches, as at a signal."""

    def __init__(self, split):
        self._split = split

    def __len__(self):
        return len(self._split)

    def __iter__(self):
        for number, batch in enumerate(self._split):
            yield batch
            if number == 1:
                return


def test_a_walk_that_is_cut_short_has_what_was_enqueued(recorded):
    walk = evaluate(recorded.step, None, None, CutShort(recorded), title="")
    assert recorded.events[-1] == "fetch 1"
    assert "load 2" not in recorded.events
    assert recorded.closed
    np.testing.assert_array_equal(walk.errors[NETWORK].attributes.sample_id, np.arange(2 * SIZE))


def test_an_error_in_a_step_closes_the_split(recorded):
    def fail(*arguments):
        raise FloatingPointError

    with contextlib.suppress(FloatingPointError):
        evaluate(fail, None, None, recorded, title="")
    assert recorded.closed


def test_hands_that_the_network_calls_absent_have_no_say_in_the_place():
    rng = np.random.default_rng(0)
    cells_to_rays = np.tile(np.array([[0.1, 0, -0.4], [0, 0.1, -0.4]], np.float32), (2, 1, 1))
    shapes = {"vertices": (778, 3), "joints": (21, 3), "joint_img": (21, 3), "joint_spread": (21,)}
    found = {n: rng.normal(0, 0.05, (2, 2, *s)).astype(np.float32) for n, s in shapes.items()}
    found["joint_img"] = 4 + 10 * found["joint_img"]
    found["rel_trans"] = np.full((2, 3), 0.1, np.float32)
    logits = np.array([[3.0, -2.0], [3.0, 2.0]], np.float32)  # of the first sample no left hand
    elsewhere = dict(found, joint_img=found["joint_img"] + np.float32([[0], [1]])[:, :, None])

    def placed(found, logits):
        one = SimpleNamespace(**found, presence_logit=logits)
        return reconstruction_of(one, cells_to_rays)

    said, moved = placed(found, logits), placed(elsewhere, logits)
    np.testing.assert_allclose(said.presence, 1 / (1 + np.exp(-logits)), rtol=1e-6)
    np.testing.assert_array_equal(said.joint_spread, found["joint_spread"])
    np.testing.assert_allclose(said.wrists[0], moved.wrists[0], atol=1e-6)
    assert np.abs(said.wrists[1] - moved.wrists[1]).max() > 0.002
    unsaid = placed(found, None)
    assert unsaid.presence is None
    assert np.abs(unsaid.wrists[0] - placed(elsewhere, None).wrists[0]).max() > 0.002
    np.testing.assert_allclose(said.wrists[:, 1] - said.wrists[:, 0], found["rel_trans"], atol=1e-6)
