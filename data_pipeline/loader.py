"""Batches of samples for the network, with Grain: source → shuffle → repeat → crop → batch.

The host decodes, crops and colours; targets are the device's work. Any sample depends on the seed,
the epoch and the record's index alone, so a run goes on after an interruption with the very next
sample, whatever number of hosts, workers or threads reads it.
"""

import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import grain
from grain.experimental import index_shuffle

from data_pipeline.augmentation import NO_AUGMENTATION, AugmentationRange
from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.samples import (
    SAMPLED_FIELDS,
    PrepareSample,
    SampleRef,
    prepare_sample,
    stack_samples,
)
from data_pipeline.workers import WorkerBatches
from er_jax.utils.errors import DataError

__all__ = [
    "Batch",
    "BatchLoader",
    "LoaderOptions",
    "make_eval_loader",
    "make_train_loader",
    "prepare_sample",
]

Batch = dict[str, Any]
"""A sample's fields as numpy arrays with a leading batch axis:

`image` (S, S, 3) uint8, the RGB crop, which cannot be written to where worker processes made it;
the `ANNOTATION_FIELDS` of the record (`data_pipeline.samples`) unchanged; `img2bb` (2, 3), from
pixels of the image (mirrored if flipped) to pixels of the crop; `augmentation` (3): scale, rotation
in degrees, flip; `sample_mask`, False where an evaluation batch is filled up.
"""


@dataclasses.dataclass(frozen=True)
class LoaderOptions:
    """Options of how a host reads; none of them changes the batches.

    `ahead` batches are prepared while one is in use: with no worker process by `threads` of this
    process, which is enough where the training step leaves a core free, since decoding and warping
    hold no lock; otherwise by `worker_count` processes, which share each batch.
    """

    worker_count: int = 0
    threads: int = 2
    ahead: int = 4


class Places(Protocol):
    """The places of all samples, in their order."""

    def __len__(self) -> int: ...
    def __getitem__(self, position: int) -> SampleRef: ...


