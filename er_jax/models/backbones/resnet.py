"""ResNet-18, 34, 50, 101 and 152 in the v1.5 layout of torchvision: stride in the 3×3.

He et al., "Deep Residual Learning for Image Recognition", 2016. Names of the parts are those of
torchvision's checkpoints (`conv1`, `bn1`, `layer1`…`layer4`, `downsample`).
"""

import dataclasses

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from er_jax.models.convolution import max_pool
from er_jax.models.layers import LayerFactory, rematerialised


@dataclasses.dataclass(frozen=True)
class ResNetSize:
    """Blocks in each of the four stages, and whether a block is a bottleneck of three layers."""

    depths: tuple[int, int, int, int]
    bottleneck: bool


RESNETS = {
    "resnet18": ResNetSize((2, 2, 2, 2), bottleneck=False),
    "resnet34": ResNetSize((3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNetSize((3, 4, 6, 3), bottleneck=True),
    "resnet101": ResNetSize((3, 4, 23, 3), bottleneck=True),
    "resnet152": ResNetSize((3, 8, 36, 3), bottleneck=True),
}


class Downsample(nnx.Module):
    """The shortcut where a block changes channels or resolution."""

    def __init__(self, channels: int, filters: int, stride: int, make: LayerFactory):
        self.conv = make.convolution(channels, filters, 1, stride)
        self.bn = make.norm(filters)

    def __call__(self, image: Array) -> Array:
        return self.bn(self.conv(image))


class BasicBlock(nnx.Module):
    """Two 3×3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, make: LayerFactory):
        self.conv1 = make.convolution(channels, width, 3, stride)
        self.bn1 = make.norm(width)
        self.conv2 = make.convolution(width, width, 3)
        self.bn2 = make.norm(width)
        self.downsample = _shortcut(channels, width, stride, make)

    def __call__(self, image: Array) -> Array:
        shortcut = image if self.downsample is None else self.downsample(image)
        image = jax.nn.relu(self.bn1(self.conv1(image)))
        return jax.nn.relu(self.bn2(self.conv2(image)) + shortcut)


class Bottleneck(nnx.Module):
    """1×1, 3×3 (with the stride), 1×1 to four times the width, and a shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, make: LayerFactory):
        self.conv1 = make.convolution(channels, width, 1)
        self.bn1 = make.norm(width)
        self.conv2 = make.convolution(width, width, 3, stride)
        self.bn2 = make.norm(width)
        self.conv3 = make.convolution(width, 4 * width, 1)
        self.bn3 = make.norm(4 * width)
        self.downsample = _shortcut(channels, 4 * width, stride, make)

    def __call__(self, image: Array) -> Array:
        shortcut = image if self.downsample is None else self.downsample(image)
        image = jax.nn.relu(self.bn1(self.conv1(image)))
        image = jax.nn.relu(self.bn2(self.conv2(image)))
        return jax.nn.relu(self.bn3(self.conv3(image)) + shortcut)


def _shortcut(channels: int, filters: int, stride: int, make: LayerFactory) -> nnx.Module | None:
    if channels == filters and stride == 1:
        return nnx.data(None)
    return Downsample(channels, filters, stride, make)


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    channels: int,
    width: int,
    depth: int,
    stride: int,
    make: LayerFactory,
) -> nnx.List:
    """`depth` blocks, the first of which takes the stride and the change of channels."""
    first = block(channels, width, stride, make)
    rest = (block(width * block.expansion, width, 1, make) for _ in range(depth - 1))
    return nnx.List([first, *rest])


class ResNet(nnx.Module):
    """The trunk of a ResNet, without pooling and classifier; its last grid has stride 32."""

    def __init__(self, size: ResNetSize, width: int, make: LayerFactory, *, remat: bool = False):
        block = Bottleneck if size.bottleneck else BasicBlock
        expansion = block.expansion
        self.conv1 = make.convolution(3, width, 7, 2)
        self.bn1 = make.norm(width)
        self.layer1 = _stage(block, width, width, size.depths[0], 1, make)
        self.layer2 = _stage(block, width * expansion, 2 * width, size.depths[1], 2, make)
        self.layer3 = _stage(block, 2 * width * expansion, 4 * width, size.depths[2], 2, make)
        self.layer4 = _stage(block, 4 * width * expansion, 8 * width, size.depths[3], 2, make)
        self.remat = remat
        self.channels = 8 * width * expansion

    def stage_outputs(self, image: Float[Array, "batch height width 3"]) -> list[Array]:
        """The outputs of the stem and of the four stages, at strides 4, 4, 8, 16 and 32."""
        image = jax.nn.relu(self.bn1(self.conv1(image)))
        outputs = [max_pool(image)]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            image = outputs[-1]
            for block in layer:
                image = rematerialised(block, image) if self.remat else block(image)
            outputs.append(image)
        return outputs

    def __call__(self, image: Float[Array, "batch height width 3"]) -> Array:
        return self.stage_outputs(image)[-1]
