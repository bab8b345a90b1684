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


def expected_cell(
    probabilities: Float[Array, "*batch S S J D"],
) -> tuple[Float[Array, "*batch J 3"], Float[Array, "*batch J"]]:
    """Soft-argmax (Sun et al., "Integral Human Pose Regression", 2018), and how sure it is.

    Returns:
      (x, y, z) in cells, and the standard deviation about it, over all three axes.
    """
    by_joint = jnp.moveaxis(probabilities, -2, -4)

    def moments(others: tuple[int, int]) -> tuple[Array, Array]:
        """Mean and variance of the axis that is left; sums, and no products, which GPUs round."""
        marginal = by_joint.sum(axis=others)
        cells = jnp.arange(marginal.shape[-1])
        mean = (marginal * cells).sum(axis=-1)
        return mean, (marginal * (cells - mean[..., None]) ** 2).sum(axis=-1)

    axes = [moments(others) for others in ((-3, -1), (-2, -1), (-3, -2))]
    mean, variance = (jnp.stack(values, axis=-1) for values in zip(*axes, strict=True))
    return mean, jnp.sqrt(variance.sum(axis=-1))
