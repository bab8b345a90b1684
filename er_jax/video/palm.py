"""Where the middle of a hand's palm is, and how large the hand is, by its shape."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from er_jax.mano import MANO16, HandModel

_PALM = [index for index, name in enumerate(MANO16) if name == "Wrist" or name[-1] == "1"]


class Palm(NamedTuple):
    """Where the palm's middle is in a hand model of one side, and how large that hand is."""

    rest_joints: Float[np.ndarray, "3 16"]
    directions: Float[np.ndarray, "10 3 16"]

    @classmethod
    def of(cls, hands: HandModel, side: str) -> "Palm":
        hand = hands.hand(side)
        return cls(
            np.asarray(hand.rest_joints, np.float64),
            np.asarray(hand.rest_joint_directions, np.float64),
        )

    def _joints(self, betas: Float[np.ndarray, "*n 10"]) -> Float[np.ndarray, "*n 16 3"]:
        joints = self.rest_joints + np.einsum("...k,kcj->...cj", betas, self.directions)
        return np.swapaxes(joints, -1, -2)

    def size(self, betas: Float[np.ndarray, "*n 10"]) -> Float[np.ndarray, "*n"]:
        joints = self._joints(betas)
        return np.sqrt(((joints - joints.mean(-2, keepdims=True)) ** 2).sum(-1).mean(-1))

    def _offset(self, betas: np.ndarray, root: np.ndarray) -> np.ndarray:
        """From the translation to the palm's middle."""
        joints = self._joints(betas)
        wrist = joints[..., 0, :]
        arm = joints[..., _PALM, :].mean(-2) - wrist
        return wrist + (root @ arm[..., None])[..., 0]

    def middle(
        self,
        betas: Float[np.ndarray, "*n 10"],
        root: Float[np.ndarray, "*n 3 3"],
        transl: Float[np.ndarray, "*n 3"],
    ) -> Float[np.ndarray, "*n 3"]:
        return transl + self._offset(betas, root)

    def transl(
        self,
        betas: Float[np.ndarray, "*n 10"],
        root: Float[np.ndarray, "*n 3 3"],
        middle: Float[np.ndarray, "*n 3"],
    ) -> Float[np.ndarray, "*n 3"]:
        return middle - self._offset(betas, root)
