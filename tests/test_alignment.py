"""Similarity alignment and F-scores against float64 references written another way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from er_jax.evaluation.alignment import f_score, similarity_align


def umeyama(source, target, weight):
    """Umeyama 1991 by SVD: rows are points, float64."""
    weight = weight[:, None] / weight.sum()
    source_mean, target_mean = (source * weight).sum(0), (target * weight).sum(0)
    covariance = (target - target_mean).T @ ((source - source_mean) * weight)
    u, singular, v = np.linalg.svd(covariance)
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ v))])
    rotation = u * sign @ v
    scale = (singular * sign).sum() / ((source - source_mean) ** 2 * weight).sum()
    return scale * (source - source_mean) @ rotation.T + target_mean


def clouds(seed, noise, mirror=False, count=40):
    rng = np.random.default_rng(seed)
    target = rng.normal(0, [0.05, 0.03, 0.02], (count, 3)) + rng.normal(size=3)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation) * (-1 if mirror else 1)
    source = 1.7 * target @ rotation.T + rng.normal(size=3) + rng.normal(0, noise, (count, 3))
    return source, target


aligned = jax.jit(lambda s, t, v: jnp.swapaxes(similarity_align(s.mT, t.mT, v), -1, -2))


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.01, 1.0])
def test_agrees_with_svd(noise, mirror):
    """Also where the best orthogonal map would be a reflection, and where nothing fits."""
    pairs = [clouds(seed, noise, mirror) for seed in range(5)]
    source, target = (np.stack(values) for values in zip(*pairs, strict=True))
    valid = np.random.default_rng(9).random(source.shape[:-1]) > 0.3
    expected = np.stack([umeyama(*p) for p in zip(source, target, valid, strict=True)])
    with jax.enable_x64(True):
        result = aligned(jnp.asarray(source), jnp.asarray(target), jnp.asarray(valid))
        np.testing.assert_allclose(result, expected, atol=1e-9)
    single = aligned(*(jnp.asarray(x, jnp.float32) for x in (source, target)), jnp.asarray(valid))
    np.testing.assert_allclose(single, expected, atol=2e-6)


def test_points_without_extent_go_to_the_centre():
    _, target = clouds(0, 0.0)
    source = np.ones_like(target)
    result = aligned(jnp.asarray(source), jnp.asarray(target), jnp.ones(len(target), bool))
    np.testing.assert_allclose(result, np.broadcast_to(target.mean(0), target.shape), atol=1e-6)


def test_f_score_counts_nearest_distances():
    rng = np.random.default_rng(3)
    points, truth = rng.normal(0, 20, (2, 3, 120, 3))
    truth = truth[:, :90]
    distances = np.linalg.norm(points[:, :, None] - truth[:, None], axis=-1)
    expected = []
    for threshold in (5, 15):
        precision = (distances.min(2) <= threshold).mean(1)
        recall = (distances.min(1) <= threshold).mean(1)
        expected.append(2 * precision * recall / (precision + recall))
    result = f_score(jnp.asarray(points).mT, jnp.asarray(truth).mT, (5, 15))
    np.testing.assert_allclose(result, np.stack(expected, -1), atol=1e-6)


def test_f_score_of_nothing_near_is_zero():
    points = jnp.zeros((3, 4))
    np.testing.assert_array_equal(f_score(points, points + 100, (5, 15)), [0, 0])
