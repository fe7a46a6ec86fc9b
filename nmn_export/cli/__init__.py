"""The command line: one command a verb, each a call of the package."""

from nmn_export.cli.commands import app, main

__all__ = ["app", "main"]
