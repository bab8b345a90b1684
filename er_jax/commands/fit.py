"""The command that fits hand meshes to keypoints that any detector found, without any picture.

python -m er_jax.fit --keypoints FILE --output hands
python -m er_jax.fit --keypoints openpose_json/ --format openpose --size 1280,720
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from er_jax.commands.exit_codes import exit_with_message
from er_jax.commands.logs import log_to
from er_jax.commands.photographs import numbers, output_names, table_of
from er_jax.detection import ImageKeypoints, read_keypoints
from er_jax.photographs.engine import Engine
from er_jax.photographs.load import load
from er_jax.photographs.photograph import Photograph
from er_jax.photographs.result import Reconstruction
from er_jax.utils.cache import cache_dir
from er_jax.utils.errors import ConfigError
from er_jax.utils.progress import progress_bar
from er_jax.utils.xla_cpu import prepare_cpu

FORMATS = ("er_jax", "openpose", "mmpose", "mediapipe")
BATCH = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code is that of `er_jax.main`."""
    options = _parser().parse_args(arguments)
    prepare_cpu(cache_dir() / "compiled")
    options.output.mkdir(parents=True, exist_ok=True)
    log_to(options.output / "log.txt")
    with exit_with_message():
        size = numbers("--size", options.size, 2)
        size_px = (int(size[0]), int(size[1])) if size else None
        focal = numbers("--focal", options.focal)
        middle = numbers("--principal_point", options.principal_point, 2)
        images = read_keypoints(
            options.keypoints,
            options.format,
            side=options.side,
            size_px=size_px,
            swap_sides=options.swap_sides,
        )
        run_fit(
            images,
            options.output,
            mano_dir=options.mano_dir,
            size_px=size_px,
            focal_px=(focal[0], focal[-1]) if focal else None,
            principal_point_px=(middle[0], middle[1]) if middle else None,
        )
    return 0


def run_fit(
    images: Sequence[ImageKeypoints],
    output: Path,
    *,
    mano_dir: Path | None = None,
    size_px: tuple[int, int] | None = None,
    focal_px: tuple[float, float] | None = None,
    principal_point_px: tuple[float, float] | None = None,
) -> None:
    """Fits hands to keypoints, writes what `Reconstruction.save` does, prints a table.

    Args:
      images: keypoints of each picture; its own size and camera come before the arguments.
      output: folder, made if absent.
      mano_dir: of MANO's files; None: the stand-in hand.
      size_px: width and height of the pictures.
      focal_px: x, y; None: assumed.
      principal_point_px: x, y; None: the middle.

    Raises:
      ConfigError: no keypoints, or a picture whose size is not known.
    """
    if not images:
        raise ConfigError("no picture's keypoints are given")
    engine = load(mano_dir=mano_dir, detect=False)
    names = output_names([Path(image.image) for image in images])
    results: list[tuple[Path, Reconstruction]] = []
    with progress_bar("Fitting", len(images), "pictures") as bar:
        for image, name in zip(images, names, strict=True):
            result = _fitted(
                engine,
                image,
                image.size_px or size_px,
                image.focal_px or focal_px,
                image.principal_point_px or principal_point_px,
            )
            result.save(output, name)
            for message in result.messages:
                logging.warning("%s: %s", image.image, message)
            results.append((Path(image.image), result.without_pixels()))
            bar.advance()
    Console().print(table_of(results))
    Console().print(f"Meshes, parameters and drawings are in {output}", soft_wrap=True)


def _fitted(
    engine: Engine,
    image: ImageKeypoints,
    size_px: tuple[int, int] | None,
    focal_px: tuple[float, float] | None,
    principal_point_px: tuple[float, float] | None,
) -> Reconstruction:
    """One picture's hands; the picture itself, which is not needed, is white."""
    if size_px is None:
        raise ConfigError(
            f"{image.image}: the picture's size is not known, and the camera follows from it: give "
            "`size_px` in the file, or --size WIDTH,HEIGHT"
        )
    white = np.full((size_px[1], size_px[0], 3), 255, np.uint8)
    return engine.many(
        [Photograph(white, Path(image.image), size_px)],
        detections=[image.hands],
        focal_px=focal_px,
        principal_point_px=principal_point_px,
    )[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m er_jax.fit",
        description="Fits hand meshes to keypoints: OBJ, GLB, JSON and PNG a picture. The format "
        "er_jax is described in er_jax/detection/keypoints_file.py and in docs/photographs.md.",
    )
    add = parser.add_argument
    add("--keypoints", type=Path, required=True, help="a file, or a folder of such files")
    add("--format", choices=FORMATS, default="er_jax", help="who wrote it (er_jax)")
    add("--output", type=Path, default=Path("hands"), help="folder of what is made (hands)")
    add("--mano_dir", type=Path, help="MANO's files; without: the stand-in hand")
    add("--size", help="width,height of the pictures, where the file does not tell")
    add("--focal", help="focal length in pixels, or x,y; without: assumed")
    add("--principal_point", help="x,y in pixels; without: the middle")
    add("--side", choices=("right", "left"), help="of mmpose's hands of 21 keypoints")
    add("--swap_sides", action="store_true", help="right is left: the detector saw mirrored images")
    return parser
