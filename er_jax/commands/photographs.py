"""The command that reconstructs the hands in photographs.

er_jax photo.jpg folder/ --output hands
er_jax photo.jpg --weights RUN --mano_dir MANO
"""

import argparse
import dataclasses
import itertools
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from er_jax.commands.exit_codes import exit_with_message
from er_jax.commands.logs import log_to
from er_jax.detection import DetectedHand, FileDetections
from er_jax.inference.boxes import Box, square_box
from er_jax.mano import hand_model_identity
from er_jax.photographs.engine import HANDS_SHOWN
from er_jax.photographs.load import load
from er_jax.photographs.photograph import PICTURE_ENDINGS, Photograph, read_photograph
from er_jax.photographs.result import Reconstruction
from er_jax.utils.arguments import numbers
from er_jax.utils.cache import cache_dir
from er_jax.utils.errors import BadImageError, ConfigError, DataError, NotFoundError, disk_error
from er_jax.utils.progress import progress_bar
from er_jax.utils.xla_cpu import prepare_cpu
from er_jax.video.frames import VIDEO_ENDINGS

BATCH = 8
EXIT_INTERRUPTED = 130  # as shells have it for SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code is that of `er_jax.main`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _OTHERS and not Path(arguments[0]).exists():
        return _OTHERS[arguments[0]](arguments[1:])
    options = _parser().parse_args(arguments)
    clips = [p for p in options.pictures if _is_clip(p, options.clip)]
    pictures = [p for p in options.pictures if p not in clips]
    with exit_with_message():
        begin(options.output)
        if clips:
            _run_clips(clips, options)
        if clips and not pictures:
            return 0
        run_photographs(
            pictures,
            options.output,
            weights=options.weights,
            step=options.step,
            mano_dir=options.mano_dir,
            detector_dir=options.detector_dir,
            boxes=[numbers("--box", text, 4) or [] for text in options.box] or None,
            detections=options.detections,
            hands=options.hands,
            visualize=options.visualize,
            **camera(options),
        )
    return 0


def _webcam(arguments: Sequence[str]) -> int:
    from er_jax.commands import webcam  # what only it needs, here as in the others

    return webcam.main(arguments)


def _view(arguments: Sequence[str]) -> int:
    from er_jax.commands import view

    return view.main(arguments)


def _web(arguments: Sequence[str]) -> int:
    from er_jax.commands import web

    return web.main(arguments, page=True)


def _serve(arguments: Sequence[str]) -> int:
    from er_jax.commands import web

    return web.main(arguments, page=False)


def _bulk(arguments: Sequence[str]) -> int:
    from er_jax.commands import bulk

    return bulk.main(arguments)


_OTHERS = {"bulk": _bulk, "webcam": _webcam, "view": _view, "web": _web, "serve": _serve}


def _is_clip(path: Path, folders_are: bool) -> bool:
    return folders_are if path.is_dir() else path.suffix.lower() in VIDEO_ENDINGS


