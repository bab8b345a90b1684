"""The demo's main part: train, evaluate, reconstruct unseen images, and say where all of it is.

    python -m er_jax.commands.demo --raw_dir=… --data_dir=… --workdir=…

`make demo` calls it after it has drawn the stand-in dataset and built it.
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.panel import Panel

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax.commands.evaluate import run_evaluation
from er_jax.commands.exit_codes import exit_with_message
from er_jax.commands.logs import prepare
from er_jax.commands.photographs import run_photographs
from er_jax.commands.train import run_training
from er_jax.configs.demo import get_config
from er_jax.detection import DetectorError
from er_jax.detection.mediapipe_hands import MediaPipeHands
from er_jax.photographs.load import load
from er_jax.photographs.whole_images import (
    annotated_image,
    draw_whole_images,
    evaluate_whole_images,
    reconstructed,
)
from er_jax.utils.errors import EXIT_STOPPED

PICTURES = 6
WHOLE_IMAGES = 48


def main() -> int:
    """Runs the demo; the exit code is that of `er_jax.main`."""
    parser = argparse.ArgumentParser(description=__doc__)
    for folder in ("raw_dir", "data_dir", "workdir"):
        parser.add_argument(f"--{folder}", type=Path, required=True)
    options = parser.parse_args()
    with exit_with_message():
        return run_demo(options.raw_dir, options.data_dir, options.workdir)


def run_demo(raw_dir: Path, data_dir: Path, workdir: Path) -> int:
    """Trains, evaluates and reconstructs; the exit code."""
    prepare(workdir)
    config = get_config()
    config.data_dir = str(data_dir)

    if not run_training(config, workdir).finished:
        return EXIT_STOPPED
    results = run_evaluation(config, workdir, step=None, split=None)
    try:
        whole = reconstruct_whole_images(config, workdir)
    except DetectorError as error:
        logging.warning("Detection is left out, boxes are given instead: %s", error)
        images, boxes = unseen_images(raw_dir)
        run_photographs(images, workdir / "predictions", weights=workdir, boxes=boxes)
        whole = {}
    Console().print(Panel(summary(results, workdir, whole), title="Demo finished", expand=False))
    return 0


def reconstruct_whole_images(config: ConfigDict, workdir: Path) -> dict[str, str]:
    """Finds and reconstructs the hands in whole test images, no box given; what came out of it.

    Raises:
      DetectorError: the detector's networks are not there and cannot be fetched.
    """
    detector = MediaPipeHands()
    engine = load(weights=workdir, detect=False)
    split = AnnotatedSplit(config.data_dir, config.data.dataset, config.data.test_split)
    chosen = np.linspace(0, split.sample_count - 1, WHOLE_IMAGES).astype(int)
    images = [annotated_image(split, index) for index in chosen]
    name = "detector, network and fit"
    scores = evaluate_whole_images(images, detector, {name: engine})[name]
    shown = [image for image in images if image.interacting][:PICTURES]
    found = [reconstructed(engine, image, detector(image.pixels)) for image in shown]
    for number, result in enumerate(found):
        result.save(workdir / "predictions", f"whole_image_{number}")
    drawing = workdir / "predictions" / "whole_images.png"
    draw_whole_images(drawing, shown, found)
    annotated = sum(score.annotated for score in scores.values())
    errors = [error for score in scores.values() for error in score.pa_mpjpe]
    return {
        f"whole images, no box: {len(errors)} of {annotated} hands found": f"PA-MPJPE "
        f"{np.mean(errors):.1f} mm (the network alone, in boxes that are given: see the table)",
        "whole images beside the truth": str(drawing),
    }


def unseen_images(raw_dir: Path) -> tuple[list[Path], list[list[float]]]:
    """A few images of two hands from the test captures, and the annotated boxes around them."""
    file = raw_dir / "annotations" / "test" / "InterHand2.6M_test_data.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    names = {image["id"]: image["file_name"] for image in data["images"]}
    both = [one for one in data["annotations"] if one["hand_type"] == "interacting"]
    chosen = both[:: max(len(both) // PICTURES, 1)][:PICTURES]
    images = [raw_dir / "images" / "test" / names[one["image_id"]] for one in chosen]
    return images, [_with_margin(one["bbox"]) for one in chosen]


def _with_margin(box: list[float], factor: float = 1.5) -> list[float]:
    """The box enlarged about its centre, as training boxes are around the joints."""
    x, y, width, height = box
    return [
        x - (factor - 1) / 2 * width,
        y - (factor - 1) / 2 * height,
        factor * width,
        factor * height,
    ]


def summary(results: Path, workdir: Path, whole: Mapping[str, str]) -> str:
    """Returns lines that say what came out, and where it lies."""
    errors = {
        name: protocols["scale_aligned"]["MPJPE"]["all"]["value"]
        for name, protocols in json.loads(results.read_text(encoding="utf-8"))["results"].items()
    }
    network, mean = errors["network"], errors["mean pose and shape"]
    lines = {
        f"MPJPE (scale_aligned) {network:.1f} mm": f"{1 - network / mean:.0%} below the {mean:.1f} "
        "mm of predicting the training set's mean pose and shape, on captures never trained on",
        "truth beside prediction": str(results.with_suffix(".png")),
        "every number": str(results),
        "loss curve": str(results.parent / "loss.png"),
        "meshes and images": str(workdir / "predictions"),
        **whole,
        "checkpoints": str(workdir / "checkpoints"),
        "curves, live": f"tensorboard --logdir {workdir / 'tensorboard'}",
    }
    return "\n".join(f"[bold]{name}[/]: {text}" for name, text in lines.items())


if __name__ == "__main__":
    sys.exit(main())
