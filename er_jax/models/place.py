"""Where hands are in the camera's metres, from what their shape is and where the picture has them.

A hand of known shape and rotation, seen by a camera of known focal length, lies where its joints
project to where they are seen. Written as X + x₀ = u (Z + z₀), with u = x/z of the ray, that is
linear in the place (x₀, y₀, z₀): least squares have a closed form, exact for exact input.
"""

import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Bool, Float

NEAREST_DEPTH_M = 0.05


def place_by_rays(
    points: Float[Array, "*batch H N 3"],
    rays: Float[Array, "*batch H N 2"],
    weights: Float[Array, "*batch H N"],
) -> Float[Array, "*batch H 3"]:
    """The places of H point sets that lie at one depth, each at its own x and y.

    Args:
      points: about the places that are sought, metres, camera axes (x right, y down, z forward).
      rays: (x/z, y/z) at which each point is seen.
      weights: of the points; sets whose weights are all zero have no say and get no meaning.

    Returns:
      What has to be added to each set; sets at other depths are moved there in `points` before.
    """
    flat = points[..., :2] - rays * points[..., 2:]
    mean_flat, mean_ray = (_mean(x, weights) for x in (flat, rays))
    spread = (rays - mean_ray) * weights[..., None]
    moment = jnp.sum(spread * (flat - mean_flat), (-3, -2, -1))
    total = jnp.sum(spread * (rays - mean_ray), (-3, -2, -1))
    depth = jnp.maximum(moment / jnp.maximum(total, 1e-12), NEAREST_DEPTH_M)[..., None, None]
    xy = (mean_ray * depth[..., None] - mean_flat)[..., 0, :]
    return jnp.concatenate([xy, jnp.broadcast_to(depth, (*xy.shape[:-1], 1))], -1)


def place_pair(
    joints: Float[Array, "*batch 2 21 3"],
    rel_trans: Float[Array, "*batch 3"],
    rays: Float[Array, "*batch 2 21 2"],
    weights: Float[Array, "*batch 2 21"],
) -> Float[Array, "*batch 2 3"]:
    """Both wrists of a person, apart by the relative translation exactly.

    The depth follows from how large both hands are seen; how far apart they are seen, in which the
    relative translation errs more than the hands' shapes, only tells x and y.

    Args:
      joints: about each hand's wrist, metres, camera axes.
      rel_trans: left wrist minus right wrist, metres.
      rays: (x/z, y/z) at which the joints are seen.
      weights: of the joints; a hand whose weights are all zero lies where the other one says.
    """
    apart = jnp.stack([jnp.zeros_like(rel_trans), rel_trans], -2)
    along = apart * jnp.array([0.0, 0.0, 1.0])
    places = place_by_rays(joints + along[..., None, :], rays, weights)
    of_right = places - (apart - along)
    return _mean(of_right, weights.sum(-1)) + apart


def rays_of_cells(
    cells: Float[Array, "*batch 2 21 2"], cells_to_rays: Float[Array, "*batch 2 3"]
) -> Float[Array, "*batch 2 21 2"]:
    """(x/z, y/z) in the camera's axes at which places in the heatmaps' cells are seen.

    Args:
      cells: (x, y).
      cells_to_rays: the affine map of each sample's crop and camera.
    """
    turned = jnp.einsum(
        "...ij,...hnj->...hni", cells_to_rays[..., :2], cells, precision=Precision.HIGHEST
    )
    return turned + cells_to_rays[..., None, None, :, 2]


def place_hands(
    joints: Float[Array, "*batch 2 21 3"],
    rel_trans: Float[Array, "*batch 3"],
    joint_img: Float[Array, "*batch 2 21 3"],
    cells_to_rays: Float[Array, "*batch 2 3"],
    present: Bool[Array, "*batch 2"],
    *,
    depth_scale: float = 1.0,
) -> Float[Array, "*batch 2 3"]:
    """Both wrists in the camera's axes, metres, from a network's prediction; see `place_pair`.

    Args:
      joints: of `Prediction`, as `rel_trans` and `joint_img`.
      rel_trans: left wrist minus right wrist, metres.
      joint_img: where the heatmaps see the joints, cells.
      cells_to_rays: see `rays_of_cells`.
      present: which hands have a say; where there is none, both have.
      depth_scale: by which hands are nearer or farther than they look: a network that is unsure
        draws the joints of its heatmaps together, and bends its meshes, by what its validation
        says. 1 is exact for exact input.
    """
    has_say = present | ~present.any(-1, keepdims=True)
    weights = jnp.broadcast_to(has_say[..., None], joint_img.shape[:-1])
    rays = rays_of_cells(joint_img[..., :2], cells_to_rays)
    middle = rays.mean(-2, keepdims=True)
    rays = middle + (rays - middle) / depth_scale
    return place_pair(joints, rel_trans, rays, weights.astype(rays.dtype))


def _mean(values: Float[Array, "*batch N d"], weights: Float[Array, "*batch N"]) -> Array:
    """The weighted mean over N, which is kept as an axis of 1."""
    weights = weights[..., None]
    total = jnp.maximum(weights.sum(-2, keepdims=True), 1e-12)
    return (values * weights).sum(-2, keepdims=True) / total
