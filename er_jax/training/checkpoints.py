"""Checkpoints of a run with Orbax: what is saved, which are kept, how they are read back.

A checkpoint is a folder named by its step with the items `model` (parameters and batch statistics,
all that evaluation needs; their moving averages where the run keeps them), `optimizer` (its state,
and the weights themselves where `model` has averages), `data` (JSON: the position of the data
iterator) and `run` (JSON: see `er_jax.training.run_record`).
"""

import dataclasses
import logging
import operator
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from er_jax.models.functional import NetworkWeights
from er_jax.training.state import TrainState
from er_jax.utils import distributed
from er_jax.utils.errors import UserError

Tree = Any
UNSCORED = ".unscored"
"""Behind the name of a checkpoint that waits for the same one with its score to be written."""


class CheckpointError(UserError):
    """A checkpoint cannot be written or read; the message names it, the reason and the remedy."""

    exit_code = 74  # EX_IOERR


@dataclasses.dataclass(frozen=True)
class Saved:
    """The contents of a checkpoint."""

    state: TrainState  # of host arrays
    data: dict[str, Any]  # the position of the data iterator
    run: dict[str, Any]  # see `er_jax.training.run_record`


class Checkpoints:
    """The checkpoints below one folder: the newest few, and the best by its validation score.

    Saving goes on in the background; leaving the `with` block waits for it. A checkpoint gets its
    name only when it is complete, so that a killed run leaves none that is not. Of several
    processes the first one saves; it alone may read (see `distributed.on_first_process`).
    """

    def __init__(self, folder: Path, *, keep: int = 2, read_only: bool = False):
        self.folder = folder.resolve()
        self._manager: Any = None
        if distributed.is_first_process():
            self._manager = _open(self.folder, keep, read_only)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._manager is not None:
            with self._writing():
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
        data: Mapping[str, Any],
        run: Mapping[str, Any],
        score: float | None = None,
    ) -> None:
        """Saves a run under its step, in the place of a checkpoint that has no score yet.

        To be called by the first process alone.

        Args:
          state: one replica of the run's state, on the host.
          data: plain JSON: where the training loader stands after that step.
          run: plain JSON, see `er_jax.training.run_record`.
          score: the validation score, lower is better.

        Raises:
          CheckpointError: this one, or the one before, could not be written.
        """
        step = int(state.step)
        with self._writing():
            unscored = None
            if step in self._manager.all_steps():
                if score is None or self._manager.metrics(step):
                    return
                self._manager.wait_until_finished()
                unscored = self._renamed(step, UNSCORED)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    model=ocp.args.StandardSave(_model_item(state.evaluated())),
                    optimizer=ocp.args.StandardSave(_optimizer_item(state)),
                    data=ocp.args.JsonSave(dict(data)),
                    run=ocp.args.JsonSave(dict(run)),
                ),
                metrics=None if score is None else {"score": score},
            )
            if unscored is not None:
                self._manager.wait_until_finished()
                shutil.rmtree(unscored)

    def restore_newest(
        self, like: TrainState, check: Callable[[Mapping[str, Any], Path], None]
    ) -> Saved | None:
        """The newest checkpoint that is not damaged; None where there is none at all.

        Damaged ones that are newer get `.damaged` behind their name.

        Args:
          like: a state of the same shapes.
          check: gets `Saved.run` and the checkpoint's folder; raises where the run cannot go on
            from it.

        Raises:
          CheckpointError: all of them are damaged.
          ValueError: from `check`.
        """
        damaged: dict[Path, CheckpointError] = {}
        for step in reversed(self.steps()):
            folder = self.folder / str(step)
            try:
                run = self.read_run(step)
                check(run, folder)
                saved = Saved(*self._restore(step, like), run)
            except CheckpointError as error:
                damaged[folder] = error
            else:
                self._set_aside(damaged, step)
                return saved
        if damaged:
            reasons = "\n".join(map(str, damaged.values()))
            raise CheckpointError(
                f"{reasons}\nThere is none besides. Bring one back from a copy, or begin again "
                "with another --workdir."
            )
        return None

    def restore_weights(self, step: int, like: NetworkWeights) -> NetworkWeights:
        """The weights to evaluate that were saved at a step.

        Raises:
          CheckpointError: they cannot be read.
        """
        items = self._read(step, model=ocp.args.StandardRestore(_model_item(_on_host(like))))
        return NetworkWeights(**items.model)

    def read_model(self, step: int) -> Tree:
        """Parameters and batch statistics saved at a step, of whatever network, as nested dicts."""
        metadata = self._manager.item_metadata(step)["model"]
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), metadata)
        arguments = ocp.args.Composite(model=ocp.args.StandardRestore(like))
        return self._manager.restore(step, args=arguments).model

    def read_run(self, step: int) -> dict[str, Any]:
        """Returns the record of the run that was saved with a step.

        Raises:
          CheckpointError: it cannot be read.
        """
        return self._read(step, run=ocp.args.JsonRestore()).run

    def _restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        like = _on_host(like)
        items = self._read(
            step,
            model=ocp.args.StandardRestore(_model_item(like.weights)),
            optimizer=ocp.args.StandardRestore(_optimizer_item(like)),
            data=ocp.args.JsonRestore(),
        )
        evaluated = items.model["params"], items.model["batch_stats"]
        trained = items.optimizer.get("trained", items.model)
        state = TrainState(
            step=jnp.asarray(step, jnp.int32),
            params=trained["params"],
            batch_stats=trained["batch_stats"],
            opt_state=items.optimizer["state"],
            ema=evaluated if like.ema else (),
        )
        return state, items.data

    def _read(self, step: int, **items: ocp.args.CheckpointArgs) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax passes on whatever its readers raise
            raise CheckpointError(
                f"checkpoint {self.folder / str(step)} cannot be read: {_first_line(error)}"
            ) from error

    def _set_aside(self, damaged: Mapping[Path, CheckpointError], used: int) -> None:
        """Makes room for the checkpoints that will be written again, and says so."""
        for folder, error in damaged.items():
            aside = self._renamed(int(folder.name), ".damaged")
            logging.warning("%s\nIt is %s now; going on from step %d.", error, aside.name, used)

    def _renamed(self, step: int, suffix: str) -> Path:
        """Takes a checkpoint out of the way of another one of the same step."""
        folder = self.folder / str(step)
        aside = folder.rename(folder.with_name(folder.name + suffix))
        self._manager.reload()
        return aside

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax passes on whatever its writers raise
            raise CheckpointError(
                f"cannot write a checkpoint below {self.folder}: {_first_line(error)}. Those that "
                "are there are whole. Is the disk or the quota full? Make room, and run the same "
                "command again: it goes on from the newest."
            ) from error


