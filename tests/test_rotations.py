"""Rotation maps: laws, and derivatives at zero and about the half turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.transform import Rotation

from er_jax.mano import (
    axis_angle_to_matrix,
    matrix_to_6d,
    matrix_to_axis_angle,
    rotation_6d_to_matrix,
)

HALF_TURN = np.pi
ANGLES = [0.0, 1e-12, 1e-7, 1e-3, 0.0032, 1.0, HALF_TURN - 1e-6, HALF_TURN, HALF_TURN + 1e-6, 6.0]


def directions(count: int = 12) -> np.ndarray:
    """The axes and some unit vectors between them, (count + 3, 3)."""
    vectors = np.concatenate([np.eye(3), np.random.default_rng(0).normal(size=(count, 3))])
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


vectors = arrays.arrays(np.float64, (16, 3), elements=st.floats(-6, 6))
to_matrix, to_axis_angle = jax.jit(axis_angle_to_matrix), jax.jit(matrix_to_axis_angle)


@given(vectors)
@settings(max_examples=30, deadline=None)
def test_axis_angle_to_matrix_is_scipy_s(several):
    expected = Rotation.from_rotvec(several).as_matrix()
    np.testing.assert_allclose(to_matrix(jnp.asarray(several)), expected, atol=1e-6)


@given(vectors)
@settings(max_examples=30, deadline=None)
def test_matrix_to_axis_angle_is_scipy_s_up_to_the_sign_of_a_half_turn(several):
    rotation = Rotation.from_rotvec(several)
    result = np.asarray(to_axis_angle(jnp.asarray(rotation.as_matrix())))
    assert np.linalg.norm(result, axis=-1).max() <= HALF_TURN + 1e-5
    np.testing.assert_allclose(
        Rotation.from_rotvec(result).as_matrix(), rotation.as_matrix(), atol=3e-6
    )


@given(vectors)
@settings(max_examples=30, deadline=None)
def test_matrix_to_6d_and_back_is_the_identity(several):
    matrix = jnp.asarray(Rotation.from_rotvec(several).as_matrix(), jnp.float32)
    np.testing.assert_allclose(rotation_6d_to_matrix(matrix_to_6d(matrix)), matrix, atol=1e-6)


def test_6d_is_the_first_two_columns_concatenated():
    matrix = jnp.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(matrix_to_6d(matrix), [0, 3, 6, 1, 4, 7])


def test_6d_of_any_columns_gives_rotations():
    columns = jax.random.normal(jax.random.key(0), (100, 6))
    matrices = np.asarray(rotation_6d_to_matrix(columns))
    products = matrices @ matrices.swapaxes(-1, -2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), (100, 3, 3)), atol=2e-6)
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=2e-6)


def test_axes_lead():
    axis_angle = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 16, 3)))
    matrices = axis_angle_to_matrix(axis_angle)
    assert matrices.shape == (4, 2, 16, 3, 3)
    assert matrix_to_axis_angle(matrices).shape == (4, 2, 16, 3)
    assert rotation_6d_to_matrix(matrix_to_6d(matrices)).shape == (4, 2, 16, 3, 3)
    np.testing.assert_allclose(
        matrices[3, 1, 5], axis_angle_to_matrix(axis_angle[3, 1, 5]), atol=1e-6
    )


def test_bfloat16_is_computed_in_float32():
    half = jnp.asarray([0.3, -0.2, 0.1], jnp.bfloat16)
    for function, value in [
        (axis_angle_to_matrix, half),
        (matrix_to_axis_angle, jnp.eye(3, dtype=jnp.bfloat16)),
        (rotation_6d_to_matrix, jnp.asarray([1, 0, 0, 0, 1, 0], jnp.bfloat16)),
    ]:
        assert function(value).dtype == jnp.float32


def around(function, x, first, second):
    """`function`, its slope along `first`, and that slope's own along `second`."""

    def slope(x):
        return jax.jvp(function, (x,), (first,))

    (value, along_first), (_, curvature) = jax.jvp(slope, (x,), (second,))
    return value, along_first, curvature


def compiled(function, *arguments):
    """The vectorised function's result, compiled in haste."""
    lowered = jax.jit(jax.vmap(function)).lower(*arguments)
    return lowered.compile({"xla_backend_optimization_level": 0})(*arguments)


@pytest.mark.parametrize("x64", [False, True])
def test_round_trip_has_slope_one_and_no_curvature(x64):
    """Axis-angle → matrix → axis-angle is the identity below the half turn."""
    with jax.enable_x64(x64):
        angles = np.array([angle for angle in ANGLES if angle < HALF_TURN])
        points = jnp.asarray((angles[:, None, None] * directions()).reshape(-1, 3))
        u, v = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, size=(2, *points.shape)))
        value, slope, curvature = compiled(
            lambda *arguments: around(
                lambda x: matrix_to_axis_angle(axis_angle_to_matrix(x)), *arguments
            ),
            *(points, u, v),
        )
        np.testing.assert_allclose(value, points, atol=1e-12 if x64 else 2e-6)
        np.testing.assert_allclose(slope, u, atol=1e-12 if x64 else 2e-6)
        np.testing.assert_allclose(curvature, 0, atol=1e-9 if x64 else 5e-4)


def steepness(function, x):
    """Gradient of a function of the gradient of a function of the outputs, in reverse mode."""

    def scalar(x):
        return jnp.sum(jnp.sin(function(x) + 0.7))

    return jax.grad(lambda x: jnp.sum(jnp.cos(jax.grad(scalar)(x) + 0.3)))(x)


@pytest.mark.parametrize("x64", [False, True])
def test_first_and_second_derivatives_are_finite_everywhere(x64):
    def through_all(vector):
        matrix = rotation_6d_to_matrix(matrix_to_6d(axis_angle_to_matrix(vector)))
        return matrix_to_axis_angle(matrix)

    with jax.enable_x64(x64):
        points = jnp.asarray((np.array(ANGLES)[:, None, None] * directions()).reshape(-1, 3))
        assert np.isfinite(compiled(lambda x: steepness(through_all, x), points)).all()


def test_derivatives_are_finite_where_there_is_no_rotation():
    for function, zeros in [
        (rotation_6d_to_matrix, jnp.zeros((1, 6))),
        (matrix_to_axis_angle, jnp.zeros((1, 3, 3))),
    ]:
        result = compiled(lambda x, function=function: steepness(function, x), zeros)
        assert np.isfinite(result).all()


def test_derivatives_equal_finite_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        points = jnp.asarray(3 * rng.normal(size=(8, 3)) / np.sqrt(3))
        step = 1e-5 * jnp.asarray(rng.normal(size=(8, 3)))

        def gram_schmidt(vector):
            return rotation_6d_to_matrix(jnp.concatenate([vector, vector[::-1] ** 2 + 0.3]))

        for function in (axis_angle_to_matrix, jax.vmap(gram_schmidt)):
            _, slope = jax.jvp(function, (points,), (step,))
            difference = (function(points + step) - function(points - step)) / 2
            np.testing.assert_allclose(slope, difference, atol=1e-11)


def test_a_half_turn_keeps_its_axis():
    for axis in directions():
        matrix = jnp.asarray(Rotation.from_rotvec(HALF_TURN * axis).as_matrix())
        result = np.asarray(matrix_to_axis_angle(matrix))
        assert (
            min(np.abs(result - HALF_TURN * axis).max(), np.abs(result + HALF_TURN * axis).max())
            < 1e-5
        )
