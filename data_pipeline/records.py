"""Records: the fields that a dataset's record holds, and a split's records as compact columns."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_pipeline.tf_example import Example

if TYPE_CHECKING:  # workers do without it, since importing it takes long
    import tensorflow_datasets as tfds

BUILDER_VERSION = "1.1.0"
"""Of the records' fields and of the rules that made them; raise it when either changes."""

ANNOTATIONS = "annotations"
"""Folder of a built dataset that holds each split's records without their images."""

HAND_TYPES = ("right", "left", "interacting")
BOX_SOURCES = ("joints", "rootnet", "mesh", "given")

TEXT_FIELDS = ("file_name", "capture", "subject", "seq_name", "camera")


class Field(NamedTuple):
    """A number or an array of a record."""

    shape: tuple[int, ...]
    dtype: type
    absent: Any = 0
    """What stands for it where a dataset's records have none; its mask is then False."""

    def default(self) -> np.ndarray:
        return np.broadcast_to(np.asarray(self.absent, self.dtype), self.shape)


REQUIRED_FIELDS = (
    "file_name",
    "annotation_id",
    "hand_type",
    "hand_type_valid",
    "image_size_px",
    "bbox_px",
    "bbox_source",
)
"""What every record has, beside its image; a dataset may do without any other field."""

FIELDS: Mapping[str, Field] = {
    "annotation_id": Field((), np.int32),
    "image_id": Field((), np.int32),
    "frame_idx": Field((), np.int32),
    "hand_type": Field((), np.int64),
    "hand_type_valid": Field((), np.bool_),
    "image_size_px": Field((2,), np.int32),
    "camera_valid": Field((), np.bool_, True),
    "camera_rotation": Field((3, 3), np.float32, np.eye(3)),
    "camera_translation_mm": Field((3,), np.float32),
    "focal_px": Field((2,), np.float32, 1),
    "princpt_px": Field((2,), np.float32),
    "joint_world_mm": Field((2, 21, 3), np.float32),
    "joint_valid_world": Field((2, 21), np.bool_),
    "joint_valid_view": Field((2, 21), np.bool_),
    "joint_px": Field((2, 21, 2), np.float32),
    "joint_px_valid": Field((2, 21), np.bool_),
    "mano_valid": Field((2,), np.bool_),
    "mano_pose": Field((2, 48), np.float32),
    "mano_betas": Field((2, 10), np.float32),
    "mano_trans_m": Field((2, 3), np.float32),
    "label_confidence": Field((2,), np.float32, 1),
    "bbox_px": Field((4,), np.float32),
    "bbox_source": Field((), np.int64),
    "abs_depth_mm": Field((2,), np.float32),
    "abs_depth_valid": Field((), np.bool_),
    "mano_vertices_m": Field((2, 778, 3), np.float32),
    "mano_vertices_valid": Field((2,), np.bool_),
}
"""The fields of records. Hand axes are (right, left), joints in the Hand 21 order.

`joint_valid_world` and `joint_valid_view` already follow the rules of the field: a hand whose wrist
is invalid has no valid joint, a hand without a visible joint is absent in all fields. Without
`camera_rotation` and `camera_translation_mm` the world's axes are the camera's. Where
`camera_valid` is not set, focal length and principal point are not known. `joint_px` are joints
annotated in the image itself, which go before the projection of those in 3D. `mano_vertices_m` are
in camera axes. `label_confidence`, from 0 to 1, weighs a hand's part of the loss.
"""

LARGE_FIELDS = ("mano_vertices_m", "mano_vertices_valid")
"""Fields that nothing stands for where no record has any."""


def absent_fields(held: Container[str], wanted: Iterable[str]) -> dict[str, np.ndarray | bytes]:
    """What stands for the wanted fields that records do not hold, except `LARGE_FIELDS`."""
    return {
        name: b"" if name in TEXT_FIELDS else FIELDS[name].default()
        for name in wanted
        if name not in held and name not in LARGE_FIELDS
    }


_CLASSES = {"hand_type": HAND_TYPES, "bbox_source": BOX_SOURCES}


def record_features(names: Container[str]) -> tfds.features.FeaturesDict:
    """Features of records that have these fields, beside the required ones."""
    import tensorflow_datasets as tfds

    feature = tfds.features

    def of(name: str, field: Field) -> tfds.features.FeatureConnector:
        if name in _CLASSES:
            return feature.ClassLabel(names=list(_CLASSES[name]))
        if field.shape:
            return feature.Tensor(shape=field.shape, dtype=field.dtype)
        return feature.Scalar(field.dtype)

    held = {
        "image": feature.Image(shape=(None, None, 3), doc="the file's own bytes"),
        **{name: feature.Text() for name in TEXT_FIELDS},
        **{name: of(name, field) for name, field in FIELDS.items()},
    }
    return feature.FeaturesDict(
        {
            name: one
            for name, one in held.items()
            if name in ("image", *REQUIRED_FIELDS) or name in names
        }
    )


