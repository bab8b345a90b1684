"""The command that fits hand meshes to keypoints that any detector found, without any picture.

python -m er_jax.fit --keypoints FILE --output hands
python -m er_jax.fit --keypoints openpose_json/ --format openpose --size 1280,720
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from er_jax.commands.exit_codes import exit_with_message
from er_jax.commands.photographs import (
    add_shared_options,
    begin,
    camera,
    output_names,
    show,
    tell,
)
from er_jax.detection import ImageKeypoints, read_keypoints
from er_jax.mano import HANDS
from er_jax.photographs.engine import Engine
from er_jax.photographs.load import load
from er_jax.photographs.photograph import Photograph
from er_jax.photographs.result import Reconstruction
from er_jax.rendering.overlays import HAND_COLOURS, draw_skeleton
from er_jax.utils.arguments import numbers
from er_jax.utils.errors import ConfigError
from er_jax.utils.progress import progress_bar

FORMATS = ("er_jax", "openpose", "mmpose", "mediapipe")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code is that of `er_jax.main`."""
    options = _parser().parse_args(arguments)
    with exit_with_message():
        begin(options.output)
        size = numbers("--size", options.size, 2)
        size_px = (int(size[0]), int(size[1])) if size else None
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
            **camera(options),
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
    told: set[str] = set()
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
            tell(Path(image.image), result, told)
            results.append((Path(image.image), result.without_pixels()))
            bar.advance()
    show(results, output)


def _fitted(
    engine: Engine,
    image: ImageKeypoints,
    size_px: tuple[int, int] | None,
    focal_px: tuple[float, float] | None,
    principal_point_px: tuple[float, float] | None,
) -> Reconstruction:
    """One picture's hands; in the place of the picture, its keypoints on white."""
    if size_px is None:
        raise ConfigError(
            f"{image.image}: the picture's size is not known, and the camera follows from it: give "
            "`size_px` in the file, or --size WIDTH,HEIGHT"
        )
    canvas = np.full((size_px[1], size_px[0], 3), 255, np.uint8)
    for hand in image.hands:
        known = np.isfinite(hand.keypoints_px).all(-1)
        points = np.where(known[:, None], hand.keypoints_px, 0.0)
        draw_skeleton(canvas, points, known, HAND_COLOURS[HANDS.index(hand.side)])
    return engine.many(
        [Photograph(canvas, Path(image.image), size_px)],
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
    add("--keypoints", type=Path, required=True, help="a file, or their folder, but for er_jax")
    add("--format", choices=FORMATS, default="er_jax", help="who wrote it (er_jax)")
    add_shared_options(parser)
    add("--size", help="width,height of the pictures, where the file does not tell")
    add("--side", choices=("right", "left"), help="of mmpose's hands of 21 keypoints")
    add("--swap_sides", action="store_true", help="right is left: the detector saw mirrored images")
    return parser
