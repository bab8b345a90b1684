"""The command that reconstructs the hands of images."""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console

from er_jax.inference.output_files import predict_images
from er_jax.mano import load_hands
from er_jax.training.load import load_network


def run_prediction(
    config: ConfigDict,
    source: Path,
    images: Sequence[Path],
    boxes: Sequence[Sequence[float]] | None,
    output: Path,
    *,
    step: int | None,
    visualize: bool = False,
) -> None:
    """Reconstructs the hands of some images with a trained network.

    See `load_trained` for `source` and `step`, `predict_images` for the rest.
    """
    hands = load_hands(config.mano_dir)
    net = load_network(config, source, step, hands)
    predict_images(net, hands, images, boxes, output, visualize=visualize)
    Console().print(f"Meshes, parameters and images are in {output}", soft_wrap=True)
