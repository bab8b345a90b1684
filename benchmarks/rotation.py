"""A trained run on turned pictures, and on crops around one of two hands.

    python -m benchmarks.rotation --weights=RUN --data_dir=DATASETS [--split=test] [--samples=500]

RUN is a run's folder, or its exported `er.safetensors`; DATASETS is where its dataset was built.
Every picture is turned by the crop, about the box's middle, and its truth with it. The crop around
one hand is the one that prediction cuts out where a detector finds this hand alone; its errors are
that hand's, so that they compare with those of `interacting`.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from ml_collections import ConfigDict

from data_pipeline.augmentation import Augmentation
from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.loader import Batch
from data_pipeline.samples import SAMPLED_FIELDS, prepare_sample, stack_samples
from er_jax.evaluation.evaluate import NETWORK, evaluate, make_evaluation_step
from er_jax.evaluation.summary import summarize
from er_jax.evaluation.types import SampleErrors
from er_jax.mano import HANDS, load_hands
from er_jax.supervision.targets import INTERACTING
from er_jax.training.load import load_trained, recorded_run
from er_jax.utils import distributed
from er_jax.utils.xla_cpu import prepare_cpu

DEGREES = (0, 45, 90, 135, 180)
COLUMNS = ("wrist_aligned/MPJPE", "procrustes/PA-MPJPE", "handedness/accuracy")
AROUND_ONE = "around one of two"
BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Varied:
    """Records of a split, each under an augmentation; the last batch is filled up and masked."""

    source: RecordSource
    samples: list[tuple[int, Augmentation]]
    input_size: int

    def __len__(self) -> int:
        """Batches in a pass."""
        return -(-len(self.samples) // BATCH_SIZE)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.samples), BATCH_SIZE):
            real = self.samples[start : start + BATCH_SIZE]
            filled = real + real[-1:] * (BATCH_SIZE - len(real))
            batch = stack_samples(
                [prepare_sample(self.source[i], varied, self.input_size) for i, varied in filled]
            )
            yield batch | {"sample_mask": np.arange(BATCH_SIZE) < len(real)}


def of_hands(errors: SampleErrors, counted: Bool[np.ndarray, "N 2"]) -> SampleErrors:
    """The errors of some hands alone under the protocols that are shown."""
    protocols = {
        name: dataclasses.replace(one, joint_valid=one.joint_valid & counted[..., None])
        for name in ("wrist_aligned", "procrustes")
        for one in [getattr(errors, name)]
    }
    return dataclasses.replace(errors, **protocols)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--dataset", help="default: the run's")
    parser.add_argument("--split", default="test")
    parser.add_argument("--samples", type=int, default=500, help="from all over the split")
    parser.add_argument("--mano_dir", help="the official MANO files; default: the stand-in hand")
    options = parser.parse_args()
    prepare_cpu()
    config = ConfigDict(recorded_run(options.weights)["config"])
    hands = load_hands(options.mano_dir)
    trained = load_trained(config, options.weights, None, hands)
    step = make_evaluation_step(trained.config, trained.depth_box_m, f_scores=False)
    weights, hands = distributed.replicate((trained.weights, hands))
    folder = find_dataset(options.data_dir, options.dataset or config.data.dataset)
    source = RecordSource(folder, options.split, SAMPLED_FIELDS)
    count = min(options.samples, len(source))
    chosen = np.linspace(0, len(source) - 1, count).astype(int).tolist()
    interacting = [i for i in chosen if source[i]["joint_valid_world"].any(-1).all()]

    print(f"{trained.name} on {count} samples of {folder.parts[-2]}, {options.split}")
    print("| samples | turned by | " + " | ".join(COLUMNS) + " |")
    print("| --- " * (2 + len(COLUMNS)) + "|")
    for degrees in DEGREES:
        turned = Augmentation(rotation_degrees=float(degrees))
        around = [dataclasses.replace(turned, around_hand=hand) for hand in range(len(HANDS))]
        for title, samples in (
            ("all", [(index, turned) for index in chosen]),
            (AROUND_ONE, [(index, varied) for varied in around for index in interacting]),
        ):
            if not samples:
                continue
            batches = Varied(source, samples, trained.config.input_size)
            walk = evaluate(step, weights, hands, batches, title=f"{title}, {degrees}°")
            errors = walk.errors[NETWORK]
            if title == AROUND_ONE:
                side = np.array([varied.around_hand for _, varied in samples])
                errors = of_hands(errors, side[:, None] == np.arange(len(HANDS)))
            show(errors, f"{degrees}°", alone=title == AROUND_ONE)


def show(errors: SampleErrors, turned: str, *, alone: bool) -> None:
    """Prints a row of the table for each kind of samples."""
    numbers = summarize(errors)
    interacting = np.asarray(errors.attributes.hand_type) == INTERACTING
    for subset, of_subset in (("single", ~interacting), ("interacting", interacting)):
        if not of_subset.any():
            continue
        values = [
            numbers[protocol][metric][subset]["value"]
            for protocol, metric in (column.split("/") for column in COLUMNS)
        ]
        cells = ["–" if value is None else f"{value:.3g}" for value in values]
        name = AROUND_ONE if alone else subset
        print(" | ".join([f"| {name} ({of_subset.sum()})", turned, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
