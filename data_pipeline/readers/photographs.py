"""Photographs without annotations: labelled by detection and fit, then read as own data.

The labels are a JSON-lines file in the format of `records`, with the images turned upright beside
it, so that they can be looked at (`data_pipeline.show`), corrected and built again. An image of
several persons gives a record each. Labelling goes on where it was interrupted.
"""

import argparse
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np

from data_pipeline.build.request import BuildRequest
from data_pipeline.readers import records
from data_pipeline.readers.records import CameraEntry, HandEntry, Line, ManoEntry
from er_jax.mano import HANDS, hand_model_identity
from er_jax.photographs.engine import EXPLAINED, SMALL_HAND_PX, Engine
from er_jax.photographs.load import load
from er_jax.photographs.photograph import PICTURE_ENDINGS, Photograph, read_photograph
from er_jax.photographs.result import Hand, Person, Reconstruction
from er_jax.utils.arguments import numbers
from er_jax.utils.atomic_write import atomic_write, write_json
from er_jax.utils.errors import BadImageError, DataError
from er_jax.utils.progress import progress_bar

logger = logging.getLogger(__name__)

HELP = "photographs without annotations, labelled by detection and fit"
NAME = "photographs"
LONGEST_PX = 1600
"""Longer side of the images that are trained on: larger ones only take time to decode."""
_AT_ONCE = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds where the labels go and what they are made with."""
    add = parser.add_argument
    add("--raw_dir", type=Path, required=True, help="folder of photographs, and its subfolders")
    add("--labels", type=Path, help="their folder; default: DATA_DIR/photographs/NAME.labels")
    add("--focal", help="focal length in pixels, or x,y; without: by EXIF, or assumed")
    add("--detector_dir", type=Path, help="of the detector's networks; default: the user's cache")
    records.add_shared_arguments(parser)


def make_request(options: argparse.Namespace) -> BuildRequest:
    """Labels what has no label yet, and returns the request for all that has."""
    if options.mano_dir is None:
        raise DataError(
            "--mano_dir is not given: the labels are hands of the model that a network is trained "
            "with later. Give MANO's folder, or --mano_dir=stand_in for the stand-in hand."
        )
    focal = numbers("--focal", options.focal)
    folder = options.labels or options.data_dir / NAME / f"{options.name}.labels"
    path = label(
        options.raw_dir,
        folder,
        mano_dir=None if options.mano_dir == "stand_in" else options.mano_dir,
        detector_dir=options.detector_dir,
        focal_px=(focal[0], focal[-1]) if focal else None,
    )
    return records.request_of(
        path,
        folder,
        dataset=NAME,
        name=options.name,
        description=f"photographs of {options.raw_dir.name}, labelled by detection and fit",
        val_every=options.val_every,
        mano_dir=options.mano_dir,
    )


def label(
    raw_dir: Path,
    folder: Path,
    *,
    mano_dir: Path | str | None = None,
    detector_dir: Path | None = None,
    focal_px: tuple[float, float] | None = None,
) -> Path:
    """Labels the photographs of a folder and of its subfolders, those that have no label yet.

    Args:
      raw_dir: of the photographs.
      folder: of the labels: `labels.jsonl`, `images`, and `notes`, a file a photograph, of what
        became of it.
      mano_dir: of the hand model; None: the stand-in hand.
      detector_dir: see `er_jax.load`.
      focal_px: of the photographs as they are in their files; None: by EXIF, or assumed.

    Returns:
      `labels.jsonl`.

    Raises:
      DataError: there is no photograph; labels made with other settings are there; or no hand was
        found in any.
    """
    paths = sorted(p for p in raw_dir.rglob("*") if p.suffix.lower() in PICTURE_ENDINGS)
    if not paths:
        raise DataError(f"{raw_dir}: no photograph here ({', '.join(PICTURE_ENDINGS)}).")
    engine = load(mano_dir=mano_dir, detector_dir=detector_dir)
    settings = {**hand_model_identity(engine.hand_model), "focal_px": focal_px and [*focal_px]}
    _check_settings(folder, settings)
    waiting = [p for p in paths if _note_of(folder, raw_dir, p).get("file") != _file_identity(p)]
    start = len(paths) - len(waiting)
    with progress_bar("Labelling", len(paths), "photographs", start) as bar:
        for first in range(0, len(waiting), _AT_ONCE):
            batch = waiting[first : first + _AT_ONCE]
            _label_some(engine, batch, raw_dir, folder, focal_px)
            bar.advance(len(batch))
    return _write_labels(folder, [_note_of(folder, raw_dir, path) for path in paths])


def _label_some(
    engine: Engine,
    paths: Sequence[Path],
    raw_dir: Path,
    folder: Path,
    focal_px: tuple[float, float] | None,
) -> None:
    """Labels photographs and writes their images and notes."""
    for path in paths:
        image = (folder / "images" / path.relative_to(raw_dir)).with_name(f"{path.name}.jpg")
        note: dict[str, list] = {"file": _file_identity(path), "fates": [], "lines": []}
        try:
            photograph, scale = read_photograph(path).at_most(LONGEST_PX)
        except BadImageError as error:
            logger.warning("%s", error)
            note["fates"] = ["photographs that cannot be read"]
        else:
            focal = focal_px and (scale * focal_px[0], scale * focal_px[1])
            result = engine(photograph, focal_px=focal)
            name = image.relative_to(folder).as_posix()
            lines, note["fates"] = lines_of(result, name)
            note["lines"] = [msgspec.to_builtins(line) for line in lines]
            if lines:
                image.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(image) as temporary:
                    temporary.write_bytes(_jpeg(photograph))
        place = _note_path(folder, raw_dir, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, note)


def lines_of(result: Reconstruction, image: str) -> tuple[list[Line], list[str]]:
    """A line for each person with a hand that is believed, and what became of each hand.

    Args:
      result: of the image as it is stored.
      image: its name in the lines.
    """
    if not result.hands:
        return [], ["photographs without a hand"]
    lines, fates = [], []
    for person in result.persons:
        believed = {}
        for hand in person.hands:
            reason = _doubt(hand)
            fates.append(f"hands left out: {reason}" if reason else "hands labelled")
            if not reason:
                believed[hand.side] = _entry(hand)
        if believed:
            lines.append(_line(image, result, person, believed))
    return lines, fates


def confidence(hand: Hand) -> float:
    """How far a label is believed, from 0 to 1: the detector's score, less what is off.

    It falls to 0 where the mesh is as far off the keypoints as a hand may be and still count as
    explained by the fit.
    """
    return float(np.clip((hand.score or 0.0) * (1 - hand.reprojection / EXPLAINED), 0, 1))


def _doubt(hand: Hand) -> str:
    """Why a hand is left out; nothing of one that is not."""
    if not hand.explained:
        return "no hand can lie as its keypoints say"
    if hand.box_px[2:].max() < SMALL_HAND_PX:
        return f"under {SMALL_HAND_PX:.0f} px"
    return ""


def _entry(hand: Hand) -> HandEntry:
    assert hand.detected_px is not None  # no box was given
    return HandEntry(
        joints_m=_listed(hand.joints),
        joints_px=_listed(hand.detected_px),
        mano=ManoEntry(
            pose=_listed(hand.pose),
            betas=_listed(hand.betas),
            translation_m=_listed(hand.transl),
        ),
        confidence=round(confidence(hand), 4),
    )


def _line(image: str, result: Reconstruction, person: Person, hands: dict[str, HandEntry]) -> Line:
    camera = result.camera
    # That a hand was not found, or not believed, does not say that it is not there.
    return Line(
        image=image,
        hand_type="interacting" if len(hands) == len(HANDS) else "unknown",
        camera=CameraEntry([*camera.focal_px], [*camera.principal_point_px]),
        right=hands.get("right"),
        left=hands.get("left"),
    )


def _listed(values: np.ndarray) -> list:
    return np.asarray(values, np.float64).round(6).tolist()


def _jpeg(photograph: Photograph) -> bytes:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    return cv2.imencode(".jpg", photograph.pixels[..., ::-1], quality)[1].tobytes()


def _note_path(folder: Path, raw_dir: Path, path: Path) -> Path:
    return (folder / "notes" / path.relative_to(raw_dir)).with_name(f"{path.name}.json")


def _note_of(folder: Path, raw_dir: Path, path: Path) -> dict:
    try:
        return json.loads(_note_path(folder, raw_dir, path).read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _file_identity(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _check_settings(folder: Path, settings: dict) -> None:
    path = folder / "settings.json"
    if path.exists() and (found := json.loads(path.read_text())) != settings:
        different = [f"{k}: {found.get(k)} there, {settings[k]} now" for k in settings]
        raise DataError(
            f"{folder} holds labels made with other settings ({'; '.join(different)}): give "
            "another folder by --labels, or remove this one."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def _write_labels(folder: Path, notes: Sequence[dict]) -> Path:
    """Writes the labels of all photographs, and logs what became of these."""
    fates = Counter(fate for note in notes for fate in note["fates"])
    for fate, count in sorted(fates.items()):
        logger.info("%s: %d", fate, count)
    lines = [line for note in notes for line in note["lines"]]
    if not lines:
        raise DataError(f"{folder}: no hand of any photograph could be labelled: {dict(fates)}.")
    path = folder / "labels.jsonl"
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return path