class RecordCodec:
    """Records to the bytes that TFDS's own serializer gives, and back, at a third of its time.

    A record's bytes are always the same: the entries of a `tf.train.Example` are sorted.
    """

    def __init__(self, infos: Mapping[str, tuple[tuple[int, ...], np.dtype]]):
        """Takes each field's shape and type; that of texts and images is `object`."""
        self._infos = infos

    @classmethod
    def of(cls, features: tfds.features.FeaturesDict) -> RecordCodec:
        """The codec of records with these features."""
        infos = features.get_serialized_info().items()
        return cls({name: (info.shape, np.dtype(info.np_dtype)) for name, info in infos})

    @classmethod
    def of_dataset(cls, folder: Path, fields: Container[str] | None = None) -> RecordCodec:
        """The codec of a built dataset's records.

        Args:
          folder: of the dataset.
          fields: to decode; None: all.
        """
        content = json.loads((folder / "features.json").read_text())
        features = content["featuresDict"]["features"].items()
        return cls({name: _info(one) for name, one in features if fields is None or name in fields})

    @property
    def fields(self) -> frozenset[str]:
        return frozenset(self._infos)

    def encode(self, record: Mapping[str, Any]) -> bytes:
        example = Example()
        feature = example.features.feature
        for name, (_, dtype) in self._infos.items():
            value = record[name]
            if isinstance(value, str | bytes):
                data = value.encode() if isinstance(value, str) else value
                feature[name].bytes_list.value.append(data)
            elif dtype.kind == "f":
                feature[name].float_list.value.extend(np.ravel(value).tolist())
            else:
                feature[name].int64_list.value.extend(np.ravel(value).astype(np.int64).tolist())
        return example.SerializeToString(deterministic=True)

    def decode(self, data: bytes) -> dict[str, Any]:
        """The record; texts and the image as bytes."""
        feature = Example.FromString(data).features.feature
        record: dict[str, Any] = {}
        for name, (shape, dtype) in self._infos.items():
            if dtype.kind == "O":
                record[name] = feature[name].bytes_list.value[0]
                continue
            kind = feature[name].float_list if dtype.kind == "f" else feature[name].int64_list
            if shape:
                record[name] = np.array(kind.value, dtype).reshape(shape)
            else:
                record[name] = dtype.type(kind.value[0])
        return record


def _info(feature: Mapping[str, Any]) -> tuple[tuple[int, ...], np.dtype]:
    """A field's shape and type from its entry in TFDS's features.json."""
    if "classLabel" in feature:
        return (), np.dtype(np.int64)
    if "tensor" not in feature:
        return (), np.dtype(object)
    tensor = feature["tensor"]
    return tuple(map(int, tensor["shape"].get("dimensions", ()))), np.dtype(tensor["dtype"])


@dataclasses.dataclass(frozen=True)
class Lookup:
    """A column whose values are shared: record i holds `values[rows[i]]`."""

    rows: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.values[self.rows[index]]


Column = np.ndarray | Lookup


@dataclasses.dataclass(frozen=True)
class RecordTable:
    """All fields of a split's records but the image, a column each, and where the images lie."""

    image_dir: Path
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.columns["annotation_id"])

    def image_path(self, index: int) -> Path:
        return self.image_dir / self.text("file_name", index)

    def text(self, name: str, index: int) -> str:
        return bytes(self.columns[name][index]).decode()

    def record(self, index: int) -> dict[str, Any]:
        """All fields of one record but `image`."""
        return {
            name: self.text(name, index) if name in TEXT_FIELDS else column[index]
            for name, column in self.columns.items()
        }

    def with_absent(self) -> RecordTable:
        """The table with a column for every field but the large ones."""
        absent = absent_fields(self.columns, (*TEXT_FIELDS, *FIELDS))
        rows = np.zeros(len(self), np.int8)
        columns = {name: Lookup(rows, np.asarray(value)[None]) for name, value in absent.items()}
        return RecordTable(self.image_dir, {**columns, **self.columns})

    def select(self, rows: np.ndarray) -> RecordTable:
        """The table of some records, in the order of `rows`."""
        columns = {
            name: Lookup(column.rows[rows], column.values)
            if isinstance(column, Lookup)
            else column[rows]
            for name, column in self.columns.items()
        }
        return RecordTable(self.image_dir, columns)

    def save(self, folder: Path) -> None:
        """Writes one `.npy` file a column, for `load` in other processes."""
        folder.mkdir(parents=True)
        for name, column in self.columns.items():
            if isinstance(column, Lookup):
                np.save(folder / f"{name}.npy", column.rows)
                np.save(folder / f"{name}.values.npy", column.values)
            else:
                np.save(folder / f"{name}.npy", column)
        metadata = {"image_dir": str(self.image_dir), "columns": list(self.columns)}
        (folder / "table.json").write_text(json.dumps(metadata))

    @staticmethod
    def load(folder: Path) -> RecordTable:
        """Maps a saved table into memory, so that processes share it."""
        metadata = json.loads((folder / "table.json").read_text())
        columns: dict[str, Column] = {}
        for name in metadata["columns"]:
            column = _mapped(folder / f"{name}.npy")
            values = folder / f"{name}.values.npy"
            if values.exists():
                columns[name] = Lookup(column, _mapped(values))
            else:
                columns[name] = column
        return RecordTable(Path(metadata["image_dir"]), columns)


def _mapped(path: Path) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r"))
