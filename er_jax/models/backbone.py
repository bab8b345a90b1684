"""Makes the backbone that a config names."""

from flax import nnx

from er_jax.models.config import ERConfig
from er_jax.models.layers import LayerFactory
from er_jax.models.resnet import RESNETS, ResNet
from er_jax.models.tinyvit import TINYVITS, TinyViT

BACKBONES = (*RESNETS, *TINYVITS)


class Frozen(nnx.BatchStat):
    """A weight that is not trained.

    It is state that a training step carries along unchanged, so it is kept with the running
    statistics: no gradient is taken of it and no optimizer state is made for it.
    """


def make_backbone(config: ERConfig, rngs: nnx.Rngs) -> ResNet | TinyViT:
    """A module from (batch, input_size, input_size, 3) to (batch, S, S, module.channels).

    Raises:
        ValueError: `config.backbone` is unknown.
    """
    if config.backbone not in BACKBONES:
        raise ValueError(
            f"model.backbone={config.backbone!r}: choose one of {', '.join(BACKBONES)}"
        )
    make = LayerFactory(
        config.batch_norm_axis,
        config.dtype,
        rngs,
        config.freeze_backbone,
        config.backbone_init == "he",
    )
    backbone: ResNet | TinyViT
    if config.backbone in RESNETS:
        size = RESNETS[config.backbone]
        backbone = ResNet(size, config.backbone_width, make, remat=config.remat_backbone)
    else:
        backbone = TinyViT(TINYVITS[config.backbone], make, remat=config.remat_backbone)
    if config.freeze_backbone:
        freeze(backbone)
    return backbone


def freeze(module: nnx.Module) -> None:
    """Turns every parameter of a module, in place, into a `Frozen` weight."""
    for _, child in nnx.iter_modules(module):
        for name, value in vars(child).items():
            if isinstance(value, nnx.Param):
                setattr(child, name, Frozen(value[...]))
