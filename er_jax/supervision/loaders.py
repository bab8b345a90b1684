"""The batches that a run trains on and is evaluated on."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from data_pipeline.annotated_split import AnnotatedSplit
from data_pipeline.augmentation import AugmentationRange
from data_pipeline.datasets import find_dataset
from data_pipeline.loader import (
    Batch,
    BatchLoader,
    LoaderOptions,
    make_eval_loader,
    make_train_loader,
)
from data_pipeline.records import ANNOTATIONS, RecordTable
from er_jax.supervision.targets import INTERACTING
from er_jax.utils import distributed
from er_jax.utils.errors import ConfigError

HOST_FIELDS = ("annotation_id", "sample_mask")
"""The fields of a batch that only the host reads in training."""


def train_loader(config: ConfigDict) -> BatchLoader:
    """This host's part of the endless, shuffled, augmented training batches.

    Raises:
      ConfigError: `config.data_dir` is not set, or `config.data.mixture` is none.
      DataError: a dataset is not there.
    """
    return make_train_loader(
        _data_dir(config),
        training_datasets(config),
        config.data.train_split,
        batch_size=config.batch_size,
        seed=config.seed,
        augmentation=AugmentationRange(**config.data.augmentation),
        **_common(config.model.input_size, config.data.workers),
    )


def steps_in_epoch(data: BatchLoader) -> int:
    """Whole batches in one pass over the training split.

    Raises:
      ConfigError: if there is not even one.
    """
    steps = data.samples_per_epoch // data.batch_size
    if not steps:
        raise ConfigError(
            f"the training split has {data.samples_per_epoch} samples, fewer than "
            f"config.batch_size={data.batch_size}: use a smaller batch"
        )
    return steps


def warn_of_untaught_presence(config: ConfigDict) -> None:
    """Warns where a run is to learn which hands are there, and its data always shows both.

    Raises:
      ConfigError, DataError: see `train_loader`.
    """
    taught = config.model.use_presence and config.loss.presence
    if not taught or config.data.augmentation.one_hand_probability:
        return
    datasets = training_datasets(config)
    names = [datasets] if isinstance(datasets, str) else list(datasets)
    if not any(_has_single_hands(config, name) for name in names):
        logging.warning(
            "config.model.use_presence: which hands are there cannot be learnt, since no training "
            "sample of %s is of a single hand. Train on interhand26m/all or on a mixture with such "
            "samples (config.data.mixture); where the two hands are often apart, crops around one "
            "of them do too (config.data.augmentation.one_hand_probability=0.3)",
            ", ".join(names),
        )


def shard_for_training(batch: Batch) -> Any:
    """Sends each device its part of a batch, without what training reads on the host alone."""
    return distributed.shard({n: value for n, value in batch.items() if n not in HOST_FIELDS})


def training_datasets(config: ConfigDict) -> str | dict[str, float]:
    """Returns what a config trains on: a dataset's name, or several with their shares."""
    return _mixture(config.data.mixture) if config.data.mixture else config.data.dataset


@dataclasses.dataclass(frozen=True)
class Split:
    """A split in its own order, unvaried; as many passes as wanted, the last batch padded.

    Attributes:
      data_dir: where the TFDS datasets lie.
      dataset: `name` or `name/config`.
      name: of the split.
      batch_size: of all hosts together.
      input_size: side of the crop, pixels.
      workers: processes that read for this one; 0: threads of this one.
    """

    data_dir: str
    dataset: str
    name: str
    batch_size: int
    input_size: int
    workers: int = 0

    @classmethod
    def of(cls, config: ConfigDict, name: str) -> "Split":
        """The split of a run's dataset, read as the run reads."""
        sizes = config.batch_size, config.model.input_size, config.data.workers
        return cls(_data_dir(config), config.data.dataset, name, *sizes)

    def __len__(self) -> int:
        """Batches in a pass."""
        loader = self._loader()
        return -(-loader.samples_per_epoch // loader.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        with contextlib.closing(self._loader()) as batches:
            yield from batches

    @property
    def annotations(self) -> AnnotatedSplit:
        """Returns the same samples without their images."""
        return AnnotatedSplit(self.data_dir, self.dataset, self.name, input_size=self.input_size)

    def _loader(self) -> BatchLoader:
        return make_eval_loader(
            self.data_dir,
            self.dataset,
            self.name,
            batch_size=self.batch_size,
            **_common(self.input_size, self.workers),
        )


def _has_single_hands(config: ConfigDict, name: str) -> bool:
    """Returns whether any sample that a run trains on in a dataset is known to be of one hand."""
    name, _, own_split = name.partition(":")
    folder = find_dataset(_data_dir(config), name) / ANNOTATIONS
    columns = RecordTable.load(folder / (own_split or config.data.train_split)).columns
    single = columns["hand_type"][:] != INTERACTING
    return bool((single & columns["hand_type_valid"][:]).any())


def _mixture(pairs: Sequence[tuple[str, float]]) -> dict[str, float]:
    if not all(
        isinstance(pair, Sequence) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
    ) or len({name for name, _ in pairs}) < len(pairs):
        raise ConfigError(
            f"config.data.mixture={pairs!r} must be pairs of a dataset and its weight, each "
            "dataset once, such as (('interhand26m/all', 9), ('hic:test', 1))"
        )
    return dict(pairs)


def _data_dir(config: ConfigDict) -> str:
    if not config.data_dir:
        raise ConfigError(
            "config.data_dir is not set: give --config.data_dir=FOLDER, the --data_dir of "
            "`python -m data_pipeline.build`"
        )
    return config.data_dir


def _common(input_size: int, workers: int) -> dict:
    return {
        "input_size": input_size,
        "shard_index": jax.process_index(),
        "shard_count": jax.process_count(),
        "options": LoaderOptions(worker_count=workers),
    }
