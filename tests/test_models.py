"""The whole network: sizes, symmetry of the hands, gradients, switches, precision."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from ml_collections import ConfigDict

from er_jax.mano import load_hands, mano_forward
from er_jax.models import ERConfig, ERNet
from er_jax.models.freezing import Frozen
from er_jax.models.functional import weights_of
from er_jax.models.weights.import_export import named_variables
from er_jax.training.state import create_state

TINY = ERConfig(
    backbone="resnet18",
    backbone_width=8,
    backbone_init="he",
    input_size=64,
    feature_dim=16,
    depth_bins=4,
    heads=2,
    desim_depth=1,
    deocc_depth=1,
    fusejoint_depth=1,
    use_presence=True,
)


@pytest.fixture(scope="module")
def hands():
    return load_hands(None)


@pytest.fixture(scope="module")
def image():
    return jnp.asarray(np.random.default_rng(0).uniform(size=(2, 64, 64, 3)), jnp.float32)


def net_of(config=TINY, seed=0, **changes):
    """A network whose weights are large enough for every output to depend on its inputs."""
    net = ERNet(dataclasses.replace(config, **changes), rngs=nnx.Rngs(seed))
    for name, variable in named_variables(net).items():
        if name.endswith("kernel") and not name.startswith("backbone"):
            variable[...] = variable[...] * (200 if variable.ndim == 4 else 20)
    return net


@partial(jax.jit, static_argnames=("graphdef", "collect"))
def run(graphdef, state, image, hands, collect):
    return nnx.merge(graphdef, state)(image, hands, collect=collect)


ALL = ("F", "F_h", "heatmaps", "F*_h", "prior_h", "F_Ph", "F*_Ph")
ATTENTION = ("desim_attention", "deocc_attention", "fusejoint_attention")


def predict(net, image, hands, collect=(*ALL, *ATTENTION)):
    net.eval()
    return run(*nnx.split(net), image, hands, collect)


def count(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def test_parameters_at_the_papers_sizes():
    net = nnx.eval_shape(lambda: ERNet(ERConfig(), rngs=nnx.Rngs(0)))
    a_hand = sum(
        count(getattr(net, name).right)
        for name in (
            "hand_stream",
            "joint_heatmaps",
            "desim",
            "shape_and_camera",
            "fusejoint",
            "pose",
        )
    )
    parts = (count(net), count(net.backbone), count(net.deocc), a_hand)
    assert [round(part / 1e6, 2) for part in parts] == [64.99, 23.51, 6.57, 17.19]
    own = nnx.eval_shape(lambda: ERNet(ERConfig(use_presence=True), rngs=nnx.Rngs(0)))
    assert (count(net), count(own) - count(net)) == (64_987_053, 2 * 513)


def test_all_else_starts_alike_with_presence_and_without():
    with_it, without = (weights_of(net_of(use_presence=use)).params for use in (True, False))
    assert with_it.pop("presence")
    jax.tree.map(np.testing.assert_array_equal, with_it, without)


def test_a_run_starts_from_what_the_seed_says_wherever_it_is_made():
    """Eagerly, as tests and benchmarks do, and as training does."""
    ours = create_state(TINY, optax.sgd(1.0), seed=3).weights
    theirs = weights_of(ERNet(TINY, rngs=nnx.Rngs(3)))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_initialisation_follows_the_specification():
    net = ERNet(dataclasses.replace(TINY, backbone_init="normal"), rngs=nnx.Rngs(0))
    for name, variable in named_variables(net).items():
        value = np.asarray(variable[...])
        if name.endswith("kernel"):
            std = 0.001 if value.ndim == 4 else 0.01
        elif name.endswith(("position", "hand", "joint")):
            std = 0.02
        else:
            expected = 1.0 if name.endswith(("scale", "var")) else 0.0
            np.testing.assert_array_equal(value, expected, err_msg=name)
            continue
        assert abs(value.std() / std - 1) < 5 / np.sqrt(value.size), name


def test_outputs(image, hands):
    out = predict(net_of(), image, hands)
    shapes = {
        "rel_trans": (2, 3),
        "joint_img": (2, 2, 21, 3),
        "rotations": (2, 2, 16, 3, 3),
        "pose": (2, 2, 48),
        "betas": (2, 2, 10),
        "camera": (2, 2, 3),
        "vertices": (2, 2, 778, 3),
        "joints": (2, 2, 21, 3),
        "joint_proj": (2, 2, 21, 2),
    }
    for name, shape in shapes.items():
        value = getattr(out, name)
        assert (value.shape, value.dtype) == (shape, jnp.float32), name
        assert jnp.isfinite(value).all(), name

    np.testing.assert_allclose(out.joints[:, :, 0], 0, atol=1e-7)  # wrist-relative
    gram = jnp.einsum("...ij,...kj->...ik", out.rotations, out.rotations)
    np.testing.assert_allclose(gram, jnp.broadcast_to(jnp.eye(3), gram.shape), atol=1e-5)
    mesh = mano_forward(hands, out.betas, out.pose)
    wrist = mesh.joints[:, :, :1]
    np.testing.assert_allclose(out.joints, mesh.joints - wrist, atol=1e-6)
    np.testing.assert_allclose(out.vertices, mesh.vertices - wrist, atol=1e-6)
    s, shift = out.camera[..., None, :1], out.camera[..., None, 1:]
    np.testing.assert_allclose(out.joint_proj, s * mesh.joints[..., :2] + shift, atol=1e-5)

    got = out.intermediates
    assert got["heatmaps"].shape == (2, 2, 21, 4, 2, 2)
    np.testing.assert_allclose(got["heatmaps"].sum((3, 4, 5)), 1, atol=1e-5)
    z = (got["heatmaps"].sum((4, 5)) * jnp.arange(4)).sum(-1)
    np.testing.assert_allclose(out.joint_img[..., 2], z, atol=1e-5)
    summed = got["F_h"] + got["prior_h"].reshape(got["F_h"].shape)
    np.testing.assert_allclose(got["F_Ph"], summed, rtol=1e-5)
    assert got["deocc_attention"].shape == (2, 2, 1, 2, 4, 4)
    for name in ATTENTION:
        np.testing.assert_allclose(got[name].sum(-1), 1, atol=1e-5)


def test_unknown_names_to_collect(image, hands):
    with pytest.raises(ValueError, match=r"cannot collect prior_h, G; .*F_Ph"):
        jax.eval_shape(
            lambda image: net_of(use_deocc=False)(image, hands, collect=("F", "prior_h", "G")),
            image,
        )


def test_swapping_the_hands_weights_swaps_the_outputs(image, hands):
    net = net_of()
    before = predict(net, image, hands)
    variables = named_variables(net)
    for name, variable in variables.items():
        other = name.replace(".right.", ".left.")
        if other != name:
            right, left = variable[...], variables[other][...]
            variable[...], variables[other][...] = left, right
    net.deocc.hand[...] = net.deocc.hand[...][::-1]
    hidden = net.relative_translation.hidden.kernel
    hidden[...] = jnp.concatenate(jnp.split(hidden[...], 2)[::-1])
    after = predict(net, image, jax.tree.map(lambda array: array[::-1], hands))
    for field in dataclasses.fields(before):
        expected = getattr(before, field.name)
        if expected is None or field.name == "intermediates":
            continue
        expected = expected if field.name == "rel_trans" else expected[:, ::-1]
        np.testing.assert_allclose(getattr(after, field.name), expected, atol=1e-5)
    for name in (*ALL[1:], *ATTENTION):
        np.testing.assert_allclose(
            after.intermediates[name], before.intermediates[name][:, ::-1], atol=1e-4
        )


def training_gradients(net, hands):
    """A function of parameters and image, to gradients and new statistics; and the parameters."""
    net.train()
    graphdef, params, stats = nnx.split(net, nnx.Param, nnx.BatchStat)

    def gradients(params, image):
        def loss(params):
            net = nnx.merge(graphdef, params, stats, copy=True)
            out = net(image, hands)
            terms = (out.rel_trans, out.joint_img, out.pose, out.betas, out.joints, out.joint_proj)
            terms += (1 + out.presence_logit,)
            total = sum(jnp.square(term).mean() for term in terms)
            return total, nnx.state(net, nnx.BatchStat)

        return jax.grad(loss, has_aux=True)(params)

    return gradients, params


def by_name(state):
    return {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(state)}


def test_gradients_reach_every_parameter(image, hands):
    gradients, params = training_gradients(net_of(), hands)
    flat = by_name(jax.jit(gradients)(params, image)[0])
    assert len(flat) == len(jax.tree.leaves(params))
    for name, gradient in flat.items():
        assert jnp.isfinite(gradient).all(), name
        assert jnp.abs(gradient).max() > 0, name


def test_presence_is_read_off_each_hands_own_features(hands, image):
    net = net_of()
    found = predict(net, image, hands)
    for side, head in enumerate((net.presence.right.output, net.presence.left.output)):
        pooled = found.intermediates["F_Ph"][:, side].mean((1, 2))
        expected = pooled @ head.kernel[...] + head.bias[...]
        np.testing.assert_allclose(found.presence_logit[:, side], expected[:, 0], atol=1e-6)
    assert np.abs(found.presence_logit[:, 0] - found.presence_logit[:, 1]).min() > 1e-4


@pytest.mark.slow
def test_rematerialisation_changes_no_gradient(image, hands):
    kept, again = (
        by_name(jax.jit(gradients)(params, image)[0])
        for gradients, params in (
            training_gradients(net_of(remat_backbone=remat), hands) for remat in (False, True)
        )
    )
    for name, gradient in kept.items():
        assert jnp.abs(again[name] - gradient).max() <= 1e-3 * jnp.abs(gradient).max(), name


def test_frozen_backbone(image, hands):
    net = net_of(freeze_backbone=True)
    before = {name: np.asarray(v[...]) for name, v in named_variables(net.backbone).items()}
    assert count(net.backbone) == 0
    assert isinstance(net.backbone.conv1.kernel, Frozen)
    gradient, stats = jax.eval_shape(*training_gradients(net, hands), image)
    assert not any(name.startswith("backbone") for name in by_name_of_shapes(gradient))
    assert {f"backbone.{name}" for name in before} <= set(by_name_of_shapes(stats))

    net.train()
    graphdef, params, stats = nnx.split(net, nnx.Param, nnx.BatchStat)

    @jax.jit
    def statistics(stats):
        net = nnx.merge(graphdef, params, stats, copy=True)
        net(image, hands)
        return nnx.state(net, nnx.BatchStat)

    after = by_name(statistics(stats))
    for name, value in before.items():
        np.testing.assert_array_equal(after[f"backbone.{name}"], value, err_msg=name)
    assert jnp.abs(after["hand_stream.right.bn.mean"]).max() > 0


PARTS = (r"hand_stream.*bn\.", r"pose\.left")


def test_frozen_parts_by_pattern():
    net = nnx.eval_shape(lambda: ERNet(dataclasses.replace(TINY, frozen=PARTS), rngs=nnx.Rngs(0)))
    frozen = by_name_of_shapes(nnx.state(net, Frozen))
    assert {name.rpartition(".")[0] for name in frozen} == {
        *("hand_stream.right.bn", "hand_stream.left.bn", "pose.left.root", "pose.left.joints")
    }
    assert net.hand_stream.right.bn.frozen
    with pytest.raises(ValueError, match=r"model.frozen: bakcbone matches no.*with backbone, deoc"):
        nnx.eval_shape(
            lambda: ERNet(dataclasses.replace(TINY, frozen=["bakcbone"]), rngs=nnx.Rngs(0))
        )


def by_name_of_shapes(state):
    return {".".join(map(str, path)) for path, _ in nnx.to_flat_state(state)}


@pytest.mark.parametrize("module", ["desim", "deocc", "fusejoint"])
def test_a_switched_off_module_adds_no_parameters(module, hands):
    full = nnx.eval_shape(lambda: ERNet(TINY, rngs=nnx.Rngs(0)))
    without_config = dataclasses.replace(TINY, **{f"use_{module}": False})
    without = nnx.eval_shape(lambda: ERNet(without_config, rngs=nnx.Rngs(0)))
    assert count(without) == count(full) - count(getattr(full, module))
    out = jax.eval_shape(
        lambda: ERNet(without_config, rngs=nnx.Rngs(0))(jnp.zeros((1, 64, 64, 3)), hands)
    )
    assert out.vertices.shape == (1, 2, 778, 3)


def test_without_priorformer_the_features_pass_through(image, hands):
    net = net_of(use_desim=False, use_deocc=False, use_fusejoint=False)
    net.eval()
    shapes = jax.make_jaxpr(lambda image: net(image, hands, collect=("F_h", "F_Ph")))(image)
    collected = shapes.jaxpr.outvars[-2:]  # sorted by name: F_Ph, F_h
    assert collected[0] is collected[1]


def test_every_choice_of_this_project_can_be_switched(hands):
    config = dataclasses.replace(
        TINY,
        position_embedding=False,
        hand_embedding=False,
        deocc_shared_weights=False,
        joint_coordinate_embedding=False,
        joint_embedding=False,
        rotation_residual=False,
    )
    net = nnx.eval_shape(lambda: ERNet(config, rngs=nnx.Rngs(0)))
    names = set(named_variables(net))
    assert "deocc.layers.0.left.attention.query.kernel" in names
    assert not any(name.endswith(("position", "hand", "joint")) for name in names)
    jax.eval_shape(lambda: ERNet(config, rngs=nnx.Rngs(0))(jnp.zeros((1, 64, 64, 3)), hands))


def test_bfloat16_computes_with_float32_weights_and_outputs(image, hands):
    single, half = net_of(), net_of(precision="bfloat16")
    assert all(v.dtype == jnp.float32 for v in named_variables(half).values())
    expected, out = (predict(net, image, hands) for net in (single, half))
    assert out.intermediates["F"].dtype == out.intermediates["F*_h"].dtype == jnp.bfloat16
    for name in ("joint_img", "pose", "vertices", "betas"):
        value, reference = getattr(out, name), getattr(expected, name)
        assert value.dtype == jnp.float32
        assert jnp.abs(value - reference).max() < 0.1 * jnp.abs(reference).max(), name
    shapes = jax.eval_shape(*training_gradients(half, hands), image)  # gradients and statistics
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}


def test_config_from_a_config_dict():
    values = ConfigDict({"backbone": "resnet18", "feature_dim": 32})
    assert ERConfig.from_dict(values) == ERConfig(backbone="resnet18", feature_dim=32)
    with pytest.raises(ValueError, match="no key depht, widht"):
        ERConfig.from_dict({"widht": 3, "depht": 2})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_size", 100),
        ("feature_dim", 20),
        ("precision", "float16"),
        ("dropout", 1.0),
        ("deocc_depth", 0),
        ("backbone_init", "xavier"),
    ],
)
def test_impossible_configs_are_refused(field, value):
    with pytest.raises(ValueError, match=f"model.{field}"):
        ERConfig(**{field: value})
