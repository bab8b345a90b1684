"""InterHand2.6M v1.0: from the raw tree to the records of a split.

The rules of the field are applied here once, and nobody downstream repeats them: a hand whose
wrist is invalid has no valid joint, in the view and in 3D; a hand without a visible joint is
absent, its MANO fit too; an annotation without a valid joint, in either sense, or whose box misses
the image is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data_pipeline import boxes
from data_pipeline.build.fit_errors import (
    FITS_UNCHECKED,
    Fits,
    fit_errors_mm,
    fit_notes,
    summary,
)
from data_pipeline.build.request import SplitTable
from data_pipeline.readers.interhand26m import files
from data_pipeline.readers.interhand26m.downloaded import Choice, ImagesOnDisk, capture_note
from data_pipeline.readers.interhand26m.squashed import (
    Squashed,
    SquashedCamera,
    mended,
    report_entry,
    squashed_cameras,
    squashed_note,
)
from data_pipeline.records import (
    BOX_SOURCES,
    HAND_TYPES,
    REQUIRED_FIELDS,
    Column,
    Lookup,
    RecordTable,
)
from er_jax.mano.joints import HAND21, INTERHAND21, joint_order
from er_jax.utils.errors import DataError

if TYPE_CHECKING:  # which imports JAX
    from er_jax.mano import HandModel

logger = logging.getLogger(__name__)

NAME = "interhand26m"
SPLITS = ("train", "val", "test")
SUBSETS = ("all", "human_annot", "machine_annot", "interacting_mano")
ID_LIST_SUBSETS = ("human_annot", "machine_annot")
BOX_RULE = "joints valid in 3D, seen or not"
"""Which joints of the hands present a box is drawn around, as the dataset's own loader does."""
RECORD_FIELDS = (
    *REQUIRED_FIELDS,
    "capture",
    "subject",
    "seq_name",
    "camera",
    "image_id",
    "frame_idx",
    *boxes.JOINT_FIELDS,
    "joint_valid_view",
    "mano_valid",
    "mano_pose",
    "mano_betas",
    "mano_trans_m",
    "abs_depth_mm",
    "abs_depth_valid",
)
Boxes = Literal["auto", "joints", "rootnet"]

_WRIST = INTERHAND21.index("Wrist")
_TO_HAND21 = joint_order(INTERHAND21, HAND21)
_CHUNK = 1 << 15


def splits_of(raw_dir: Path) -> tuple[str, ...]:
    """The splits that a raw tree has annotations of."""
    return tuple(s for s in SPLITS if (raw_dir / "annotations" / s).is_dir())


def captures_of(raw_dir: Path, split: str) -> list[str]:
    """The names of a split's captures, by its cameras; raises as `read_split`."""
    cameras = files.read_camera_file(annotation_files(raw_dir, split)["camera"])
    return list(dict.fromkeys(capture for capture, _ in cameras.rows))


def annotation_files(raw_dir: Path, split: str) -> dict[str, Path]:
    """The annotation files of a split; `rootnet` only where it exists, under either spelling."""
    folder = raw_dir / "annotations" / split
    found = {
        name: folder / f"InterHand2.6M_{split}_{name}.json"
        for name in ("data", "camera", "joint_3d", "MANO_NeuralAnnot")
    }
    for spelling in ("rootnet_output", "rootnet"):
        path = raw_dir / spelling / f"rootnet_interhand2.6m_output_{split}.json"
        if path.exists():
            found["rootnet"] = path
            break
    return found


