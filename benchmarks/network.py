"""Times the network on this machine, alternating with PyTorch in one run.

    python benchmarks/network.py --torch_python=/path/to/a/python/that/has/torch

Each framework lives in a process of its own that sleeps while the other works. A repetition runs
every case in each, a short one as often as fits into half a second after a first call that finds
the caches as the other left them; the table gives medians. Without `--torch_python` only JAX is
timed, and ER's inference as an ONNX program in ONNX Runtime.

"Forward" is the form in which images are reconstructed, batch norms folded; "evaluation" is the
form that validation in training runs, batch norms as they are. PyTorch's are both its `eval()`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SIDE = 256
DEMO_BATCH = 32
REPETITION_SECONDS = 0.5
ER, PRODUCT = "ER inference, batch 1", "matrix product 2048"
CASES = (
    "resnet50 forward, batch 1",
    "resnet50 forward, batch 8",
    "resnet50 evaluation, batch 8",
    "resnet50 training step, batch 8",
    "demo training step, batch 32",
    ER,
    PRODUCT,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch_python", help="an interpreter with torch and torchvision")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--cases", nargs="*", default=CASES, help="parts of the cases' names")
    parser.add_argument("--worker", choices=("jax", "onnx", "torch"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve({"jax": jax_cases, "onnx": onnx_cases, "torch": torch_cases}[arguments.worker]())
        return
    cases = [case for case in CASES if any(part in case for part in arguments.cases)]
    workers = {framework: Worker(sys.executable, framework) for framework in ("jax", "onnx")}
    if arguments.torch_python:
        workers["torch"] = Worker(arguments.torch_python, "torch")
    report(cases, measure(workers, cases, arguments.repetitions))


class Worker:
    """A process that runs one repetition of a case each time it is asked."""

    def __init__(self, python: str, framework: str):
        self.process = subprocess.Popen(
            [python, __file__, f"--worker={framework}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )

    def run(self, case: str) -> dict | None:
        """Seconds of the repetition and numbers of the case, or None where it has no such case."""
        assert self.process.stdin and self.process.stdout
        print(case, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("a worker stopped; its message is above")
        return json.loads(answer)


def serve(cases: dict[str, Callable[[], tuple[Callable[[], None], dict]]]) -> None:
    """Answers each case named on stdin with the seconds that a call took."""
    ready: dict[str, tuple[Callable[[], None], dict]] = {}
    for line in sys.stdin:
        case = line.strip()
        if case not in cases:
            print("null", flush=True)
            continue
        if case not in ready:
            ready[case] = cases[case]()
            ready[case][0]()
        call, numbers = ready[case]
        seconds = time_of(call)
        calls = int(REPETITION_SECONDS / seconds)
        if calls > 1:
            seconds = statistics.mean(time_of(call) for _ in range(calls))
        print(json.dumps({"seconds": seconds} | numbers), flush=True)


def time_of(call: Callable[[], None]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(workers: dict[str, Worker], cases: list[str], repetitions: int) -> dict:
    """Results by (framework, case): the numbers of the case, `seconds` a list."""
    results: dict[tuple[str, str], dict] = {}
    for repetition in range(repetitions + 1):
        for case in cases:
            for framework, worker in workers.items():
                answer = worker.run(case)
                if answer is None or repetition == 0:  # the first is a warm-up
                    continue
                seconds = answer.pop("seconds")
                result = results.setdefault((framework, case), answer | {"seconds": []})
                result["seconds"].append(seconds)
    return results


def report(cases: list[str], results: dict) -> None:
    """Prints a table: milliseconds (least, median), GFLOP/s, and PyTorch's time over JAX's.

    Ratios, of ER's inference to what its FLOPs take at a matrix product's rate too, are medians of
    pairs measured in the same repetition.
    """
    print(f"{'case':34} {'JAX ms: least':>14} {'median':>8} {'GFLOP/s':>8}", end=" ")
    print(f"{'torch ms: least':>16} {'median':>8} {'torch/JAX: least':>17} {'median':>7}")
    for case in cases:
        ours, theirs = results[("jax", case)], results.get(("torch", case))
        least, median = min(ours["seconds"]), statistics.median(ours["seconds"])
        rate = ours["flops"] / median / 1e9
        line = f"{case:34} {1e3 * least:14.1f} {1e3 * median:8.1f} {rate:8.0f}"
        if theirs:
            their_least = min(theirs["seconds"])
            their_median = statistics.median(theirs["seconds"])
            pairs = zip(theirs["seconds"], ours["seconds"], strict=True)
            ratio = statistics.median(torch / jax for torch, jax in pairs)
            line += f" {1e3 * their_least:16.1f} {1e3 * their_median:8.1f}"
            line += f" {their_least / least:17.2f} {ratio:7.2f}"
        print(line)
    if {ER, PRODUCT} <= set(cases):
        product, flops = results[("jax", PRODUCT)], results[("jax", ER)]["flops"]
        floors = [flops / product["flops"] * each for each in product["seconds"]]
        print(
            f"ER's {flops / 1e9:.2f} GFLOP take {1e3 * statistics.median(floors):.1f} ms at the "
            "rate of the matrix product; its inference takes"
        )
        for framework, name in (("jax", "JAX"), ("onnx", "ONNX Runtime")):
            seconds = results[(framework, ER)]["seconds"]
            pairs = zip(seconds, floors, strict=True)
            ratio = statistics.median(taken / floor for taken, floor in pairs)
            print(f"{1e3 * statistics.median(seconds):.1f} ms in {name}, {ratio:.2f} times that")


def jax_cases() -> dict:
    """The cases in JAX, each a function that compiles it and returns (repetition, numbers)."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from er_jax.inference.reconstructor import fold_batch_norms, functional
    from er_jax.mano import load_hands
    from er_jax.models import ERConfig, ERNet
    from er_jax.models.backbones import make_backbone
    from er_jax.utils.xla_cpu import prepare_cpu

    prepare_cpu()

    def compiled(function, *arguments):
        flops = flops_of(function.lower(*arguments))
        return lambda: jax.block_until_ready(function(*arguments)), {"flops": flops}

    def flops_of(lowered) -> float:
        return (lowered.cost_analysis() or {})["flops"]  # of the program as written

    def images(batch: int):
        return jnp.full((batch, SIDE, SIDE, 3), 0.5)

    def forward(batch: int):
        folded = fold_batch_norms(make_backbone(ERConfig(), nnx.Rngs(0)))
        call, state = functional(lambda net, image: net(image), folded)
        return compiled(jax.jit(call), state, images(batch))

    def evaluation(batch: int):
        net = make_backbone(ERConfig(), nnx.Rngs(0))
        net.eval()
        graphdef, state = nnx.split(net)
        program = jax.jit(lambda state, image: nnx.merge(graphdef, state)(image))
        return compiled(program, state, images(batch))

    def training_step(net, call, batch: int, side: int):
        net.train()
        graphdef, *(params, batch_stats) = nnx.split(net, nnx.Param, nnx.BatchStat)
        optimizer = optax.adam(1e-4)

        def loss(params, batch_stats, image):
            net = nnx.merge(graphdef, params, batch_stats, copy=True)
            leaves = jax.tree.leaves(call(net, image))
            return sum(jnp.square(leaf).mean() for leaf in leaves), nnx.state(net, nnx.BatchStat)

        def step(params, batch_stats, optimizer_state, image):
            gradients, batch_stats = jax.grad(loss, has_aux=True)(params, batch_stats, image)
            updates, optimizer_state = optimizer.update(gradients, optimizer_state)
            return optax.apply_updates(params, updates), batch_stats, optimizer_state

        state = (params, batch_stats, optimizer.init(params))
        image = jnp.full((batch, side, side, 3), 0.5)
        lowered = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*state, image)
        program = lowered.compile()

        def repetition():
            nonlocal state
            state = jax.block_until_ready(program(*state, image))

        return repetition, {"flops": flops_of(lowered)}

    def demo():
        config = ERConfig(
            backbone="resnet18",
            backbone_width=24,
            backbone_init="he",
            input_size=128,
            feature_dim=128,
            desim_depth=1,
            deocc_depth=1,
            fusejoint_depth=1,
        )
        hands = load_hands(None)
        net = ERNet(config, rngs=nnx.Rngs(0))
        return training_step(net, lambda net, image: net(image, hands), DEMO_BATCH, 128)

    def inference():
        folded = fold_batch_norms(ERNet(ERConfig(), rngs=nnx.Rngs(0)))
        hands = load_hands(None)
        call, state = functional(lambda net, image: net(image, hands), folded)
        return compiled(jax.jit(call), state, images(1))

    return {
        CASES[0]: lambda: forward(1),
        CASES[1]: lambda: forward(8),
        CASES[2]: lambda: evaluation(8),
        CASES[3]: lambda: training_step(
            make_backbone(ERConfig(), nnx.Rngs(0)), lambda net, image: net(image), 8, SIDE
        ),
        CASES[4]: demo,
        ER: inference,
        PRODUCT: lambda: compiled(jax.jit(jnp.matmul), *[jnp.ones((2048, 2048))] * 2),
    }


