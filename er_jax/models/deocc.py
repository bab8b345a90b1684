"""DeOcc: latent connections and spatial clues between the two hands."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from er_jax.models.attention import SAT
from er_jax.models.config import ERConfig
from er_jax.models.layers import LayerNorm, Linear, normal
from er_jax.models.per_hand import PerHand


class DeOcc(nnx.Module):
    """Hand embeddings, layers in which the hands look at each other, then Linear(LN(x)).

    One module for both hands. In a layer each hand sees the other's tokens as they entered it, and
    with `config.deocc_shared_weights` both look through the same weights.
    """

    def __init__(self, config: ERConfig, rngs: nnx.Rngs):
        self.hand = (
            normal((2, 1, config.feature_dim), config.embedding_std, rngs)
            if config.hand_embedding
            else nnx.data(None)
        )
        self.layers = nnx.List(
            SAT(config, rngs) if config.deocc_shared_weights else PerHand(lambda: SAT(config, rngs))
            for _ in range(config.deocc_depth)
        )
        self.norm = LayerNorm(config.feature_dim, dtype=config.dtype, rngs=rngs)
        self.linear = Linear(config.feature_dim, config.feature_dim, dtype=config.dtype, rngs=rngs)

    def __call__(
        self, tokens: Float[Array, "batch 2 tokens C"], rngs: nnx.Rngs | None = None
    ) -> tuple[Array, Array]:
        """prior_h (batch, 2, tokens, C), attention (batch, 2, depth, heads, tokens, tokens)."""
        if self.hand is not None:
            tokens = tokens + self.hand[...].astype(tokens.dtype)
        attention = []
        for layer in self.layers:
            tokens, weights = layer(tokens, tokens[:, ::-1], rngs=rngs)
            attention.append(weights)
        return self.linear(self.norm(tokens)), jnp.stack(attention, axis=2)
