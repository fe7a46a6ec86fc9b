"""The questions about TensorRT-RTX, with stand-ins for what needs a GPU."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import rtx_measure, rtx_offline
from benchmarks.rtx_subjects import Layer, subjects, write_subject
from nmn_export import NmnExportError, build, run
from nmn_export.layers import YatDense

SUBJECT = "dense-layer"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("target")
    (folder / "subjects").mkdir()
    x = torch.randn(4, 64)
    write_subject(folder / "subjects", SUBJECT, Layer(YatDense(64, 32)), x, "float32")
    return folder


@pytest.fixture
def without_gpu(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build for a GPU that is not there, and run the ONNX file in the place of the engine."""

    def build_for_another_gpu(*args: Any, **options: Any) -> Any:
        return build(*args, **options, compute_capabilities=[89])

    def run_file(_: Path, inputs: dict[str, Any]) -> dict[str, Any]:
        return run(target / "subjects" / f"{SUBJECT}.onnx", inputs)

    monkeypatch.setattr(rtx_measure, "build", build_for_another_gpu)
    monkeypatch.setattr(rtx_measure, "run", run_file)


def ask(capsys: pytest.CaptureFixture[str], *question: str) -> tuple[int, dict[str, Any]]:
    code = rtx_measure.main(*question)
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("plugin", "count"), [("require", 1), ("off", 0)])
@pytest.mark.usefixtures("without_gpu")
def test_an_engine_is_built_and_compared_with_float64(target, capsys, plugin, count):
    code, answer = ask(capsys, str(target), "engine", SUBJECT, plugin, "2")
    assert code == 0
    assert answer["passed"]
    assert 0 < answer["error"] <= answer["limit"]
    assert answer["plugin_layers"] == count
    assert answer["decomposed"] == 1 - count
    file = rtx_measure.engine_file(target, SUBJECT, plugin, "2")
    assert answer["engine_bytes"] == file.stat().st_size
    assert file.parent.name == rtx_offline.ENGINES
    assert answer["build_seconds"] > 0


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize("factor", [1.01, math.nan])
def test_wrong_outputs_are_a_failure(target, capsys, monkeypatch, factor):
    right = rtx_measure.run

    def wrong(*args: Any) -> dict[str, Any]:
        return {name: np.float32(factor) * y for name, y in right(*args).items()}

    monkeypatch.setattr(rtx_measure, "run", wrong)
    code, answer = ask(capsys, str(target), "engine", SUBJECT, "off", "2")
    assert code == 1
    assert answer["passed"] is False


@dataclass(frozen=True)
class Result:
    files: list[str]
    cuda_graph: bool
    tolerance: float = math.inf


def test_engines_that_were_built_are_timed(tmp_path, capsys, monkeypatch):
    def bench(files, inputs, *, tolerance, cuda_graph=True):
        assert inputs["x"].shape == (1, 3)
        return Result([file.name for file in files], cuda_graph, tolerance)

    monkeypatch.setattr(rtx_measure, "bench", bench)
    target = timed_target(tmp_path)
    code, answer = ask(capsys, str(target), "timing", "float32", "1")
    assert code == 0
    assert answer["engines"] == ["bodies", "plugin"]
    assert answer["missing"] == ["linear"]
    assert answer["files"] == ["resnet18-float32-off-1.engine", "resnet18-float32-require-1.engine"]
    assert answer["cuda_graph"] is True
    assert "cuda_graph_error" not in answer


def test_if_cuda_graphs_fail_engines_are_timed_without_them(tmp_path, capsys, monkeypatch):
    def bench(files, inputs, *, tolerance, cuda_graph=True):
        if cuda_graph:
            raise NmnExportError("Rule", got="no graph", fix="Fix.")
        return replace(Result([], True), cuda_graph=cuda_graph)

    monkeypatch.setattr(rtx_measure, "bench", bench)
    _, answer = ask(capsys, str(timed_target(tmp_path)), "timing", "float32", "1")
    assert answer["cuda_graph"] is False
    assert "no graph" in answer["cuda_graph_error"]


def timed_target(folder: Path) -> Path:
    """Return a folder with inputs, and with two of three engines."""
    (folder / "subjects").mkdir()
    np.savez(folder / "subjects/resnet18-float32.npz", x=np.zeros((8, 3), np.float32))
    for plugin in ("off", "require"):
        file = rtx_measure.engine_file(folder, "resnet18-float32", plugin, "1")
        file.parent.mkdir(exist_ok=True)
        file.touch()
    return folder


def test_plugin_layers_are_listed_as_the_inspector_describes_them(tmp_path, capsys, monkeypatch):
    plugin = {"Name": "head", "LayerType": "PluginV3", "TacticName": "64x64"}
    named = {"Name": "layer1.0.yat_conv", "LayerType": "Other"}
    layers = [{"Name": "conv", "LayerType": "Conv"}, plugin, named, {"Name": "relu"}]
    monkeypatch.setattr(rtx_measure.trt, "Runtime", lambda _: FakeRuntime(layers))
    rtx_measure.engine_file(tmp_path, SUBJECT, "require", "4").parent.mkdir()
    rtx_measure.engine_file(tmp_path, SUBJECT, "require", "4").write_bytes(b"plan")
    code, answer = ask(capsys, str(tmp_path), "layers", SUBJECT, "require", "4")
    assert code == 0
    assert answer == {
        "layers": 4,
        "plugin_layers": [plugin, named],
        "first_layers": layers[:3],
    }


@pytest.mark.parametrize(
    "question",
    [("layers", SUBJECT, "require", "4"), ("timing", "float32", "1")],
    ids=lambda question: question[0],
)
def test_a_question_about_an_engine_that_was_not_built_fails_in_one_line(
    tmp_path, capsys, question
):
    assert rtx_measure.main(str(tmp_path), *question) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: An engine must have been built by an earlier question")
    assert printed.err.count("\n") == 1


class FakeRuntime:
    """The parts of `IRuntime` and of what comes from it that list layers."""

    def __init__(self, layers: list[dict[str, str]]) -> None:
        self.layers, self.libraries = layers, []

    def get_plugin_registry(self) -> SimpleNamespace:
        return SimpleNamespace(load_library=self.libraries.append)

    def deserialize_cuda_engine(self, plan: bytes) -> SimpleNamespace:
        assert plan == b"plan"
        assert self.libraries == [str(rtx_measure.LIBRARY)]
        inspector = SimpleNamespace(
            get_engine_information=lambda _: json.dumps({"Layers": self.layers})
        )
        return SimpleNamespace(create_engine_inspector=lambda: inspector)


def test_questions_are_functions_of_the_worker_on_packed_subjects():
    packed = subjects()
    for question, *arguments in rtx_offline.QUESTIONS:
        assert question in rtx_measure.QUESTIONS
        if question in ("engine", "layers"):
            assert arguments[0] in packed
        if question == "timing":
            assert {f"resnet18-{arguments[0]}", f"resnet18-linear-{arguments[0]}"} <= packed.keys()
