"""The box around a person's hands, as people give it, and the square that a network looks at."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from er_jax.utils.errors import ConfigError

Box = Sequence[float]
"""x, y, width, height in pixels of the image."""


def square_box(box: Box) -> Float[np.ndarray, "4"]:
    """The square x, y, side, side around a box's centre that holds all of it.

    Raises:
      ConfigError: the box has no area, or is none.
    """
    if len(box) != 4 or not np.isfinite(box).all() or min(box[2:]) <= 0:
        raise ConfigError(f"box {tuple(box)}: need x,y,w,h in pixels with w and h above zero")
    x, y, width, height = box
    side = max(width, height)
    return np.array([x + (width - side) / 2, y + (height - side) / 2, side, side])
