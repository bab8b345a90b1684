"""DeSim: a hand's tokens, freed of the appearance that it shares with the other hand."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from er_jax.models.attention import SAT, mlp
from er_jax.models.config import ERConfig
from er_jax.models.layers import LayerNorm, Linear, normal


class DeSim(nnx.Module):
    """Position embedding, SAT blocks, Linear, then x + MLP(LN(x))."""

    def __init__(self, config: ERConfig, rngs: nnx.Rngs):
        shape = (config.grid**2, config.feature_dim)
        self.position = (
            normal(shape, config.embedding_std, rngs)
            if config.position_embedding
            else nnx.data(None)
        )
        self.blocks = nnx.List(SAT(config, rngs) for _ in range(config.desim_depth))
        self.linear = Linear(config.feature_dim, config.feature_dim, dtype=config.dtype, rngs=rngs)
        self.norm = LayerNorm(config.feature_dim, dtype=config.dtype, rngs=rngs)
        self.mlp = mlp(config, rngs)

    def __call__(
        self, tokens: Float[Array, "batch tokens C"], rngs: nnx.Rngs | None = None
    ) -> tuple[Array, Array]:
        """F*_h (batch, tokens, C) and attention weights (batch, depth, heads, tokens, tokens)."""
        if self.position is not None:
            tokens = tokens + self.position[...].astype(tokens.dtype)
        attention = []
        for block in self.blocks:
            tokens, weights = block(tokens, rngs=rngs)
            attention.append(weights)
        tokens = self.linear(tokens)
        return tokens + self.mlp(self.norm(tokens), rngs), jnp.stack(attention, axis=1)
