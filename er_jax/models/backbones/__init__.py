"""The backbones, and the one that a config names; nothing else of the network is known here."""

from flax import nnx

from er_jax.models.backbones.resnet import RESNETS, ResNet
from er_jax.models.backbones.tinyvit import TINYVITS, TinyViT
from er_jax.models.config import ERConfig
from er_jax.models.layers import LayerFactory
from er_jax.utils.errors import ConfigError

BACKBONES = (*RESNETS, *TINYVITS)


def make_backbone(config: ERConfig, rngs: nnx.Rngs) -> ResNet | TinyViT:
    """A module from (batch, input_size, input_size, 3) to (batch, S, S, module.channels).

    Raises:
      ConfigError: `config.backbone` is unknown.
    """
    if config.backbone not in BACKBONES:
        raise ConfigError(
            f"model.backbone={config.backbone!r}: choose one of {', '.join(BACKBONES)}"
        )
    make = LayerFactory(
        config.batch_norm_axis, config.dtype, rngs, he_normal=config.backbone_init == "he"
    )
    if config.backbone in RESNETS:
        size = RESNETS[config.backbone]
        return ResNet(size, config.backbone_width, make, remat=config.remat_backbone)
    return TinyViT(TINYVITS[config.backbone], make, remat=config.remat_backbone)
