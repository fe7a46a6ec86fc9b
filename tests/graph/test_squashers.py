from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from nmn_export import export, run
from nmn_export.graph.capture import capture
from nmn_export.layers import YatDense, softermax
from nmn_export.runtime.arrays import to_numpy, to_torch
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from tests.graph.networks import assert_valid, output_of, runners
from tests.squasher_cases import (
    DTYPES,
    ELEMENTWISE,
    assert_same_to_rounding,
    edge_rows,
    edge_values,
)

UNITS = 8

POWERS = (1.0, 2, 3, 0.5, 1 / 3, 1.5)
"""One of each kind: those that PyTorch or ONNX Runtime compute in a special way, and others."""


class Squashed(nn.Module):
    """Every function with every power, of edge values and of edge rows."""

    def forward(self, x: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        elementwise = [f(x, n) for f in ELEMENTWISE.values() for n in POWERS]
        sums = [softermax(rows, n) for n in POWERS]
        return (*elementwise, *sums, softermax(rows, 2, dim=0), softermax(rows[2:5], dim=None))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_onnx_runtime_agrees_with_pytorch_on_edge_values(dtype: torch.dtype) -> None:
    inputs = {"x": edge_values(dtype), "rows": edge_rows(dtype)}
    axes = {"x": {0: "n"}, "rows": {0: "rows"}}
    model = ir.to_proto(capture(Squashed(), inputs, axes, 18, False))
    assert_valid(model)
    arrays = {name: to_numpy(tensor) for name, tensor in inputs.items()}
    outputs = list(OnnxRuntimeRunner(model).run(arrays).values())
    expected = Squashed()(**inputs)
    assert len(outputs) == len(expected)
    for y, truth in zip(outputs, expected, strict=True):
        assert_same_to_rounding(to_torch(y), truth, UNITS)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("inline", [False, True])
def test_a_network_with_softermax_is_exported(dtype: str, inline: bool, tmp_path: Path) -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = YatDense(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return softermax(self.scores(x), 2.0)

    torch.manual_seed(0)
    model, x, path = Head().eval(), torch.randn(3, 6), tmp_path / "m.onnx"
    axes = {"x": {0: "batch"}}
    result = export(model, x, path, dynamic_shapes=axes, dtype=dtype, inline=inline)
    assert result.parity, result.parity_note
    zeros = torch.zeros(2, 6, dtype=getattr(torch, dtype))
    y = to_torch(run(path, {"x": to_numpy(zeros)})["output"])
    # The bias of the layer is zero, so all scores are.
    assert y.isnan().all() if dtype == "float16" else not y.any()
    assert all(node.domain == "" for node in onnx.load(path).graph.node) == inline


def test_both_runtimes_take_empty_and_other_batches() -> None:
    class Rows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return softermax(x, 1.5)

    x = torch.tensor([[0.0, 1, 2], [-1, 3, 0.5], [0, 0, 0]])
    model = ir.to_proto(capture(Rows(), {"x": x}, {"x": {0: "n"}}, 18, False))
    for runner in runners(model):
        for inputs in (x, x[:0], x.repeat(2, 1)):
            assert_same_to_rounding(output_of(runner, x=inputs), Rows()(inputs), UNITS)
