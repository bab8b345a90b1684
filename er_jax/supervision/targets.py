"""Training and evaluation targets of a batch, computed on the device from its annotations.

The host only crops and colours the image; everything that follows from the annotations, the hand
model and the augmentation parameters is arithmetic on a few hundred numbers and belongs in the
compiled step. Hands are always (right, left) of the image that the network sees: a flip swaps
them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Bool, Float, Int

from er_jax.mano import (
    HandModel,
    axis_angle_to_matrix,
    joints_from_vertices,
    mano_forward,
    matrix_to_axis_angle,
)
from er_jax.models import ERConfig

WRIST = 0  # in the Hand 21 order
INTERACTING = 2  # hand_type: 0 right, 1 left, 2 interacting
MILLIMETRES_PER_METRE = 1000.0

# What the device needs of a loader's sample: all of it but the ids.
Batch = Mapping[str, Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Targets:
    """The truth that the losses and the metrics compare a prediction with.

    Lengths in metres in the axes of the (augmented) camera: x right, y down, z forward. "Image"
    coordinates are cells of the heatmap, x and y in [0, heatmap_size), z in [0, depth_bins). A
    value means something only where its mask is set.
    """

    joint_cam: Float[Array, "B 2 21 3"]  # annotated joints, wrist-relative
    joint_img: Float[Array, "B 2 21 3"]  # annotated joints, cells
    mano_joint_cam: Float[Array, "B 2 21 3"]  # joints of the MANO fit, wrist-relative
    mano_joint_img: Float[Array, "B 2 21 3"]
    mano_mesh_cam: Float[Array, "B 2 778 3"]  # the fit's vertices, wrist-relative
    mano_pose: Float[Array, "B 2 48"]  # axis-angle without the mean pose, root first
    mano_shape: Float[Array, "B 2 10"]  # betas
    rel_trans: Float[Array, "B 3"]  # left wrist minus right wrist
    joint_valid: Bool[Array, "B 2 21"]  # annotated in 3D
    joint_trunc: Bool[Array, "B 2 21"]  # so, seen, inside the crop (if known) and the depth box
    joint_xy_valid: Bool[Array, "B 2 21"]  # its place in the image is known
    joint_xy_trunc: Bool[Array, "B 2 21"]  # so, seen, inside the crop and (if in 3D) the depth box
    mano_joint_trunc: Bool[Array, "B 2 21"]
    mano_hand_valid: Bool[Array, "B 2"]  # the hand has a MANO fit: its mesh
    mano_pose_valid: Bool[Array, "B 2"]  # and the fit is given by its pose and shape
    rel_trans_valid: Bool[Array, "B"]
    wrist_cam: Float[Array, "B 2 3"]  # the annotated wrist's place in the camera's axes
    wrist_cam_valid: Bool[Array, "B 2"]  # and the camera is known
    hand_present: Bool[Array, "B 2"]  # by `hand_type`, unless all its joints are outside the crop
    hand_present_valid: Bool[Array, "B"]
    cells_to_rays: Float[Array, "B 2 3"]  # from (x, y) in cells to (x/z, y/z): crop and camera
    confidence: Float[Array, "B 2"]  # of a hand's labels, from 0 to 1: how much they weigh


@dataclasses.dataclass(frozen=True)
class TargetSizes:
    """The sizes that the cells of the heatmaps span.

    Attributes:
      heatmap_size: cells along an image axis of the joint heatmaps.
      depth_bins: cells along the depth axis.
      depth_box_m: the depth, centred on a hand's wrist, that the depth cells span; metres.
      input_size: side of the crop that `img2bb` maps to, pixels.
    """

    heatmap_size: int = 8
    depth_bins: int = 8
    depth_box_m: float = 0.4
    input_size: int = 256

    @classmethod
    def of(cls, net: ERConfig, depth_box_m: float) -> "TargetSizes":
        """The sizes of a network's heatmaps."""
        return cls(net.grid, net.depth_bins, depth_box_m, net.input_size)


