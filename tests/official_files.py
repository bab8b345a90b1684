"""Files laid out as the official hand models, without chumpy."""

import pickle
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from scipy import sparse

from er_jax.mano.stand_in import stand_in_arrays


def official_pickle(arrays: dict[str, np.ndarray], protocol: int = 2) -> bytes:
    """The arrays as the kinds of objects that the official files hold, pickled."""
    made = {}
    modules = {"chumpy": types.ModuleType("chumpy")}
    for module, name in [("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")]:
        made[name] = type(name, (), {"__module__": module})
        modules[module] = types.ModuleType(module)
        setattr(modules[module], name, made[name])
    twenty = np.concatenate([arrays["shapedirs"], np.ones((778, 3, 10))], axis=-1)
    content = {
        **arrays,
        "shapedirs": _with_state(
            made["Select"],
            a=_with_state(made["Ch"], x=twenty, _dirty_vars={"x"}),
            idxs=np.arange(twenty.size).reshape(twenty.shape)[..., :10].ravel(),
            preferred_shape=(778, 3, 10),
        ),
        "J_regressor": sparse.csc_matrix(arrays["J_regressor"]),
        "hands_coeffs": np.zeros((4, 45)),
        "bs_type": "lrotmin",
    }
    with mock.patch.dict(sys.modules, modules):
        return pickle.dumps(content, protocol)


def write_official_folder(folder: Path, left: dict[str, np.ndarray] | None = None) -> Path:
    """The stand-in hands as MANO_RIGHT.pkl and MANO_LEFT.pkl, the left one's arrays as given."""
    for side in ("right", "left"):
        arrays = left if left and side == "left" else stand_in_arrays(side)
        (folder / f"MANO_{side.upper()}.pkl").write_bytes(official_pickle(arrays))
    return folder


def _with_state(kind: type, **state: Any) -> Any:
    instance = kind()
    instance.__dict__.update(state)
    return instance
