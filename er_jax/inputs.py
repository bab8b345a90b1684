"""The loaders that a config asks for."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
from ml_collections import ConfigDict

from data_pipeline.augmentation import AugmentationRange
from data_pipeline.loader import Batch, BatchLoader, Reading, make_eval_loader, make_train_loader


def train_loader(config: ConfigDict) -> BatchLoader:
    """This host's part of the endless, shuffled, augmented training batches.

    Raises:
      ValueError: `config.data_dir` is not set, or `config.data.mixture` is none.
      DataError: a dataset is not there.
    """
    return make_train_loader(
        _data_dir(config),
        training_datasets(config),
        config.data.train_split,
        batch_size=config.batch_size,
        seed=config.seed,
        augmentation=AugmentationRange(**config.data.augmentation),
        **_common(config),
    )


def steps_in_epoch(data: BatchLoader) -> int:
    """Whole batches in one pass over the training split.

    Raises:
      ValueError: if there is not even one.
    """
    steps = data.samples_per_epoch // data.batch_size
    if not steps:
        raise ValueError(
            f"the training split has {data.samples_per_epoch} samples, fewer than "
            f"config.batch_size={data.batch_size}: use a smaller batch"
        )
    return steps


def training_datasets(config: ConfigDict) -> str | dict[str, float]:
    """What a config trains on: a dataset's name, or several with their shares."""
    return _mixture(config.data.mixture) if config.data.mixture else config.data.dataset


@dataclasses.dataclass(frozen=True)
class Split:
    """A split in its own order, unvaried; as many passes as wanted, the last batch padded."""

    config: ConfigDict
    name: str

    def __len__(self) -> int:
        """Batches in a pass."""
        loader = self._loader()
        return -(-loader.samples_per_epoch // loader.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self._loader()

    def _loader(self) -> BatchLoader:
        return make_eval_loader(
            _data_dir(self.config),
            self.config.data.dataset,
            self.name,
            batch_size=self.config.batch_size,
            **_common(self.config),
        )


def _mixture(pairs: Sequence[tuple[str, float]]) -> dict[str, float]:
    if not all(
        isinstance(pair, Sequence) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
    ) or len({name for name, _ in pairs}) < len(pairs):
        raise ValueError(
            f"config.data.mixture={pairs!r} must be pairs of a dataset and its weight, each "
            "dataset once, such as (('interhand26m/all', 9), ('hic:test', 1))"
        )
    return dict(pairs)


def _data_dir(config: ConfigDict) -> str:
    if not config.data_dir:
        raise ValueError(
            "config.data_dir is not set: give --config.data_dir=FOLDER, the --data_dir of "
            "`python -m data_pipeline.build`"
        )
    return config.data_dir


def _common(config: ConfigDict) -> dict:
    return {
        "input_size": config.model.input_size,
        "shard_index": jax.process_index(),
        "shard_count": jax.process_count(),
        "reading": Reading(worker_count=config.data.workers),
    }