def read_split(
    raw_dir: Path,
    split: str,
    *,
    subset: str = "all",
    annotation_ids: np.ndarray | None = None,
    box_choice: Boxes = "auto",
    squashed: Squashed = "drop",
    captures: Sequence[str] | None = None,
    on_disk: ImagesOnDisk | None = None,
    hands: HandModel | None = None,
    max_fit_error_mm: float | None = None,
    progress: files.Progress = lambda what, done, total: None,
) -> SplitTable:
    """The records of a split.

    Args:
      raw_dir: the folder that holds `images/` and `annotations/`.
      subset: one of `SUBSETS`; `interacting_mano` here without its rule on brightness, which needs
        the images.
      annotation_ids: the ids of `human_annot` or `machine_annot`.
      box_choice: `auto` takes RootNet's boxes for val and test where the file is there, and the
        joints' for train.
      squashed: what is done with images of another shape than their camera is calibrated for.
      captures: to take; None: all.
      on_disk: takes only images whose files are there; None: all, there or not.
      hands: that the fits were made with, to compare these with the joints; None: not compared.
      max_fit_error_mm: drops records with a hand whose fit is farther off, on average; None: none.

    Raises:
      DataError: a file is missing, cut short or of another version; files contradict each other;
        or no record is left.
    """
    paths = annotation_files(raw_dir, split)
    if not paths["data"].parent.is_dir():
        raise DataError(
            f"{paths['data'].parent} is missing: {raw_dir} has no split {split!r}, only "
            f"{', '.join(splits_of(raw_dir)) or 'none'}. Give the splits it has with --splits."
        )
    cameras = files.read_camera_file(paths["camera"])
    frames = files.read_frame_files(paths["joint_3d"], paths["MANO_NeuralAnnot"], progress)
    images, annotations = files.read_data_file(paths["data"], progress)
    rootnet = files.read_rootnet_file(paths["rootnet"]) if "rootnet" in paths else None

    choice = Choice.of(images, captures, on_disk)
    found = [one for one in squashed_cameras(images, cameras) if choice.kept[one.images].any()]
    table, image, rules = _assemble(
        paths, raw_dir / "images" / split, images, annotations, cameras, frames, found, squashed
    )
    source = _box_choice(split, box_choice, paths)
    table, rules["box misses the image"] = _add_boxes(table, rootnet, source)
    counts = {"annotations": len(table)}
    kept = np.ones(len(table), bool)
    by_image = {rule: dropped[image] for rule, dropped in choice.rules().items()}
    for rule, dropped in (by_image | rules).items():
        counts[f"dropped: {rule}"] = int((kept & dropped).sum())
        kept &= ~dropped
    in_subset = _in_subset(table, subset, annotation_ids)
    counts["usable"] = int(kept.sum())
    counts["usable and interacting_mano, if not dark"] = int((kept & _has_both_fits(table)).sum())
    counts[f"not in subset {subset}"] = int((kept & ~in_subset).sum())
    kept &= in_subset
    table = table.select(np.flatnonzero(kept))
    findings: dict[str, Any] = {}
    notes: list[str] = []
    if choice.rules():
        findings["captures"] = choice.report()
        notes += map(capture_note, findings["captures"])
    if found:
        of_kept = image[choice.kept[image]]
        findings["squashed_cameras"] = [report_entry(one, of_kept, squashed) for one in found]
        notes += map(squashed_note, findings["squashed_cameras"])
    part = choice.part(image)
    if hands is None:
        notes += [FITS_UNCHECKED] if frames.mano_valid.any() else []
    else:
        errors_mm, findings["fit_errors_mm"] = _fit_errors(table, frames, hands, progress)
        notes += fit_notes(findings["fit_errors_mm"])
        if max_fit_error_mm is not None:
            far = (errors_mm > max_fit_error_mm).any(axis=1)
            rule = f"fit off its joints by more than {max_fit_error_mm:g} mm"
            counts[f"dropped: {rule}"] = int(far.sum())
            table = table.select(np.flatnonzero(~far))
            if far.any():
                part = "; ".join([*([part] if part else []), f"without {far.sum():,}: {rule}"])
    if not len(table):
        raise DataError(
            f"{paths['data']}: no annotation of split {split!r} is left for subset {subset!r} "
            f"({', '.join(f'{what}: {count}' for what, count in counts.items())})."
        )
    return SplitTable(
        table,
        counts,
        drop_dark=subset == "interacting_mano",
        notes=notes,
        findings=findings,
        part=part,
    )


def _fit_errors(
    table: RecordTable, frames: files.Frames, hands: HandModel, progress: files.Progress
) -> tuple[np.ndarray, dict[str, Any]]:
    """How far the fits of records lie from their joints, (N, 2), and that of frames as JSON."""
    from er_jax.mano import hand_model_identity

    column = table.columns["mano_pose"]
    if not isinstance(column, Lookup):
        raise TypeError("fits are shared by the records of a frame")
    used, row = np.unique(column.rows, return_inverse=True)
    fitted = np.zeros((len(used), 2), bool)
    np.logical_or.at(fitted, row, table.columns["mano_valid"][:])
    fits = Fits(
        joint_mm=frames.joint_world_mm[used].reshape(-1, 2, 21, 3)[:, :, _TO_HAND21],
        joint_valid=_hands_with_wrist(frames.joint_valid[used]),
        fitted=fitted,
        pose=frames.mano_pose[used],
        betas=frames.mano_betas[used],
        trans_m=frames.mano_trans_m[used],
    )
    errors = fit_errors_mm(fits, hands, lambda done, total: progress("fits", done, total))
    keys = list(frames.rows)

    def names(place: int) -> dict[str, str]:
        capture, frame = keys[used[place]]
        return {"capture": capture, "frame": frame}

    of_records = np.where(table.columns["mano_valid"][:], errors[row], np.nan)
    return of_records, summary(errors, names) | hand_model_identity(hands)


