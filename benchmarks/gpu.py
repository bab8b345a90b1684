"""The paper's configuration on the devices at hand: training, precision, MANO, `Reconstructor`.

    python -m benchmarks.gpu --data_dir=outputs/demo/datasets [--dataset=interhand26m/all]
        [--batch_size=80] [--workers=8] [--steps=50] [--small]

Prints a JSON line each: images/s of the training step on one batch that lies on the devices, in
float32 and in bfloat16, and with the loader feeding it; the truth evaluated as a prediction, which
must be off by less than 0.01 mm; MANO at 1024, forward and with its gradient; `Reconstructor` at
1, 16 and 256 images. `--small` shrinks the network, to try the script without a GPU.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from er_jax.configs.ih26m import get_config
from er_jax.configs.tiny import get_config as tiny
from er_jax.evaluation.evaluate import batch_errors, collect_by_name
from er_jax.evaluation.summary import headline, summarize
from er_jax.evaluation.types import ReconstructedMeshes
from er_jax.inference.reconstructor import Reconstructor
from er_jax.mano import load_hands, mano_forward
from er_jax.models import ERConfig, ERNet
from er_jax.supervision.loaders import Split, shard_for_training, train_loader
from er_jax.supervision.targets import make_targets
from er_jax.training.optimizer import make_optimizer
from er_jax.training.state import create_state
from er_jax.training.step import StepSettings, make_train_step
from er_jax.utils import distributed
from er_jax.utils.xla_cpu import prepare_cpu

TRUTH = ("wrist_aligned/MPVPE/all", "wrist_aligned/MRRPE/all", "scale_aligned/MPJPE/all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--dataset", default="interhand26m/all")
    parser.add_argument("--batch_size", type=int, default=80, help="of a device")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    prepare_cpu()
    config = (tiny if options.small else get_config)()
    config.data_dir, config.data.dataset = options.data_dir, options.dataset
    config.data.workers = options.workers
    config.batch_size = options.batch_size * jax.device_count()
    report("devices", devices=distributed.describe_devices(), jax=jax.__version__)
    for precision in ("float32", "bfloat16"):
        config.model.precision = precision
        report("training", precision=precision, **training(config, options.steps))
    config.model.precision = "float32"
    report("truth as a prediction, mm", **truth_as_prediction(config))
    report("MANO at 1024, ms", **mano(1024))
    report("Reconstructor, ms", **reconstruction(config))


def report(what: str, **numbers: object) -> None:
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in numbers.items()}
    print(json.dumps({"what": what, **rounded}), flush=True)


def training(config: ConfigDict, steps: int) -> dict[str, float]:
    """Images/s on one batch that stays on the devices, and with the loader; the peak of memory."""
    optimizer, rate = make_optimizer(
        config.optimizer, epochs=1, batch_size=config.batch_size, steps_per_epoch=steps
    )
    step = make_train_step(StepSettings.of(config), optimizer, rate)
    state = create_state(ERConfig.from_dict(config.model), optimizer, config.seed)
    state, hands = distributed.replicate((state, load_hands(config.mano_dir)))
    loader = train_loader(config)
    batch = shard_for_training(next(loader))
    start = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, hands, batch))
    compiled_in = time.perf_counter() - start

    def images_per_second(batches: Callable[[], dict]) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, hands, batches())
        jax.block_until_ready(metrics)
        return steps * config.batch_size / (time.perf_counter() - start)

    bare = images_per_second(lambda: batch)
    with_loader = images_per_second(lambda: shard_for_training(next(loader)))
    loader.close()
    memory = jax.local_devices()[0].memory_stats() or {}
    return {
        "batch_size": config.batch_size,
        "first_step_s": compiled_in,
        "images_per_s": bare,
        "images_per_s_with_loader": with_loader,
        "peak_gib": memory.get("peak_bytes_in_use", 0) / 2**30,
    }


def truth_as_prediction(config: ConfigDict) -> dict[str, float]:
    """Errors of meshes that MANO makes of the annotations anew, against the targets; mm.

    The targets move vertices from world to camera axes; here the pose is moved and posed again.
    """
    hands = load_hands(config.mano_dir)

    @jax.jit
    def errors(batch: dict) -> object:
        truth = make_targets(hands, batch)
        mesh = mano_forward(hands, truth.mano_shape, truth.mano_pose)
        wrist = mesh.joints[:, :, :1]
        meshes = ReconstructedMeshes(mesh.vertices - wrist, mesh.joints - wrist, truth.rel_trans)
        return batch_errors(meshes, truth, batch, f_scores=False)

    split = Split.of(config, config.data.test_split)
    found = collect_by_name({"truth": errors(batch)} for batch in split)
    numbers = headline(summarize(found["truth"]), TRUTH)
    return {name: float(value) for name, value in numbers.items() if value is not None}


def mano(count: int) -> dict[str, float]:
    hands, random = load_hands(None), np.random.default_rng(0)
    betas, pose = (jnp.asarray(random.normal(0, s, (count, 2, n))) for s, n in ((1, 10), (0.4, 48)))

    def squares(betas: jax.Array, pose: jax.Array) -> jax.Array:
        mesh = mano_forward(hands, betas, pose)
        return (mesh.vertices**2).sum() + (mesh.joints**2).sum()

    forward = jax.jit(lambda b, p: mano_forward(hands, b, p))
    gradient = jax.jit(jax.grad(squares, argnums=(0, 1)))
    return {
        "forward": median_ms(lambda: forward(betas, pose)),
        "with_gradient": median_ms(lambda: gradient(betas, pose)),
    }


def reconstruction(config: ConfigDict) -> dict[str, float]:
    """Milliseconds a batch, transfers included."""
    net = ERNet(ERConfig.from_dict(config.model), rngs=nnx.Rngs(0))
    sizes, side = (1, 16, 256), config.model.input_size
    reconstruct = Reconstructor(net, load_hands(config.mano_dir), batch_sizes=sizes)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (max(sizes), side, side, 3), np.uint8)
    return {str(n): median_ms(partial(reconstruct, images[:n]), repetitions=10) for n in sizes}


def median_ms(call: Callable[[], object], repetitions: int = 30) -> float:
    jax.block_until_ready(call())
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    main()
