"""Statistics that LeRobot normalizes with, of vectors and of pictures."""

import numpy as np
from jaxtyping import Int, UInt8

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STATISTICS_PX = 150
"""Pictures are looked at in about so many points along their longer side."""

Stats = dict[str, np.ndarray]


def vector_stats(column: np.ndarray) -> Stats:
    """Over the frames of each number of a feature; a scalar has one."""
    values = column.reshape(len(column), -1).astype(np.float64)
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def picture_stats(counts: Int[np.ndarray, "3 256"], pictures: int) -> Stats:
    """Over all pixels of each channel, from 0 to 1, each of shape (3, 1, 1)."""
    shades = np.arange(256) / 255
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ shades
    below = share.cumsum(1)
    values = {
        "min": shades[(counts > 0).argmax(1)],
        "max": shades[255 - (counts[:, ::-1] > 0).argmax(1)],
        "mean": mean,
        "std": np.sqrt((share * (shades - mean[:, None]) ** 2).sum(1)),
        **{name: shades[(below >= q - 1e-12).argmax(1)] for name, q in QUANTILES.items()},
    }
    stats = {name: value.reshape(3, 1, 1) for name, value in values.items()}
    return stats | {"count": np.array([pictures])}


def shades_of(picture: UInt8[np.ndarray, "H W 3"]) -> Int[np.ndarray, "3 256"]:
    """How often each shade is seen in some of the pixels."""
    step = max(max(picture.shape[:2]) // STATISTICS_PX, 1)
    points = picture[::step, ::step].reshape(-1, 3)
    return np.stack([np.bincount(channel, minlength=256) for channel in points.T])
