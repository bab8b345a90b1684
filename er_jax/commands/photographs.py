"""The command that reconstructs the hands in photographs.

er_jax photo.jpg folder/ --output hands
er_jax photo.jpg --weights RUN --mano_dir MANO
"""

import argparse
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from er_jax.commands.exit_codes import exit_with_message
from er_jax.commands.logs import log_to
from er_jax.detection import FileDetections
from er_jax.inference.attention_maps import draw_attention_maps
from er_jax.inference.pipeline import Box, square_box
from er_jax.photographs.engine import Engine
from er_jax.photographs.load import load
from er_jax.photographs.photograph import Photograph, read_photograph
from er_jax.photographs.result import Reconstruction
from er_jax.utils.cache import cache_dir
from er_jax.utils.errors import BadImageError, ConfigError, NotFoundError
from er_jax.utils.progress import progress_bar
from er_jax.utils.xla_cpu import prepare_cpu

BATCH = 8
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
"""Of the files that are taken for pictures in a folder; a file that is named is always tried."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code is that of `er_jax.main`."""
    options = _parser().parse_args(arguments)
    prepare_cpu(cache_dir() / "compiled")
    options.output.mkdir(parents=True, exist_ok=True)
    log_to(options.output / "log.txt")
    with exit_with_message():
        focal = numbers("--focal", options.focal)
        middle = numbers("--principal_point", options.principal_point, 2)
        run_photographs(
            options.pictures,
            options.output,
            weights=options.weights,
            step=options.step,
            mano_dir=options.mano_dir,
            detector_dir=options.detector_dir,
            boxes=[numbers("--box", text, 4) or [] for text in options.box] or None,
            detections=options.detections,
            focal_px=(focal[0], focal[-1]) if focal else None,
            principal_point_px=(middle[0], middle[1]) if middle else None,
            visualize=options.visualize,
        )
    return 0


def run_photographs(
    pictures: Sequence[Path],
    output: Path,
    *,
    weights: Path | None = None,
    step: int | None = None,
    mano_dir: Path | None = None,
    detector_dir: Path | None = None,
    boxes: Sequence[Box] | None = None,
    detections: Path | None = None,
    focal_px: tuple[float, float] | None = None,
    principal_point_px: tuple[float, float] | None = None,
    visualize: bool = False,
) -> None:
    """Reconstructs the hands in pictures, writes what `Reconstruction.save` does, prints a table.

    Args:
      pictures: files, or folders of them.
      output: folder, made if absent.
      weights: see `er_jax.load`, as `step`, `mano_dir`, `detector_dir`.
      step: of the run's checkpoint.
      mano_dir: of MANO's files.
      detector_dir: of the detector's networks.
      boxes: around both hands of each picture, for the network alone; None: hands are detected.
      detections: a file of hands found before; None: hands are detected.
      focal_px: see `Engine.many`, as `principal_point_px`.
      principal_point_px: x, y.
      visualize: also write `_attention.png` of what the network saw, see `draw_attention_maps`.

    Raises:
      ConfigError: boxes that are not one a picture or have no area; nothing is done.
      BadImageError: some pictures are missing or cannot be read; all others are done.
    """
    paths = list(pictures_of(pictures))
    _check(paths, boxes, weights, visualize)
    given = FileDetections(detections) if detections else None
    engine = load(
        weights=weights,
        mano_dir=mano_dir,
        detect=given is None and boxes is None,
        detector_dir=detector_dir,
        step=step,
        visualize=visualize,
    )
    reconstruct = partial(
        _reconstructed,
        engine,
        given=given,
        focal_px=focal_px,
        principal_point_px=principal_point_px,
    )
    output.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[Path, Reconstruction]] = []
    left_out: list[Path] = []
    every_box: list[Box | None] = [None] * len(paths) if boxes is None else list(boxes)
    work = list(zip(paths, output_names(paths), every_box, strict=True))
    with progress_bar("Reconstructing", len(paths), "pictures") as bar:
        for first in range(0, len(work), BATCH):
            batch = work[first : first + BATCH]
            readable = []
            for path, name, box in batch:
                try:
                    readable.append((read_photograph(path), path, name, box))
                except BadImageError as error:
                    logging.error("%s", error)
                    left_out.append(path)
            for (_, path, name, _), result in zip(readable, reconstruct(readable), strict=True):
                result.save(output, name)
                if visualize:
                    _draw_attention(output, name, result)
                rows.append((path, result.without_pixels()))
                for message in result.messages:
                    logging.warning("%s: %s", path, message)
            bar.advance(len(batch))
    Console().print(table_of(rows))
    Console().print(f"Meshes, parameters and drawings are in {output}", soft_wrap=True)
    if left_out:
        raise BadImageError(
            f"{len(left_out)} of {len(paths)} pictures were left out, see above: "
            + ", ".join(map(str, left_out[:5]))
            + (", …" if len(left_out) > 5 else "")
        )


