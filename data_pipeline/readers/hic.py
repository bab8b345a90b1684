"""HIC (Tzionas et al. 2016): from the raw tree to records.

Its fits are meshes in camera axes: there are no annotated joints and no MANO parameters, and
`mano_vertices_m` stands for them.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from data_pipeline import boxes
from data_pipeline.build.request import BuildRequest, SplitTable
from data_pipeline.records import (
    BOX_SOURCES,
    HAND_TYPES,
    REQUIRED_FIELDS,
    Column,
    Lookup,
    RecordTable,
)
from er_jax.utils.errors import DataError

HELP = "HIC: hands in action"
NAME = "hic"
SPLIT = "test"
SUBSETS = ("all", "hand_hand", "hand_object")
LAST_HAND_HAND_SEQUENCE = 14
FOCAL_PX = (525.0, 525.0)
PRINCPT_PX = (319.5, 239.5)
VERTICES = 778
RECORD_FIELDS = (
    *REQUIRED_FIELDS,
    "seq_name",
    "image_id",
    "frame_idx",
    "focal_px",
    "princpt_px",
    "mano_vertices_m",
    "mano_vertices_valid",
)


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: int
    height: int
    seq_name: str | int
    frame_idx: int | str


class _Annotation(msgspec.Struct):
    id: int
    image_id: int
    hand_type: Literal["right", "left", "interacting"]
    right_mano_path: str | None = None
    left_mano_path: str | None = None


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subset."""
    parser.add_argument("--subset", choices=SUBSETS, default="all")


def make_request(options: argparse.Namespace) -> BuildRequest:
    """Returns the request that the command's options make."""
    return BuildRequest(
        dataset=NAME,
        config=options.subset,
        description=(
            f"HIC (Tzionas et al. 2016), {options.subset}; "
            "https://files.is.tue.mpg.de/dtzionas/Hand-Object-Capture/"
        ),
        splits=(SPLIT,),
        options={},
        source_files={"HIC.json": annotation_file(options.raw_dir)},
        read_split=lambda split, track: read_split(
            options.raw_dir, subset=options.subset, progress=track
        ),
        fields=RECORD_FIELDS,
    )


def annotation_file(raw_dir: Path) -> Path:
    return raw_dir / "HIC.json"


def read_split(
    raw_dir: Path, *, subset: str, progress: Callable[[str, int, int], None] = lambda *_: None
) -> SplitTable:
    """The records of the dataset; `subset` is one of `SUBSETS`.

    Raises:
      DataError: a file is missing, unreadable or not as described; or no record is left.
    """
    path = annotation_file(raw_dir)
    content = _read_file(path)
    images = {image.id: image for image in content.images}
    annotations = sorted(content.annotations, key=lambda annotation: annotation.id)
    for annotation in annotations:
        if annotation.image_id not in images:
            raise DataError(
                f"{path}: annotation {annotation.id} names image {annotation.image_id}, which "
                "images[] does not have. Take the original file."
            )
    shown = [images[annotation.image_id] for annotation in annotations]
    vertices, valid = _read_meshes(raw_dir, annotations, progress)
    size_px = np.array([(image.width, image.height) for image in shown], np.int32).reshape(-1, 2)
    bbox, box_usable = boxes.joint_boxes(
        vertices[..., :2] / np.where(vertices[..., 2:] > 0, vertices[..., 2:], 1) * FOCAL_PX
        + PRINCPT_PX,
        valid[..., None] & (vertices[..., 2] > 0),
        size_px,
    )
    hand_hand = np.array(
        [_number(path, image, "seq_name") <= LAST_HAND_HAND_SEQUENCE for image in shown], dtype=bool
    )
    subsets = {"all": np.ones_like(hand_hand), "hand_hand": hand_hand, "hand_object": ~hand_hand}
    in_subset = subsets[subset]
    fitted = valid.any(axis=1)
    kept = fitted & box_usable & in_subset
    counts = {
        "annotations": len(annotations),
        "dropped: no fit": int((~fitted).sum()),
        "dropped: box misses the image": int((fitted & ~box_usable).sum()),
        f"not in subset {subset}": int((fitted & box_usable & ~in_subset).sum()),
    }
    if not kept.any():
        raise DataError(f"{path}: no annotation is left for subset {subset!r} ({counts}).")
    table = _table(raw_dir, annotations, shown, size_px, vertices, valid, bbox)
    return SplitTable(table.select(np.flatnonzero(kept)), counts)


