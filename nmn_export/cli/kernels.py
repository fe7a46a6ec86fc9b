"""`nmn-export kernels build`: compile the fused kernels ahead of time."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from nmn_export.cli.terminal import err, out
from nmn_export.errors import NmnExportError


def build(
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.")],
    arch: Annotated[
        str, typer.Option(help="Compute capabilities, without the dot, separated by commas.")
    ] = "80,86,89,90,100,120",
) -> None:
    """Compile the fused kernels ahead of time: cubins, PTX for newer GPUs, a manifest.

    Needs Triton, but no GPU. Exit code 1 if a kernel spills too many registers, has a race between
    copies and products, or does not use the expected tensor cores.
    """
    try:
        from nmn_export.kernels.ahead_of_time import build as ahead_of_time  # noqa: PLC0415 - an optional dependency, reported if missing
    except ImportError as error:
        raise NmnExportError(
            "Compiling kernels needs Triton",
            got="no package triton",
            fix="Run: pip install 'nmn-export[gpu]'",
        ) from error
    if not all(part.isdigit() for part in arch.split(",")):
        raise NmnExportError(
            "--arch is a list of compute capabilities", got=arch, fix="Pass, for example, 80,90."
        )
    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("compiling")
        manifest = ahead_of_time.build(
            [int(part) for part in arch.split(",")],
            output,
            lambda done, total, name: bar.update(
                task, completed=done, total=total, description=name
            ),
        )
    out.print(f"wrote {len(manifest.kernels)} cubins and {len(manifest.ptx)} PTX to {output}")
