"""A network's predictions on a split as a predictions file, to be compared with other methods'."""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from er_jax import parallel
from er_jax.evaluation import make_prediction_function
from er_jax.inputs import Split
from er_jax.mano import HandModel
from er_jax.metric_summary import across_hosts
from er_jax.predictions_file import write_predictions
from er_jax.progress import progress_bar
from er_jax.targets import Batch
from er_jax.training.state import TrainState

EXPORTED = ("betas", "pose", "rel_trans")


def export_predictions(
    config: ConfigDict, name: str, state: TrainState, hands: HandModel, split_name: str, path: Path
) -> None:
    """Writes a predictions file (docs/predictions_file.md) of every sample of a split.

    Args:
      config: of the run.
      name: of the method in tables.
      state: of the checkpoint, not replicated.
      hands: both hands, not replicated.
      split_name: to predict.
      path: of the file; written by the first process.
    """
    predict = make_prediction_function(config)

    def exported(state: TrainState, hands: HandModel, batch: Batch) -> dict[str, Array]:
        prediction = predict(state, hands, batch["image"])
        arrays = {field: getattr(prediction, field) for field in EXPORTED}
        return {**arrays, "sample_id": batch["annotation_id"]}

    step = parallel.data_parallel(exported)
    replicas, samples = parallel.replicate((state, hands)), Split(config, split_name)

    def parts() -> Iterator[dict[str, np.ndarray]]:
        with progress_bar(f"Predicting {split_name}", len(samples), "batches") as bar:
            for batch in samples:
                part = parallel.gather(step(*replicas, parallel.shard(batch)))
                yield jax.tree.map(lambda x, real=batch["sample_mask"]: x[real], part)
                bar.advance()

    arrays = across_hosts(jax.tree.map(lambda *x: np.concatenate(x), *parts()))
    facts = {
        "method": name,
        "checkpoint_step": int(state.step),
        "dataset": config.data.dataset,
        "split": split_name,
    }
    if parallel.is_first_process():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_predictions(path, arrays.pop("sample_id"), arrays, facts=facts)
