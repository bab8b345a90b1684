"""Interacting hands in 3D from RGB images: the ER network in JAX, and photographs in, hands out.

    import er_jax
    result = er_jax.reconstruct("photo.jpg")

A folder imports only from those before it: utils, mano, rendering, (data_pipeline,) models,
supervision, inference, evaluation, detection, fitting, training, photographs, video,
(bulk, viewer, web, report,) commands.
"""

from typing import TYPE_CHECKING, Any

from er_jax.utils.xla_cpu import avoid_wrong_reductions

if TYPE_CHECKING:
    from er_jax.photographs.load import load as load
    from er_jax.photographs.load import reconstruct as reconstruct

__all__ = ["load", "reconstruct"]

avoid_wrong_reductions()  # before JAX is used, wherever the package is imported


def __getattr__(name: str) -> Any:
    """Loads what people call when it is asked for: parts of the package do without it."""
    if name in __all__:
        from er_jax.photographs import load as module

        return getattr(module, name)
    raise AttributeError(f"module 'er_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
