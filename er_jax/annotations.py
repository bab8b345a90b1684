"""A split's annotations without its pictures: for baselines, predictions files and breakdowns."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.images import decode_image
from data_pipeline.records import BOX_SOURCES
from data_pipeline.samples import prepare_annotations, stack_samples

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
        return -(-len(self._source) // self.batch_size)

    def __iter__(self) -> Iterator[Sample]:
        """Batches as `data_pipeline.loader` gives them, but without `image`."""
        return self._batches(range(len(self._source)))

    def spread(self, count: int) -> Iterator[Sample]:
        """Batches of at most so many samples, from all over the split."""
        total = len(self._source)
        return self._batches(np.linspace(0, total - 1, min(count, total)).astype(int).tolist())

    def _batches(self, indices: Sequence[int]) -> Iterator[Sample]:
        for start in range(0, len(indices), self.batch_size):
            records = [self._source[index] for index in indices[start : start + self.batch_size]]
            mask = np.arange(self.batch_size) < len(records)
            records += records[-1:] * (self.batch_size - len(records))
            batch = stack_samples([prepare_annotations(r, self.input_size) for r in records])
            yield {**batch, "sample_mask": mask}

    @property
    def sample_count(self) -> int:
        return len(self._source)

    @property
    def sample_ids(self) -> np.ndarray:
        """Annotation ids in the records' order."""
        return self.labels.sample_id

    @functools.cached_property
    def labels(self) -> "Labels":
        """What the records say of each sample in words."""
        records = map(self._source.__getitem__, range(len(self._source)))
        rows = [_label(record) for record in records]
        columns = zip(*rows, strict=True)
        return Labels(*(np.array(column) for column in columns))

    def picture(self, index: int) -> tuple[np.ndarray, Sample]:
        """One record's whole picture, RGB, and its numbers without a batch axis."""
        record = self._source[index]
        return decode_image(record["image"]), prepare_annotations(record, self.input_size)

    @functools.cached_property
    def _source(self) -> RecordSource:
        return RecordSource(find_dataset(self.data_dir, self.dataset), self.split)


@dataclasses.dataclass(frozen=True)
class Labels:
    """Of each sample of a split, in the records' order."""

    sample_id: np.ndarray
    camera: np.ndarray
    sequence: np.ndarray
    """`capture/seq_name`."""
    box_source: np.ndarray


def _label(record: Mapping[str, Any]) -> tuple[int, str, str, str]:
    capture, name, camera = (record[field].decode() for field in ("capture", "seq_name", "camera"))
    sequence = f"{capture}/{name}" if capture else name
    return record["annotation_id"], camera, sequence, BOX_SOURCES[record["bbox_source"]]
