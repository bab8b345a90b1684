"""Checkpoints of a run with Orbax: what is saved, which are kept, how they are read back.

A checkpoint is a folder named by its step with the items `model` (parameters and batch statistics,
all that evaluation needs; their moving averages where the run keeps them), `optimizer` (its state,
and the weights themselves where `model` has averages), `data` (JSON: the position of the data
iterator) and `run` (JSON: the config and the history of validation).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from data_pipeline.loader import BatchLoader
from er_jax.training.state import TrainState

Tree = Any


class Checkpoints:
    """The checkpoints below one folder: the newest few, and the best by its validation score.

    Saving goes on in the background; leaving the `with` block waits for it. A checkpoint gets its
    name only when it is complete, so that a killed run leaves none that is not.
    """

    def __init__(self, folder: Path, *, keep: int = 2, read_only: bool = False):
        policies = ocp.checkpoint_managers
        newest = policies.LatestN(keep)
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics["score"],
            reverse=True,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        self.folder = folder.resolve()
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_handlers={
                "model": ocp.StandardCheckpointHandler(),
                "optimizer": ocp.StandardCheckpointHandler(),
                "data": ocp.JsonCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                read_only=read_only,
                preservation_policy=policies.AnyPreservationPolicy([newest, best]),
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._manager.close()

    def newest_step(self) -> int | None:
        """The step of the newest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """The steps of all checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step with the lowest validation score; the newest where none was validated."""
        scores = {
            step: self._manager.metrics(step)["score"]
            for step in self._manager.all_steps()
            if self._manager.metrics(step)
        }
        return min(scores, key=scores.__getitem__) if scores else self.newest_step()

    def save(
        self,
        state: TrainState,
        data: BatchLoader,
        run: Mapping[str, Any],
        score: float | None = None,
    ) -> None:
        """Saves a run under its step, in the place of a checkpoint that has no score yet.

        Args:
          state: one replica of the run's state.
          data: the training loader, where it stands after that step.
          run: plain JSON: the config and the history of validation.
          score: the validation score, lower is better.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            if score is None or self._manager.metrics(step):
                return
            self._manager.delete(step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(_model_item(state.evaluated())),
                optimizer=ocp.args.StandardSave(_optimizer_item(state)),
                data=ocp.args.JsonSave(data.get_state()),
                run=ocp.args.JsonSave(dict(run)),
            ),
            metrics=None if score is None else {"score": score},
        )

    def restore(self, step: int, like: TrainState, data: BatchLoader) -> TrainState:
        """The state saved at a step; the training loader is set to where it stood then.

        Args:
          step: one of the saved steps.
          like: a state of the same shapes.
          data: a training loader of the same data.
        """
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardRestore(_model_item(like)),
                optimizer=ocp.args.StandardRestore(_optimizer_item(like)),
                data=ocp.args.JsonRestore(),
            ),
        )
        data.set_state(items.data)
        evaluated = items.model["params"], items.model["batch_stats"]
        trained = items.optimizer.get("trained", items.model)
        return TrainState(
            step=jnp.asarray(step, jnp.int32),
            params=trained["params"],
            batch_stats=trained["batch_stats"],
            optimizer=items.optimizer["state"],
            average=evaluated if like.average else (),
        )

    def restore_model(self, step: int, like: TrainState) -> TrainState:
        """The parameters and batch statistics saved at a step, without what only training needs."""
        item = jax.tree.map(ocp.utils.to_shape_dtype_struct, _model_item(like))
        model = self._manager.restore(
            step, args=ocp.args.Composite(model=ocp.args.StandardRestore(item))
        ).model
        return TrainState(
            step=jnp.asarray(step, jnp.int32),
            params=model["params"],
            batch_stats=model["batch_stats"],
            optimizer=(),
        )

    def read_model(self, step: int) -> Tree:
        """Parameters and batch statistics saved at a step, of whatever network, as nested dicts."""
        metadata = self._manager.item_metadata(step)["model"]
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), metadata)
        arguments = ocp.args.Composite(model=ocp.args.StandardRestore(like))
        return self._manager.restore(step, args=arguments).model

    def read_run(self, step: int) -> dict[str, Any]:
        """What was said of the run when it was saved at a step."""
        return self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore())).run


def _model_item(state: TrainState) -> Tree:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _optimizer_item(state: TrainState) -> Tree:
    trained = {"trained": _model_item(state)} if state.average else {}
    return {"state": state.optimizer} | trained