def pictures_of(named: Sequence[Path]) -> Iterator[Path]:
    """Files as named, and the pictures in folders, sorted.

    Raises:
      NotFoundError: a folder without pictures.
    """
    for path in named:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
        if not inside:
            raise NotFoundError(f"{path}: no picture in this folder ({', '.join(ENDINGS)})")
        yield from inside


def output_names(pictures: Sequence[Path]) -> list[str]:
    """The pictures' names without their endings, numbered where one is taken already."""
    stems = [path.stem for path in pictures]
    taken = {stem for stem in stems if stems.count(stem) == 1}
    names = []
    for stem in stems:
        numbered = (f"{stem}_{number}" for number in itertools.count(1))
        name = stem if stems.count(stem) == 1 else next(n for n in numbered if n not in taken)
        taken.add(name)
        names.append(name)
    return names


def numbers(flag: str, text: str | None, count: int | None = None) -> list[float] | None:
    """Numbers with commas between them; None of None.

    Args:
      flag: to name in the error.
      text: as given.
      count: how many; None: one or two.

    Raises:
      ConfigError: they are not so many numbers.
    """
    if text is None:
        return None
    try:
        found = [float(number) for number in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count and not (count is None and len(found) in (1, 2)):
        wanted = "one number, or two" if count is None else f"{count} numbers"
        raise ConfigError(f"{flag}={text}: give {wanted} with commas between them")
    return found


def _check(
    paths: Sequence[Path], boxes: Sequence[Box] | None, weights: Path | None, visualize: bool
) -> None:
    if not paths:
        raise ConfigError("no picture given: name files or folders of pictures")
    if visualize and weights is None:
        raise ConfigError("--visualize shows what a trained network sees: give --weights too")
    if boxes is None:
        return
    if weights is None:
        raise ConfigError("--box is for a trained network: give --weights too, or leave it out")
    if len(boxes) != len(paths):
        raise ConfigError(
            f"{len(boxes)} boxes for {len(paths)} pictures: give one --box x,y,w,h a picture, "
            "in the same order, or none at all"
        )
    for box in boxes:
        square_box(box)


def _reconstructed(
    engine: Engine,
    pictures: Sequence[tuple[Photograph, Path, str, Box | None]],
    *,
    given: FileDetections | None,
    focal_px: tuple[float, float] | None,
    principal_point_px: tuple[float, float] | None,
) -> list[Reconstruction]:
    if not pictures:
        return []
    boxes = [box for *_, box in pictures if box is not None]
    return engine.many(
        [photograph for photograph, *_ in pictures],
        boxes or None,
        detections=[given.of(path).hands for _, path, *_ in pictures] if given else None,
        focal_px=focal_px,
        principal_point_px=principal_point_px,
    )


def _draw_attention(output: Path, name: str, result: Reconstruction) -> None:
    several = len(result.persons) > 1
    for number, person in enumerate(result.persons, 1):
        if person.network is not None:
            ending = f"{number}_attention" if several else "attention"
            file = output / f"{name}_{ending}.png"
            draw_attention_maps(file, person.network.crop.image, person.network.prediction)


def table_of(results: Iterable[tuple[Path, Reconstruction]]) -> Table:
    """A row a hand: what was found in each picture, and how far it is off its keypoints."""
    table = Table()
    for column in ("picture", "person", "hand", "score", "from", "off its keypoints", "seconds"):
        table.add_column(column)
    for path, result in results:
        seconds = f"{result.seconds:.2f}"
        if not result.hands:
            table.add_row(path.name, "–", "no hand found", "", "", "", seconds)
        for number, person in enumerate(result.persons, 1):
            for hand in person.hands:
                off = f"{hand.reprojection_px:.1f} px, {hand.reprojection:.1%} of its size"
                doubt = "" if hand.explained else " (!)"
                table.add_row(
                    *(path.name, str(number), hand.side, f"{hand.score:.2f}", hand.source),
                    *(off + doubt, seconds),
                )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="er_jax",
        description="Finds the hands in photographs and reconstructs them in 3D: meshes (OBJ, "
        "GLB), parameters (JSON), drawings (PNG).",
    )
    add = parser.add_argument
    add("pictures", type=Path, nargs="+", help="files, or folders of pictures")
    add("--output", type=Path, default=Path("hands"), help="folder of what is made (hands)")
    add("--weights", type=Path, help="a trained network: its run's folder, or er.safetensors")
    add("--step", type=int, help="checkpoint of the run; without: the best")
    add("--mano_dir", type=Path, help="MANO's files; without: the stand-in hand")
    add("--focal", help="focal length in pixels, or x,y; without: by EXIF, or assumed")
    add("--principal_point", help="x,y in pixels; without: the middle")
    box = "x,y,width,height around both hands, one a picture: no detection, needs --weights"
    add("--box", action="append", default=[], help=box)
    add("--detections", type=Path, help="hands found before: a file of er_jax keypoints 1")
    detector = "folder of the detector's two networks, where nothing can be fetched"
    add("--detector_dir", type=Path, help=detector)
    add("--visualize", action="store_true", help="also draw the network's heatmaps and attention")
    return parser
