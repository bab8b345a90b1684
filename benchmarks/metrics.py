"""Samples a second of the metric code on one core: device part, F-scores, host part.

    python -m benchmarks.metrics

CPU time of the whole process, best of several rounds, so that a busy machine does not count.
"""

import argparse
import functools
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from er_jax.evaluation.metrics import sample_errors
from er_jax.evaluation.summary import collect, summarize
from er_jax.evaluation.types import ReconstructedMeshes, SampleErrors
from er_jax.supervision.targets import INTERACTING, Targets

INTERHAND_TEST_SAMPLES = 849_160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--table", type=int, default=100_000, help="samples of the host part")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    batch, rounds = arguments.batch, arguments.rounds
    prediction, truth = jax.device_put(random_batch(batch))

    print(f"two hands a sample, batch {batch}, one core: {jax.devices()[0].device_kind}")
    seconds = {}
    for name, f_scores in [("all protocols", False), ("with F-scores", True)]:
        step = jax.jit(functools.partial(errors_of, f_scores=f_scores))
        seconds[name] = best(functools.partial(finished, step, prediction, truth), rounds) / batch
    table = jax.device_get(step(prediction, truth))
    batches = arguments.table // batch
    start = time.process_time()
    summarize(collect(table for _ in range(batches)))
    seconds["collecting and reducing"] = (time.process_time() - start) / (batches * batch)
    seconds["all protocols, reduced"] = (
        seconds["all protocols"] + seconds["collecting and reducing"]
    )
    for name, each in seconds.items():
        whole = each * INTERHAND_TEST_SAMPLES
        print(
            f"{name:26}{1 / each:12,.0f} samples/s{1e6 * each:9.1f} µs a sample"
            f"{whole:9.0f} s for {INTERHAND_TEST_SAMPLES:,}"
        )


def errors_of(prediction: ReconstructedMeshes, truth: Targets, f_scores: bool) -> SampleErrors:
    count = len(truth.rel_trans)
    return sample_errors(
        prediction,
        truth,
        hand_type=jnp.full(count, INTERACTING),
        sample_mask=jnp.ones(count, bool),
        f_scores=f_scores,
    )


def random_batch(count: int) -> tuple[ReconstructedMeshes, Targets]:
    """Points in the size of hands; what they look like does not matter to the speed."""
    rng = np.random.default_rng(0)

    def normal(scale: float, *shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(0, scale, (count, *shape)), jnp.float32)

    def known(*shape: int) -> jax.Array:
        return jnp.ones((count, *shape), bool)

    mesh, rel_trans = normal(0.05, 2, 778, 3), normal(0.1, 3)
    joints = mesh[:, :, :21]
    truth = Targets(
        joint_cam=joints,
        joint_img=joints,
        mano_joint_cam=joints,
        mano_joint_img=joints,
        mano_mesh_cam=mesh,
        mano_pose=normal(0.1, 2, 48),
        mano_shape=normal(1, 2, 10),
        rel_trans=rel_trans,
        joint_valid=known(2, 21),
        joint_trunc=known(2, 21),
        joint_xy_valid=known(2, 21),
        joint_xy_trunc=known(2, 21),
        mano_joint_trunc=known(2, 21),
        mano_hand_valid=known(2),
        mano_pose_valid=known(2),
        rel_trans_valid=known(),
        wrist_cam=normal(0.5, 2, 3),
        wrist_cam_valid=known(2),
        hand_present=known(2),
        hand_present_valid=known(),
        cells_to_rays=normal(0.1, 2, 3),
        confidence=jnp.ones((count, 2)),
    )
    noisy = mesh + normal(0.01, 2, 778, 3)
    prediction = ReconstructedMeshes(
        *(noisy, noisy[:, :, :21], rel_trans + normal(0.01, 3), truth.wrist_cam),
        presence=jax.nn.sigmoid(normal(1, 2)),
        joint_spread=jnp.abs(normal(1, 2, 21)),
    )
    return prediction, truth


def finished(function: Callable[..., object], *arguments: object) -> object:
    return jax.block_until_ready(function(*arguments))


def best(function: Callable[[], object], rounds: int) -> float:
    """CPU seconds of the fastest call."""
    function()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    main()
