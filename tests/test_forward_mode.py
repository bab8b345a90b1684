"""The whole network in forward mode: against its reverse mode and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from er_jax.mano import load_hands
from er_jax.models import ERConfig, ERNet

TINY = {"input_size": 64, "feature_dim": 16, "heads": 2, "depth_bins": 4}
TINY |= {"desim_depth": 1, "deocc_depth": 1, "fusejoint_depth": 1}
FIELDS = ("vertices", "joints", "rel_trans", "joint_img", "joint_proj", "betas", "pose")


@pytest.mark.parametrize(
    "backbone",
    [
        {"backbone": "resnet18", "backbone_width": 8},
        pytest.param({"backbone": "tinyvit5m"}, marks=pytest.mark.slow),
    ],
    ids=["resnet", "tinyvit"],
)
def test_forward_mode(backbone):
    net = ERNet(ERConfig(**TINY, **backbone), rngs=nnx.Rngs(0))
    net.eval()
    hands = load_hands(None)
    structure, params, rest = nnx.split(net, nnx.Param, ...)
    random = np.random.default_rng(0)
    image = jnp.asarray(random.uniform(size=(2, 64, 64, 3)), jnp.float32)

    def outputs(params, image):
        prediction = nnx.merge(structure, params, rest)(image, hands)
        return {field: getattr(prediction, field) for field in FIELDS}

    def like(tree, size):
        return jax.tree.map(lambda x: jnp.asarray(random.normal(0, size, x.shape), x.dtype), tree)

    primals, step = (params, image), (like(params, 0.01), like(image, 0.1))

    @jax.jit
    def both_modes(primals, step, weights):
        _, forward = jax.jvp(outputs, primals, step)
        _, pullback = jax.vjp(outputs, *primals)
        return forward, pullback(weights)

    weights = like(jax.eval_shape(outputs, *primals), 1.0)
    forward, backward = both_modes(primals, step, weights)
    along = sum(jnp.vdot(weights[field], forward[field]) for field in FIELDS)
    against = sum(
        jnp.vdot(a, b)
        for a, b in zip(jax.tree.leaves(backward), jax.tree.leaves(step), strict=True)
    )
    np.testing.assert_allclose(along, against, rtol=1e-3)

    evaluate = jax.jit(outputs)
    there, back = (
        evaluate(*jax.tree.map(lambda x, d, s=sign: x + s * 0.02 * d, primals, step))
        for sign in (1, -1)
    )
    for field in FIELDS:
        difference = np.asarray(there[field] - back[field]) / 0.04
        error = np.linalg.norm(difference - forward[field]) / np.linalg.norm(forward[field])
        assert error < 0.05, field
