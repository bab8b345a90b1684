"""The arrays of the MANO hand model as a frozen pytree."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from er_jax.mano.files import fingerprint, read_hands
from er_jax.mano.joints import HANDS
from er_jax.mano.stand_in import stand_in_arrays

VERTICES = 778
PADDED_VERTICES = 784  # a multiple of 16 floats: compiled loops over vertices leave no remainder


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HandModel:
    """MANO's arrays (Romero et al. 2017) of one hand, or of both on a leading axis (right, left).

    Coordinates come before vertices, of which there are 784: zeros follow MANO's 778. Lengths in
    metres, angles in radians.
    """

    template: Float[Array, "*hands 3 784"]
    blend_directions: Float[Array, "*hands 145 2352"]
    """Displacements, 3 × 784, per unit of each of 10 betas and 135 entries of R − I.

    The latter are entry (0, 0) of the 15 finger joints, then (0, 1), and so on by rows.
    """
    rest_joints: Float[Array, "*hands 3 16"]
    """Joints of the template."""
    rest_joint_directions: Float[Array, "*hands 10 3 16"]
    """Displacement of the joints at rest per unit of each beta."""
    joint_regressor: Float[Array, "*hands 784 16"]
    skinning_weights: Float[Array, "*hands 16 784"]
    mean_pose: Float[Array, "*hands 45"]
    pose_components: Float[Array, "*hands 45 45"]
    """Principal components of the finger pose, a row each."""
    faces: Int[Array, "*hands 1538 3"]
    source: str = dataclasses.field(metadata={"static": True})
    """Where the arrays come from: "MANO files" or "stand-in"."""
    sha256: str = dataclasses.field(metadata={"static": True})
    """Of MANO's arrays, see `er_jax.mano.files.fingerprint`."""

    @property
    def both_hands(self) -> bool:
        """Says whether the arrays hold both hands on a leading axis."""
        return self.template.ndim == 3

    def hand(self, side: str) -> "HandModel":
        """The model of one hand, "right" or "left"."""
        index = HANDS.index(side)
        return jax.tree.map(lambda x: x[index], self)


def hand_model_identity(hands: HandModel) -> dict[str, str]:
    """Returns which hand model is computed with."""
    return {"hand_model": hands.source, "hand_model_sha256": hands.sha256}


def load_hands(mano_dir: str | Path | None = None) -> HandModel:
    """Both hands, stacked right then left, in float32 (float64 where JAX is in x64).

    Args:
      mano_dir: folder of MANO_RIGHT and MANO_LEFT, `.pkl` as downloaded or `.npz` as
          `er_jax.mano.convert` writes them; None for the stand-in hand.

    Raises:
      HandFileError: a file is absent, unsafe to read, or not a hand model.
    """
    if mano_dir is None:
        return hand_model({side: stand_in_arrays(side) for side in HANDS}, source="stand-in")
    files = read_hands(Path(mano_dir))
    return hand_model({side: files[side].arrays for side in HANDS}, source="MANO files")


def hand_model(hands: Mapping[str, Mapping[str, np.ndarray]], *, source: str) -> HandModel:
    """The model of both hands from arrays under MANO's own keys, by "right" and "left"."""
    right, left = (_derived(hands[side]) for side in HANDS)
    arrays = {name: jnp.asarray(np.stack([right[name], left[name]])) for name in right}
    return HandModel(**arrays, source=source, sha256=fingerprint(hands))


def _derived(mano: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of `HandModel` of one hand, float64, from arrays under MANO's own keys.

    Skinning weights are made to sum to 1 exactly: the layer moves the wrist by the translation,
    and the vertices must follow by as much.
    """
    by_joint = mano["posedirs"].reshape(VERTICES, 3, 15, 9)
    by_entry = by_joint.swapaxes(-1, -2).reshape(VERTICES, 3, 135)
    directions = np.concatenate([mano["shapedirs"], by_entry], axis=-1)
    weights = mano["weights"].T
    return {
        "template": _padded(mano["v_template"].T),
        "blend_directions": _padded(directions.transpose(2, 1, 0)).reshape(145, -1),
        "rest_joints": (mano["J_regressor"] @ mano["v_template"]).T,
        "rest_joint_directions": np.einsum("jv,vcs->scj", mano["J_regressor"], mano["shapedirs"]),
        "joint_regressor": _padded(mano["J_regressor"]).T,
        "skinning_weights": _padded(weights / weights.sum(axis=0)),
        "mean_pose": mano["hands_mean"],
        "pose_components": mano["hands_components"],
        "faces": mano["f"].astype(np.int32),
    }


def _padded(array: Float[np.ndarray, "*n 778"]) -> Float[np.ndarray, "*n 784"]:
    """Zeros after the last axis' vertices."""
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, PADDED_VERTICES - VERTICES)])