def make_targets(hands: HandModel, batch: Batch, sizes: TargetSizes | None = None) -> Targets:
    """Targets of a batch of samples under the augmentation that each of them was cropped with.

    Args:
      hands: both hands, stacked (right, left).
      batch: the loader's arrays with a leading batch axis (see `data_pipeline.loader`).
      sizes: None for the defaults.
    """
    sizes = sizes or TargetSizes()
    heatmap_size, depth_bins, depth_box_m = sizes.heatmap_size, sizes.depth_bins, sizes.depth_box_m
    flip = batch["augmentation"][:, 2] > 0.5
    turn = _augmentation_transform(batch["augmentation"][:, 1], flip)
    cells = jnp.array([heatmap_size, heatmap_size]) / sizes.input_size

    def projected(points_cam: Array) -> Array:
        return _project(points_cam, batch["focal_px"], batch["princpt_px"])

    def to_cells(pixels: Array, points_cam: Array, wrist_cam: Array) -> Array:
        width = batch["image_size_px"][:, None, None, 0]
        x = jnp.where(flip[:, None, None], width - 1 - pixels[..., 0], pixels[..., 0])
        pixels = jnp.stack([x, pixels[..., 1], jnp.ones_like(x)], axis=-1)
        xy = _transformed(batch["img2bb"], pixels) * cells
        z = ((points_cam - wrist_cam)[..., 2:] / (depth_box_m / 2) + 1) / 2 * depth_bins
        return jnp.concatenate([xy, z], axis=-1)

    def inside(points_cells: Array, limits: Sequence[int]) -> Array:
        """Whether the first coordinates lie in the cells, as many as there are limits."""
        points_cells = points_cells[..., : len(limits)]
        return jnp.all((points_cells >= 0) & (points_cells < jnp.array(limits)), axis=-1)

    def augmented(points_cam: Array) -> Array:
        return _swap_if(flip, _transformed(turn, points_cam))

    known = _annotations(hands, batch)
    joint_cam, joint_wrist_cam = known.joint_cam, known.joint_cam[:, :, :1]
    marked = batch["joint_px_valid"]
    joint_px = jnp.where(marked[..., None], batch["joint_px"], projected(joint_cam))
    joint_img = _swap_if(flip, to_cells(joint_px, joint_cam, joint_wrist_cam))
    camera_valid = batch["camera_valid"][:, None, None]
    joint_valid, xy_valid, joint_seen, marked = (
        _swap_if(flip, x)
        for x in (
            known.joint_valid,
            marked | (known.joint_valid & camera_valid),
            known.joint_seen | marked,
            marked,
        )
    )
    crop, volume = [heatmap_size] * 2, [heatmap_size, heatmap_size, depth_bins]
    # Without any joint nothing says that the hand is outside.
    in_crop = xy_valid & inside(joint_img, crop)
    anywhere = jnp.any(in_crop, axis=-1) | ~jnp.any(xy_valid, axis=-1)
    near = (joint_img[..., 2] >= 0) & (joint_img[..., 2] < depth_bins)
    shown = jnp.where(xy_valid, inside(joint_img, crop) & near, near)
    joint_trunc = joint_valid & joint_seen & shown
    wrist_cam = augmented(joint_wrist_cam)[:, :, WRIST]

    mano_joint_cam = joints_from_vertices(hands, known.mesh_cam)
    mano_wrist_cam = mano_joint_cam[:, :, :1]
    mano_joint_img = _swap_if(
        flip, to_cells(projected(mano_joint_cam), mano_joint_cam, mano_wrist_cam)
    )
    mesh_valid = _swap_if(flip, known.mesh_valid)

    return Targets(
        joint_cam=augmented(joint_cam - joint_wrist_cam),
        joint_img=joint_img,
        mano_joint_cam=augmented(mano_joint_cam - mano_wrist_cam),
        mano_joint_img=mano_joint_img,
        mano_mesh_cam=augmented(known.mesh_cam - mano_wrist_cam),
        mano_pose=_augmented_pose(batch["mano_pose"], turn, batch["camera_rotation"], flip),
        mano_shape=_swap_if(flip, batch["mano_betas"]),
        rel_trans=wrist_cam[:, 1] - wrist_cam[:, 0],
        joint_valid=joint_valid,
        joint_trunc=joint_trunc,
        joint_xy_valid=xy_valid,
        joint_xy_trunc=in_crop & joint_seen & (near | ~joint_valid),
        mano_joint_trunc=mesh_valid[..., None] & camera_valid & inside(mano_joint_img, volume),
        mano_hand_valid=mesh_valid,
        mano_pose_valid=_swap_if(flip, batch["mano_valid"]),
        rel_trans_valid=joint_valid[:, 0, WRIST] & joint_valid[:, 1, WRIST],
        wrist_cam=wrist_cam,
        wrist_cam_valid=joint_valid[..., WRIST] & batch["camera_valid"][:, None],
        hand_present=_swap_if(flip, hands_of_type(batch["hand_type"])) & anywhere,
        hand_present_valid=batch["hand_type_valid"],
        cells_to_rays=_cells_to_rays(batch, turn, flip, cells),
        confidence=_swap_if(flip, batch["label_confidence"]),
    )


