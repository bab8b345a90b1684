"""Similarity alignment of point sets and their F-score.

Coordinates come before points, (…, 3, N): compiled loops then run over neighbours in memory.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Tree = Any
HANDS_AT_ONCE = 64  # whose 778 × 778 distances are computed together, where it is no CPU


def similarity_align(
    source: Float[Array, "*batch 3 N"],
    target: Float[Array, "*batch 3 N"],
    valid: Bool[Array, "*batch N"] | None = None,
) -> Float[Array, "*batch 3 N"]:
    """The source moved onto the target by the least-squares rotation, scale and translation.

    Never a reflection: the rotation is the unit quaternion of Horn, "Closed-form solution of
    absolute orientation using unit quaternions", JOSA A 1987, the eigenvector of the largest
    eigenvalue λ of a symmetric 4×4 matrix of the cross-covariance; the scale of Umeyama 1991
    is then λ / Σ|source|². It is the solution of Kabsch and Umeyama without their distinction of
    cases, and a batch of 4×4 eigenproblems takes less time than a batch of SVDs.

    Args:
      valid: points that determine the alignment; all by default. All points are moved.
    """
    if valid is None:
        valid = jnp.ones((*source.shape[:-2], source.shape[-1]), bool)
    weight = valid.astype(source.dtype)[..., None, :]
    total = jnp.maximum(weight.sum(-1, keepdims=True), 1)
    target_centre = (target * weight).sum(-1, keepdims=True) / total
    source = source - (source * weight).sum(-1, keepdims=True) / total
    covariance = jnp.einsum(
        "...in,...jn->...ij", source * weight, target - target_centre, precision="highest"
    )
    eigenvalues, eigenvectors = jnp.linalg.eigh(_horn_matrix(covariance))
    extent = jnp.sum(source**2 * weight, axis=(-2, -1))
    scale = jnp.where(extent > 0, eigenvalues[..., -1] / jnp.where(extent > 0, extent, 1), 0)
    transform = scale[..., None, None] * _quaternion_to_matrix(eigenvectors[..., -1])
    return jnp.matmul(transform, source, precision="highest") + target_centre


def _horn_matrix(covariance: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 4 4"]:
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (
        [covariance[..., i, j] for j in range(3)] for i in range(3)
    )
    rows = [
        [xx + yy + zz, yz - zy, zx - xz, xy - yx],
        [yz - zy, xx - yy - zz, xy + yx, zx + xz],
        [zx - xz, xy + yx, yy - xx - zz, yz + zy],
        [xy - yx, zx + xz, yz + zy, zz - xx - yy],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def _quaternion_to_matrix(quaternion: Float[Array, "*batch 4"]) -> Float[Array, "*batch 3 3"]:
    """Returns the matrices of unit quaternions (w, x, y, z)."""
    w, x, y, z = (quaternion[..., i] for i in range(4))
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def f_score(
    points: Float[Array, "*batch 3 N"],
    truth: Float[Array, "*batch 3 M"],
    thresholds: Sequence[float],
) -> Float[Array, "*batch thresholds"]:
    """Harmonic mean of precision and recall at each threshold (Knapitsch et al. 2017).

    Precision: the share of points that have a true point within the threshold; recall the reverse.
    Points and thresholds are of the same unit.
    """
    limits = jnp.array(thresholds) ** 2

    def of_one(pair: tuple[Array, Array]) -> Array:
        # |a − b|² = |a|² + |b|² − 2ab as one matrix product; a hand at a time stays in the cache.
        a, b = pair
        a = jnp.concatenate([a, jnp.sum(a * a, 0, keepdims=True), jnp.ones_like(a[:1])])
        b = jnp.concatenate([-2 * b, jnp.ones_like(b[:1]), jnp.sum(b * b, 0, keepdims=True)])
        squared = jnp.matmul(a.T, b, precision="highest")
        precision = jnp.mean(squared.min(1)[:, None] <= limits, axis=0)
        recall = jnp.mean(squared.min(0)[:, None] <= limits, axis=0)
        return 2 * precision * recall / jnp.maximum(precision + recall, 1e-12)

    pairs = tuple(p.reshape(-1, *p.shape[-2:]) for p in (points, truth))
    scores = map_in_cache(of_one, pairs, HANDS_AT_ONCE)
    return scores.reshape(*points.shape[:-2], len(thresholds))


def map_in_cache(function: Callable[[Tree], Tree], pieces: Tree, at_once: int) -> Tree:
    """`function` of each piece along the leading axis, for one piece without that axis.

    On a CPU one after the other, so that each stays in its cache. Elsewhere so many `at_once`: a
    loop would be hundreds of small kernels, each waiting for the last.
    """
    one_by_one = partial(jax.lax.map, function)
    if at_once >= len(jax.tree.leaves(pieces)[0]):
        together = jax.vmap(function)
    else:
        together = partial(jax.lax.map, function, batch_size=at_once)
    return jax.lax.platform_dependent(pieces, cpu=one_by_one, default=together)
