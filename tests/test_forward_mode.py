"""The whole network in forward mode: against its reverse mode and finite differences, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from er_jax.mano import load_hands
from er_jax.models import ERConfig, ERNet
from er_jax.models.config import PRECISIONS

TINY = {"input_size": 64, "feature_dim": 16, "heads": 2, "depth_bins": 4}
TINY |= {"desim_depth": 1, "deocc_depth": 1, "fusejoint_depth": 1}
FIELDS = ("vertices", "joints", "rel_trans", "joint_img", "joint_proj", "betas", "pose")
STEP = 1e-6


@pytest.mark.slow  # a minute of compilation
@pytest.mark.parametrize(
    "backbone",
    [
        {"backbone": "resnet18", "backbone_width": 8},
        {"backbone": "tinyvit5m"},
    ],
    ids=["resnet", "tinyvit"],
)
def test_forward_mode(backbone, monkeypatch):
    """Gradients that are stopped flow here: finite differences know nothing of stopping."""
    monkeypatch.setitem(PRECISIONS, "float32", jnp.float64)
    monkeypatch.setattr(jnp, "float32", jnp.float64)
    monkeypatch.setattr(jax.lax, "stop_gradient", lambda x: x)
    random = np.random.default_rng(0)

    def like(tree, size):
        return jax.tree.map(lambda x: jnp.asarray(random.normal(0, size, x.shape)), tree)

    with jax.enable_x64(True):
        net = ERNet(ERConfig(**TINY, **backbone), rngs=nnx.Rngs(0))
        net.eval()
        hands, structure, params, rest = jax.tree.map(
            lambda x: x.astype(float) if x.dtype == np.float32 else x,
            (load_hands(None), *nnx.split(net, nnx.Param, ...)),
        )
        image = jnp.asarray(random.uniform(size=(2, 64, 64, 3)))
        # Biases of zero leave ReLUs at their kink wherever their inputs are all zero.
        params = jax.tree.map(jnp.add, params, like(params, 0.02))

        @jax.jit
        def outputs(params, image):
            prediction = nnx.merge(structure, params, rest)(image, hands)
            return {field: getattr(prediction, field) for field in FIELDS}

        point, direction = (params, image), (like(params, 0.01), like(image, 0.1))
        output, forward = jax.jvp(outputs, point, direction)
        assert {x.dtype for x in output.values()} == {jnp.dtype("float64")}

        weights = like(output, 1.0)
        backward = jax.vjp(outputs, *point)[1](weights)
        along = sum(jnp.vdot(weights[field], forward[field]) for field in FIELDS)
        pairs = zip(jax.tree.leaves(backward), jax.tree.leaves(direction), strict=True)
        np.testing.assert_allclose(along, sum(jnp.vdot(a, b) for a, b in pairs), rtol=1e-9)

        there, back = (
            outputs(*jax.tree.map(lambda x, d, s=sign: x + s * STEP * d, point, direction))
            for sign in (1, -1)
        )
        for field in FIELDS:
            difference = (there[field] - back[field]) / (2 * STEP)
            error = jnp.linalg.norm(difference - forward[field]) / jnp.linalg.norm(forward[field])
            assert error < 1e-5, (field, error)
