"""Parts of a network that are not trained."""

import re
from collections.abc import Sequence

from flax import nnx

from er_jax.models.layers import BatchNorm
from er_jax.utils.errors import ConfigError


class Frozen(nnx.BatchStat):
    """A weight that is not trained.

    It is state that a training step carries along unchanged, so it is kept with the running
    statistics: no gradient is taken of it and no optimizer state is made for it.
    """


def freeze(net: nnx.Module, patterns: Sequence[str]) -> None:
    """Turns parameters, in place, into `Frozen` weights; their batch norms keep their statistics.

    Args:
      net: a network that is being made.
      patterns: regular expressions; a parameter is frozen if one matches the beginning of its
          dotted name, as in `backbone.layer1.0.conv1.kernel` (see `params.named_variables`).

    Raises:
      ConfigError: a pattern matches no parameter; the message names the network's parts.
    """
    unused = set(patterns)
    parts = set()
    for path, module in nnx.iter_modules(net):
        for field, value in vars(module).items():
            if not isinstance(value, nnx.Param):
                continue
            name = ".".join(map(str, (*path, field)))
            parts.add(name.split(".")[0])
            if matching := {pattern for pattern in patterns if re.match(pattern, name)}:
                unused -= matching
                setattr(module, field, Frozen(value[...]))
                if isinstance(module, BatchNorm):
                    module.frozen = True
    if unused:
        raise ConfigError(
            f"model.frozen: {', '.join(sorted(unused))} matches no parameter; parameters' names "
            f"begin with {', '.join(sorted(parts))}"
        )
