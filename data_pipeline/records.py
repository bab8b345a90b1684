"""Records: the fields that a dataset's record holds, and a split's records as compact columns."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipeline.tf_example import Example

if TYPE_CHECKING:  # workers do without it, since importing it takes long
    import tensorflow_datasets as tfds

BUILDER_VERSION = "1.1.0"
"""Of the records' fields and of the rules that made them; raise it when either changes."""

ANNOTATIONS = "annotations"
"""Folder of a built dataset that holds each split's records without their images."""

HAND_TYPES = ("right", "left", "interacting")
BOX_SOURCES = ("joints", "rootnet", "mesh")

TEXT_FIELDS = ("file_name", "capture", "subject", "seq_name", "camera")


def record_features(*, with_vertices: bool = False) -> tfds.features.FeaturesDict:
    """Features of a record. Hand axes are (right, left), joints in the Hand 21 order.

    `joint_valid_world` and `joint_valid_view` already follow the rules of the field: a hand whose
    wrist is invalid has no valid joint, a hand without a visible joint is absent in all fields.

    Args:
      with_vertices: datasets whose fits are meshes instead of MANO parameters also hold
        `mano_vertices_m`, in camera axes, and `mano_vertices_valid`.
    """
    import tensorflow_datasets as tfds

    feature = tfds.features

    def numbers(*shape: int, dtype: Any = np.float32) -> tfds.features.Tensor:
        return feature.Tensor(shape=shape, dtype=dtype)

    fields = {
        "image": feature.Image(shape=(None, None, 3), doc="the file's own bytes"),
        **{name: feature.Text() for name in TEXT_FIELDS},
        "annotation_id": feature.Scalar(np.int32),
        "image_id": feature.Scalar(np.int32),
        "frame_idx": feature.Scalar(np.int32),
        "hand_type": feature.ClassLabel(names=list(HAND_TYPES)),
        "hand_type_valid": feature.Scalar(np.bool_),
        "image_size_px": numbers(2, dtype=np.int32),
        "camera_rotation": numbers(3, 3),
        "camera_translation_mm": numbers(3),
        "focal_px": numbers(2),
        "princpt_px": numbers(2),
        "joint_world_mm": numbers(2, 21, 3),
        "joint_valid_world": numbers(2, 21, dtype=np.bool_),
        "joint_valid_view": numbers(2, 21, dtype=np.bool_),
        "mano_valid": numbers(2, dtype=np.bool_),
        "mano_pose": numbers(2, 48),
        "mano_betas": numbers(2, 10),
        "mano_trans_m": numbers(2, 3),
        "bbox_px": numbers(4),
        "bbox_source": feature.ClassLabel(names=list(BOX_SOURCES)),
        "abs_depth_mm": numbers(2),
        "abs_depth_valid": feature.Scalar(np.bool_),
    }
    if with_vertices:
        fields["mano_vertices_m"] = numbers(2, 778, 3)
        fields["mano_vertices_valid"] = numbers(2, dtype=np.bool_)
    return feature.FeaturesDict(fields)


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
