"""Weights from and to files: pretrained backbones, and the whole network as `.safetensors`.

A tensor of an exported network is named by its path in the tree of modules, joined by dots, as in
`desim.right.blocks.0.attention.query.kernel`; convolution kernels are (rows, columns, channels in,
channels out), linear kernels (in, out), norms have `scale` and `bias`, batch norms also the running
`mean` and `var`. The header's metadata say as JSON what
the weights belong to.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from er_jax.models.backbones.resnet import ResNet
from er_jax.models.backbones.tinyvit import TinyViT
from er_jax.models.er import ERNet
from er_jax.models.weights.torch_checkpoint import read_torch_checkpoint
from er_jax.utils.atomic_write import atomic_write
from er_jax.utils.errors import DataError, NotFoundError

FORMAT = "er_jax 2"


class WeightError(DataError, ValueError):
    """A file's tensors do not fit the network; the message names each that does not."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """Foreign names that match `pattern` become `name`; None: they have no place here."""

    pattern: str
    name: str | None
    transform: Callable[[np.ndarray], np.ndarray] = np.asarray


def kernel(weight: np.ndarray) -> np.ndarray:
    """PyTorch's (out, in) or (out, in, rows, columns) to (in, out) or (rows, columns, in, out)."""
    return np.moveaxis(weight, (1, 0), (-2, -1))


NORM_RULES = (
    Rule(r"(|.*\.)(bn\d?|norm)\.weight", r"\1\2.scale"),
    Rule(r"(|.*\.)(bn\d?|norm)\.bias", r"\1\2.bias"),
    Rule(r"(|.*\.)(bn\d?)\.running_(mean|var)", r"\1\2.\3"),
    Rule(r".*\.num_batches_tracked", None),
)
RESNET_RULES = (
    Rule(r"(.*\.downsample)\.0\.weight", r"\1.conv.kernel", kernel),
    Rule(r"(.*\.downsample)\.1\.weight", r"\1.bn.scale"),
    Rule(r"(.*\.downsample)\.1\.bias", r"\1.bn.bias"),
    Rule(r"(.*\.downsample)\.1\.running_(mean|var)", r"\1.bn.\2"),
    Rule(r"(|.*\.)conv(\d)\.weight", r"\1conv\2.kernel", kernel),
    Rule(r"fc\..*", None),
    *NORM_RULES,
)
TINYVIT_RULES = (
    Rule(r"head\..*", None),
    Rule(r".*\.attention_bias_idxs", None),
    Rule(r"(.*)\.(conv|qkv|proj|fc1|fc2)\.weight", r"\1.\2.kernel", kernel),
    Rule(r"(.*)\.(qkv|proj|fc1|fc2)\.bias", r"\1.\2.bias"),
    Rule(r"(.*)\.attention_biases", r"\1.attention_biases"),
    *NORM_RULES,
)


def load_backbone(backbone: ResNet | TinyViT, path: Path | str) -> None:
    """Puts a checkpoint of torchvision (ResNet) or timm (TinyViT, ResNet) into a backbone.

    Args:
      backbone: changed in place; `net.backbone`.
      path: a `.pth` or `.safetensors` file.

    Raises:
      WeightError: tensors are missing, surplus or of another shape; the backbone is untouched.
      CheckpointError: the file cannot be read safely.
    """
    rules = RESNET_RULES if isinstance(backbone, ResNet) else TINYVIT_RULES
    tensors, unknown = _renamed(_read_tensors(Path(path)), rules)
    _assign(backbone, tensors, unknown, Path(path))


def export_network(net: ERNet, path: Path | str, record: Mapping[str, Any] | None = None) -> None:
    """Writes all weights and running statistics as one `.safetensors` file.

    Args:
      net: the network.
      path: of the file.
      record: plain JSON: what the weights belong to, see `er_jax.training.run_record`.
    """
    path = Path(path)
    tensors = {
        name: np.ascontiguousarray(variable[...]) for name, variable in named_variables(net).items()
    }
    record = record or {"config": {"model": dataclasses.asdict(net.config)}}
    metadata = {"format": FORMAT, "run": json.dumps(record)}
    with atomic_write(path) as beside:
        # `save_file` makes a file that its owner alone may read.
        beside.write_bytes(safetensors.numpy.save(tensors, metadata))


def import_network(net: ERNet, path: Path | str) -> None:
    """Reads what `export_network` wrote into a network of the same config, in place.

    Raises:
      WeightError: tensors are missing, surplus or of another shape; the network is untouched.
    """
    _assign(net, read_weights(Path(path)), [], Path(path))


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Tensors by their dotted name of what `export_network` wrote; errors as of `read_record`."""
    read_record(path)
    return dict(_read_tensors(path))


def read_record(path: Path) -> dict[str, Any]:
    """What the weights in a file of `export_network` belong to, without reading them.

    Raises:
      NotFoundError: there is no such file.
      WeightError: it is no such file, or cut short.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: there is no such file; --mode=export writes er.safetensors")
    with _broken_file_told(path), safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise WeightError(
            f"{path} has format {metadata.get('format')!r}, not {FORMAT!r}: give an er.safetensors "
            "that --mode=export of this version wrote. A pretrained backbone is for "
            "--config.model.backbone_weights."
        )
    return json.loads(metadata["run"])


def named_variables(module: nnx.Module) -> dict[str, nnx.Variable]:
    """A module's weights and running statistics by their dotted path."""
    return {
        ".".join(map(str, path)): variable
        for path, variable in nnx.to_flat_state(nnx.state(module))
    }


def _read_tensors(path: Path) -> Mapping[str, np.ndarray]:
    if path.suffix != ".safetensors":
        return read_torch_checkpoint(path)
    with _broken_file_told(path):
        return safetensors.numpy.load_file(path)


@contextmanager
def _broken_file_told(path: Path) -> Iterator[None]:
    try:
        yield
    except safetensors.SafetensorError as error:
        raise WeightError(f"{path} is no .safetensors file, or is cut off: {error}") from error


def _renamed(
    tensors: Mapping[str, np.ndarray], rules: tuple[Rule, ...]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The tensors under this project's names, and the names that no rule knows."""
    renamed, unknown = {}, []
    for name, tensor in tensors.items():
        rule = next((rule for rule in rules if re.fullmatch(rule.pattern, name)), None)
        if rule is None:
            unknown.append(name)
        elif rule.name is not None:
            renamed[re.sub(rule.pattern, rule.name, name)] = rule.transform(tensor)
    return renamed, unknown


def _assign(
    module: nnx.Module, tensors: Mapping[str, np.ndarray], unknown: list[str], path: Path
) -> None:
    variables = named_variables(module)
    problems = [f"surplus: {name}" for name in unknown]
    problems += [f"surplus: {name}" for name in tensors if name not in variables]
    for name, variable in variables.items():
        if name not in tensors:
            problems.append(f"missing: {name} {variable.shape}")
        elif tensors[name].shape != variable.shape:
            problems.append(f"shape: {name} is {tensors[name].shape}, not {variable.shape}")
    if problems:
        raise WeightError(
            f"{path} does not fit this {type(module).__name__}; check that config.model names "
            "the same network:\n  " + "\n  ".join(problems)
        )
    for name, variable in variables.items():
        variable[...] = jnp.asarray(tensors[name], variable.dtype)
