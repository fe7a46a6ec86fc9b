"""`nmn-export bench`: compare the speed of files."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import Progress

from nmn_export import api
from nmn_export.cli.arguments import Json, PluginLibrary, read_npz
from nmn_export.cli.terminal import err, out
from nmn_export.report import render


def bench(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES...",
            help="ONNX files and engines of the same network. The first is the baseline.",
        ),
    ],
    inputs: Annotated[
        Path | None, typer.Option(help=".npz file with an array per input. Default: random inputs.")
    ] = None,
    provider: Annotated[
        Literal["cpu", "cuda"] | None,
        typer.Option(help="ONNX Runtime's provider. Default: cuda with an engine, else cpu."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Number of measurements per file.")] = 50,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest error relative to the first file; inf for files that differ on purpose."
        ),
    ] = None,
    cuda_graph: Annotated[bool, typer.Option(help="Replay engines as CUDA graphs.")] = True,
    plugin_library: PluginLibrary = None,
    as_json: Json = False,
) -> None:
    """Compare outputs, then time the files alternately; exit code 1 if outputs disagree.

    Times are ratios to the first file. Times in seconds are printed for a GPU only.
    """
    arrays = None if inputs is None else read_npz(inputs)
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        bar = progress.add_task("timing", total=rounds)
        result = api.bench(
            files,
            arrays,
            provider=provider,
            rounds=rounds,
            tolerance=tolerance,
            cuda_graph=cuda_graph,
            plugin_library=plugin_library,
            on_round=lambda: progress.advance(bar),
        )
    if as_json:
        print(render.bench_json(result))
        return
    out.print(render.bench_table(result))
    for note in render.bench_notes(result):
        out.print(note, markup=False, soft_wrap=True)
