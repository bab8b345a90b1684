"""The command that writes a network for use without this project."""

from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console

from er_jax.inference.export import export_onnx, export_stablehlo
from er_jax.mano import load_hands
from er_jax.models.weights.import_export import export_network
from er_jax.training.load import load_network


def run_export(config: ConfigDict, workdir: Path, output: Path, *, step: int | None) -> None:
    """Writes a checkpoint's network as exported models and its weights as a table of arrays.

    `er.stablehlo` and `er.onnx` go from images to meshes without this project (see
    `er_jax.inference.export`); `er.safetensors` takes the weights to other frameworks (see
    `er_jax.models.weights.import_export`).
    """
    hands = load_hands(config.mano_dir)
    net = load_network(config, workdir, step, hands)
    output.mkdir(parents=True, exist_ok=True)
    export_stablehlo(net, hands, output / "er.stablehlo")
    export_onnx(net, hands, output / "er.onnx")
    export_network(net, output / "er.safetensors")
    Console().print(f"Wrote er.stablehlo, er.onnx and er.safetensors to {output}", soft_wrap=True)
