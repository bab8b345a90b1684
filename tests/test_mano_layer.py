"""The MANO layer: reference numbers, laws, derivatives and transformations."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from er_jax.mano import (
    HAND21,
    HANDS,
    INTAGHAND_TIP_VERTICES,
    MANO16,
    PARENTS,
    TIP_VERTICES,
    HandModel,
    axis_angle_to_matrix,
    joint_order,
    joints_from_vertices,
    load_hands,
    mano_forward,
    pose_from_components,
)

SHARED = Path(__file__).parents[2] / "shared"
MIRROR = np.array([-1.0, 1, 1])


@pytest.fixture(scope="module")
def hands() -> HandModel:
    return load_hands(None)


@pytest.fixture(scope="module")
def hands64() -> HandModel:
    with jax.enable_x64(True):
        return load_hands(None)


def parameters(batch: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """betas (batch,2,10), pose (batch,2,48), transl (batch,2,3), float64."""
    rng = np.random.default_rng(seed)
    betas, pose = rng.normal(size=(batch, 2, 10)), 0.4 * rng.normal(size=(batch, 2, 48))
    return betas, pose, rng.normal(size=(batch, 2, 3))


def mirrored(pose: np.ndarray) -> np.ndarray:
    """The axis-angle pose of the other hand in a mirror."""
    return (pose.reshape(*pose.shape[:-1], 16, 3) * [1, -1, -1]).reshape(pose.shape)


def textbook(hand: HandModel, betas, pose, transl) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and joints by the paper's formulas, one hand, plain loops in float64."""
    arrays = jax.tree.map(lambda x: np.asarray(x, np.float64), hand)
    template = arrays.template[:, :778].T
    directions = arrays.blend_directions.reshape(145, 3, 784)[..., :778]
    regressor, weights = arrays.joint_regressor[:778].T, arrays.skinning_weights[:, :778].T
    full = pose + np.concatenate([np.zeros(3), arrays.mean_pose])
    rotations = Rotation.from_rotvec(full.reshape(16, 3)).as_matrix()
    shaped = template + np.einsum("s,scv->vc", betas, directions[:10])
    joints = regressor @ shaped
    features = (rotations[1:] - np.eye(3)).reshape(15, 9).T.ravel()
    posed = shaped + np.einsum("p,pcv->vc", features, directions[10:])
    world = np.zeros((16, 4, 4))
    for joint, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = joints[joint] - (0 if parent < 0 else joints[parent])
        world[joint] = local if parent < 0 else world[parent] @ local
    vertices = np.zeros((778, 3))
    for joint in range(16):
        moved = (posed - joints[joint]) @ world[joint, :3, :3].T + world[joint, :3, 3]
        vertices += weights[:, joint, None] * moved
    vertices += transl
    by_name = dict(zip(MANO16, regressor @ vertices, strict=True))
    by_name |= {name: vertices[index] for name, index in TIP_VERTICES.items()}
    return vertices, np.stack([by_name[name] for name in HAND21])


@pytest.mark.parametrize(("x64", "tolerance"), [(False, 1e-6), (True, 1e-7)])
@pytest.mark.skipif(not (SHARED / "fixtures").exists(), reason="the reference numbers are not here")
def test_reference_numbers(x64, tolerance):
    expected = np.load(SHARED / "fixtures/expected/mano_expected.npz")
    with jax.enable_x64(x64):
        reference_hands = load_hands(SHARED / "fixtures/mano")
        given = [jnp.asarray(expected[k].swapaxes(0, 1)) for k in ("betas", "pose", "transl")]
        mesh = mano_forward(reference_hands, *given)
    assert mesh.vertices.dtype == (np.float64 if x64 else np.float32)
    for index, side in enumerate(HANDS):
        for result, key in [(mesh.vertices, "vertices"), (mesh.joints, "joints21")]:
            error = np.asarray(result)[:, index] - expected[f"{side}_{key}"]
            assert np.linalg.norm(error, axis=-1).max() < tolerance