compiled_targets = jax.jit(make_targets)
"""`make_targets` for callers outside a compiled function; all of them share its programs."""


def hands_of_type(hand_type: Int[Array, "B"]) -> Bool[Array, "B 2"]:
    """Which hands are there, right and left, by a hand type: 0 right, 1 left, 2 both."""
    return (hand_type[:, None] == INTERACTING) | (hand_type[:, None] == jnp.arange(2))


class _Annotations(NamedTuple):
    """The annotations of the hands, in the axes of the camera as it stood, metres."""

    joint_cam: Float[Array, "B 2 21 3"]
    joint_valid: Bool[Array, "B 2 21"]
    joint_seen: Bool[Array, "B 2 21"]
    mesh_cam: Float[Array, "B 2 778 3"]
    mesh_valid: Bool[Array, "B 2"]


def _annotations(hands: HandModel, batch: Batch) -> _Annotations:
    """Annotated joints and fitted meshes.

    Fits that are meshes also stand for the joints of hands that have none (HIC).
    """
    translation = batch["camera_translation_mm"] / MILLIMETRES_PER_METRE

    def to_camera(points_world: Array) -> Array:
        return _transformed(batch["camera_rotation"], points_world) + translation[:, None, None]

    mesh = mano_forward(hands, batch["mano_betas"], batch["mano_pose"], batch["mano_trans_m"])
    known = _Annotations(
        joint_cam=to_camera(batch["joint_world_mm"] / MILLIMETRES_PER_METRE),
        joint_valid=batch["joint_valid_world"],
        joint_seen=batch["joint_valid_view"],
        mesh_cam=to_camera(mesh.vertices),
        mesh_valid=batch["mano_valid"],
    )
    if "mano_vertices_m" not in batch:
        return known
    given = batch["mano_vertices_valid"]
    alone = given & ~known.joint_valid.any(axis=-1)
    joints = joints_from_vertices(hands, batch["mano_vertices_m"])
    return _Annotations(
        joint_cam=jnp.where(alone[..., None, None], joints, known.joint_cam),
        joint_valid=known.joint_valid | alone[..., None],
        joint_seen=known.joint_seen | alone[..., None],
        mesh_cam=jnp.where(given[..., None, None], batch["mano_vertices_m"], known.mesh_cam),
        mesh_valid=known.mesh_valid | given,
    )