def _run_clips(clips: Sequence[Path], options: argparse.Namespace) -> None:
    from er_jax.commands.clips import USUAL_KINDS, run_clips  # what only clips need

    if options.box or options.detections or options.visualize:
        raise ConfigError("--box, --detections and --visualize are for photographs, not for clips")
    engine = load(
        weights=options.weights, step=options.step, mano_dir=options.mano_dir, detect=False
    )
    run_clips(
        clips,
        options.output,
        engine,
        settings={
            **hand_model_identity(engine.hand_model),
            "weights": options.weights and str(options.weights.absolute()),
            "step": options.step,
            "focal": options.focal,
            "principal_point": options.principal_point,
        },
        kinds=options.write or USUAL_KINDS,
        detector_dir=options.detector_dir,
        smoothed=not options.no_smoothing,
        frame_rate=options.frame_rate,
        **camera(options),
    )


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of every command that gives hands: output, hand model, camera."""
    add = parser.add_argument
    add("--output", type=Path, default=Path("hands"), help="folder of what is made (hands)")
    add("--mano_dir", type=Path, help="MANO's files; without: the stand-in hand")
    add("--focal", help="focal length in pixels, or x,y; without: by EXIF, or assumed")
    add("--principal_point", help="x,y in pixels; without: the middle")


def camera(options: argparse.Namespace) -> dict[str, tuple[float, float] | None]:
    """The camera as `Engine.many` takes it.

    Raises:
      ConfigError: an option holds no numbers.
    """
    focal = numbers("--focal", options.focal)
    middle = numbers("--principal_point", options.principal_point, 2)
    return {
        "focal_px": (focal[0], focal[-1]) if focal else None,
        "principal_point_px": (middle[0], middle[1]) if middle else None,
    }


def begin(output: Path) -> None:
    """Makes the output's folder, in which the log is kept, and prepares the CPU.

    Raises:
      DiskError: it cannot be made.
    """
    prepare_cpu(cache_dir() / "compiled")
    try:
        output.mkdir(parents=True, exist_ok=True)
        log_to(output / "log.txt")
    except OSError as error:
        raise disk_error(output, error) from None


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
    hands: str = "present",
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
      hands: see `er_jax.load`.
      visualize: also write `_attention.png` of what the network saw, see `draw_attention_maps`.

    Raises:
      ConfigError: boxes that are not one a picture or have no area; nothing is done.
      BadImageError: some pictures are missing or cannot be read; all others are done.
    """
    paths = list(pictures_of(pictures))
    _check(paths, boxes, detections, weights, visualize)
    given = FileDetections(detections) if detections else None
    engine = load(
        weights=weights,
        mano_dir=mano_dir,
        detect=given is None and boxes is None,
        detector_dir=detector_dir,
        step=step,
        hands=hands,
        visualize=visualize,
    )
    output.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[Path, Reconstruction]] = []
    left_out: list[Path] = []
    told: set[str] = set()
    every_box: list[Box | None] = [None] * len(paths) if boxes is None else list(boxes)
    work = list(zip(paths, output_names(paths), every_box, strict=True))
    with progress_bar("Reconstructing", len(paths), "pictures") as bar, _told_if_interrupted(rows):
        for first in range(0, len(work), BATCH):
            batch = work[first : first + BATCH]
            readable = list(_readable(batch, given, left_out))
            found = engine.many(
                [one.photograph for one in readable],
                None if boxes is None else [one.box for one in readable if one.box is not None],
                detections=None if given is None else [one.detections or [] for one in readable],
                focal_px=focal_px,
                principal_point_px=principal_point_px,
            )
            for one, result in zip(readable, found, strict=True):
                try:
                    result.save(output, one.name)
                    if visualize:
                        _draw_attention(output, one.name, result)
                except OSError as error:
                    logging.error("%s", disk_error(output / one.name, error))
                    left_out.append(one.path)
                    continue
                rows.append((one.path, result.without_pixels()))
                tell(one.path, result, told)
            bar.advance(len(batch))
    if rows:
        show(rows, output)
    if left_out:
        raise BadImageError(
            f"{len(left_out)} of {len(paths)} pictures were left out, see above: "
            + ", ".join(map(str, left_out[:5]))
            + (", …" if len(left_out) > 5 else "")
        )


@dataclasses.dataclass(frozen=True)
class _Readable:
    photograph: Photograph
    path: Path
    name: str
    box: Box | None
    detections: list[DetectedHand] | None


def _readable(
    batch: Sequence[tuple[Path, str, Box | None]],
    given: FileDetections | None,
    left_out: list[Path],
) -> Iterator[_Readable]:
    """The pictures of a batch that can be read; the others are told."""
    for path, name, box in batch:
        try:
            photograph = read_photograph(path)
            detections = None if given is None else given.of(path).hands
        except DataError as error:
            logging.error("%s", error)
            left_out.append(path)
        else:
            yield _Readable(photograph, path, name, box, detections)


