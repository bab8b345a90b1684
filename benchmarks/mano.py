"""Speed of the MANO layer against smplx (PyTorch) on the CPU: same hands, same threads, one run.

    pip install torch==2.13.0 smplx
    python -m benchmarks.mano --mano_dir <folder of MANO_RIGHT.pkl and MANO_LEFT.pkl>

Both peers pose both hands of every sample: smplx one hand after the other, as its users do, this
project in one call. Calls alternate, so that a busy moment of the machine meets both; the ratio is
the median over pairs. Before its turn a peer waits until the other's threads sleep: PyTorch's spin
for milliseconds after a call, on cores that the next call would need. Forward+backward pulls random
cotangents of vertices and joints back to the parameters. Results are compared before timing, but
for the joints: smplx returns the 16 of its kinematic chain, this project the regressor's and the
tips on the posed mesh.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mano_dir", help="folder of the hands; the stand-in hand without it")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row of the table")
    arguments = parser.parse_args()
    # XLA takes as many threads as the process may use CPUs, which must be set before JAX starts.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])

    jax_forward, jax_backward = jax_peer(arguments.mano_dir)
    torch_forward, torch_backward = torch_peer(arguments.mano_dir, arguments.threads)
    print(f"two hands a sample, {arguments.threads} threads; medians in ms, ratio = smplx / this")
    print(f"{'':17}{'batch':>6}{'smplx':>10}{'this':>10}{'ratio':>8}{'quartiles':>14}{'pairs':>7}")
    for name, ours, theirs in [
        ("forward", jax_forward, torch_forward),
        ("forward+backward", jax_backward, torch_backward),
    ]:
        for batch in arguments.batch:
            inputs = random_inputs(batch)
            no_joints = {**inputs, "joints_cotangent": 0 * inputs["joints_cotangent"]}
            require_agreement(ours(**no_joints)(), theirs(**no_joints)())
            times = alternate(ours(**inputs), theirs(**inputs), arguments.seconds)
            report(f"{name:17}{batch:6}", times)


def random_inputs(batch: int) -> dict[str, np.ndarray]:
    """Parameters of two hands a sample, and what to pull back through the layer."""
    rng = np.random.default_rng(0)

    def normal(scale: float, *shape: int) -> np.ndarray:
        return (scale * rng.normal(size=(batch, 2, *shape))).astype(np.float32)

    return {
        "betas": normal(1.0, 10),
        "pose": normal(0.4, 48),
        "transl": normal(0.1, 3),
        "vertices_cotangent": normal(1.0, 778, 3),
        "joints_cotangent": normal(1.0, 21, 3),
    }


def jax_peer(mano_dir: str | None) -> tuple[Callable, Callable]:
    """Makers of timed calls: (forward, forward+backward) of this project's layer."""
    import jax

    from er_jax.mano import load_hands, mano_forward
    from er_jax.utils.xla_cpu import prepare_cpu

    prepare_cpu()  # as the commands do

    hands = load_hands(mano_dir)

    @jax.jit
    def forward(hands, parameters):
        mesh = mano_forward(hands, *parameters)
        return mesh.vertices, mesh.joints

    @jax.jit
    def backward(hands, parameters, cotangents):
        outputs, pull_back = jax.vjp(lambda parameters: forward(hands, parameters), parameters)
        return *outputs, *pull_back(cotangents)[0]

    def timed_forward(betas, pose, transl, **_):
        parameters = jax.device_put((betas, pose, transl))
        return lambda: jax.block_until_ready(forward(hands, parameters))

    def timed_backward(betas, pose, transl, **cotangents):
        parameters = jax.device_put((betas, pose, transl))
        cotangents = jax.device_put(tuple(cotangents.values()))
        return lambda: jax.block_until_ready(backward(hands, parameters, cotangents))

    return timed_forward, timed_backward


def torch_peer(mano_dir: str | None, threads: int) -> tuple[Callable, Callable]:
    """Makers of timed calls: (forward, forward+backward) of smplx."""
    import smplx
    import torch
    from smplx.utils import Struct

    from er_jax.mano.files import read_hands
    from er_jax.mano.joints import HANDS

    torch.set_num_threads(threads)
    if mano_dir is None:
        from er_jax.mano.stand_in import stand_in_arrays

        arrays = {side: stand_in_arrays(side) for side in HANDS}
    else:
        arrays = {side: file.arrays for side, file in read_hands(Path(mano_dir)).items()}
    layers = [
        smplx.MANO(
            model_path="",
            data_struct=Struct(**arrays[side]),
            is_rhand=side == "right",
            use_pca=False,
            flat_hand_mean=False,
        )
        for side in HANDS
    ]

    def pose_both(parameters):
        meshes = [
            layer(betas=betas, global_orient=pose[:, :3], hand_pose=pose[:, 3:], transl=transl)
            for layer, betas, pose, transl in zip(layers, *parameters, strict=True)
        ]
        return [mesh.vertices for mesh in meshes], [mesh.joints for mesh in meshes]

    def per_hand(array):
        """The right and the left hand's part of (batch, 2, ...)."""
        return [torch.from_numpy(array[:, hand].copy()) for hand in (0, 1)]

    def timed_forward(betas, pose, transl, **_):
        parameters = [per_hand(x) for x in (betas, pose, transl)]

        def call():
            with torch.no_grad():
                return pose_both(parameters)

        return call

    def timed_backward(betas, pose, transl, vertices_cotangent, joints_cotangent):
        parameters = [per_hand(x) for x in (betas, pose, transl)]
        inputs = [x.requires_grad_() for hands in parameters for x in hands]
        cotangents = [*per_hand(vertices_cotangent), *per_hand(joints_cotangent[:, :, :16])]

        def call():
            vertices, joints = pose_both(parameters)
            gradients = torch.autograd.grad([*vertices, *joints], inputs, cotangents)
            return vertices, joints, *(gradients[i : i + 2] for i in (0, 2, 4))

        return call

    return timed_forward, timed_backward


def require_agreement(ours: tuple, theirs: tuple) -> None:
    """Raises if the peers' vertices, or gradients through them, differ."""
    for index, (mine, reference) in enumerate(zip(ours, theirs, strict=True)):
        if index != 1:  # joints are not the same points, see above
            expected = np.stack([hand.detach().numpy() for hand in reference], axis=1)
            np.testing.assert_allclose(mine, expected, atol=2e-5 * np.abs(expected).max())


def alternate(ours: Callable, theirs: Callable, seconds: float) -> list[tuple[float, float]]:
    """Pairs of times in seconds (ours, theirs); several calls a time where one is short."""
    repeats = max(1, int(0.1 / _seconds(theirs, 3)))
    _seconds(ours, repeats)
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(pairs) < 5:
        pairs.append((_seconds(ours, repeats), _seconds(theirs, repeats)))
    return pairs


def _seconds(call: Callable, repeats: int) -> float:
    time.sleep(0.01)  # the other peer's threads go to sleep
    call()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def report(row: str, times: list[tuple[float, float]]) -> None:
    ours, theirs = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    low, ratio, high = statistics.quantiles([their / our for our, their in times], n=4)
    print(
        f"{row}{theirs:10.3f}{ours:10.3f}{ratio:8.2f}{low:8.2f}–{high:.2f}{len(times):7}",
        flush=True,
    )


if __name__ == "__main__":
    main()