def _augmentation_transform(
    rotation_degrees: Float[Array, "B"], flip: Bool[Array, "B"]
) -> Float[Array, "B 3 3"]:
    """Rz·M: the mirror in x of flipped samples, then the turn by minus the angle about z."""
    angle = -jnp.deg2rad(rotation_degrees)
    cos, sin, zero, one = (
        jnp.cos(angle),
        jnp.sin(angle),
        jnp.zeros_like(angle),
        jnp.ones_like(angle),
    )
    mirror = jnp.where(flip, -one, one)
    rows = [[cos * mirror, -sin, zero], [sin * mirror, cos, zero], [zero, zero, one]]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def _cells_to_rays(
    batch: Batch, turn: Float[Array, "B 3 3"], flip: Bool[Array, "B"], cells: Float[Array, "2"]
) -> Float[Array, "B 2 3"]:
    """From cells back through the crop and the camera, to its augmented axes."""
    (a, b), (c, d) = (batch["img2bb"][:, row, :2].T for row in (0, 1))
    determinant = a * d - b * c
    inverse = jnp.stack([jnp.stack([d, -b], -1), jnp.stack([-c, a], -1)], -2)
    inverse = inverse / determinant[:, None, None]
    mirror = jnp.where(flip[:, None], jnp.array([-1.0, 1.0]), 1.0)
    last = (batch["image_size_px"][:, :1] - 1) * jnp.array([1.0, 0.0])
    before = jnp.where(flip[:, None], last, 0.0)  # x → W−1−x
    to_axes = turn[:, :2, :2] * (mirror / batch["focal_px"])[:, None, :]
    linear = jnp.einsum("bij,bjk->bik", to_axes, inverse, precision=Precision.HIGHEST)
    # p = mirror·(inverse·(cells/scale − shift)) + before, ray = turn·(p − c)/f
    shift = jnp.einsum("bij,bj->bi", linear, batch["img2bb"][:, :, 2], precision=Precision.HIGHEST)
    centre = (before - batch["princpt_px"]) / batch["focal_px"]
    offset = jnp.einsum("bij,bj->bi", turn[:, :2, :2], centre, precision=Precision.HIGHEST)
    return jnp.concatenate([linear / cells, (offset - shift)[..., None]], -1)


def _transformed(
    matrix: Float[Array, "B i j"], points: Float[Array, "B 2 N j"]
) -> Float[Array, "B 2 N i"]:
    """The points of each sample times its matrix, at full precision on every device.

    A GPU's or TPU's default rounds the operands to 10 or 7 bits, which costs lengths of a metre up
    to a millimetre. These are also the truth of every metric.
    """
    return jnp.einsum("bij,bhnj->bhni", matrix, points, precision=Precision.HIGHEST)


def _swap_if(flip: Bool[Array, "B"], value: Array) -> Array:
    """Exchanges the hands (axis 1) of the flipped samples."""
    return jnp.where(flip.reshape(-1, *[1] * (value.ndim - 1)), value[:, ::-1], value)


def _project(
    points_cam: Float[Array, "B 2 N 3"],
    focal_px: Float[Array, "B 2"],
    princpt_px: Float[Array, "B 2"],
) -> Float[Array, "B 2 N 2"]:
    """Pinhole projection; absent hands lie at the camera's centre and give no infinity."""
    depth = points_cam[..., 2:]
    depth = jnp.where(jnp.abs(depth) < 1e-6, 1e-6, depth)
    return points_cam[..., :2] / depth * focal_px[:, None, None] + princpt_px[:, None, None]


def _augmented_pose(
    pose: Float[Array, "B 2 48"],
    turn: Float[Array, "B 3 3"],
    camera_rotation: Float[Array, "B 3 3"],
    flip: Bool[Array, "B"],
) -> Float[Array, "B 2 48"]:
    """Poses in the axes of the augmented camera; a mirror negates the y and z of axis-angles.

    The root becomes the axis-angle of T·R·Rod(root)·M for the turn T and the camera's R. With
    Q = Rod(root), M Q' M is the rotation of the mirrored axis-angle, so that a flipped root, too,
    is a rotation of determinant one.
    """
    joints = pose.reshape(*pose.shape[:2], 16, 3)
    sign = jnp.where(flip[:, None], jnp.array([1.0, -1.0, -1.0]), 1.0)[:, None, None]
    mirror = jnp.where(flip[:, None, None], jnp.diag(jnp.array([-1.0, 1.0, 1.0])), jnp.eye(3))
    root = axis_angle_to_matrix(joints[:, :, 0])
    root = jnp.einsum(
        "bij,bjk,bhkl,blm->bhim", turn, camera_rotation, root, mirror, precision=Precision.HIGHEST
    )
    joints = jnp.concatenate(
        [matrix_to_axis_angle(root)[:, :, None], joints[:, :, 1:] * sign], axis=2
    )
    return _swap_if(flip, joints.reshape(pose.shape))