class BatchLoader(Iterator[Batch]):
    """An iterator over batches whose place can be saved and restored.

    Attributes:
      samples_per_epoch: records of all its datasets together.
      batch_size: of all hosts together.
    """

    def __init__(
        self,
        places: Places,
        prepare: PrepareSample,
        *,
        batch_size: int,
        samples_per_epoch: int,
        identity: Mapping[str, Any],
        shard_index: int,
        shard_count: int,
        options: LoaderOptions,
    ):
        if batch_size % shard_count:
            raise ValueError(f"batch_size {batch_size} does not divide among {shard_count} hosts")
        self.samples_per_epoch = samples_per_epoch
        self.batch_size = batch_size
        self._places = places
        self._prepare = prepare
        self._identity = dict(identity)
        self._shard = (shard_index, shard_count)
        self._options = options
        self._next_sample = 0
        self._batches: Any = None

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = self._read()
        batch = next(self._batches)
        self._next_sample += self.batch_size
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns what `set_state` needs to go on from here: plain JSON, the same on all hosts."""
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
        if isinstance(self._batches, WorkerBatches):
            self._batches.close()
        self._batches = None

    def _read(self) -> Iterator[Batch]:
        index, count = self._shard
        first, options = self._next_sample + index, self._options
        batch_count = (len(self._places) - self._next_sample) // self.batch_size
        if not batch_count:
            return iter(())
        if options.worker_count:
            return WorkerBatches(
                lambda number: self._places[first + count * number],
                batch_count,
                self._prepare,
                batch_size=self.batch_size // count,
                worker_count=options.worker_count,
                ahead=options.ahead,
            )
        cv2.setNumThreads(1)  # parallel over samples instead
        numbers = grain.MapDataset.range(first, len(self._places), count)
        batches = (
            numbers.map(self._places.__getitem__)
            .map(self._prepare)
            .batch(self.batch_size // count, drop_remainder=True, batch_fn=stack_samples)
        )
        return iter(
            batches.to_iter_dataset(
                grain.ReadOptions(num_threads=options.threads, prefetch_buffer_size=options.ahead)
            )
        )


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
    options: LoaderOptions | None = None,
) -> BatchLoader:
    """Endless shuffled batches; every record once in an epoch, epochs follow without a gap.

    Args:
      dataset: `name`, `name/config`, or several of them with weights: the samples that each gives
        are in proportion to these; `:split` at the end of a name replaces `split` for it.
      batch_size: of all hosts together.
      augmentation: None for the reference's.
      shard_index: this host among `shard_count`, as in `jax.process_index()`.

    Raises:
      DataError: see `find_dataset`.
      ValueError: there is no dataset, or a weight that is not a finite number above zero.
    """
    weights = {dataset: 1.0} if isinstance(dataset, str) else dict(dataset)
    _check_weights(weights)
    sources = tuple(_open(data_dir, name, split) for name in weights)
    parts = [_Shuffled(number, len(source), seed + number) for number, source in enumerate(sources)]
    places = parts[0] if len(parts) == 1 else _Mixed(parts, list(weights.values()))
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
            "weights": [[name, weight] for name, weight in weights.items()],
            "records": [len(source) for source in sources],
        },
        shard_index=shard_index,
        shard_count=shard_count,
        options=options or LoaderOptions(),
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
    options: LoaderOptions | None = None,
) -> BatchLoader:
    """One pass in the records' order, unvaried; the last batch is filled up and masked.

    All hosts get the same number of batches. Arguments and errors as of `make_train_loader`.
    """
    source = _open(data_dir, dataset, split)
    filled = -(-len(source) // batch_size) * batch_size
    return BatchLoader(
        _InOrder(len(source), filled),
        PrepareSample((source,), NO_AUGMENTATION, 0, input_size, _any_vertices((source,))),
        batch_size=batch_size,
        samples_per_epoch=len(source),
        identity={"dataset": dataset, "split": split, "records": len(source)},
        shard_index=shard_index,
        shard_count=shard_count,
        options=options or LoaderOptions(),
    )


@dataclasses.dataclass(frozen=True)
class _Shuffled:
    """The places of epoch after epoch of a dataset, each in another order.

    The order is that of `grain.MapDataset.range(records).shuffle(seed).repeat()`, without the time
    that its layers take.
    """

    source: int
    records: int
    seed: int

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, position: int) -> SampleRef:
        epoch, index = divmod(position, self.records)
        seed = (self.seed + epoch) % 2**32
        index = index_shuffle(index, max_index=self.records - 1, seed=seed, rounds=4)
        return SampleRef(self.source, epoch, index)


class _Mixed:
    """The places of several datasets in turns, as `grain.MapDataset.mix` mixes them."""

    _SPAN = 2**48  # more samples than any run draws of a dataset

    def __init__(self, parts: Sequence[Places], weights: Sequence[float]):
        self._parts = parts
        spans = [range(n * self._SPAN, (n + 1) * self._SPAN) for n in range(len(parts))]
        self._turns = grain.MapDataset.mix(
            [grain.MapDataset.range(span.start, span.stop) for span in spans], weights
        )

    def __len__(self) -> int:
        return len(self._turns)

    def __getitem__(self, position: int) -> SampleRef:
        part, own_position = divmod(self._turns[position], self._SPAN)
        return self._parts[part][own_position]


@dataclasses.dataclass(frozen=True)
class _InOrder:
    """The places of one pass over a dataset, its last one again and again up to `length`."""

    records: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> SampleRef:
        return SampleRef(0, 0, min(position, self.records - 1), position < self.records)


def _check_weights(weights: Mapping[str, float]) -> None:
    wrong = {
        name: weight
        for name, weight in weights.items()
        if not isinstance(weight, int | float) or not 0 < weight < math.inf
    }
    if wrong or not weights:
        raise ValueError(
            f"the weights of a mixture of datasets must be finite numbers above zero: "
            f"{wrong or 'there is none'}. Leave out a dataset that is to give no sample."
        )


def _open(data_dir: str | Path, name: str, split: str) -> RecordSource:
    name, _, own_split = name.partition(":")
    return RecordSource(find_dataset(data_dir, name), own_split or split, SAMPLED_FIELDS)


def _any_vertices(sources: tuple[RecordSource, ...]) -> bool:
    return any(source.has_vertices for source in sources)
