"""Configs of runs, each a file with one `get_config()`; installed as `er_jax.configs`."""
