"""The ER network in the order of the paper's figure: Extract, then Regress."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from er_jax.mano import HandModel, mano_forward
from er_jax.models.backbones import make_backbone
from er_jax.models.config import ERConfig
from er_jax.models.deocc import DeOcc
from er_jax.models.desim import DeSim
from er_jax.models.freezing import freeze
from er_jax.models.fusejoint import FuseJoint, sample_grid
from er_jax.models.heads import (
    Pose,
    Presence,
    RelativeTranslation,
    ShapeAndCamera,
    project_weakly,
    rotations_to_pose,
)
from er_jax.models.heatmaps import HandStream, JointHeatmaps, expected_cell, spatial_softmax
from er_jax.models.per_hand import PerHand
from er_jax.utils.errors import ConfigError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prediction:
    """The network's outputs for each image; hand axis: right, left. All arrays are float32.

    Metres, camera axes; cells are those of the S×S×D heatmaps, (0, 0, 0) the first cell's centre.
    """

    rel_trans: Float[Array, "batch 3"]  # left wrist minus right wrist, metres
    joint_img: Float[Array, "batch 2 21 3"]  # (x, y, z) in cells, from the heatmaps
    rotations: Float[Array, "batch 2 16 3 3"]  # MANO's mean pose not included
    pose: Float[Array, "batch 2 48"]  # the same rotations as axis-angle
    betas: Float[Array, "batch 2 10"]
    camera: Float[Array, "batch 2 3"]  # (s, tx, ty): cells per metre, cells
    vertices: Float[Array, "batch 2 778 3"]  # wrist-relative, metres
    joints: Float[Array, "batch 2 21 3"]  # wrist-relative, metres
    joint_proj: Float[Array, "batch 2 21 2"]  # projected joints, (x, y) in cells
    joint_spread: Float[
        Array, "batch 2 21"
    ]  # of the heatmaps about joint_img: its deviation, cells
    presence_logit: Float[Array, "batch 2"] | None = None  # None: the network has no such head
    intermediates: dict[str, Array] = dataclasses.field(default_factory=dict)


class ERNet(nnx.Module):
    """From an image to two hand meshes: `Prediction`."""

    def __init__(self, config: ERConfig, *, rngs: nnx.Rngs):
        self.backbone = make_backbone(config, rngs)
        channels = self.backbone.channels
        self.hand_stream = PerHand(lambda: HandStream(config, channels, rngs))
        self.joint_heatmaps = PerHand(lambda: JointHeatmaps(config, rngs))
        self.desim = PerHand(lambda: DeSim(config, rngs)) if config.use_desim else nnx.data(None)
        self.deocc = DeOcc(config, rngs) if config.use_deocc else nnx.data(None)
        self.relative_translation = RelativeTranslation(config, rngs)
        self.shape_and_camera = PerHand(lambda: ShapeAndCamera(config, rngs))
        self.fusejoint = (
            PerHand(lambda: FuseJoint(config, rngs)) if config.use_fusejoint else nnx.data(None)
        )
        self.pose = PerHand(lambda: Pose(config, rngs))
        # The last, so that all else starts from the same weights with it and without.
        self.presence = (
            PerHand(lambda: Presence(config, rngs)) if config.use_presence else nnx.data(None)
        )
        self.config = config
        freeze(self, (*config.frozen, *(["backbone"] if config.freeze_backbone else [])))

    def __call__(
        self,
        image: Float[Array, "batch height width 3"],
        hands: HandModel,
        *,
        collect: Sequence[str] = (),
        rngs: nnx.Rngs | None = None,
    ) -> Prediction:
        """Reconstructs both hands of each image.

        Args:
          image: RGB in [0, 1], `config.input_size` pixels a side.
          hands: both hand models, stacked right, left.
          collect: names of the intermediate outputs to return in `Prediction.intermediates`,
              those of the figure: F, F_h, heatmaps (batch, 2, J, D, S, S), F*_h, prior_h,
              F_Ph, F*_Ph, and desim_attention, deocc_attention, fusejoint_attention
              (batch, 2, depth, heads, queries, keys). Of DeOcc's two, [:, 0] is the right hand
              looking at the left. Cells are in row-major order.
          rngs: the source of dropout, needed only in training with `config.dropout` > 0.

        Raises:
          ConfigError: a collected name is unknown, or its module switched off.
        """
        found: dict[str, Array] = {}

        # Extract
        found["F"] = features = self.backbone(image)
        found["F_h"] = own = self.hand_stream(jnp.stack([features, features], axis=1))
        heatmaps = spatial_softmax(self.joint_heatmaps(own))
        found["heatmaps"] = heatmaps.transpose(0, 1, 4, 5, 2, 3)
        joint_img, joint_spread = expected_cell(heatmaps)

        # PriorFormer
        prior = own.reshape(*own.shape[:2], -1, own.shape[-1])
        if self.desim is not None:
            prior, found["desim_attention"] = self.desim(prior, rngs=rngs)
            found["F*_h"] = prior
        if self.deocc is not None:
            prior, found["deocc_attention"] = self.deocc(prior, rngs=rngs)
            found["prior_h"] = prior
        used = self.desim is not None or self.deocc is not None
        found["F_Ph"] = combined = own + prior.reshape(own.shape) if used else own
        combined = combined.astype(jnp.float32)
        pooled = combined.mean(axis=(2, 3))
        rel_trans = self.relative_translation(pooled)

        # Regress
        betas, camera = self.shape_and_camera(pooled)
        joints_in = jax.lax.stop_gradient(joint_img)
        fused = sample_grid(combined, joints_in[..., :2])
        if self.fusejoint is not None:
            fused, found["fusejoint_attention"] = self.fusejoint(fused, joints_in, rngs=rngs)
        found["F*_Ph"] = fused
        rotations = self.pose(fused, joints_in)
        pose = rotations_to_pose(rotations)
        mesh = mano_forward(hands, betas, pose)
        wrist = mesh.joints[..., :1, :]

        return Prediction(
            rel_trans=rel_trans,
            joint_img=joint_img,
            rotations=rotations,
            pose=pose,
            betas=betas,
            camera=camera,
            vertices=mesh.vertices - wrist,
            joints=mesh.joints - wrist,
            joint_proj=project_weakly(mesh.joints, camera),
            joint_spread=joint_spread,
            presence_logit=None if self.presence is None else self.presence(pooled),
            intermediates=_chosen(found, collect),
        )


def _chosen(found: dict[str, Array], names: Sequence[str]) -> dict[str, Array]:
    unknown = [name for name in names if name not in found]
    if unknown:
        raise ConfigError(
            f"cannot collect {', '.join(unknown)}; this network has {', '.join(found)}"
        )
    return {name: found[name] for name in names}
