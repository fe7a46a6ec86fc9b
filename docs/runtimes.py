"""Print which runtimes execute an exported file, and their errors: the table of the README.

Needs this package with its extra `cpu`, and the other runtimes
(`pip install openvino opencv-python-headless tract`). Why one failed is printed to stderr.
"""

import sys
import tempfile
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path

import numpy as np
import torch
from torch import nn

import nmn_export
from nmn_export.graph.file import load
from nmn_export.graph.fold import fold
from nmn_export.layers import YatConv2d, YatDense
from nmn_export.models import AetherResNet, BasicBlock
from nmn_export.runtime.onnx_reference import OnnxReferenceRunner
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from nmn_export.runtime.pytorch import TruthRunner

Run = Callable[[Path, np.ndarray], np.ndarray]


def onnx_runtime(file: Path, x: np.ndarray) -> np.ndarray:
    """Run with this package's own runner."""
    return OnnxRuntimeRunner(file).run({"x": x})["output"]


def onnx_reference(file: Path, x: np.ndarray) -> np.ndarray:
    """Run with this package's own runner."""
    return OnnxReferenceRunner(load(file)).run({"x": x})["output"]


def openvino(**options: str) -> Run:
    """Return a function that runs a file in OpenVINO on the CPU, with these options."""

    def run(file: Path, x: np.ndarray) -> np.ndarray:
        core = import_module("openvino").Core()
        return core.compile_model(file, "CPU", options)([x])[0]

    return run


def opencv(file: Path, x: np.ndarray) -> np.ndarray:
    """Run in the module `dnn`."""
    network = import_module("cv2").dnn.readNetFromONNX(str(file))
    network.setInput(x)
    return network.forward()


def tract(file: Path, x: np.ndarray) -> np.ndarray:
    """Run without optimisation options."""
    model = import_module("tract").onnx().load(str(file)).into_model()
    return model.into_runnable().run([x])[0].to_numpy()


RUNTIMES: dict[str, tuple[str, Run]] = {
    "ONNX Runtime": ("onnxruntime", onnx_runtime),
    "onnx reference evaluator": ("onnx", onnx_reference),
    "OpenVINO": ("openvino", openvino()),
    "OpenVINO, EXECUTION_MODE_HINT=ACCURACY": (
        "openvino",
        openvino(EXECUTION_MODE_HINT="ACCURACY"),
    ),
    "OpenCV": ("opencv-python-headless", opencv),
    "tract": ("tract", tract),
}


def subjects() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """Return networks with an input, the last one within 1 % of the weights of its layer."""
    torch.manual_seed(0)
    convs = nn.Sequential(YatConv2d(4, 6, 3, padding=1), YatConv2d(6, 6, 3, groups=2))
    resnet = AetherResNet(BasicBlock, (1, 2), 5, "cifar", widths=(4, 6)).eval()
    near = YatDense(64, 16)
    noise = 0.01 * near.weight.detach().std() * torch.randn(16, 64)
    return {
        "dense": (nn.Sequential(YatDense(32, 16), YatDense(16, 8)), torch.randn(4, 32)),
        "convolutions": (convs, torch.randn(2, 4, 9, 9)),
        "AetherResNet": (resnet, torch.randn(2, 3, 12, 12)),
        "near the weights": (near, near.weight.detach() + noise),
    }


def error(run: Run, subject: str, dtype: torch.dtype, inline: bool) -> float:
    """Return the largest |y − t| / (|t| + rms(t)), t being float64 truth; NaN if nothing ran."""
    model, x = subjects()[subject]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        nmn_export.export(model, {"x": x}, file, dtype=dtype, inline=inline, check=False)
        array = x.to(dtype).numpy()
        truth = TruthRunner(fold(model, dtype)).run({"x": array})["output"]
        try:
            y = np.asarray(run(file, array), np.float64).reshape(truth.shape)
        except Exception as failure:  # of any kind: the runtimes have no common one
            print(f"{subject}, {dtype}, inline {inline}: {failure!r:.300}", file=sys.stderr)
            return np.nan
        return np.max(abs(y - truth) / (abs(truth) + np.sqrt(np.mean(truth**2))))


print(
    "| on the CPU | with functions | `--inline` | float32 | float16 | float32, near the weights |"
)
print("|---|---|---|---|---|---|")
*networks, near = subjects()
for name, (package, run) in RUNTIMES.items():
    plain, inlined, half = (
        max(error(run, network, dtype, inline) for network in networks)
        for dtype, inline in (
            (torch.float32, False),
            (torch.float32, True),
            (torch.float16, True),
        )
    )
    runs = ["no" if np.isnan(e) else "yes" for e in (plain, inlined)]
    errors = [f"{e:.0e}" for e in (inlined, half, error(run, near, torch.float32, True))]
    print("|", " | ".join([f"{name} {metadata.version(package)}", *runs, *errors]), "|", flush=True)
