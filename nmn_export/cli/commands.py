"""The commands, put together."""

import sys

import typer

from nmn_export.cli.bench import bench
from nmn_export.cli.build import build_engine
from nmn_export.cli.check import check
from nmn_export.cli.doctor import doctor
from nmn_export.cli.export import export
from nmn_export.cli.inspect import inspect
from nmn_export.cli.kernels import build as build_kernels
from nmn_export.cli.run import run
from nmn_export.cli.signals import Stopped
from nmn_export.errors import NmnExportError

app = typer.Typer(
    help="Take networks of ⵟ-product layers from PyTorch to ONNX, and know the numbers are right.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for verb in (export, run, check, bench, inspect, doctor):
    app.command()(verb)
app.command("build")(build_engine)

kernels = typer.Typer(help="The fused GPU kernels.", no_args_is_help=True)
kernels.command()(build_kernels)
app.add_typer(kernels, name="kernels")


def main() -> None:
    """Run the command line; what a user can mend is one line on standard error."""
    try:
        app()
    except (NmnExportError, Stopped) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
