"""Batches of samples for the network, with Grain: source → shuffle → repeat → crop → batch.

The host decodes, crops and colours; targets are the device's work. Any sample depends on the seed,
the epoch and the record's index alone, so a run goes on after an interruption with the very next
sample, whatever number of hosts, workers or threads reads it.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import grain
import numpy as np
from absl import flags
from jaxtyping import Array

from data_pipeline.augmentation import (
    NO_AUGMENTATION,
    Augmentation,
    AugmentationRange,
    crop,
    draw_augmentation,
    image_to_crop,
)
from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.errors import DataError
from data_pipeline.images import decode_image
from data_pipeline.records import TEXT_FIELDS

Batch = dict[str, Array]
"""A sample's fields with a leading batch axis:

`image` (S, S, 3) uint8, the RGB crop; the record's numeric fields (`data_pipeline.records`)
unchanged; `img2bb` (2, 3), from pixels of the image (mirrored if flipped) to pixels of the crop;
`augmentation` (3): scale, rotation in degrees, flip; `sample_mask`, False where an evaluation batch
is filled up.
"""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a host reads; none of it changes the batches.

    With no worker process, `threads` of this process prepare `ahead` batches: enough where the
    training step leaves a core free, since decoding and warping hold no lock. Each worker process
    does the same.
    """

    worker_count: int = 0
    threads: int = 2
    ahead: int = 4


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a sample comes from."""

    source: int
    epoch: int
    index: int
    real: bool = True  # False: fills up the last batch of an evaluation


class PrepareSample:
    """From a place to the sample: read, decode, crop, colour."""

    def __init__(
        self,
        sources: tuple[RecordSource, ...],
        extent: AugmentationRange,
        seed: int,
        input_size: int,
        with_vertices: bool,
    ):
        self._sources = sources
        self._extent = extent
        self._seed = seed
        self._input_size = input_size
        self._with_vertices = with_vertices

    def __call__(self, place: Place) -> dict[str, np.ndarray]:
        record = self._sources[place.source][place.index]
        if self._extent == NO_AUGMENTATION:
            augmentation = Augmentation()
        else:
            augmentation = draw_augmentation(
                self._extent,
                seed=self._seed + place.source,
                epoch=place.epoch,
                index=place.index,
            )
        sample = prepare_sample(record, augmentation, self._input_size)
        if self._with_vertices and "mano_vertices_m" not in sample:
            sample["mano_vertices_m"] = np.zeros((2, 778, 3), np.float32)
            sample["mano_vertices_valid"] = np.zeros(2, bool)
        sample["sample_mask"] = np.asarray(place.real)
        return sample


def prepare_sample(
    record: Mapping[str, Any], augmentation: Augmentation, input_size: int
) -> dict[str, np.ndarray]:
    """One sample (see `Batch`) without its mask, from a record and how it is to be varied."""
    image = decode_image(record["image"])
    img2bb = image_to_crop(record["bbox_px"], image.shape[1], augmentation, input_size)
    sample = {
        name: _numeric(value)
        for name, value in record.items()
        if name != "image" and name not in TEXT_FIELDS
    }
    sample["image"] = crop(image, img2bb, augmentation, input_size)
    sample["img2bb"] = img2bb.astype(np.float32)
    sample["augmentation"] = np.array(
        [augmentation.scale, augmentation.rotation_degrees, augmentation.flip], np.float32
    )
    return sample


class BatchLoader(Iterator[Batch]):
    """An iterator over batches whose place can be saved and restored.

    Attributes:
      samples_per_epoch: records of all its datasets together.
      batch_size: of all hosts together.
    """

    def __init__(
        self,
        places: grain.MapDataset,
        prepare: PrepareSample,
        *,
        batch_size: int,
        samples_per_epoch: int,
        identity: Mapping[str, Any],
        shard_index: int,
        shard_count: int,
        reading: Reading,
    ):
        if batch_size % shard_count:
            raise ValueError(f"batch_size {batch_size} does not divide among {shard_count} hosts")
        self.samples_per_epoch = samples_per_epoch
        self.batch_size = batch_size
        self._places = places
        self._prepare = prepare
        self._identity = dict(identity)
        self._shard = (shard_index, shard_count)
        self._reading = reading
        self._next_sample = 0
        self._batches: Any = None

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = iter(self._dataset())
        batch = next(self._batches)
        self._next_sample += self.batch_size
        return batch

    def get_state(self) -> dict[str, Any]:
        """What `set_state` needs to go on from here; JSON-compatible, the same on all hosts."""
        return {"next_sample": self._next_sample, **self._identity}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved place; batch size, hosts and workers may have changed.

        Raises:
          DataError: the state is of other data or of another seed.
        """
        identity = {name: value for name, value in state.items() if name != "next_sample"}
        if identity != self._identity:
            raise DataError(
                f"the data iterator's saved state is of {identity}, this run reads "
                f"{self._identity}: going on would repeat or skip samples. Give the run the data "
                "and the seed it began with, or begin a new one in another --workdir."
            )
        self.close()
        self._next_sample = int(state["next_sample"])

    def close(self) -> None:
        """Ends the workers, if there are any."""
        if self._batches is not None and hasattr(self._batches, "close"):
            self._batches.close()
        self._batches = None

    def _dataset(self) -> grain.IterDataset:
        cv2.setNumThreads(1)  # parallel over samples instead
        index, count = self._shard
        mine = self._places[self._next_sample + index :: count]
        batches = mine.map(self._prepare).batch(self.batch_size // count, drop_remainder=True)
        reading = self._reading
        dataset = batches.to_iter_dataset(
            grain.ReadOptions(num_threads=reading.threads, prefetch_buffer_size=reading.ahead)
        )
        if reading.worker_count:
            if not flags.FLAGS.is_parsed():  # Grain reads flags of its own to start workers
                flags.FLAGS.mark_as_parsed()
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=reading.worker_count), _start_worker
            )
            # Through pipes: shared memory is 64 MiB in many containers, less than a few batches.
            options = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
            dataset = grain.experimental.WithOptionsIterDataset(dataset, options)
        return dataset


