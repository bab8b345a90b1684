"""A split's annotations without its images: for baselines, predictions files and breakdowns."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.augmentation import Augmentation, image_to_crop
from data_pipeline.datasets import RecordSource, find_dataset, part_of
from data_pipeline.images import decode_image
from data_pipeline.records import ANNOTATIONS, BOX_SOURCES, RecordTable
from data_pipeline.samples import ANNOTATION_FIELDS, as_numbers

Sample = dict[str, Any]
"""A record's numeric fields as numpy arrays, one sample or a batch."""

INPUT_SIZE_PX = 256


@dataclasses.dataclass(frozen=True)
class AnnotatedSplit:
    """The records of a split in their own order.

    Attributes:
      data_dir: where the TFDS datasets were built.
      dataset: `name` or `name/config`.
      split: such as `test`.
      batch_size: the last batch is filled up with copies of its last sample, and masked.
      input_size: side of the crop that `img2bb` maps to, pixels.
    """

    data_dir: str | Path
    dataset: str
    split: str
    batch_size: int = 64
    input_size: int = INPUT_SIZE_PX

    def __len__(self) -> int:
        """Batches in a pass."""
        return -(-self.sample_count // self.batch_size)

    def __iter__(self) -> Iterator[Sample]:
        """Batches as `data_pipeline.loader` gives them, but without `image`."""
        return self._batches(np.arange(self.sample_count))

    def spread(self, count: int) -> Iterator[Sample]:
        """Batches of at most so many samples, from all over the split."""
        total = self.sample_count
        return self._batches(np.linspace(0, total - 1, min(count, total)).astype(int))

    @property
    def sample_count(self) -> int:
        return len(self._table)

    @property
    def sample_ids(self) -> np.ndarray:
        """Annotation ids in the records' order."""
        return self.labels.sample_id

    @property
    def folder(self) -> Path:
        """The built dataset."""
        return find_dataset(self.data_dir, self.dataset)

    @functools.cached_property
    def provenance(self) -> dict[str, str]:
        """Dataset and split, as results name them, and which part of the published split it is."""
        part = part_of(self.folder, self.split)
        return {"dataset": self.dataset, "split": self.split, **({"part": part} if part else {})}

    @property
    def title(self) -> str:
        """The same in words."""
        return split_title(self.provenance)

    @functools.cached_property
    def labels(self) -> "Labels":
        """Returns what tells each sample from the others, as the records give it."""
        capture, name, camera = (
            np.char.decode(np.asarray(self._table.columns[field][:], np.bytes_), "utf-8")
            for field in ("capture", "seq_name", "camera")
        )
        slash = np.where(capture == "", "", "/")
        return Labels(
            sample_id=np.asarray(self._table.columns["annotation_id"][:], np.int64),
            camera=camera,
            sequence=np.char.add(np.char.add(capture, slash), name),
            box_source=np.array(BOX_SOURCES)[self._table.columns["bbox_source"][:]],
            frame=np.asarray(self._table.columns["frame_idx"][:], np.int64),
        )

    def samples(self, indices: Sequence[int] | np.ndarray) -> Sample:
        """The `ANNOTATION_FIELDS` of some records on a leading axis, unvaried."""
        columns = self._table.columns
        sample = {
            name: as_numbers(columns[name][indices])
            for name in ANNOTATION_FIELDS
            if name in columns
        }
        plain = Augmentation()
        widths = sample["image_size_px"][:, 0].tolist()
        boxes = zip(columns["bbox_px"][indices], widths, strict=True)
        affines = [image_to_crop(box, width, plain, self.input_size) for box, width in boxes]
        sample["img2bb"] = np.array(affines, np.float32)
        sample["augmentation"] = np.tile(plain.as_array(), (len(affines), 1))
        return sample

    def image(self, index: int) -> tuple[np.ndarray, Sample]:
        """One record's whole image, RGB, and its numbers and `bbox_px` without a batch axis."""
        sample = {name: values[0] for name, values in self.samples([index]).items()}
        sample["bbox_px"] = self._table.columns["bbox_px"][index]
        return decode_image(self._source[index]["image"]), sample

    def _batches(self, indices: np.ndarray) -> Iterator[Sample]:
        for start in range(0, len(indices), self.batch_size):
            real = indices[start : start + self.batch_size]
            filled = np.resize(real, self.batch_size)
            filled[len(real) :] = real[-1]
            mask = np.arange(self.batch_size) < len(real)
            yield {**self.samples(filled), "sample_mask": mask}

    @functools.cached_property
    def _table(self) -> RecordTable:
        return RecordTable.load(self._source.folder / ANNOTATIONS / self.split).with_absent()

    @functools.cached_property
    def _source(self) -> RecordSource:
        return RecordSource(self.folder, self.split)


def split_title(provenance: Mapping[str, Any]) -> str:
    """The words for the split that results are of, by `AnnotatedSplit.provenance`."""
    name = f"{provenance.get('dataset') or '–'}, {provenance.get('split') or '–'}"
    part = provenance.get("part")
    return f"{name}: part of the split: {part}" if part else name


@dataclasses.dataclass(frozen=True)
class Labels:
    """What tells each sample of a split from the others, in the records' order."""

    sample_id: np.ndarray
    camera: np.ndarray
    sequence: np.ndarray
    """`capture/seq_name`."""
    box_source: np.ndarray
    frame: np.ndarray
    """Number of the frame in its sequence."""
