"""FuseJoint: a hand's features where its joints are, fused by self-attention."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.lax import Precision
from jaxtyping import Float

from er_jax.models.attention import SAT
from er_jax.models.config import JOINTS, ERConfig
from er_jax.models.layers import Regressor, normal


def sample_grid(
    grid: Float[Array, "*batch rows columns C"], points: Float[Array, "*batch points 2"]
) -> Float[Array, "*batch points C"]:
    """Bilinear samples at (x, y) in cell indices, zero outside the grid.

    The weight of cell i along an axis is max(0, 1 − |x − i|), so that the sample is one product of
    small matrices: no gather, and a gradient wherever bilinear interpolation has one.
    """
    rows, columns = grid.shape[-3:-1]
    along_x = jnp.maximum(0.0, 1.0 - jnp.abs(points[..., 0:1] - jnp.arange(columns)))
    along_y = jnp.maximum(0.0, 1.0 - jnp.abs(points[..., 1:2] - jnp.arange(rows)))
    weights = along_y[..., :, None] * along_x[..., None, :]
    weights = weights.reshape(*points.shape[:-1], rows * columns)
    cells = grid.reshape(*grid.shape[:-3], rows * columns, -1)
    return jnp.matmul(weights, cells, precision=Precision.HIGHEST)


class FuseJoint(nnx.Module):
    """Adds to each joint's sample its coordinates' and its own embedding, then SAT blocks.

    All in float32, whatever the features' precision: from here on the tokens stand for places.
    """

    def __init__(self, config: ERConfig, rngs: nnx.Rngs):
        self.coordinates = (
            Regressor(3, config.feature_dim, rngs=rngs)
            if config.joint_coordinate_embedding
            else nnx.data(None)
        )
        self.joint = (
            normal((JOINTS, config.feature_dim), config.embedding_std, rngs)
            if config.joint_embedding
            else nnx.data(None)
        )
        config = dataclasses.replace(config, precision="float32")
        self.blocks = nnx.List(SAT(config, rngs) for _ in range(config.fusejoint_depth))

    def __call__(
        self,
        samples: Float[Array, "batch J C"],
        joint_img: Float[Array, "batch J 3"],
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Array, Array]:
        """F*_Ph (batch, J, C) and the attention weights (batch, depth, heads, J, J)."""
        tokens = samples
        if self.coordinates is not None:
            tokens = tokens + self.coordinates(joint_img)
        if self.joint is not None:
            tokens = tokens + self.joint[...]
        attention = []
        for block in self.blocks:
            tokens, weights = block(tokens, rngs=rngs)
            attention.append(weights)
        return tokens, jnp.stack(attention, axis=1)
