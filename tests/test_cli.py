"""The command line in a separate process, with valid and invalid input."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnx.external_data_helper import set_external_data

from nmn_export.ops import DOMAIN

SOURCE = """
import torch
from nmn_export.layers import YatConv2d, YatDense

def net():
    return torch.nn.Sequential(
        YatConv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), YatDense(4, 5)
    )

class Fixed(torch.nn.Module):
    def forward(self, x):
        return x.reshape(2, -1)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a model, its file, and inputs for it."""
    path = tmp_path_factory.mktemp("cli")
    (path / "my_model.py").write_text(SOURCE)
    result = cli(
        path, "export", "my_model.py:net", "-o", "m.onnx", "--input", "x:2x3x8x8", "--dynamic",
        "x:0=batch",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "wrote m.onnx (1 YatConv, 1 YatDense)" in result.stdout
    assert "error of onnxruntime against float64" in result.stdout
    np.savez(path / "in.npz", x=np.ones((3, 3, 8, 8), np.float32))
    return path


def cli(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from nmn_export.cli import main; main()", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_run_writes_outputs(folder):
    result = cli(folder, "run", "m.onnx", "--inputs", "in.npz", "-o", "out.npz")
    assert result.returncode == 0, result.stderr
    assert "output: float32 3x5" in result.stdout
    with np.load(folder / "out.npz") as outputs:
        assert outputs["output"].shape == (3, 5)


def test_check_passes_for_the_model_itself(folder):
    result = cli(folder, "check", "m.onnx", "--reference", "my_model.py:net")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "FAILED" not in result.stdout
    assert "near prototypes" in result.stdout


def test_check_says_when_the_inputs_overflow_in_eager_pytorch(folder):
    np.savez(folder / "large.npz", x=np.full((3, 3, 8, 8), 1e25, np.float32))
    arguments = ("--reference", "my_model.py:net", "--inputs", "large.npz")
    result = cli(folder, "check", "m.onnx", *arguments)
    assert result.returncode == 1
    assert "note: eager PyTorch itself overflows on these inputs; use smaller ones" in result.stdout


def test_check_speaks_json(folder):
    reported = cli(folder, "check", "m.onnx", "--reference", "my_model.py:net", "--json")
    assert json.loads(reported.stdout)["passed"] is True


def test_check_fails_with_exit_code_1_for_other_weights(folder):
    state = {
        "0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.ones(4), "0.alpha": torch.ones(1),
        "3.weight": torch.ones(5, 4), "3.bias": torch.ones(5), "3.alpha": torch.ones(1),
    }  # fmt: skip
    torch.save(state, folder / "other.pt")
    arguments = ("check", "m.onnx", "--reference", "my_model.py:net", "--weights", "other.pt")
    result = cli(folder, *arguments)
    assert result.returncode == 1
    assert "FAILED" in result.stdout
    assert "the reference has other parameters" in result.stdout
    assert json.loads(cli(folder, *arguments, "--json").stdout)["passed"] is False


def test_inspect_lists_the_ops_and_the_origin(folder):
    result = cli(folder, "inspect", "m.onnx")
    assert result.returncode == 0
    assert "YatConv float32" in result.stdout
    assert "parameters_sha256" in result.stdout
    reported = json.loads(cli(folder, "inspect", "m.onnx", "--json").stdout)
    assert [op["name"] for op in reported["ops"]] == ["0", "3"]


def test_inline_leaves_standard_ops_only(folder):
    arguments = ("my_model.py:net", "-o", "i.onnx", "--input", "x:2x3x8x8", "--inline")
    assert "standard ops only" in cli(folder, "export", *arguments).stdout
    model = onnx.load(folder / "i.onnx")
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    assert cli(folder, "inspect", "i.onnx").returncode == 0


def test_bfloat16_goes_in_and_out_as_float32(folder):
    (folder / "dense.py").write_text(
        "from nmn_export.layers import YatDense\ndef net():\n    return YatDense(4, 3)\n"
    )
    arguments = ("dense.py:net", "-o", "b.onnx", "--input", "x:2x4", "--dtype", "bfloat16")
    assert cli(folder, "export", *arguments).returncode == 0
    np.savez(folder / "b.npz", x=np.ones((2, 4), np.float32))
    result = cli(folder, "run", "b.onnx", "--inputs", "b.npz", "-o", "b_out.npz")
    assert result.returncode == 0, result.stderr
    with np.load(folder / "b_out.npz") as outputs:
        assert outputs["output"].dtype == np.float32


def test_doctor_runs_anywhere(folder):
    result = cli(folder, "doctor")
    assert result.returncode == 0
    assert "PyTorch" in result.stdout
    assert "pip install 'nmn-export[gpu]'" in " ".join(result.stdout.split())
    assert isinstance(json.loads(cli(folder, "doctor", "--json").stdout), list)


EXPORT = ("export", "my_model.py:net", "-o", "x.onnx", "--input", "x:2x3x8x8")

WRONG = {
    "missing checkpoint": ((*EXPORT, "--weights", "no.pt"), "must be a file; got no file 'no.pt'"),
    "corrupt checkpoint": ((*EXPORT, "--weights", "corrupt.pt"), "which cannot be read"),
    "pickled checkpoint": ((*EXPORT, "--weights", "bomb.pt"), "Pickled objects are not run"),
    "weights that do not fit": ((*EXPORT, "--weights", "misfit.pt"), "missing: 0.alpha"),
    "unknown name": (("export", "aether-resnet19", "-o", "x.onnx"), "Did you mean aether-resnet18"),
    "wrong rank": ((*EXPORT[:-1], "x:2x3x8"), "must run on the example inputs"),
    "wrong channels": ((*EXPORT[:-1], "x:2x4x8x8"), "to have 3 channels, but got 4 channels"),
    "malformed input": ((*EXPORT[:-1], "x=2x3"), "--input is NAME:SIZExSIZE"),
    "malformed dynamic": ((*EXPORT, "--dynamic", "x:batch"), "--dynamic is NAME:AXIS=SIZE_NAME"),
    "no input": (EXPORT[:-2], "needs example inputs; got no --input"),
    "a dynamic axis that the model fixes": (
        ("export", "my_model.py:Fixed", "-o", "x.onnx", "--input", "x:2x4", "--dynamic", "x:0=n"),
        "dynamic axis; got a model that fixes the size of x:0",
    ),
    "a dynamic axis of size one": (
        (*EXPORT[:-1], "x:1x3x8x8", "--dynamic", "x:0=n"),
        "needs a size of at least 2",
    ),
    "weights that are not finite": ((*EXPORT, "--weights", "nan.pt"), "NaN or infinity in 0.bias"),
    "opset": ((*EXPORT, "--opset", "9"), "opset must be in 18 to 23; got 9"),
    "no output folder": ((*EXPORT[:2], "-o", "no/x.onnx", *EXPORT[4:]), "output folder must exist"),
    "no such file": (("inspect", "no.onnx"), "got no file 'no.onnx'"),
    "text for ONNX": (("inspect", "my_model.py"), "not ONNX or is cut off"),
    "truncated ONNX": (("inspect", "truncated.onnx"), "not ONNX or is cut off"),
    "ONNX from elsewhere": (("inspect", "foreign.onnx"), "an ONNX file from elsewhere"),
    "run of a foreign file": (
        ("run", "foreign.onnx", "--inputs", "in.npz", "-o", "x.npz"),
        "an ONNX file from elsewhere",
    ),
    "missing external data": (("inspect", "missing.onnx"), "got no file 'missing.data'"),
    "external data outside": (
        ("inspect", "outside.onnx"),
        "must lie in the folder of the model; got '../secret'",
    ),
    "missing inputs": (
        ("run", "m.onnx", "--inputs", "no.npz", "-o", "x.npz"),
        "must be an .npz file of arrays",
    ),
    "pickled inputs": (
        ("run", "m.onnx", "--inputs", "objects.npz", "-o", "x.npz"),
        "must be an .npz file of arrays",
    ),
    "other inputs": (
        ("run", "m.onnx", "--inputs", "other.npz", "-o", "x.npz"),
        "The model's inputs are x; got y",
    ),
    "a provider that is not there": (
        ("run", "m.onnx", "--inputs", "in.npz", "-o", "x.npz", "--provider", "cuda"),
        "CUDAExecutionProvider",
    ),
    "unknown architecture": (
        ("kernels", "build", "--arch", "70", "-o", "k"),
        "Kernels are built for 80, 86, 89, 90, 100, 120; got 70",
    ),
    "malformed architecture": (
        ("kernels", "build", "--arch", "sm_90", "-o", "k"),
        "--arch is a list of compute capabilities; got sm_90",
    ),
    "an empty batch to check": (
        ("check", "m.onnx", "--reference", "my_model.py:net", "--inputs", "empty.npz"),
        "be compared where they are finite numbers; got none",
    ),
    "inputs without numbers": (
        ("check", "m.onnx", "--reference", "my_model.py:net", "--inputs", "nan.npz"),
        "Inputs to compare on have no NaN",
    ),
    "a pipe to export to": ((*EXPORT[:2], "-o", "pipe", *EXPORT[4:]), "socket 'pipe'"),
    "a pipe to run to": (("run", "m.onnx", "--inputs", "in.npz", "-o", "pipe"), "socket 'pipe'"),
    "a tolerance below nothing": (("bench", "m.onnx", "--tolerance", "-1"), "0 or more; got -1.0"),
    "another reference": (
        ("check", "m.onnx", "--reference", "aether-resnet18-cifar10"),
        "must be the model that the file was exported from",
    ),
}


@pytest.fixture(scope="module")
def wrong_files(folder):
    """Write every kind of broken file to the folder."""

    class Bomb:
        def __reduce__(self):
            return (exec, ("open('executed', 'w').close()",))

    net = {"0.weight": torch.zeros(4, 3, 3, 3), "0.bias": torch.full((4,), torch.nan)}
    rest = {"0.alpha": torch.ones(1), "3.weight": torch.ones(5, 4), "3.bias": torch.ones(5)}
    torch.save(net | rest | {"3.alpha": torch.ones(1)}, folder / "nan.pt")
    torch.save(net, folder / "misfit.pt")
    (folder / "corrupt.pt").write_bytes((folder / "nan.pt").read_bytes()[:100])
    (folder / "bomb.pt").write_bytes(pickle.dumps(Bomb()))
    (folder / "truncated.onnx").write_bytes((folder / "m.onnx").read_bytes()[:-700])
    np.savez(folder / "objects.npz", x=np.array([Bomb()], dtype=object))
    np.savez(folder / "other.npz", y=np.zeros(1))
    np.savez(folder / "nan.npz", x=np.full((2, 3, 8, 8), np.nan, np.float32))
    np.savez(folder / "empty.npz", x=np.ones((0, 3, 8, 8), np.float32))
    os.mkfifo(folder / "pipe")

    model = onnx.load(folder / "m.onnx")
    for name, location in (("missing", "missing.data"), ("outside", "../secret")):
        tensor = model.graph.initializer[0]
        set_external_data(tensor, location)
        tensor.data_location = TensorProto.EXTERNAL
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    del model.metadata_props[:]
    for node in model.graph.node:
        node.domain = node.domain.replace(DOMAIN, "com.example")
    (folder / "foreign.onnx").write_bytes(model.SerializeToString())
    return folder


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_line_and_exit_code_2(wrong_files, arguments, message):
    before = sorted(wrong_files.iterdir())
    result = cli(wrong_files, *arguments)
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    after = [path for path in sorted(wrong_files.iterdir()) if path.name != "__pycache__"]
    assert after == [path for path in before if path.name != "__pycache__"]


def test_an_unknown_option_is_reported(folder):
    result = cli(folder, "export", "--nonsense")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