def make_train_loader(
    data_dir: str | Path,
    dataset: str | Mapping[str, float],
    split: str = "train",
    *,
    batch_size: int,
    seed: int,
    input_size: int = 256,
    augmentation: AugmentationRange | None = None,
    shard_index: int = 0,
    shard_count: int = 1,
    reading: Reading | None = None,
) -> BatchLoader:
    """Endless shuffled batches; every record once in an epoch, epochs follow without a gap.

    Args:
      dataset: `name`, `name/config`, or several of them with weights, the shares of samples that
        each gives; `:split` at the end of a name replaces `split` for it.
      batch_size: of all hosts together.
      augmentation: None for the reference's.
      shard_index: this host among `shard_count`, as in `jax.process_index()`.

    Raises:
      DataError: see `find_dataset`.
    """
    weights = {dataset: 1.0} if isinstance(dataset, str) else dict(dataset)
    sources = tuple(_open(data_dir, name, split) for name in weights)
    parts = [
        grain.MapDataset.range(len(source))
        .shuffle(seed=(seed + number) % 2**32)
        .repeat()
        .map_with_index(_Locate(number, len(source)))
        for number, source in enumerate(sources)
    ]
    places = parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, list(weights.values()))
    return BatchLoader(
        places,
        PrepareSample(
            sources,
            AugmentationRange() if augmentation is None else augmentation,
            seed,
            input_size,
            _any_vertices(sources),
        ),
        batch_size=batch_size,
        samples_per_epoch=sum(map(len, sources)),
        identity={
            "seed": seed,
            "split": split,
            "weights": weights,
            "records": [len(source) for source in sources],
        },
        shard_index=shard_index,
        shard_count=shard_count,
        reading=reading or Reading(),
    )


def make_eval_loader(
    data_dir: str | Path,
    dataset: str,
    split: str,
    *,
    batch_size: int,
    input_size: int = 256,
    shard_index: int = 0,
    shard_count: int = 1,
    reading: Reading | None = None,
) -> BatchLoader:
    """One pass in the records' order, unvaried; the last batch is filled up and masked.

    All hosts get the same number of batches. Arguments and errors as of `make_train_loader`.
    """
    source = _open(data_dir, dataset, split)
    filled = -(-len(source) // batch_size) * batch_size
    return BatchLoader(
        grain.MapDataset.range(filled).map(_LocateOnce(len(source))),
        PrepareSample((source,), NO_AUGMENTATION, 0, input_size, _any_vertices((source,))),
        batch_size=batch_size,
        samples_per_epoch=len(source),
        identity={"dataset": dataset, "split": split, "records": len(source)},
        shard_index=shard_index,
        shard_count=shard_count,
        reading=reading or Reading(),
    )


@dataclasses.dataclass(frozen=True)
class _Locate:
    source: int
    length: int

    def __call__(self, position: int, index: int) -> Place:
        return Place(self.source, position // self.length, index)


@dataclasses.dataclass(frozen=True)
class _LocateOnce:
    length: int

    def __call__(self, position: int) -> Place:
        return Place(0, 0, min(position, self.length - 1), position < self.length)


def _open(data_dir: str | Path, name: str, split: str) -> RecordSource:
    name, _, own_split = name.partition(":")
    return RecordSource(find_dataset(data_dir, name), own_split or split)


def _any_vertices(sources: tuple[RecordSource, ...]) -> bool:
    return any(source.has_vertices for source in sources)


def _numeric(value: Any) -> np.ndarray:
    """int32, float32 or bool."""
    array = np.asarray(value)
    return array.astype(np.int32) if array.dtype == np.int64 else array


def _start_worker(index: int, count: int) -> None:
    cv2.setNumThreads(1)
