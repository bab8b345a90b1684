"""Multi-head attention and SAT, the attention block of the figure."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from er_jax.models.config import ERConfig
from er_jax.models.convolution import multiply
from er_jax.models.layers import MLP, LayerNorm, Linear


class Attention(nnx.Module):
    """Scaled dot-product attention (Vaswani et al., 2017): no bias on q, k, v; one on the output.

    Returns the attended tokens and the weights (*batch, heads, queries, keys), which cost nothing
    in a compiled program that does not use them.
    """

    def __init__(self, config: ERConfig, rngs: nnx.Rngs):
        features = config.feature_dim
        self.query = Linear(features, features, use_bias=False, dtype=config.dtype, rngs=rngs)
        self.key = Linear(features, features, use_bias=False, dtype=config.dtype, rngs=rngs)
        self.value = Linear(features, features, use_bias=False, dtype=config.dtype, rngs=rngs)
        self.output = Linear(features, features, dtype=config.dtype, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout)
        self.heads = config.heads

    def __call__(
        self,
        tokens: Float[Array, "*batch queries features"],
        context: Float[Array, "*batch keys features"],
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Array, Array]:
        if tokens is context:
            parts = _one_product(tokens, self.query, self.key, self.value)
        else:
            parts = [self.query(tokens), *_one_product(context, self.key, self.value)]
        query, key, value = (x.reshape(*x.shape[:-1], self.heads, -1) for x in parts)
        scores = jnp.einsum("...qhc,...khc->...hqk", query, key).astype(jnp.float32)
        weights = jax.nn.softmax(scores / query.shape[-1] ** 0.5)
        attended = jnp.einsum("...hqk,...khc->...qhc", weights.astype(value.dtype), value)
        return self.dropout(self.output(attended.reshape(tokens.shape)), rngs=rngs), weights


def _one_product(inputs: Array, *layers: Linear) -> list[Array]:
    """Applies linear layers without bias to the same inputs, as one product instead of many."""
    dtype = layers[0].dtype
    kernel = jnp.concatenate([layer.kernel[...].astype(dtype) for layer in layers], axis=-1)
    return jnp.split(multiply(inputs.astype(dtype), kernel), len(layers), axis=-1)


class SAT(nnx.Module):
    """Pre-norm attention block: x + Attention(LN(x), LN(other)), then x + MLP(LN(x)).

    Self-attention, where no other tokens are given to look at.
    """

    def __init__(self, config: ERConfig, rngs: nnx.Rngs):
        self.attention_norm = LayerNorm(config.feature_dim, dtype=config.dtype, rngs=rngs)
        self.attention = Attention(config, rngs)
        self.mlp_norm = LayerNorm(config.feature_dim, dtype=config.dtype, rngs=rngs)
        self.mlp = mlp(config, rngs)

    def __call__(
        self,
        tokens: Float[Array, "*batch tokens features"],
        other: Float[Array, "*batch others features"] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Array, Array]:
        normed = self.attention_norm(tokens)
        context = normed if other is None else self.attention_norm(other)
        attended, weights = self.attention(normed, context, rngs)
        tokens = tokens + attended
        return tokens + self.mlp(self.mlp_norm(tokens), rngs), weights


def mlp(config: ERConfig, rngs: nnx.Rngs) -> MLP:
    """The MLP of every transformer block of the network."""
    return MLP(
        config.feature_dim,
        config.mlp_ratio,
        dropout=config.dropout,
        dtype=config.dtype,
        rngs=rngs,
    )
