"""Samples a second of the metric code on one core: device part, F-scores, host part.

    python -m benchmarks.metrics

CPU time of the whole process, best of several rounds, so that a busy machine does not count.
"""

import argparse
import functools
import os
import time
from collections.abc import Callable
from types import SimpleNamespace

import jax
import numpy as np

from er_jax.evaluation.metrics import sample_errors
from er_jax.evaluation.summary import collect, summarize
from er_jax.evaluation.types import INTERACTING, ReconstructedMeshes, Truth

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
        run = functools.partial(step, prediction, truth)
        seconds[name] = best(lambda run=run: jax.block_until_ready(run()), rounds) / batch
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


def errors_of(prediction: ReconstructedMeshes, truth: dict, f_scores: bool):
    count = len(truth["rel_trans"])
    fields: Truth = SimpleNamespace(**truth)  # type: ignore[assignment]
    return sample_errors(
        prediction,
        fields,
        hand_type=np.full(count, INTERACTING),
        sample_mask=np.ones(count, bool),
        f_scores=f_scores,
    )


def random_batch(count: int) -> tuple[ReconstructedMeshes, dict]:
    """Points in the size of hands; what they look like does not matter to the speed."""
    rng = np.random.default_rng(0)

    def normal(scale: float, *shape: int) -> np.ndarray:
        return rng.normal(0, scale, (count, *shape)).astype(np.float32)

    mesh, rel_trans = normal(0.05, 2, 778, 3), normal(0.1, 3)
    joints, all_joints = mesh[:, :, :21], np.ones((count, 2, 21), bool)
    truth = {
        "joint_cam": joints,
        "joint_img": joints,
        "joint_valid": all_joints,
        "joint_trunc": all_joints,
        "mano_mesh_cam": mesh,
        "mano_joint_cam": joints,
        "mano_hand_valid": np.ones((count, 2), bool),
        "rel_trans": rel_trans,
        "rel_trans_valid": np.ones(count, bool),
    }
    noisy = mesh + normal(0.01, 2, 778, 3)
    return ReconstructedMeshes(noisy, noisy[:, :, :21], rel_trans + normal(0.01, 3)), truth


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