def _assemble(
    paths: Mapping[str, Path],
    image_dir: Path,
    images: files.Images,
    annotations: files.Annotations,
    cameras: files.Cameras,
    frames: files.Frames,
    found: Sequence[SquashedCamera],
    squashed: Squashed,
) -> tuple[RecordTable, np.ndarray, dict[str, np.ndarray]]:
    """All annotations as records without a box, their images, and which of them a rule drops."""
    image = np.searchsorted(images.id, annotations.image_id).clip(max=len(images.id) - 1)
    unknown = np.flatnonzero(images.id[image] != annotations.image_id)
    if unknown.size:
        raise DataError(
            f"{paths['data']}: annotation {annotations.id[unknown[0]]} names image "
            f"{annotations.image_id[unknown[0]]}, which images[] does not have. The file is not "
            "the published one: take the original of v1.0."
        )
    camera_row, frame_row = _rows_of_images(paths, images, cameras, frames, np.unique(image))
    if squashed == "mend":
        cameras, camera_row = mended(cameras, camera_row, found)
    camera_row, frame_row = camera_row[image], frame_row[image]

    view = _hands_with_wrist(annotations.joint_valid_view)
    world = _hands_with_wrist(frames.joint_valid)[frame_row]
    rules = {
        **_squashed_rule(image, found if squashed == "drop" else ()),
        "no visible joint": ~view.any(axis=(1, 2)),
        "no joint in 3D": ~world.any(axis=(1, 2)),
    }
    present = np.logical_or.reduce(view, axis=-1, keepdims=True)
    columns: dict[str, Column] = {
        "file_name": Lookup(image, images.file_name),
        **{name: Lookup(rows[image], images.names) for name, rows in images.text.items()},
        "annotation_id": annotations.id.astype(np.int32),
        "image_id": annotations.image_id.astype(np.int32),
        "frame_idx": images.frame_idx[image].astype(np.int32),
        "hand_type": annotations.hand_type,
        "hand_type_valid": annotations.hand_type_valid,
        "image_size_px": images.size_px[image],
        "camera_rotation": Lookup(camera_row, cameras.rotation.astype(np.float32)),
        "camera_translation_mm": Lookup(camera_row, cameras.translation_mm.astype(np.float32)),
        "focal_px": Lookup(camera_row, cameras.focal_px.astype(np.float32)),
        "princpt_px": Lookup(camera_row, cameras.princpt_px.astype(np.float32)),
        "joint_world_mm": Lookup(
            frame_row, frames.joint_world_mm.reshape(-1, 2, 21, 3)[:, :, _TO_HAND21]
        ),
        "joint_valid_world": world & present,
        "joint_valid_view": view,
        "mano_valid": frames.mano_valid[frame_row] & present[..., 0],
        "mano_pose": Lookup(frame_row, frames.mano_pose),
        "mano_betas": Lookup(frame_row, frames.mano_betas),
        "mano_trans_m": Lookup(frame_row, frames.mano_trans_m),
    }
    return RecordTable(image_dir, columns), image, rules


def _squashed_rule(image: np.ndarray, dropped: Sequence[SquashedCamera]) -> dict[str, np.ndarray]:
    """No rule where there is no such camera, so that counts are as ever."""
    if not dropped:
        return {}
    images = np.concatenate([one.images for one in dropped])
    return {"image's shape is not its calibration's": np.isin(image, images)}


