"""TinyViT 5M, 11M and 21M: convolutional first stage, then three of windowed attention.

Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", 2022. Names of
the parts are those of timm's checkpoints (`patch_embed`, `stages`, `attn`, `local_conv`…).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from er_jax.models.layers import LayerFactory, LayerNorm, gelu, rematerialised

DEPTHS = (2, 2, 6, 2)
WINDOWS = (7, 7, 14, 7)
EXPANSION = 4


@dataclasses.dataclass(frozen=True)
class TinyViTSize:
    """Channels and attention heads of the four stages."""

    channels: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]


TINYVITS = {
    "tinyvit5m": TinyViTSize((64, 128, 160, 320), (2, 4, 5, 10)),
    "tinyvit11m": TinyViTSize((64, 128, 256, 448), (2, 4, 8, 14)),
    "tinyvit21m": TinyViTSize((96, 192, 384, 576), (3, 6, 12, 18)),
}


class ConvNorm(nnx.Module):
    """A convolution without bias, then batch norm."""

    def __init__(
        self,
        channels: int,
        filters: int,
        size: int,
        stride: int,
        make: LayerFactory,
        *,
        depthwise: bool = False,
    ):
        self.conv = make.convolution(channels, filters, size, stride, depthwise=depthwise)
        self.bn = make.norm(filters)

    def __call__(self, image: Array) -> Array:
        return self.bn(self.conv(image))


class PatchEmbed(nnx.Module):
    """Two 3×3 convolutions of stride 2."""

    def __init__(self, channels: int, make: LayerFactory):
        self.conv1 = ConvNorm(3, channels // 2, 3, 2, make)
        self.conv2 = ConvNorm(channels // 2, channels, 3, 2, make)

    def __call__(self, image: Array) -> Array:
        return self.conv2(gelu(self.conv1(image)))


class Narrow(nnx.Module):
    """1×1, depthwise 3×3 and 1×1 convolutions: the body of MBConv and of PatchMerging."""

    def __init__(self, channels: int, inner: int, filters: int, stride: int, make: LayerFactory):
        self.conv1 = ConvNorm(channels, inner, 1, 1, make)
        self.conv2 = ConvNorm(inner, inner, 3, stride, make, depthwise=True)
        self.conv3 = ConvNorm(inner, filters, 1, 1, make)

    def __call__(self, image: Array) -> Array:
        return self.conv3(gelu(self.conv2(gelu(self.conv1(image)))))


class MBConv(Narrow):
    """The inverted bottleneck (Sandler et al., 2018) with a shortcut."""

    def __init__(self, channels: int, make: LayerFactory):
        super().__init__(channels, EXPANSION * channels, channels, 1, make)

    def __call__(self, image: Array) -> Array:
        return gelu(super().__call__(image) + image)


class PatchMerging(Narrow):
    """Halves the grid and changes the channels."""

    def __init__(self, channels: int, filters: int, make: LayerFactory):
        super().__init__(channels, filters, filters, 2, make)


class WindowAttention(nnx.Module):
    """Self-attention in a window, with a learned bias a head and absolute offset (|Δy|, |Δx|)."""

    def __init__(self, channels: int, heads: int, window: int, make: LayerFactory):
        self.norm = _layer_norm(channels, make)
        self.qkv = make.linear(channels, 3 * channels)
        self.proj = make.linear(channels, channels)
        self.attention_biases = nnx.Param(jnp.asarray(np.zeros((heads, window**2), np.float32)))
        self.heads = heads
        self.window = window

    def __call__(self, tokens: Float[Array, "windows window² channels"]) -> Array:
        qkv = self.qkv(self.norm(tokens)).reshape(*tokens.shape[:2], self.heads, 3, -1)
        query, key, value = (qkv[:, :, :, part] for part in range(3))
        scores = jnp.einsum("wqhc,wkhc->whqk", query, key).astype(jnp.float32)
        scores = scores / query.shape[-1] ** 0.5 + self._biases()
        weights = jax.nn.softmax(scores).astype(value.dtype)
        attended = jnp.einsum("whqk,wkhc->wqhc", weights, value)
        return self.proj(attended.reshape(tokens.shape))

    def _biases(self) -> Float[Array, "heads window² window²"]:
        row, column = jnp.divmod(jnp.arange(self.window**2), self.window)
        rows = jnp.abs(row[:, None] - row[None])
        columns = jnp.abs(column[:, None] - column[None])
        return self.attention_biases[...][:, rows * self.window + columns]


class NormMLP(nnx.Module):
    """Layer norm, then two linear layers with GELU between."""

    def __init__(self, channels: int, make: LayerFactory):
        self.norm = _layer_norm(channels, make)
        self.fc1 = make.linear(channels, EXPANSION * channels)
        self.fc2 = make.linear(EXPANSION * channels, channels)

    def __call__(self, inputs: Array) -> Array:
        return self.fc2(gelu(self.fc1(self.norm(inputs))))


class TinyViTBlock(nnx.Module):
    """Windowed attention, a depthwise convolution, an MLP."""

    def __init__(self, channels: int, heads: int, window: int, make: LayerFactory):
        self.attn = WindowAttention(channels, heads, window, make)
        self.local_conv = ConvNorm(channels, channels, 3, 1, make, depthwise=True)
        self.mlp = NormMLP(channels, make)
        self.window = window

    def __call__(self, image: Float[Array, "batch rows columns channels"]) -> Array:
        batch, rows, columns, channels = image.shape
        side = self.window
        below, right = -rows % side, -columns % side
        padded = jnp.pad(image, ((0, 0), (0, below), (0, right), (0, 0)))
        grid = (batch, (rows + below) // side, (columns + right) // side, side, side, channels)
        windows = padded.reshape(batch, grid[1], side, grid[2], side, channels).swapaxes(2, 3)
        attended = self.attn(windows.reshape(-1, side**2, channels))
        attended = attended.reshape(grid).swapaxes(2, 3).reshape(padded.shape)
        image = self.local_conv(image + attended[:, :rows, :columns])
        return image + self.mlp(image)


class Stage(nnx.Module):
    """Blocks on one grid, after a PatchMerging in all stages but the first."""

    def __init__(self, downsample: nnx.Module | None, blocks: list[nnx.Module]):
        self.downsample = nnx.data(None) if downsample is None else downsample
        self.blocks = nnx.List(blocks)

    def __call__(self, image: Array, *, remat: bool) -> Array:
        if self.downsample is not None:
            image = self.downsample(image)
        for block in self.blocks:
            image = rematerialised(block, image) if remat else block(image)
        return image


class TinyViT(nnx.Module):
    """The trunk of a TinyViT, without pooling and classifier; its last grid has stride 32."""

    def __init__(self, size: TinyViTSize, make: LayerFactory, *, remat: bool = False):
        channels = size.channels
        self.patch_embed = PatchEmbed(channels[0], make)
        stages = [Stage(None, [MBConv(channels[0], make) for _ in range(DEPTHS[0])])]
        for i in range(1, len(channels)):
            merging = PatchMerging(channels[i - 1], channels[i], make)
            arguments = (channels[i], size.heads[i], WINDOWS[i], make)
            stages.append(Stage(merging, [TinyViTBlock(*arguments) for _ in range(DEPTHS[i])]))
        self.stages = nnx.List(stages)
        self.remat = remat
        self.channels = channels[-1]

    def stage_outputs(self, image: Float[Array, "batch height width 3"]) -> list[Array]:
        """The outputs of the patch embedding and of the stages, at strides 4, 4, 8, 16 and 32."""
        outputs = [self.patch_embed(image)]
        for stage in self.stages:
            outputs.append(stage(outputs[-1], remat=self.remat))
        return outputs

    def __call__(self, image: Float[Array, "batch height width 3"]) -> Array:
        return self.stage_outputs(image)[-1]


def _layer_norm(channels: int, make: LayerFactory) -> nnx.LayerNorm:
    return LayerNorm(channels, epsilon=1e-5, dtype=make.dtype, rngs=make.rngs)
