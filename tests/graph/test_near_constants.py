"""Numbers near 0 and 1 reach the file, although the exporter's optimizer takes them for 0 and 1."""

import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nmn_export.graph.capture import capture
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner
from tests.graph.networks import assert_valid, output_of

TINY = torch.tensor([[1e-13, 0.0], [0.0, 0.0], [3.0, 4.0]])

FUNCTIONS = {
    "a guarded norm": (lambda x: x / (x.norm(dim=-1, keepdim=True) + 1e-12), TINY),
    "a guard of 1e-8": (lambda x: x / (x.abs() + 1e-8), 1e-9 * TINY + 1e-9),
    "added to itself": (lambda x: 1e-9 + x * 1e-3, TINY),
    "subtracted": (lambda x: (x - 1e-10) * 1e5, TINY),
    "a factor of nearly one": (lambda x: (x * 1.000004 - x) * 1e5, TINY),
    "a divisor of nearly one": (lambda x: (x / 0.999996 - x) * 1e5, TINY),
    "a tensor": (lambda x: x + torch.tensor(1e-12), TINY),
    "twice": (lambda x: (x + 1e-12) / (x * x + 1e-12), TINY),
    "normalize": (lambda x: F.normalize(x, dim=-1, eps=1e-10), TINY),
}


class Function(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.function, _ = FUNCTIONS[name]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(x)
        return y


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_near_zero_and_one_are_kept(name: str) -> None:
    _, x = FUNCTIONS[name]
    graph = capture(Function(name), {"x": x}, {"x": {0: "n"}}, 18, False)
    assert [value.name for value in graph.graph.inputs] == ["x"]
    model = ir.to_proto(graph)
    assert_valid(model)
    y = output_of(OnnxRuntimeRunner(model), x=x)
    torch.testing.assert_close(y, Function(name)(x), rtol=1e-5, atol=0, equal_nan=True)


def test_additions_of_zero_and_factors_of_one_are_removed() -> None:
    class Idle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu((x + 0.0) * 1.0)

    graph = capture(Idle(), {"x": torch.randn(2, 3)}, {}, 18, False).graph
    assert [node.op_type for node in graph] == ["Relu"]
