"""The command that prints a table of a network's modules."""

from ml_collections import ConfigDict
from rich.console import Console

from er_jax.commands.logs import quieten_libraries
from er_jax.inference.describe import describe
from er_jax.mano import load_hands
from er_jax.models import ERConfig


def run_description(config: ConfigDict) -> None:
    """Prints a table of the network's modules (see `describe`), at the config's batch."""
    quieten_libraries()
    net_config = ERConfig.from_dict(config.model)
    Console().print(describe(net_config, load_hands(config.mano_dir), batch=config.batch_size))