def _table(
    raw_dir: Path,
    annotations: list[_Annotation],
    images: list[_Image],
    size_px: np.ndarray,
    vertices: np.ndarray,
    valid: np.ndarray,
    bbox: np.ndarray,
) -> RecordTable:
    count = len(annotations)

    def text(values: list[str]) -> np.ndarray:
        return np.array([value.encode() for value in values], np.bytes_)

    def same(value: np.ndarray) -> Lookup:
        return Lookup(np.zeros(count, np.int8), np.asarray(value)[None])

    columns: dict[str, Column] = {
        "file_name": text([image.file_name for image in images]),
        "seq_name": text([str(image.seq_name) for image in images]),
        "annotation_id": np.array([annotation.id for annotation in annotations], np.int32),
        "image_id": np.array([image.id for image in images], np.int32),
        "frame_idx": np.array(
            [_number(annotation_file(raw_dir), image, "frame_idx") for image in images], np.int32
        ),
        "hand_type": np.array([HAND_TYPES.index(a.hand_type) for a in annotations], np.int8),
        "hand_type_valid": np.ones(count, bool),
        "image_size_px": size_px,
        "focal_px": same(np.array(FOCAL_PX, np.float32)),
        "princpt_px": same(np.array(PRINCPT_PX, np.float32)),
        "mano_vertices_m": vertices,
        "mano_vertices_valid": valid,
        "bbox_px": bbox.astype(np.float32),
        "bbox_source": np.full(count, BOX_SOURCES.index("mesh"), np.int8),
    }
    return RecordTable(raw_dir, columns)


def _number(path: Path, image: _Image, field: str) -> int:
    value = getattr(image, field)
    try:
        return int(value)
    except ValueError:
        raise DataError(
            f"{path}: {field} of image {image.id} is {value!r}, not a number. Take the original "
            "file."
        ) from None


def _read_file(path: Path) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing. --raw_dir must be the folder that holds HIC.json."
        ) from None
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: {error}. Take the original file.") from None
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path}: no valid JSON ({error}). The file was probably cut short: download it again."
        ) from None


def _read_meshes(
    raw_dir: Path, annotations: list[_Annotation], progress: Callable[[str, int, int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, 2, 778, 3) in metres and which hands have a fit, (N, 2)."""
    vertices = np.zeros((len(annotations), 2, VERTICES, 3), np.float32)
    valid = np.zeros((len(annotations), 2), bool)
    for row, annotation in enumerate(annotations):
        paths = (annotation.right_mano_path, annotation.left_mano_path)
        for hand, relative in enumerate(paths):
            if relative is not None:
                vertices[row, hand] = read_mesh(raw_dir / relative)
                valid[row, hand] = True
        progress("meshes", row + 1, len(annotations))
    return vertices, valid


def read_mesh(path: Path) -> np.ndarray:
    """Vertices (778, 3) of a PLY file, text or binary, in the file's order.

    Raises:
      DataError: the file is missing, cut short or of another mesh.
    """
    import trimesh  # takes a second that only this dataset needs

    try:
        with path.open("rb") as file:
            mesh = trimesh.load_mesh(file, file_type="ply", process=False, maintain_order=True)
        vertices = np.asarray(mesh.vertices, np.float32)
    except FileNotFoundError:
        raise DataError(f"{path} is missing, which HIC.json names.") from None
    except Exception as error:  # trimesh's reader raises whatever its parsing ran into
        raise DataError(
            f"{path}: no readable PLY ({type(error).__name__}: {error}). Download it again."
        ) from None
    if vertices.shape != (VERTICES, 3) or not np.isfinite(vertices).all():
        raise DataError(
            f"{path}: vertices of shape {vertices.shape}, or not finite, instead of "
            f"({VERTICES}, 3). It is no fit of MANO, or was cut short: download it again."
        )
    return vertices
