"""Hands as a column of a Daft data frame, by an engine that is loaded once.

    pip install daft
    python examples/daft_hands.py 'photos/**/*.jpg' hands.parquet

On a cluster: `daft.set_runner_ray()` before it, and `@daft.cls(gpus=1, …)`.
"""

import sys
from pathlib import Path

import daft
from daft import DataType

import er_jax
from er_jax.photographs.photograph import Photograph, read_photograph
from er_jax.utils.errors import BadImageError

NUMBERS = DataType.list(DataType.float32())
HAND = DataType.struct(
    {
        "side": DataType.string(),
        "score": DataType.float32(),
        "joints_m": DataType.list(NUMBERS),  # 21 × 3, the camera's axes
        "betas": NUMBERS,
        "pose_axis_angle_with_mean": NUMBERS,
        "transl_m": NUMBERS,
    }
)


@daft.cls(use_process=True, max_concurrency=1)  # one process, as one engine is for one thread
class Hands:
    """Finds hands; null where a picture cannot be read."""

    def __init__(self) -> None:
        self.engine = er_jax.load()

    @daft.method.batch(return_dtype=DataType.list(HAND), batch_size=64)
    def __call__(self, paths: daft.Series) -> list:
        """The hands of pictures by their paths."""
        pictures = [readable(path) for path in paths.to_pylist()]
        found = iter(self.engine.many([one for one in pictures if one is not None]))
        return [
            None if one is None else [row(hand) for hand in next(found).hands] for one in pictures
        ]


def readable(path: str) -> Photograph | None:
    try:
        return read_photograph(Path(path.removeprefix("file://")))
    except BadImageError:
        return None


def row(hand: "er_jax.photographs.result.Hand") -> dict:
    return {
        "side": hand.side,
        "score": hand.score,
        "joints_m": hand.joints.tolist(),
        "betas": hand.betas.tolist(),
        "pose_axis_angle_with_mean": hand.full_pose.tolist(),
        "transl_m": hand.transl.tolist(),
    }


def main(pattern: str, output: str) -> None:
    """Writes the hands of all pictures whose paths match."""
    pictures = daft.from_glob_path(pattern).select("path")
    hands = pictures.with_column("hands", Hands()(daft.col("path")))
    hands.write_parquet(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