def _rows_of_images(
    paths: Mapping[str, Path],
    images: files.Images,
    cameras: files.Cameras,
    frames: files.Frames,
    used: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Each image's row among the cameras and among the frames; only `used` images must have one."""
    names = [name.decode() for name in images.names]
    camera_row = np.zeros(len(images.id), np.int32)
    frame_row = np.zeros(len(images.id), np.int32)
    for i in used:
        capture = names[images.text["capture"][i]]
        camera = names[images.text["camera"][i]]
        frame = str(images.frame_idx[i])
        try:
            what, where, path = "camera", camera, paths["camera"]
            camera_row[i] = cameras.rows[capture, camera]
            what, where, path = "frame", frame, paths["joint_3d"]
            frame_row[i] = frames.rows[capture, frame]
        except KeyError:
            raise DataError(
                f"{path}: {what} {where} of capture {capture} is absent, which image "
                f"{images.file_name[i].decode()} of {paths['data'].name} needs. The files are of "
                "different versions or one was cut short: take all of them from one release."
            ) from None
    return camera_row, frame_row


def _hands_with_wrist(valid: np.ndarray) -> np.ndarray:
    """(N, 42) in the dataset's order to (N, 2, 21) in Hand 21's, none of a hand without wrist."""
    by_hand = valid.reshape(-1, 2, 21)
    return (by_hand & by_hand[..., _WRIST : _WRIST + 1])[..., _TO_HAND21]


def _box_choice(split: str, choice: Boxes, paths: Mapping[str, Path]) -> str:
    if choice == "auto":
        if split == "train":
            return "joints"
        if "rootnet" not in paths:
            logger.warning(
                "%s: there is no RootNet file for it, so the boxes are those of the annotated "
                "joints",
                split,
            )
            return "joints"
        return "rootnet"
    if choice == "rootnet" and "rootnet" not in paths:
        raise DataError(
            f"RootNet's boxes were asked for, but there is no rootnet_output/ (or rootnet/) "
            f"rootnet_interhand2.6m_output_{split}.json. Download it or give --boxes=joints."
        )
    return choice


def _add_boxes(
    table: RecordTable, rootnet: files.Rootnet | None, source: str
) -> tuple[RecordTable, np.ndarray]:
    """The table with boxes and depths, and which records' box misses the image."""
    bbox, usable = _joint_boxes(table)
    count = len(table)
    sources = np.full(count, BOX_SOURCES.index("joints"), np.int8)
    depth = np.zeros((count, 2), np.float32)
    depth_valid = np.zeros(count, bool)
    if rootnet is not None:
        ids = table.columns["annotation_id"][:]
        row = np.searchsorted(rootnet.annotation_id, ids).clip(max=len(rootnet.annotation_id) - 1)
        depth_valid = rootnet.annotation_id[row] == ids
        depth[depth_valid] = rootnet.abs_depth_mm[row[depth_valid]]
        if source == "rootnet":
            bbox[depth_valid] = rootnet.bbox_px[row[depth_valid]]
            sources[depth_valid] = BOX_SOURCES.index("rootnet")
            usable = boxes.meets_image(bbox, table.columns["image_size_px"][:])
            if not depth_valid.all():
                logger.warning(
                    "%d annotations are not in the RootNet file: their boxes are those of the "
                    "annotated joints",
                    (~depth_valid).sum(),
                )
    columns = {
        **table.columns,
        "bbox_px": bbox.astype(np.float32),
        "bbox_source": sources,
        "abs_depth_mm": depth,
        "abs_depth_valid": depth_valid,
    }
    return RecordTable(table.image_dir, columns), ~usable


def _joint_boxes(table: RecordTable) -> tuple[np.ndarray, np.ndarray]:
    bbox = np.empty((len(table), 4))
    usable = np.empty(len(table), bool)
    column = table.columns
    for start in range(0, len(table), _CHUNK):
        part = slice(start, start + _CHUNK)
        fields = {name: column[name][part] for name in boxes.JOINT_FIELDS}
        pixels, valid = boxes.joint_pixels(fields)
        bbox[part], usable[part] = boxes.joint_boxes(pixels, valid, column["image_size_px"][part])
    return bbox, usable


def _in_subset(table: RecordTable, subset: str, annotation_ids: np.ndarray | None) -> np.ndarray:
    if subset == "all":
        return np.ones(len(table), bool)
    if subset == "interacting_mano":
        return _has_both_fits(table)
    if annotation_ids is None:
        raise DataError(f"Subset {subset!r} needs a list of annotation ids: --annotation_ids.")
    known = table.columns["annotation_id"][:]
    unknown = np.setdiff1d(annotation_ids, known)
    if unknown.size:
        raise DataError(
            f"{unknown.size} of the {annotation_ids.size} ids listed for subset {subset!r} are no "
            f"annotation's of this split, such as {unknown[0]}. --annotation_ids names the list "
            "of another split, or of the dataset at another frame rate."
        )
    return np.isin(known, annotation_ids)


def _has_both_fits(table: RecordTable) -> np.ndarray:
    column = table.columns
    interacting = column["hand_type"][:] == HAND_TYPES.index("interacting")
    return interacting & column["hand_type_valid"][:] & column["mano_valid"][:].all(axis=1)
