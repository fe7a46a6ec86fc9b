"""`nmn-export run`: run a file on given inputs."""

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nmn_export import api
from nmn_export.cli.arguments import ModelFile, PluginLibrary, Provider, read_npz
from nmn_export.cli.terminal import err, out
from nmn_export.graph.file import load, staged
from nmn_export.runtime.inputs import to_dtypes, to_model_dtypes
from nmn_export.runtime.tensorrt import TensorRtRunner, is_engine


def run(
    model: ModelFile,
    inputs: Annotated[Path, typer.Option(help=".npz with an array per input.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".npz to write.")],
    provider: Provider = "cpu",
    plugin_library: PluginLibrary = None,
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph", help="Replay an engine as a CUDA graph.")
    ] = False,
) -> None:
    """Run a file in ONNX Runtime, or an engine in TensorRT.

    NumPy files cannot hold bfloat16. Such inputs are read as float32 and converted, and such
    outputs are written as float32.
    """
    arrays = read_npz(inputs)
    with err.status(f"running {model}"):
        if is_engine(model):
            runner = TensorRtRunner(model, cuda_graph=cuda_graph, plugin_library=plugin_library)
            outputs = runner.run(to_dtypes(runner.inputs, arrays))
        else:
            outputs = api.run(model, to_model_dtypes(load(model), arrays), provider)
    named = {
        k: v.astype(np.float32) if v.dtype.name == "bfloat16" else v for k, v in outputs.items()
    }
    # On a full disk NumPy leaves an archive open, which raises again when it is garbage-collected.
    content = io.BytesIO()
    np.savez(content, **named)  # type: ignore[arg-type]
    with staged(output) as file:
        file.write_bytes(content.getbuffer())
    for name, array in named.items():
        out.print(f"{name}: {array.dtype} {'x'.join(map(str, array.shape))}")
    out.print(f"wrote {output}", soft_wrap=True)
