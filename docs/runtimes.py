"""Which runtimes execute exported files: python -m docs.runtimes.

Exports one network with functions and inlined, in float32 and float16, runs the files in every
runtime that is installed, and prints the errors against float64. The inputs of the second row are
close to the weights. README's table was made with it. OpenVINO is no dependency of the package:
`pip install openvino` first.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from nmn_export import export
from nmn_export.graph.fold import fold
from nmn_export.layers import YatDense
from nmn_export.report.compare import error
from nmn_export.runtime.arrays import to_numpy
from nmn_export.runtime.onnx_reference import OnnxReferenceRunner
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from nmn_export.runtime.pytorch import TruthRunner

Run = Callable[[Path, NDArray[np.generic]], NDArray[np.generic]]


def onnx_runtime(path: Path, x: NDArray[np.generic]) -> NDArray[np.generic]:
    """Run a file in ONNX Runtime."""
    return OnnxRuntimeRunner(path).run({"x": x})["output"]


def onnx_reference(path: Path, x: NDArray[np.generic]) -> NDArray[np.generic]:
    """Run a file in the evaluator of the onnx package."""
    return OnnxReferenceRunner(onnx.load(path)).run({"x": x})["output"]


def openvino(hint: str | None) -> Run:
    """Return a call of OpenVINO on the CPU, with its default precision or another."""

    def run(path: Path, x: NDArray[np.generic]) -> NDArray[np.generic]:
        import openvino  # noqa: PLC0415 - not a dependency

        options = {} if hint is None else {"INFERENCE_PRECISION_HINT": hint}
        compiled = openvino.Core().compile_model(path, "CPU", options)
        return np.asarray(compiled([x])[0])

    return run


RUNTIMES: dict[str, Run] = {
    "onnxruntime": onnx_runtime,
    "onnx reference": onnx_reference,
    "openvino, default precision": openvino(None),
    "openvino, INFERENCE_PRECISION_HINT=f32": openvino("f32"),
}


def main() -> None:
    """Print an error, or a reason, for each runtime and file."""
    torch.manual_seed(0)
    network = nn.Sequential(YatDense(256, 64, epsilon=1e-3))
    weight = network[0].weight.detach()[:8]
    noise = 0.01 * weight.norm(dim=1, keepdim=True) / 16 * torch.randn_like(weight)
    inputs = {"random": torch.randn(8, 256), "near weights": weight + noise}
    for dtype in (torch.float32, torch.float16):
        for kind, x in inputs.items():
            array = to_numpy(x.to(dtype))
            truth = TruthRunner(fold(network, dtype)).run({"x": array})["output"]
            for inline in (False, True):
                form = "inlined" if inline else "functions"
                for name, run in RUNTIMES.items():
                    result = attempt(network, dtype, inline, run, array, truth)
                    print(f"{dtype}, {kind}, {form}, {name}: {result}")


def attempt(
    network: nn.Module,
    dtype: torch.dtype,
    inline: bool,
    run: Run,
    x: NDArray[np.generic],
    truth: NDArray[np.generic],
) -> str:
    """Return the error of a runtime, or why it does not run the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        example = {"x": torch.randn(8, 256)}
        export(network, example, path, dtype=dtype, inline=inline, check=False)
        try:
            return f"{error(run(path, x), truth):.1e}"
        except Exception as problem:  # whatever a runtime raises
            return str(problem).strip().splitlines()[-1][:100]


if __name__ == "__main__":
    main()
