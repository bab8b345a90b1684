"""A trained network evaluated on a split, its baselines beside it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from er_jax.evaluation.calibration import Calibration
from er_jax.evaluation.evaluate import (
    NETWORK,
    Constants,
    evaluate,
    make_evaluation_step,
    make_prediction_function,
)
from er_jax.evaluation.results import Evaluated, evaluated
from er_jax.evaluation.sample_grid import SampleGrid
from er_jax.evaluation.types import ReconstructedMeshes
from er_jax.mano import HandModel, hand_model_identity
from er_jax.models import ERConfig
from er_jax.models.functional import NetworkWeights
from er_jax.supervision.loaders import Split
from er_jax.utils import distributed
from er_jax.utils.provenance import software_versions


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """A network and where it comes from.

    Attributes:
      name: in tables, such as the run's.
      config: its sizes.
      weights: not replicated.
      depth_box_m: the depth that its heatmaps span.
      step: of the checkpoint; None: of weights that do not say it.
      calibration: by its validation; None: it was not validated.
    """

    name: str
    config: ERConfig
    weights: NetworkWeights
    depth_box_m: float
    step: int | None
    calibration: Calibration | None = None

    @property
    def provenance(self) -> dict[str, Any]:
        """Returns what a table says of it."""
        return {
            "checkpoint_step": self.step,
            "backbone": self.config.backbone,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self.weights.params)),
        }


@dataclasses.dataclass(frozen=True)
class NetworkEvaluation:
    """A network's results of a walk over a split.

    Attributes:
      network: its errors.
      baselines: those of the constants, in their order.
      parameters: what goes into a predictions file, of every sample, where asked for.
    """

    network: Evaluated
    baselines: list[Evaluated]
    parameters: dict[str, Any] | None


def evaluate_network(
    trained: TrainedNetwork,
    hands: HandModel,
    split: Split,
    *,
    constants: Constants | None = None,
    f_scores: bool = True,
    grid: SampleGrid | None = None,
    keep_parameters: bool = False,
) -> NetworkEvaluation:
    """The errors of a trained network on a split, with where they come from; one walk over it.

    Args:
      trained: the network.
      hands: both hands, not replicated.
      split: to evaluate on.
      constants: baselines by name, evaluated beside it.
      f_scores: see `er_jax.evaluation.metrics.sample_errors`.
      grid: to draw samples on.
      keep_parameters: see `NetworkEvaluation`.
    """
    walk = evaluate(
        make_evaluation_step(
            trained.config,
            trained.depth_box_m,
            f_scores=f_scores,
            depth_scale=trained.calibration.depth_scale if trained.calibration else 1.0,
        ),
        distributed.replicate(trained.weights),
        distributed.replicate(hands),
        split,
        title=f"Evaluating {trained.name} on {split.name}",
        constants=constants,
        grid=grid,
        keep_parameters=keep_parameters,
    )
    annotations = split.annotations
    labels = annotations.labels
    common = {
        **annotations.provenance,
        "input_size_px": split.input_size,
        **hand_model_identity(hands),
        **software_versions(),
    }
    baselines = [evaluated(name, walk.errors[name], labels, common) for name in constants or {}]
    provenance = {**trained.provenance, **common}
    network = evaluated(trained.name, walk.errors[NETWORK], labels, provenance)
    return NetworkEvaluation(network, baselines, walk.parameters)


def crop_reconstructor(
    trained: TrainedNetwork, hands: HandModel
) -> Callable[[Any], ReconstructedMeshes]:
    """A function from crops, (B, S, S, 3) uint8, to their meshes on one device, compiled once."""
    predict = jax.jit(make_prediction_function(trained.config))

    def reconstruct(crops: Any) -> ReconstructedMeshes:
        prediction = predict(trained.weights, hands, crops)
        return ReconstructedMeshes(prediction.vertices, prediction.joints, prediction.rel_trans)

    return reconstruct
