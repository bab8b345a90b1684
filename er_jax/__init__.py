"""Two interacting hands in 3D from one RGB image: the ER network in JAX.

A folder imports only from those before it: utils, mano, rendering, (data_pipeline,) models,
supervision, inference, evaluation, training, report, commands.
"""

from er_jax.utils.xla_cpu import avoid_wrong_reductions

avoid_wrong_reductions()  # before JAX is used, wherever the package is imported
