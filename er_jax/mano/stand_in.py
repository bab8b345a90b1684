"""The stand-in hand: MANO's sizes and keys without MANO's registration, drawn and not scanned.

`tools/stand_in_hand` drew it once; its right hand lies beside this module, so that it is the same
to the last bit on every machine.
"""

import functools
from pathlib import Path

import numpy as np

from er_jax.mano.files import read_hand
from er_jax.mano.joints import HANDS

FILE = Path(__file__).with_name("stand_in.npz")
"""The right hand, as `er_jax.mano.convert` writes hands."""


def stand_in_arrays(side: str) -> dict[str, np.ndarray]:
    """The stand-in hand as plain arrays under MANO's own keys, metres, float64 and integers.

    v_template (778,3), shapedirs (778,3,10), posedirs (778,3,135), J_regressor (16,778),
    weights (778,16), f (1538,3), kintree_table (2,16), hands_mean (45), hands_components (45,45).
    The left hand is the right one mirrored in x.

    Raises:
      ValueError: `side` is neither "right" nor "left".
      FileNotFoundError, HandFileError: the file in the package is absent or damaged.
    """
    if side not in HANDS:
        raise ValueError(f'side is {side!r}; it must be "right" or "left"')
    arrays = {key: value.copy() for key, value in _right_hand().items()}
    if side == "left":
        turned = np.tile([1.0, -1.0, -1.0], 15)
        arrays["v_template"][:, 0] *= -1.0
        arrays["shapedirs"][:, 0] *= -1.0
        arrays["posedirs"][:, 0] *= -1.0
        arrays["posedirs"] *= np.tile([1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0], 15)
        arrays["f"] = arrays["f"][:, ::-1].copy()
        arrays["hands_mean"] *= turned
        arrays["hands_components"] *= turned
    return arrays


@functools.cache
def _right_hand() -> dict[str, np.ndarray]:
    return read_hand(FILE).arrays
