"""The command line: all commands, their exit codes and errors."""

import contextlib
import errno
import signal
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
from nmn_export.cli.signals import Stopped, stopped_in_one_line
from nmn_export.cli.terminal import drop, flush
from nmn_export.errors import NmnExportError

app = typer.Typer(
    help="Export networks of ⵟ-product layers from PyTorch to ONNX, and verify the results.",
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


_WORK = {
    "export": ("export", "; nothing was written"),
    "run": ("run", "; nothing was written"),
    "check": ("check", ""),
    "bench": ("benchmark", ""),
    "inspect": ("inspection", ""),
    "doctor": ("examination", ""),
    "build": ("build", "; nothing was written"),
    "kernels": ("compilation of kernels", ""),
}
"""For each command: the name of its work, and what a stop means for the results."""

_BROKEN_PIPE = 128 + signal.SIGPIPE
"""The exit code of other tools for a broken pipe."""


def main() -> None:
    """Run the command line. User errors are one line on standard error."""
    work = _WORK.get(sys.argv[1] if len(sys.argv) > 1 else "", ("command", ""))
    try:
        with stopped_in_one_line(*work):
            _run()
    except (NmnExportError, Stopped) as error:
        with contextlib.suppress(OSError):
            print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _run() -> None:
    """Run the command and flush its output."""
    try:
        try:
            app()
        finally:
            flush()
    except BrokenPipeError:
        sys.exit(_BROKEN_PIPE)
    except SystemExit as ended:
        # Typer and Rich exit with 1, which means a failed check here.
        if isinstance(ended.__context__, BrokenPipeError):
            drop()
            sys.exit(_BROKEN_PIPE)
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        drop()
        raise NmnExportError(
            "There must be disk space for the output and the temporary files of a command",
            got=error.strerror,
            fix="Free some space, or choose another folder.",
        ) from error
