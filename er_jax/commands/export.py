"""The command that writes a network for use without this project."""

from pathlib import Path

import jax
from ml_collections import ConfigDict
from rich.console import Console

from er_jax.inference.export import export_onnx, export_stablehlo
from er_jax.mano import hand_model_identity, load_hands
from er_jax.models.functional import network_of
from er_jax.models.weights.import_export import export_network
from er_jax.training.load import load_trained, recorded_run
from er_jax.training.run_record import run_record
from er_jax.utils.provenance import code_version


def run_export(config: ConfigDict, source: Path, output: Path, *, step: int | None) -> None:
    """Writes a trained network as exported models, and its weights as a table of arrays.

    `er.stablehlo` and `er.onnx` go from images to meshes without this project (see
    `er_jax.inference.export`); `er.safetensors` takes the weights to other frameworks (see
    `er_jax.models.weights.import_export`).
    """
    hands = load_hands(config.mano_dir)
    trained = load_trained(config, source, step, hands)
    net = network_of(trained.config, trained.weights)
    output.mkdir(parents=True, exist_ok=True)
    export_stablehlo(net, hands, output / "er.stablehlo")
    export_onnx(net, hands, output / "er.onnx")
    made_with = {"hands": hand_model_identity(hands), "code": code_version()}
    recorded = recorded_run(source, step)
    scores = {name: recorded.get(name) for name in ("validated_by", "validation")}
    record = run_record(config, made_with) | scores | {"step": trained.step}
    export_network(net, output / "er.safetensors", record)
    Console().print(
        f"Wrote to {output}:\n"
        f"er.stablehlo: for JAX {jax.__version__} and, by JAX's promise, for releases of the six "
        "months after it; older ones may not read it\n"
        "er.onnx: for ONNX Runtime and whatever reads opset 18; the lasting form\n"
        "er.safetensors: the weights, for --weights of this project and for other frameworks",
        soft_wrap=True,
    )