@contextmanager
def _told_if_interrupted(rows: Sequence[object]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        logging.error("Interrupted: %d pictures are done, their files are whole", len(rows))
        sys.exit(EXIT_INTERRUPTED)


def tell(path: Path, result: Reconstruction, told: set[str]) -> None:
    """Logs what is doubtful of a result; what is so of every picture only once."""
    for message in result.messages:
        if not message.startswith("focal length assumed"):
            logging.warning("%s: %s", path, message)
        elif not told:
            told.add(message)
            logging.warning("%s: %s (told once)", path, message)


def show(rows: Sequence[tuple[Path, Reconstruction]], output: Path) -> None:
    """Prints the table of what was found, and where it lies."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(table_of(rows))
    console.print(f"Meshes, parameters and drawings are in {output}", soft_wrap=True)


def pictures_of(named: Sequence[Path]) -> Iterator[Path]:
    """Files as named, and the pictures in folders, sorted.

    Raises:
      NotFoundError: a folder without pictures.
    """
    for path in named:
        if not path.is_dir():
            yield path
            continue
        entries = sorted(path.iterdir())
        pictures = [file for file in entries if file.suffix.lower() in PICTURE_ENDINGS]
        inside = [file for file in pictures if not _is_drawing(file)]
        if not inside:
            raise NotFoundError(f"{path}: no picture in this folder ({', '.join(PICTURE_ENDINGS)})")
        if folders := [entry.name for entry in entries if entry.is_dir()]:
            logging.warning("%s: folders in it are left out: %s", path, ", ".join(folders))
        yield from inside


def _is_drawing(file: Path) -> bool:
    """Returns whether a picture is what this command made of another one."""
    stem = re.sub(r"_hands(_\d+)?(_attention)?$", "_hands", file.stem)
    return stem.endswith("_hands") and file.with_name(f"{stem}.json").exists()


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


def _check(
    paths: Sequence[Path],
    boxes: Sequence[Box] | None,
    detections: Path | None,
    weights: Path | None,
    visualize: bool,
) -> None:
    if not paths:
        raise ConfigError("no picture given: name files or folders of pictures")
    if visualize and weights is None:
        raise ConfigError("--visualize shows what a trained network sees: give --weights too")
    if boxes is None:
        return
    if detections is not None:
        raise ConfigError("--box or --detections: both say where the hands are, give one of them")
    if weights is None:
        raise ConfigError("--box is for a trained network: give --weights too, or leave it out")
    if len(boxes) != len(paths):
        raise ConfigError(
            f"{len(boxes)} boxes for {len(paths)} pictures: give one --box x,y,w,h a picture, "
            "in the same order, or none at all"
        )
    for box in boxes:
        square_box(box)


def _draw_attention(output: Path, name: str, result: Reconstruction) -> None:
    from er_jax.inference.attention_maps import draw_attention_maps  # see `load`

    several = len(result.persons) > 1
    for number, person in enumerate(result.persons, 1):
        if person.network is not None:
            ending = f"{number}_attention" if several else "attention"
            file = output / f"{name}_hands_{ending}.png"
            draw_attention_maps(file, person.network.crop.image, person.network.prediction)


def table_of(results: Iterable[tuple[Path, Reconstruction]]) -> Table:
    """A row a hand: what was found in each picture, and how far it is off its keypoints."""
    table = Table()
    for column in ("picture", "person", "hand", "score", "from", "off its keypoints", "seconds"):
        table.add_column(column, overflow="fold")
    for path, result in results:
        seconds = f"{result.seconds:.2f}"
        if not result.hands:
            table.add_row(path.name, "–", "no hand found", "", "", "", seconds)
        for number, person in enumerate(result.persons, 1):
            for hand in person.hands:
                off = f"{hand.reprojection_px:.1f} px, {hand.reprojection:.1%} of its size"
                score = "–" if hand.score is None else f"{hand.score:.2f}"
                doubt = "" if hand.explained else " (!)"
                table.add_row(
                    *(path.name, str(number), hand.side, score, hand.source),
                    *(off + doubt, seconds),
                )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="er_jax",
        description="Finds the hands in photographs and clips and reconstructs them in 3D: meshes "
        "(OBJ, GLB), parameters (JSON), drawings (PNG); of clips a drawn clip (MP4), a table "
        "(Parquet), moving meshes (GLB), and more. Others, each with --help: er_jax webcam (live), "
        "web (a page), serve (for programs), view (a result in 3D), bulk (a million pictures).",
    )
    add = parser.add_argument
    add("pictures", type=Path, nargs="+", help="photographs, folders of them, or clips")
    add_shared_options(parser)
    add("--weights", type=Path, help="a trained network: its run's folder, or er.safetensors")
    add("--step", type=int, help="checkpoint of the run; without: the best")
    box = "x,y,width,height around both hands, one a picture: no detection, needs --weights"
    add("--box", action="append", default=[], help=box)
    add("--detections", type=Path, help="hands found before: a file of er_jax keypoints 1")
    detector = "folder of the detector's two networks, where nothing can be fetched"
    add("--detector_dir", type=Path, help=detector)
    hands = "with --box: the hands that the network says are there (present), or both"
    add("--hands", choices=HANDS_SHOWN, default="present", help=hands)
    add("--visualize", action="store_true", help="also draw the network's heatmaps and attention")
    clips = parser.add_argument_group("clips")
    add = clips.add_argument
    add("--clip", action="store_true", help="a folder holds the frames of one clip")
    add("--frame_rate", type=float, default=30.0, help="of such a folder (30)")
    add("--write", help="some of mp4,parquet,glb,bvh,lerobot; without: the first three")
    add("--no_smoothing", action="store_true", help="every frame's hands as they were fitted")
    return parser