@pytest.mark.parametrize(("x64", "tolerance"), [(False, 1e-6), (True, 1e-12)])
def test_textbook(hands, hands64, x64, tolerance):
    betas, pose, transl = parameters()
    with jax.enable_x64(x64):
        model = hands64 if x64 else hands
        mesh = mano_forward(model, betas, pose, transl)
        for index, side in enumerate(HANDS):
            for sample in range(len(betas)):
                at = sample, index
                vertices, joints = textbook(hands64.hand(side), betas[at], pose[at], transl[at])
                np.testing.assert_allclose(mesh.vertices[at], vertices, atol=tolerance)
                np.testing.assert_allclose(mesh.joints[at], joints, atol=tolerance)


def test_a_rigid_motion_of_the_root_moves_vertices_rigidly(hands):
    betas, pose, transl = parameters()
    turn = Rotation.random(random_state=0)
    shift = np.array([0.3, -0.2, 0.9])
    turned = pose.copy()
    root = turn * Rotation.from_rotvec(pose[..., :3].reshape(-1, 3))
    turned[..., :3] = root.as_rotvec().reshape(*pose.shape[:-1], 3)
    before, after = (
        mano_forward(hands, betas, pose, transl),
        mano_forward(hands, betas, turned, transl + shift),
    )
    for key in ("vertices", "joints"):
        old, new = (np.asarray(getattr(mesh, key), np.float64) for mesh in (before, after))
        # Both turn about the wrist at rest, which no root rotation moves.
        wrist = np.asarray(hands.rest_joints[..., 0]) + np.einsum(
            "bhs,hsc->bhc", betas, np.asarray(hands.rest_joint_directions[..., 0])
        )
        centre = (wrist + transl)[:, :, None]
        expected = (old - centre) @ turn.as_matrix().T + centre + shift
        np.testing.assert_allclose(new, expected, atol=2e-6)


def test_the_left_hand_is_the_mirror_of_the_right(hands):
    betas, pose, transl = (x[:, 0] for x in parameters())
    both = [
        np.stack(x, axis=1)
        for x in ([betas] * 2, [pose, mirrored(pose)], [transl, MIRROR * transl])
    ]
    mesh = mano_forward(hands, *both)
    for points in (mesh.vertices, mesh.joints):
        np.testing.assert_allclose(points[:, 1], MIRROR * np.asarray(points[:, 0]), atol=1e-6)


def test_one_hand_and_any_leading_axes(hands):
    betas, pose, transl = parameters(6)
    both = mano_forward(hands, betas, pose, transl)
    stacked = mano_forward(hands, *(x.reshape(2, 3, *x.shape[1:]) for x in (betas, pose, transl)))
    np.testing.assert_allclose(stacked.vertices.reshape(6, 2, 778, 3), both.vertices, atol=1e-6)
    alone = mano_forward(hands, betas[0], pose[0])
    np.testing.assert_allclose(alone.joints + transl[0][:, None], both.joints[0], atol=1e-6)
    for index, side in enumerate(HANDS):
        one = mano_forward(hands.hand(side), betas[:, index], pose[:, index], transl[:, index])
        np.testing.assert_allclose(one.vertices, both.vertices[:, index], atol=1e-6)
        np.testing.assert_allclose(one.joints, both.joints[:, index], atol=1e-6)
    broadcast = mano_forward(hands, betas[0], pose)
    assert broadcast.vertices.shape == (6, 2, 778, 3)
    assert mano_forward(hands, betas[:0], pose[:0]).joints.shape == (0, 2, 21, 3)


def test_rotation_matrices_are_the_full_pose(hands):
    betas, pose, transl = parameters()
    mean = np.pad(np.asarray(hands.mean_pose), ((0, 0), (3, 0)))
    matrices = axis_angle_to_matrix(jnp.asarray(pose + mean).reshape(-1, 2, 16, 3))
    result = mano_forward(hands, betas, matrices, transl)
    np.testing.assert_allclose(
        result.vertices, mano_forward(hands, betas, pose, transl).vertices, atol=1e-6
    )


