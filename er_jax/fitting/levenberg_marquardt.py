"""Nonlinear least squares by Levenberg–Marquardt, for many small problems in lockstep."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

HIGHEST = lax.Precision.HIGHEST
SMALL_DAMPING = 1e-2  # above it a step may gain little because it is short
FIRST_DAMPING = 1e-3
LEAST_DAMPING, MOST_DAMPING = 1e-7, 1e7


class Terms(NamedTuple):
    """What is known at a position."""

    residuals: Float[Array, " r"]
    """Their derivatives' products with themselves and with these are the cost's derivatives."""
    cost: Float[Array, ""]
    """Half the sum of squares; of robust losses, their sum."""
    outputs: Float[Array, " m"]
    """Other values whose derivatives are wanted at the end."""


class Minimum(NamedTuple):
    """Where the sum of squares is least, as far as it was found."""

    position: Float[Array, " n"]
    cost: Float[Array, ""]
    """As of `Terms`."""
    normal: Float[Array, "n n"]
    """JᵀJ there: the inverse of the position's covariance, if residuals have variance 1."""
    outputs: Float[Array, " m"]
    """As of `Terms`."""
    output_jacobian: Float[Array, "m n"]
    steps: Int[Array, ""]


def minimize(
    function: Callable[[Float[Array, " n"]], Terms],
    start: Float[Array, " n"],
    *,
    most_steps: int,
    tolerance: float = 1e-3,
) -> Minimum:
    """Minimizes a sum of squares, or of robust losses by weights, from a start.

    Damping scales with the diagonal of JᵀJ (Marquardt 1963). It ends when a step that was
    hardly damped lowers the cost by less than `tolerance` of it, or when no step lowers it. Under
    `jax.vmap` all problems go on until the last one has ended; those that have keep their result.

    Args:
      function: of a position.
      start: position.
      most_steps: evaluations of the function and its derivatives.
      tolerance: see above.
    """
    count = start.shape[0]

    @partial(jax.jit, inline=True)  # traced once for both of its uses
    def linearized(position: Array) -> tuple[Minimum, Array]:
        def twice(position: Array) -> tuple[tuple[Array, Array], Terms]:
            terms = function(position)
            return (terms.residuals, terms.outputs), terms

        (of_residuals, of_outputs), terms = jax.jacfwd(twice, has_aux=True)(position)
        minimum = Minimum(
            position=position,
            cost=terms.cost,
            normal=jnp.dot(of_residuals.T, of_residuals, precision=HIGHEST),
            outputs=terms.outputs,
            output_jacobian=of_outputs,
            steps=jnp.asarray(0),
        )
        return minimum, jnp.dot(terms.residuals, of_residuals, precision=HIGHEST)

    def body(state):
        (best, gradient), damping, step, _ = state
        there = linearized(best.position - step)
        better = there[0].cost < best.cost  # not where it is not a number
        gain = best.cost - there[0].cost
        ended = better & (gain < tolerance * best.cost) & (damping < SMALL_DAMPING)
        damping = jnp.where(better, jnp.maximum(damping / 5, LEAST_DAMPING), damping * 8)
        kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), there, (best, gradient))
        kept = (kept[0]._replace(steps=best.steps + 1), kept[1])
        normal, gradient = kept[0].normal, kept[1]
        scale = jnp.maximum(jnp.diag(normal), LEAST_DAMPING)
        factor = jax.scipy.linalg.cho_factor(normal + jnp.diag(damping * scale))
        step = jax.scipy.linalg.cho_solve(factor, gradient)
        return kept, damping, step, ended | (damping > MOST_DAMPING)

    def going_on(state):
        return ~state[3] & (state[0][0].steps < most_steps)

    # The first turn of the loop evaluates the start, so that the function is compiled once.
    shapes = jax.eval_shape(linearized, start)
    nowhere = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    nowhere = (
        nowhere[0]._replace(position=start, cost=jnp.asarray(jnp.inf, start.dtype)),
        nowhere[1],
    )
    first = (nowhere, jnp.asarray(FIRST_DAMPING, start.dtype), jnp.zeros(count), jnp.asarray(False))
    # Under `jax.vmap` a body is gone over until all is known that differs between problems: so all
    # of its state does from the start.
    zero = 0 * start[0]
    first = jax.tree.map(lambda x: x + zero.astype(x.dtype), first)
    return lax.while_loop(going_on, body, first)[0][0]
