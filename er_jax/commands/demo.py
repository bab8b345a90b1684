"""The demo's main part: train, evaluate, reconstruct unseen images, and say where all of it is.

    python -m er_jax.commands.demo --raw_dir=… --data_dir=… --workdir=…

`make demo` calls it after it has drawn the stand-in dataset and built it.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from er_jax.commands.evaluate import run_evaluation
from er_jax.commands.exit_codes import exit_with_message
from er_jax.commands.logs import prepare
from er_jax.commands.predict import run_prediction
from er_jax.commands.train import run_training
from er_jax.configs.demo import get_config
from er_jax.utils.errors import EXIT_STOPPED

PICTURES = 6


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
    images, boxes = unseen_images(raw_dir)
    run_prediction(config, workdir, images, boxes, workdir / "predictions", step=None)
    Console().print(Panel(summary(results, workdir), title="Demo finished", expand=False))
    return 0


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


def summary(results: Path, workdir: Path) -> str:
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
        "checkpoints": str(workdir / "checkpoints"),
        "curves, live": f"tensorboard --logdir {workdir / 'tensorboard'}",
    }
    return "\n".join(f"[bold]{name}[/]: {text}" for name, text in lines.items())


if __name__ == "__main__":
    sys.exit(main())
