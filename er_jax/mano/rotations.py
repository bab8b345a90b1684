"""Rotation maps between axis-angle, matrix and 6D.

First and second derivatives are finite everywhere, and right wherever the map is smooth. jaxlie's
SO3.exp and from_matrix are; its log is not used: in float32 its gradient is off by as much as 1
within 1e-5 of a half turn. Nor is its as_matrix: the gradient is a product of 4×4 matrices for each
rotation, a tenth of the MANO layer's time on a CPU.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxlie import SO3
from jaxtyping import Array, Float


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def axis_angle_to_matrix(axis_angle: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3 3"]:
    """Rotation matrices of axis-angle vectors (radians); float32 arithmetic at least."""
    quaternion = axis_angle_to_quaternion(axis_angle)
    entries = quaternion_to_entries(jnp.unstack(quaternion, axis=-1))
    rows = [jnp.stack(row, axis=-1) for row in entries]
    return jnp.stack(rows, axis=-2)


def axis_angle_to_quaternion(axis_angle: Float[Array, "*batch 3"]) -> Float[Array, "*batch 4"]:
    """Unit quaternions (w, x, y, z) of axis-angle vectors (radians); float32 at least."""
    return SO3.exp(_at_least_float32(axis_angle)).wxyz


def quaternion_to_entries(
    quaternion: Sequence[Float[Array, "*batch"]],
) -> list[list[Float[Array, "*batch"]]]:
    """Rows of entries of the rotation matrices of unit quaternions (w, x, y, z)."""
    w, x, y, z = quaternion
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]


def matrix_to_axis_angle(matrix: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 3"]:
    """Axis-angle vectors (radians, length at most π) of rotation matrices.

    At a half turn, where two opposite vectors are right, one of them.
    """
    wxyz = SO3.from_matrix(_at_least_float32(matrix)).wxyz
    wxyz = jnp.where(wxyz[..., :1] < 0, -wxyz, wxyz)
    w, xyz = wxyz[..., 0], wxyz[..., 1:]
    squared = jnp.sum(xyz**2, axis=-1)
    small = squared < jnp.finfo(w.dtype).eps ** 0.5 / 10
    sine = jnp.sqrt(jnp.where(small, 1.0, squared))
    # atan2(s, w) / s by its series where s vanishes: the inner `where` keeps the gradient finite.
    ratio = squared / jnp.where(small, w, 1.0) ** 2
    series = (1 - ratio / 3 + ratio**2 / 5) / jnp.where(small, w, 1.0)
    return 2 * jnp.where(small, series, jnp.arctan2(sine, w) / sine)[..., None] * xyz


def matrix_to_6d(matrix: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 6"]:
    """The first two columns of rotation matrices, concatenated (Zhou et al. 2019)."""
    return jnp.concatenate([matrix[..., :, 0], matrix[..., :, 1]], axis=-1)


def rotation_6d_to_matrix(rotation_6d: Float[Array, "*batch 6"]) -> Float[Array, "*batch 3 3"]:
    """Rotation matrices of the 6D representation by Gram–Schmidt (Zhou et al. 2019).

    The two columns need not be orthonormal, but must not be parallel nor shorter than 1e-6.
    """
    first, second = jnp.split(_at_least_float32(rotation_6d), 2, axis=-1)
    x = _normalised(first)
    y = _normalised(second - jnp.sum(x * second, axis=-1, keepdims=True) * x)
    return jnp.stack([x, y, jnp.cross(x, y)], axis=-1)


def _normalised(vector: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    squared = jnp.sum(vector**2, axis=-1, keepdims=True)
    return vector * jax.lax.rsqrt(jnp.maximum(squared, 1e-12))