def onnx_cases() -> dict:
    """ER's inference by ONNX Runtime."""
    import tempfile

    import numpy as np
    import onnxruntime
    from flax import nnx

    from er_jax.inference.export import export_onnx
    from er_jax.mano import load_hands
    from er_jax.models import ERConfig, ERNet

    def inference():
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "er.onnx"
            export_onnx(ERNet(ERConfig(), rngs=nnx.Rngs(0)), load_hands(None), program)
            session = onnxruntime.InferenceSession(program)
        images = np.full((1, SIDE, SIDE, 3), 0.5, np.float32)
        return lambda: session.run(None, {"images": images}), {}

    return {ER: inference}


def torch_cases() -> dict:
    """The same cases of torchvision's ResNet-50, eager, channels_last."""
    import torch
    import torchvision

    def trunk():
        net = torchvision.models.resnet50(weights=None)
        net.avgpool = net.fc = torch.nn.Identity()
        return net.to(memory_format=torch.channels_last)

    def images(batch: int):
        image = torch.full((batch, 3, SIDE, SIDE), 0.5)
        return image.to(memory_format=torch.channels_last)

    def forward(batch: int):
        net, image = trunk().eval(), images(batch)

        def repetition():
            with torch.inference_mode():
                net(image)

        return repetition, {}

    def training_step():
        net, image = trunk().train(), images(8)
        optimizer = torch.optim.Adam(net.parameters(), 1e-4)

        def repetition():
            optimizer.zero_grad()
            net(image).square().mean().backward()
            optimizer.step()

        return repetition, {}

    def product():
        matrix = torch.ones(2048, 2048)
        return lambda: torch.matmul(matrix, matrix), {}

    return {
        CASES[0]: lambda: forward(1),
        CASES[1]: lambda: forward(8),
        CASES[2]: lambda: forward(8),
        CASES[3]: training_step,
        PRODUCT: product,
    }


if __name__ == "__main__":
    main()
