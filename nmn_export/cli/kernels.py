"""`nmn-export kernels build`: the fused kernels, compiled ahead of time."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from nmn_export.cli.terminal import err, out
from nmn_export.errors import NmnExportError


def build(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    arch: Annotated[
        str, typer.Option(help="Compute capabilities, without the dot, separated by commas.")
    ] = "80,86,89,90,100,120",
) -> None:
    """Compile the fused kernels ahead of time: cubins, PTX for newer chips, a manifest.

    Needs Triton and no GPU. Exit code 1 if a kernel spills registers beyond the budget, could race
    with its own copies, or does not use the tensor cores it should.
    """
    try:
        from nmn_export.kernels.ahead_of_time import build as ahead_of_time  # noqa: PLC0415 - an extra; its absence is a message
    except ImportError as error:
        raise NmnExportError(
            "Compiling kernels needs Triton",
            got="no package triton",
            fix="Run: pip install 'nmn-export[gpu]'",
        ) from error
    if not all(part.isdigit() for part in arch.split(",")):
        raise NmnExportError(
            "--arch is a list of compute capabilities", got=arch, fix="Say, for instance, 80,90."
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
