"""The regressors: relative translation, shape and camera, presence, pose; the weak projection.

They take float32 and run at full precision on every device, whatever the features' precision.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from er_jax.mano import matrix_to_6d, matrix_to_axis_angle, rotation_6d_to_matrix
from er_jax.models.config import JOINTS, ERConfig
from er_jax.models.layers import Regressor

ROTATIONS = 16


class RelativeTranslation(nnx.Module):
    """From both hands' pooled features to the left wrist minus the right wrist, in metres."""

    def __init__(self, config: ERConfig, rngs: nnx.Rngs):
        features = config.feature_dim
        self.hidden = Regressor(2 * features, features, rngs=rngs)
        self.output = Regressor(features, 3, rngs=rngs)

    def __call__(self, pooled: Float[Array, "batch 2 C"]) -> Float[Array, "batch 3"]:
        hidden = jax.nn.relu(self.hidden(pooled.reshape(pooled.shape[0], -1)))
        return self.output(hidden)


class ShapeAndCamera(nnx.Module):
    """From a hand's pooled features to MANO's betas and a weak-perspective camera (s, tx, ty)."""

    def __init__(self, config: ERConfig, rngs: nnx.Rngs):
        self.shape = Regressor(config.feature_dim, 10, rngs=rngs)
        self.camera = Regressor(config.feature_dim, 3, rngs=rngs)

    def __call__(
        self, pooled: Float[Array, "batch C"]
    ) -> tuple[Float[Array, "batch 10"], Float[Array, "batch 3"]]:
        return self.shape(pooled), self.camera(pooled)


class Presence(nnx.Module):
    """From a hand's pooled features to the logit of its being there: this project's own addition.

    The paper's network always answers with two hands.
    """

    def __init__(self, config: ERConfig, rngs: nnx.Rngs):
        self.output = Regressor(config.feature_dim, 1, rngs=rngs)

    def __call__(self, pooled: Float[Array, "batch C"]) -> Float[Array, "batch"]:
        return self.output(pooled)[..., 0]


class Pose(nnx.Module):
    """From a hand's joint features and joints to the 16 rotations of MANO's tree, root first.

    The linear layers give six numbers a rotation, the first two columns of its matrix one after
    the other (Zhou et al., "On the Continuity of Rotation Representations", 2019), as a residual
    to the identity where `config.rotation_residual` is set.
    """

    def __init__(self, config: ERConfig, rngs: nnx.Rngs):
        features = JOINTS * (config.feature_dim + 3)
        self.root = Regressor(features, 6, rngs=rngs)
        self.joints = Regressor(features, 6 * (ROTATIONS - 1), rngs=rngs)
        self.rotation_residual = config.rotation_residual

    def __call__(
        self, features: Float[Array, "batch J C"], joint_img: Float[Array, "batch J 3"]
    ) -> Float[Array, "batch 16 3 3"]:
        features = jnp.concatenate([features, joint_img], axis=-1)
        features = features.reshape(features.shape[0], -1)
        rot6d = jnp.concatenate([self.root(features), self.joints(features)], axis=-1)
        rot6d = rot6d.reshape(-1, ROTATIONS, 6)
        if self.rotation_residual:
            rot6d = rot6d + matrix_to_6d(jnp.eye(3))
        return rotation_6d_to_matrix(rot6d)


def rotations_to_pose(rotations: Float[Array, "*batch 16 3 3"]) -> Float[Array, "*batch 48"]:
    """Axis-angle, root first: the space of the targets, MANO's mean pose not included."""
    return matrix_to_axis_angle(rotations).reshape(*rotations.shape[:-3], -1)


def project_weakly(
    points: Float[Array, "*batch points 3"], camera: Float[Array, "*batch 3"]
) -> Float[Array, "*batch points 2"]:
    """(x, y) = s·(X, Y) + (tx, ty), in cells of the heatmaps."""
    scale, shift = camera[..., None, :1], camera[..., None, 1:]
    return scale * points[..., :2] + shift
