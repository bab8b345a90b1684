"""A hand's own features and its joint heatmaps, F_h and Joint_h of the figure."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.lax import Precision
from jaxtyping import Float

from er_jax.models.config import JOINTS, ERConfig
from er_jax.models.layers import BatchNorm, Convolution


class HandStream(nnx.Module):
    """F_h = ReLU(BatchNorm(Conv1×1(F)))."""

    def __init__(self, config: ERConfig, backbone_channels: int, rngs: nnx.Rngs):
        self.conv = Convolution(
            backbone_channels, config.feature_dim, 1, dtype=config.dtype, rngs=rngs
        )
        self.bn = BatchNorm(
            config.feature_dim, axis_name=config.batch_norm_axis, dtype=config.dtype
        )

    def __call__(self, features: Float[Array, "batch S S backbone"]) -> Array:
        return jax.nn.relu(self.bn(self.conv(features)))


class JointHeatmaps(nnx.Module):
    """A 1×1 convolution to a volume of D·S·S cells a joint; channel j·D + d."""

    def __init__(self, config: ERConfig, rngs: nnx.Rngs):
        channels = JOINTS * config.depth_bins
        self.conv = Convolution(
            config.feature_dim,
            channels,
            1,
            use_bias=True,
            dtype=jnp.dtype(jnp.float32),
            precision=Precision.HIGHEST,
            rngs=rngs,
        )
        self.depth_bins = config.depth_bins

    def __call__(self, features: Float[Array, "batch S S C"]) -> Float[Array, "batch S S J D"]:
        logits = self.conv(features)
        return logits.reshape(*logits.shape[:3], JOINTS, self.depth_bins)


def spatial_softmax(logits: Float[Array, "*batch S S J D"]) -> Float[Array, "*batch S S J D"]:
    """Probabilities over the D·S·S cells of each joint."""
    return jax.nn.softmax(logits, axis=(-4, -3, -1))


def expected_cell(probabilities: Float[Array, "*batch S S J D"]) -> Float[Array, "*batch J 3"]:
    """Soft-argmax (Sun et al., "Integral Human Pose Regression", 2018): (x, y, z) in cells."""
    by_joint = jnp.moveaxis(probabilities, -2, -4)

    def mean(others: tuple[int, int]) -> Array:
        """The mean of the axis that is left; a sum and no product, whose operands GPUs round."""
        marginal = by_joint.sum(axis=others)
        return (marginal * jnp.arange(marginal.shape[-1])).sum(axis=-1)

    x, y, z = mean((-3, -1)), mean((-2, -1)), mean((-3, -2))
    return jnp.stack([x, y, z], axis=-1)
