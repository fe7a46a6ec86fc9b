"""Inputs by name reach the arguments of that name, in the file as in the model itself."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from nmn_export import NmnExportError, check, export, run
from nmn_export.layers import YatDense
from nmn_export.report.inspect import provenance


class Difference(nn.Module):
    """Takes two inputs that must not be exchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.yat = YatDense(8, 4)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.yat(a) - 2 * self.yat(b + 1)


class Optional(nn.Module):
    """Takes inputs that may be left out, one of them by name only."""

    def __init__(self) -> None:
        super().__init__()
        self.yat = YatDense(8, 4)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        *,
        scale: Tensor | None = None,
    ) -> Tensor:
        y = self.yat(x if mask is None else x * mask)
        y = y if bias is None else y + 10 * bias
        return y if scale is None else y * scale


class Rest(nn.Module):
    """Takes any number of inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.yat = YatDense(8, 4)

    def forward(self, first: Tensor, *rest: Tensor) -> Tensor:
        return self.yat(first) - sum(i * self.yat(r) for i, r in enumerate(rest, 2))


class PositionalOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.yat = YatDense(8, 4)

    def forward(self, a: Tensor, /, b: Tensor) -> Tensor:
        return self.yat(a) - 2 * self.yat(b)


def rows(*names: str, width: int = 8) -> dict[str, Tensor]:
    return {name: torch.randn(3, width) for name in names}


def expected(model: nn.Module, inputs: dict[str, Tensor]) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(**inputs).numpy()


def arrays(inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: t.numpy() for name, t in inputs.items()}


CASES = {
    "in order": (Difference, rows("a", "b")),
    "out of order": (Difference, rows("b", "a")),
    "an argument left out": (Optional, rows("x") | rows("bias", width=4)),
    "an argument left out, out of order": (Optional, rows("bias", width=4) | rows("x")),
    "by keyword only": (Optional, rows("scale", width=4) | rows("x")),
    "all arguments": (Optional, rows("scale", "bias", width=4) | rows("mask", "x")),
}


@pytest.mark.parametrize(("make", "inputs"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
def test_a_file_computes_the_same_as_the_model_called_by_keyword(
    tmp_path: Path, make: type[nn.Module], inputs: dict[str, Tensor], dynamic: bool
) -> None:
    path, model = tmp_path / "m.onnx", make()
    axes = {name: {0: "batch"} for name in inputs} if dynamic else None
    result = export(model, inputs, path, dynamic_shapes=axes)
    assert [c.passed for c in result.parity] == [True, True]
    found = run(path, arrays(inputs))["output"]
    np.testing.assert_allclose(found, expected(model, inputs), rtol=1e-4, atol=1e-5)
    # The reference is called by keyword too, with drawn inputs and with given ones in any order.
    given = dict(reversed(arrays(inputs).items()))
    assert all(c.passed for c in check(path, model) + check(path, model, given))


def test_check_goes_by_the_names_in_the_file_and_not_by_their_order(tmp_path: Path) -> None:
    path, model = tmp_path / "m.onnx", Difference()
    export(model, rows("a", "b"), path)
    proto = onnx.load(path)
    a, b = (onnx.ValueInfoProto.FromString(i.SerializeToString()) for i in proto.graph.input)
    del proto.graph.input[:]
    proto.graph.input.extend([b, a])
    onnx.save(proto, path)
    assert all(c.passed for c in check(path, model))
    exchanged = {"a": "b", "b": "a"}
    for value in proto.graph.input:
        value.name = exchanged[value.name]
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = exchanged.get(name, name)
    onnx.save(proto, path)
    assert not any(c.passed for c in check(path, model) if c.subject == "model" and c.limit)


def test_inputs_of_a_file_are_in_the_order_of_the_arguments(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export(Difference(), rows("b", "a"), path)
    assert [i.name for i in onnx.load(path).graph.input] == ["a", "b"]


@pytest.mark.parametrize("make", [Rest, PositionalOnly])
def test_arguments_that_have_no_keyword_are_bound_by_position(
    tmp_path: Path, make: type[nn.Module]
) -> None:
    path, model = tmp_path / "m.onnx", make().eval()
    inputs = rows("second", "first", "third") if make is Rest else rows("b", "a")
    order = ("first", "second", "third") if make is Rest else ("a", "b")
    export(model, inputs, path, dynamic_shapes={name: {0: "n"} for name in inputs})
    with torch.no_grad():
        wanted = model(*(inputs[name] for name in order)).numpy()
    found = run(path, arrays(inputs))["output"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert all(c.passed for c in check(path, model))


def test_the_input_of_a_sequential_may_have_any_name(tmp_path: Path) -> None:
    path, model = tmp_path / "m.onnx", nn.Sequential(YatDense(8, 4))
    export(model, {"features": torch.randn(3, 8)}, path, dynamic_shapes={"features": {0: "n"}})
    assert [i.name for i in onnx.load(path).graph.input] == ["features"]
    assert all(c.passed for c in check(path, model))


@pytest.mark.parametrize(
    ("make", "inputs", "message"),
    [
        (Difference, rows("a", "c"), "model's arguments: a, b; got a, c. Rename c."),
        (Difference, rows("a"), "model's arguments: a, b; got a. Add b."),
        (Difference, rows("a", "b", "c"), "model's arguments: a, b; got a, b, c. Rename c."),
        (Optional, rows("x", "maks"), "x, mask, bias, scale; got x, maks. Rename maks."),
        (
            lambda: YatDense(8, 4),
            rows("image"),
            "model's arguments: x, deterministic; got image. Rename image.",
        ),
        (Difference, {}, "model's arguments: a, b; got none. Add a, b."),
    ],
)
def test_names_that_the_model_does_not_take_are_refused(
    tmp_path: Path, make: type[nn.Module], inputs: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(NmnExportError) as refused:
        export(make(), inputs, tmp_path / "m.onnx")
    assert str(refused.value).startswith("Inputs have the names of the model's arguments")
    assert str(refused.value).endswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_reference_with_other_arguments_is_refused(tmp_path: Path) -> None:
    class Renamed(Difference):
        def forward(self, a: Tensor, c: Tensor) -> Tensor:
            return super().forward(a, c)

    path = tmp_path / "m.onnx"
    export(Difference(), rows("a", "b"), path)
    with pytest.raises(NmnExportError, match=r"model's arguments: a, c; got a, b\. Rename b\."):
        check(path, Renamed())


SOURCE = """
import torch
from nmn_export.layers import YatDense

class Difference(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.yat = YatDense(8, 4)

    def forward(self, a, b):
        return self.yat(a) - 2 * self.yat(b + 1)
"""


def test_the_command_line_binds_inputs_by_name(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(SOURCE)

    def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from nmn_export.cli import main; main()", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = cli(
        "export", "models.py:Difference", "-o", "m.onnx", "--input", "b:3x8", "--input", "a:3x8"
    )
    assert done.returncode == 0, done.stderr
    done = cli("check", "m.onnx", "--reference", "models.py:Difference", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["passed"] is True
    shapes = json.loads(provenance(onnx.load(tmp_path / "m.onnx"))["example_shapes"])
    assert shapes == {"a": [3, 8], "b": [3, 8]}
    done = cli("export", "models.py:Difference", "-o", "n.onnx", "--input", "c:3x8")
    assert done.returncode == 2
    assert "Inputs have the names of the model's arguments: a, b; got c." in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "n.onnx").exists()
