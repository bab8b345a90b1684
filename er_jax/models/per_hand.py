"""Two modules of one kind, one a hand, on arrays with a hand axis."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


class PerHand(nnx.Module):
    """Applies to each hand a module with weights of its own.

    Array arguments and outputs are (batch, 2, …), index 0 the right hand; keyword arguments go to
    both modules as they are.
    """

    def __init__(self, make: Callable[[], nnx.Module]):
        self.right = make()
        self.left = make()

    def __call__(self, *inputs: Array, **shared):
        right = self.right(*(array[:, 0] for array in inputs), **shared)
        left = self.left(*(array[:, 1] for array in inputs), **shared)
        return jax.tree.map(lambda *pair: jnp.stack(pair, axis=1), right, left)
