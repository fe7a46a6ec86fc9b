"""What every runtime offers."""

from typing import Protocol

from nmn_export.runtime.arrays import Arrays


class Runner(Protocol):
    """One model, ready to run in one runtime."""

    name: str

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs for `inputs`, both by the names they have in the graph."""
        ...
