"""The sizes and switches of the ER network.

Fields whose comment ends in † are choices of this project where the paper is silent.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax.numpy as jnp

from er_jax.utils.errors import ConfigError

BACKBONE_STRIDE = 32
JOINTS = 21
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ERConfig:
    """Everything that fixes the network's tree of parameters and how it computes."""

    backbone: str = "resnet50"  # a name in backbone.BACKBONES
    backbone_width: int = 64  # channels of a ResNet's stem; later stages follow
    backbone_weights: str | None = None  # a torchvision or timm checkpoint to start from
    backbone_init: str = "normal"  # without pretrained weights: "normal", as all else, or "he" †
    freeze_backbone: bool = False
    frozen: tuple[str, ...] = ()  # patterns of parts that are not trained, see `freezing.freeze`
    remat_backbone: bool = False  # recompute the backbone's blocks in the backward pass
    input_size: int = 256  # pixels; the feature grid has input_size / 32 cells a side
    feature_dim: int = 512  # C †
    depth_bins: int = 8  # D
    heads: int = 8
    mlp_ratio: int = 4
    dropout: float = 0.0  # after attention and in the MLPs †
    desim_depth: int = 2  # †
    deocc_depth: int = 2  # †
    fusejoint_depth: int = 2  # †
    use_desim: bool = True
    use_deocc: bool = True
    use_fusejoint: bool = True
    use_presence: bool = False  # a logit a hand, this project's own; the paper's network has none †
    position_embedding: bool = True  # of DeSim's cells †
    hand_embedding: bool = True  # of DeOcc's two hands †
    deocc_shared_weights: bool = True  # one set of weights for right→left and left→right †
    joint_coordinate_embedding: bool = True  # Linear(3→C) of a joint's place in FuseJoint †
    joint_embedding: bool = True  # of FuseJoint's 21 joints †
    rotation_residual: bool = True  # rotations are predicted as a residual to the identity †
    embedding_std: float = 0.02  # of the learned embeddings at the start †
    precision: str = "float32"  # of products up to F_Ph; a name in PRECISIONS
    batch_norm_axis: str | None = None  # pmap axis over which batch statistics are averaged

    def __post_init__(self) -> None:
        object.__setattr__(self, "frozen", tuple(self.frozen))  # a list where JSON was read
        if self.input_size % BACKBONE_STRIDE:
            raise ConfigError(
                f"model.input_size={self.input_size} is not a multiple of {BACKBONE_STRIDE}, "
                "the backbone's stride"
            )
        if self.backbone_init not in ("normal", "he"):
            raise ConfigError(f"model.backbone_init={self.backbone_init!r}: choose normal or he")
        if self.feature_dim % self.heads:
            raise ConfigError(
                f"model.feature_dim={self.feature_dim} does not divide into "
                f"model.heads={self.heads} heads"
            )
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"model.precision={self.precision!r}: choose one of {', '.join(PRECISIONS)}"
            )
        for name in ("desim_depth", "deocc_depth", "fusejoint_depth"):
            if getattr(self, name) < 1:
                switch = name.replace("depth", "").strip("_")
                raise ConfigError(
                    f"model.{name}={getattr(self, name)} is below 1; to leave the module out, "
                    f"set model.use_{switch}=False"
                )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout={self.dropout} lies outside [0, 1)")

    @property
    def grid(self) -> int:
        """S: cells on a side of the feature grid and of the joint heatmaps."""
        return self.input_size // BACKBONE_STRIDE

    @property
    def dtype(self) -> jnp.dtype:
        """The type in which the network's products are computed."""
        return jnp.dtype(PRECISIONS[self.precision])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the config from a `ConfigDict` or plain dict such as `config.model`.

        Raises:
          ConfigError: a key is no field of this class; the message names every such key.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - fields)
        if unknown:
            raise ConfigError(
                f"config.model has no key {', '.join(unknown)}; "
                f"its keys are {', '.join(sorted(fields))}"
            )
        return cls(**dict(values))