def test_pose_from_components(hands):
    root = np.random.default_rng(0).normal(size=(4, 2, 3))
    coefficients = np.random.default_rng(1).normal(size=(4, 2, 6))
    pose = pose_from_components(hands, jnp.asarray(root), jnp.asarray(coefficients))
    expected = np.einsum("bhn,hnk->bhk", coefficients, hands.pose_components[:, :6])
    np.testing.assert_allclose(pose, np.concatenate([root, expected], -1), atol=1e-5)


@pytest.mark.slow
def test_large_batches_agree_with_small_ones(hands):
    """No sample, nor its gradient, depends on those beside it, and forward mode says the same."""
    betas, pose, transl = (x.astype(np.float32) for x in parameters(500))

    @jax.jit
    def derived(betas, pose, transl):
        def loss(pose):
            mesh = mano_forward(hands, betas, pose, transl)
            return jnp.sum(jnp.sin(10 * mesh.joints)) + jnp.sum(mesh.vertices[..., ::50, :] ** 2)

        gradient = jax.grad(loss)(pose)
        rate = jax.jvp(loss, (pose,), (gradient,))[1]
        return mano_forward(hands, betas, pose, transl), gradient, rate

    mesh, gradient, rate = derived(betas, pose, transl)
    few_mesh, few_gradient, _ = derived(betas[-5:], pose[-5:], transl[-5:])
    assert mesh.vertices.shape == (*pose.shape[:-1], 778, 3)
    np.testing.assert_allclose(mesh.vertices[-5:], few_mesh.vertices, atol=1e-6)
    np.testing.assert_allclose(mesh.joints[-5:], few_mesh.joints, atol=1e-6)
    np.testing.assert_allclose(gradient[-5:], few_gradient, atol=1e-4)
    np.testing.assert_allclose(rate, np.sum(np.square(gradient, dtype=np.float64)), rtol=1e-4)


def test_the_translation_moves_every_point_by_as_much(hands64):
    with jax.enable_x64(True):
        betas, pose, _ = parameters()
        near = mano_forward(hands64, betas, pose, np.zeros((3, 2, 3)))
        far = mano_forward(hands64, betas, pose, np.full((3, 2, 3), 1000.0))
        np.testing.assert_allclose(far.vertices - 1000, near.vertices, atol=1e-11)


def scalar(hands, betas, pose, transl):
    mesh = mano_forward(hands, betas, pose, transl)
    return jnp.sum(jnp.sin(30 * mesh.vertices[..., ::7, :])) + jnp.sum(mesh.joints**2)


