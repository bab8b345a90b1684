"""Readers: from a dataset as it is published to a request for its records.

A reader is a module of this package, named as the dataset is on the command line; what is here is
found, so that adding one changes no other file. It holds what `Reader` asks for. Its `make_request`
returns a `BuildRequest`, whose `read_split` gives a table of records: most readers make a list of
`ImageLabels` and call `table_of` (`data_pipeline.build.labels`).
"""

import argparse
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Protocol, cast

from data_pipeline.build.request import BuildRequest


class Reader(Protocol):
    """The functions and the constant that a reader's module has."""

    HELP: str
    """What it reads, in a few words."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options of this dataset; of what every one has, another of that name."""

    def make_request(self, options: argparse.Namespace) -> BuildRequest:
        """Returns the request that the command's options make.

        Raises:
          DataError: what the options name is not there.
        """
        ...


def all_readers() -> Mapping[str, Reader]:
    """Returns the readers by the names of their datasets."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: cast(Reader, importlib.import_module(f"{__name__}.{name}")) for name in names}
