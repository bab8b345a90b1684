"""From raw dataset folders to batches; of er_jax it imports utils, mano and rendering alone."""
