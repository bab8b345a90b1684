"""The ER network: `ERNet(ERConfig(...), rngs=...)`."""

from er_jax.models.config import ERConfig
from er_jax.models.er import ERNet, Prediction

__all__ = ["ERConfig", "ERNet", "Prediction"]
