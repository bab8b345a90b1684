"""A network in the place of ER that compiles in seconds: for tests of what is around a network."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from er_jax.models import Prediction
from er_jax.models.layers import BatchNorm, Linear


class Pooled(nnx.Module):
    """From the mean colours of the image's quarters to numbers in the shapes of a prediction."""

    SHAPES = {  # noqa: RUF012
        "rel_trans": (3,),
        "joint_img": (2, 21, 3),
        "rotations": (2, 16, 3, 3),
        "pose": (2, 48),
        "betas": (2, 10),
        "camera": (2, 3),
        "vertices": (2, 778, 3),
        "joints": (2, 21, 3),
        "joint_proj": (2, 21, 2),
        "joint_spread": (2, 21),
        "presence_logit": (2,),
    }

    def __init__(self, config, *, rngs):
        size = sum(int(np.prod(shape)) for shape in self.SHAPES.values())
        self.first = Linear(12, 8, use_bias=False, dtype=config.dtype, rngs=rngs)
        self.norm = BatchNorm(8, axis_name=config.batch_norm_axis, dtype=config.dtype)
        self.second = Linear(8, size, dtype=config.dtype, rngs=rngs)

    def __call__(self, image, hands, *, rngs=None):
        half = image.shape[1] // 2
        quarters = image.reshape(-1, 2, half, 2, half, 3).mean((2, 4)).reshape(-1, 12)
        flat = self.second(jax.nn.relu(self.norm(self.first(quarters))))
        ends = np.cumsum([int(np.prod(shape)) for shape in self.SHAPES.values()])
        parts = jnp.split(flat, ends[:-1], axis=-1)
        named = zip(self.SHAPES.items(), parts, strict=True)
        return Prediction(**{name: x.reshape(-1, *shape) for (name, shape), x in named})