def _open(folder: Path, keep: int, read_only: bool) -> ocp.CheckpointManager:
    if not read_only:
        folder.mkdir(parents=True, exist_ok=True)
        for aside in folder.glob(f"*{UNSCORED}"):  # a kill came before its successor was whole
            whole = aside.with_name(aside.name.removesuffix(UNSCORED))
            if whole.exists():
                shutil.rmtree(aside)
            else:
                aside.rename(whole)
    first_process = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
    arrays = ocp.StandardCheckpointHandler(multiprocessing_options=first_process)
    policies = ocp.checkpoint_managers
    score = operator.itemgetter("score")
    best = policies.BestN(
        get_metric_fn=score,
        reverse=True,
        n=1,
        keep_checkpoints_without_metrics=False,
    )
    return ocp.CheckpointManager(
        folder,
        item_handlers={
            "model": arrays,
            "optimizer": arrays,
            "data": ocp.JsonCheckpointHandler(),
            "run": ocp.JsonCheckpointHandler(),
        },
        options=ocp.CheckpointManagerOptions(
            create=False,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            multiprocessing_options=first_process,
            best_fn=score,  # without it Orbax writes no scores to the disk
            best_mode="min",
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
        ),
    )


def _model_item(weights: NetworkWeights) -> Tree:
    return {"params": weights.params, "batch_stats": weights.batch_stats}


def _optimizer_item(state: TrainState) -> Tree:
    trained = {"trained": _model_item(state.weights)} if state.ema else {}
    return {"state": state.opt_state} | trained


def _on_host(tree: Tree) -> Tree:
    """Host arrays of the same shapes, of any content: Orbax then restores to the host."""
    return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
