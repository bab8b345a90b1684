"""The command that finds out, before hours are spent, whether a training fits its devices."""

import collections
import dataclasses
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from er_jax.commands.logs import quieten_libraries
from er_jax.evaluation.evaluate import make_evaluation_step, make_prediction_function
from er_jax.mano import load_hands
from er_jax.models import ERConfig
from er_jax.supervision.loaders import Split, shard_for_training, steps_in_epoch, train_loader
from er_jax.training.optimizer import make_optimizer
from er_jax.training.state import create_state
from er_jax.training.step import StepSettings, make_train_step
from er_jax.training.validation import validation_metric
from er_jax.utils import distributed
from er_jax.utils.errors import ConfigError

GIB = 2**30
_PRODUCT = re.compile(r"stablehlo\.(?:dot_general|convolution)\b.*")
_PRECISION = re.compile(r"#stablehlo<precision (\w+)>|precision = \[(\w+)")
_OPERANDS = re.compile(r":\s*\(tensor<[^>]*?x?([a-z]+\d+)>")


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function of a run, to look at; arguments and results have a device axis."""

    name: str
    function: Any  # compiled by `distributed.data_parallel`
    arguments: tuple[Any, ...]


def run_check(config: ConfigDict) -> None:
    """Reads a batch of every split, compiles what a run consists of, and says what it takes.

    Prints, for the training step, the evaluation step and a prediction, the memory of a device
    against what it has, FLOPs and bytes; and whether arithmetic in float64 or calls of the host
    slipped in. Where no accelerator is at hand, the same programs are also lowered for CUDA, and
    the precision of their products is told.

    Raises:
      ConfigError: a device has not enough memory, or a setting is wrong.
      DataError: a split cannot be read.
    """
    quieten_libraries()
    logging.getLogger().setLevel(logging.WARNING)
    console = Console()
    console.print(f"Checking on {distributed.describe_devices()}")
    table = Table("program", "compiled in", "memory a device", "GFLOP", "GB read and written")
    needed, problems = 0, []
    programs = list(_programs(config))
    for program in programs:
        start = time.perf_counter()
        compiled = program.function.lower(*program.arguments).compile()
        seconds = time.perf_counter() - start
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
        # Arrays whose memory the results take over are counted once.
        size = memory.argument_size_in_bytes + memory.output_size_in_bytes
        size += memory.temp_size_in_bytes - memory.alias_size_in_bytes
        needed = max(needed, size)
        table.add_row(
            program.name,
            f"{seconds:.1f} s",
            _size(size),
            f"{cost.get('flops', 0) / 1e9:.1f}",
            f"{cost.get('bytes accessed', 0) / 1e9:.2f}",
        )
        problems += [f"{program.name}: {problem}" for problem in _slipped_in(compiled.as_text())]
    console.print(table)
    if jax.default_backend() == "cpu":
        console.print(_for_cuda(programs, problems))
    for problem in problems:
        console.print(f"[red]{problem}")
    limit = _memory_limit()
    console.print(
        f"The largest takes {_size(needed)} of a device"
        + (f", which gives {_size(limit)}" if limit else "; how much it has, JAX cannot say")
    )
    if limit and needed > limit:
        raise ConfigError(
            f"config.batch_size={config.batch_size} does not fit: make it smaller, or set "
            "config.optimizer.accumulation, config.model.remat_backbone or "
            "config.model.precision=bfloat16"
        )


def _programs(config: ConfigDict) -> Iterator[Program]:
    """What a run consists of, with arguments of the shapes that its data have."""
    distributed.check_batch_size(config.batch_size, config.optimizer.accumulation)
    hands, net_config = load_hands(config.mano_dir), ERConfig.from_dict(config.model)
    data = train_loader(config)
    batch = next(data)
    steps = steps_in_epoch(data)
    data.close()
    validation_split = Split.of(config, config.data.validation_split)
    validation_metric(config.validation.metric, validation_split, hands)
    test_batch = next(iter(Split.of(config, config.data.test_split)))

    optimizer, rate = make_optimizer(
        config.optimizer, epochs=config.epochs, batch_size=config.batch_size, steps_per_epoch=steps
    )
    with_ema = config.optimizer.ema_decay > 0
    state = jax.eval_shape(
        lambda: create_state(net_config, optimizer, config.seed, with_ema=with_ema)
    )
    weights, hands = _on_devices(state.evaluated()), _on_devices(hands)
    step = make_train_step(StepSettings.of(config), optimizer, rate)
    yield Program("training step", step, (_on_devices(state), hands, shard_for_training(batch)))
    evaluation = make_evaluation_step(net_config, config.depth_box_m, f_scores=False)
    test_batch = distributed.shard(test_batch)
    yield Program("evaluation step", evaluation, (weights, hands, {}, test_batch))
    predict = distributed.data_parallel(make_prediction_function(net_config))
    side = config.model.input_size
    images = jax.ShapeDtypeStruct((distributed.local_count(), 1, side, side, 3), jnp.uint8)
    yield Program("prediction of 1", predict, (weights, hands, images))


def _on_devices(tree: Any) -> Any:
    """The shapes of a tree that is replicated."""
    devices = distributed.local_count()
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((devices, *x.shape), x.dtype), tree)


def _for_cuda(programs: list[Program], problems: list[str]) -> Table:
    """Lowers the programs for a GPU, and adds to the problems what is wrong with them."""
    table = Table("lowered for CUDA", "products", "operands, precision")
    for program in programs:
        try:
            text = distributed.lowered_for("cuda", program.function, program.arguments)
        except ValueError as error:  # such as a call of the host, which needs the platform
            problems.append(f"{program.name} cannot be lowered for CUDA: {error}")
            continue
        products = _PRODUCT.findall(text)
        kinds = collections.Counter(_kind(product) for product in products)
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        table.add_row(program.name, str(len(products)), told)
        problems += [f"{program.name} for CUDA: {problem}" for problem in _slipped_in(text)]
    return table


def _kind(product: str) -> str:
    precision, operands = _PRECISION.search(product), _OPERANDS.search(product)
    asked = next(filter(None, precision.groups()), "DEFAULT") if precision else "DEFAULT"
    dtype = operands.group(1) if operands else "?"
    return f"{dtype} {'at full precision' if asked == 'HIGHEST' else 'by default'}"


def _slipped_in(text: str) -> list[str]:
    """What a program for an accelerator should not have."""
    problems = []
    if re.search(r"\bf64\b|xf64>", text):
        problems.append("arithmetic in float64")
    if "callback" in text:
        problems.append("calls of the host")
    return problems


def _size(count: float) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / 2**20:.1f} MiB"


def _memory_limit() -> int | None:
    """Bytes that JAX may use of a device, where it says so."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit")
