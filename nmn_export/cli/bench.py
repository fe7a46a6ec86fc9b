"""`nmn-export bench`: files are timed against each other."""

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
            help="ONNX files and engines that compute the same; the first is the measure.",
        ),
    ],
    inputs: Annotated[
        Path | None, typer.Option(help=".npz with an array for each input; drawn otherwise.")
    ] = None,
    provider: Annotated[
        Literal["cpu", "cuda"] | None,
        typer.Option(help="Where ONNX Runtime runs; by default the GPU if there is an engine."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Turns of each file.")] = 50,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest error against the first file; inf for files that are meant to differ."
        ),
    ] = None,
    cuda_graph: Annotated[bool, typer.Option(help="Replay engines as CUDA graphs.")] = True,
    plugin_library: PluginLibrary = None,
    as_json: Json = False,
) -> None:
    """Time files in turn, in one run, once their outputs agree; exit code 1 if they do not.

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
