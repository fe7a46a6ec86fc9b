"""Write what `rtx_offline measure` builds engines of: python -m benchmarks.rtx_subjects FOLDER.

Each subject is an ONNX file with a dynamic batch, and an .npz file with inputs, the outputs in
float64, and the largest error that passes.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contestants import linear_twin
from nmn_export import adapt, export
from nmn_export.graph.fold import fold
from nmn_export.layers import YatDense
from nmn_export.models import aether_resnet18
from nmn_export.report.compare import EAGER_FACTOR, TOLERANCES, error
from nmn_export.runtime.arrays import to_numpy
from nmn_export.runtime.pytorch import EagerRunner, TruthRunner


class Layer(nn.Module):
    """A network of one layer, whose input is called `x`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the layer."""
        result: Tensor = self.layer(x)
        return result


def write_subject(folder: Path, name: str, model: nn.Module, x: Tensor, dtype: str) -> None:
    """Write NAME.onnx and NAME.npz.

    Args:
        folder: Folder of both.
        name: Of the subject.
        model: Its one input is called `x`.
        x: Inputs in float32.
        dtype: The dtype to convert the model to.
    """
    model = model.eval()
    export(model, x, folder / f"{name}.onnx", dynamic_shapes={"x": {0: "batch"}}, dtype=dtype)
    torch_dtype = getattr(torch, dtype)
    folded = fold(adapt(model), torch_dtype)
    inputs = {"x": to_numpy(x.to(torch_dtype))}
    (truth,) = TruthRunner(folded).run(inputs).values()
    (eager,) = EagerRunner(folded).run(inputs).values()
    limit = max(TOLERANCES[dtype], EAGER_FACTOR * error(eager, truth))
    np.savez(folder / f"{name}.npz", x=inputs["x"], truth=truth, limit=limit)


def subjects() -> dict[str, tuple[nn.Module, Tensor, str]]:
    """Return network, inputs and dtype of every subject by name."""
    torch.manual_seed(0)
    layers = {"linear-layer": nn.Linear(64, 32), "dense-layer": YatDense(64, 32)}
    named: dict[str, tuple[nn.Module, Tensor, str]] = {
        name: (Layer(layer), torch.randn(4, 64), "float32") for name, layer in layers.items()
    }
    network, images = aether_resnet18(), torch.randn(8, 3, 224, 224)
    for dtype in ("float32", "float16"):
        named[f"resnet18-{dtype}"] = network, images, dtype
        named[f"resnet18-linear-{dtype}"] = linear_twin(network), images, dtype
    return named


def main(folder: Path) -> None:
    """Write every subject, in place of earlier ones."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, subject in subjects().items():
        write_subject(folder, name, *subject)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