def test_gradients_equal_finite_differences(hands64):
    with jax.enable_x64(True):
        point = tuple(map(jnp.asarray, parameters(1)))
        value_and_grad = jax.jit(jax.value_and_grad(scalar, argnums=(1, 2, 3)))
        _, gradients = value_and_grad(hands64, *point)
        rng = np.random.default_rng(3)
        for index, (x, gradient) in enumerate(zip(point, gradients, strict=True)):
            direction = jnp.asarray(rng.normal(size=x.shape))
            values = []
            for step in (1e-5, -1e-5):
                moved = [y + step * direction if i == index else y for i, y in enumerate(point)]
                values.append(value_and_grad(hands64, *moved)[0])
            slope = (values[0] - values[1]) / 2e-5
            np.testing.assert_allclose(jnp.sum(gradient * direction), slope, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_derivatives_by_the_model_equal_finite_differences(hands64, mode):
    with jax.enable_x64(True):
        point = tuple(map(jnp.asarray, parameters(1)))
        rng = np.random.default_rng(4)
        for name in ("skinning_weights", "blend_directions", "rest_joints", "joint_regressor"):
            array = getattr(hands64, name)
            direction = jnp.asarray(rng.normal(size=array.shape))

            def value(array, name=name):
                return scalar(dataclasses.replace(hands64, **{name: array}), *point)

            if mode == "forward":
                slope = jax.jvp(value, (array,), (direction,))[1]
            else:
                slope = jnp.sum(jax.grad(value)(array) * direction)
            ahead, behind = (value(array + step * direction) for step in (1e-6, -1e-6))
            np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("x64", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_derivatives_are_finite_at_zero_and_about_the_half_turn(hands, hands64, x64):
    with jax.enable_x64(x64):
        model = hands64 if x64 else hands
        mean = np.pad(np.asarray(model.mean_pose), ((0, 0), (3, 0)))
        axes = np.random.default_rng(0).normal(size=(2, 16, 3))
        axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
        angles = np.array([0, 1e-12, np.pi - 1e-6, np.pi, np.pi + 1e-6])
        poses = jnp.asarray((angles[:, None, None, None] * axes).reshape(-1, 2, 48) - mean)
        betas, transl = jnp.zeros((2, 10)), jnp.zeros((2, 3))

        def curvature(pose):
            gradient, along = jax.jvp(
                lambda pose: jax.grad(scalar, argnums=2)(model, betas, pose, transl),
                (pose,),
                (jnp.ones_like(pose),),
            )
            return gradient, along

        for derivative in jax.jit(jax.vmap(curvature))(poses):
            assert np.isfinite(derivative).all()


def test_transformations(hands):
    betas, pose, transl = (jnp.asarray(x, jnp.float32) for x in parameters(2))

    def joints(betas, pose, transl):
        return mano_forward(hands, betas, pose, transl).joints

    def total(pose):
        return jnp.sum(jnp.sin(joints(betas, pose, transl)))

    def transformed(betas, pose, transl):
        return {
            "mapped": jax.vmap(joints)(betas, pose, transl),
            "reverse": jax.grad(total)(pose),
            "rematerialised": jax.grad(jax.checkpoint(total))(pose),
            "forward": jax.jacfwd(total)(pose),
        }

    lowered = jax.jit(transformed).lower(betas, pose, transl)
    results = lowered.compile({"xla_backend_optimization_level": 0})(betas, pose, transl)
    expected = joints(betas, pose, transl)
    np.testing.assert_allclose(results["mapped"], expected, atol=1e-6)
    np.testing.assert_allclose(results["rematerialised"], results["reverse"], atol=1e-6)
    np.testing.assert_allclose(results["forward"], results["reverse"], atol=1e-5)
    across_devices = jax.pmap(joints)(betas[None], pose[None], transl[None])
    np.testing.assert_allclose(across_devices[0], expected, atol=1e-6)


def test_bfloat16_is_computed_in_float32(hands):
    half = [jnp.asarray(x, jnp.bfloat16) for x in parameters()]
    mesh = mano_forward(hands, *half)
    assert mesh.vertices.dtype == mesh.joints.dtype == jnp.float32
    whole = mano_forward(hands, *(x.astype(jnp.float32) for x in half))
    np.testing.assert_allclose(mesh.vertices, whole.vertices, atol=1e-6)


def test_joints_from_vertices(hands):
    mesh = mano_forward(hands, *parameters())
    np.testing.assert_allclose(joints_from_vertices(hands, mesh.vertices), mesh.joints, atol=1e-6)
    other = joints_from_vertices(hands, mesh.vertices, INTAGHAND_TIP_VERTICES)
    changed = np.abs(np.asarray(other) - mesh.joints).max(axis=(0, 1, 3)) > 1e-6
    assert [HAND21[i] for i in np.flatnonzero(changed)] == ["Middle_4"]
    np.testing.assert_array_equal(other[:, :, HAND21.index("Middle_4")], mesh.vertices[:, :, 444])
    inner = joint_order(HAND21, MANO16)
    expected = np.einsum("hvj,bhvc->bhjc", hands.joint_regressor[:, :778], mesh.vertices)
    np.testing.assert_allclose(mesh.joints[:, :, inner], expected, atol=1e-6)


def test_wrong_shapes_are_refused(hands):
    betas, pose, transl = parameters()
    for arguments in [
        (betas[..., :1], pose, transl),
        (betas, pose[..., :45], transl),
        (betas, pose, transl[..., :1]),
        (betas[:, 0], pose[:, 0], transl[:, 0]),
        (betas[:, :1], pose[:, :1], transl[:, :1]),
    ]:
        with pytest.raises(ValueError, match="need"):
            mano_forward(hands, *arguments)
