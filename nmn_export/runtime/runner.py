"""The interface of all runtimes."""

from typing import Protocol

from nmn_export.runtime.arrays import Arrays


class Runner(Protocol):
    """A model that is ready to run in one runtime."""

    name: str

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs for `inputs`, both by their names in the graph."""
        ...
