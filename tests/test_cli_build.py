"""The command `nmn-export build`."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from onnx import helper

from nmn_export.cli import main
from nmn_export.cli.terminal import BuildProgress
from nmn_export.engine import plugin_library


@dataclass
class Result:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def folder(small_file, tmp_path, monkeypatch) -> Path:
    """The working directory, with a model in it."""
    path = tmp_path / "work"
    path.mkdir()
    (path / "m.onnx").write_bytes(small_file.read_bytes())
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def cli(folder, monkeypatch, capsys):
    """Run the command line in this process, without the time of the imports."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["nmn-export", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return Result(int(left.value.code or 0), printed.out, printed.err)

    return run


BUILD = ("build", "m.onnx", "-o", "m.engine", "--compute-capability", "8.9")


def record(path: str = "m.engine.json") -> dict:
    return json.loads(Path(path).read_text())


def test_build_writes_an_engine_and_its_record(cli, folder):
    result = cli(*BUILD, "--plugin", "require")
    assert result.code == 0, result.err
    assert "wrote m.engine (2 ⵟ ops in the plugin, 0 decomposed)" in result.out
    assert "for compute capability 8.9" in result.out
    assert "x: 1x3x10x10 to 8x3x10x10, tuned for 2x3x10x10" in result.out
    assert "use --embed-plugin to store it" in result.out
    assert not result.err
    assert sorted(path.name for path in folder.iterdir()) == ["m.engine", "m.engine.json", "m.onnx"]
    assert record()["plugin"]["layers"] == 2


def test_ops_that_are_decomposed_are_named_with_the_reason(cli, monkeypatch, tmp_path):
    monkeypatch.setattr(plugin_library, "INSTALLED", tmp_path / "none")
    result = cli(*BUILD)
    assert result.code == 0
    assert "(0 ⵟ ops in the plugin, 2 decomposed)" in result.out
    assert "and 1 more decomposed: there is no plugin library" in result.out
    assert "--embed-plugin" not in result.out


def test_a_required_plugin_that_does_not_compute_an_op_is_a_failed_check(cli, folder):
    model = onnx.load("m.onnx")
    for node in model.graph.node:
        if node.op_type == "YatDense":
            kept = [a for a in node.attribute if a.name != "plugin_version"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("plugin_version", "7")])
    onnx.save(model, "m.onnx")
    result = cli(*BUILD, "--plugin", "require")
    assert result.code == 1
    assert "got 'head', which it does not compute: it asks for version 7" in result.err
    assert [path.name for path in folder.iterdir()] == ["m.onnx"]


def test_the_spellings_of_trtexec_are_understood(cli):
    library = str(plugin_library.INSTALLED)
    result = cli(
        "build",
        "--onnx=m.onnx",
        "--saveEngine=t.engine",
        "--minShapes=x:1x3x10x10",
        "--optShapes=x:4x3x10x10",
        "--maxShapes=x:16x3x10x10",
        "--noTF32",
        "--computeCapabilities=8.9,12.0",
        f"--setPluginsToSerialize={library}",
        "--builderOptimizationLevel=2",
        "--memPoolSize=workspace:1G",
        "--profilingVerbosity=detailed",
    )
    assert result.code == 0, result.err
    found = record("t.engine.json")
    assert found["profile"]["x"]["max"] == [16, 3, 10, 10]
    assert found["compute_capabilities"] == ["8.9", "12.0"]
    assert found["plugin"]["embedded"]


def test_one_shape_of_trtexec_is_all_three(cli):
    result = cli(*BUILD, "--shapes=x:4x3x10x10")
    assert result.code == 0, result.err
    shape = [4, 3, 10, 10]
    assert record()["profile"] == {"x": {"min": shape, "opt": shape, "max": shape}}


def test_missing_operations_of_a_target_are_reported_at_any_verbosity(cli):
    result = cli(*BUILD[:-1], "7.5")
    assert result.code == 2
    assert "Build for another compute capability. float16 does not help" in result.err
    assert "--verbosity" not in result.err


def test_plugin_layers_of_others_are_reported(cli):
    model = onnx.load("m.onnx")
    (node,) = [node for node in model.graph.node if node.op_type == "YatDense"]
    node.domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, "m.onnx")
    result = cli(*BUILD)
    assert result.code == 0, result.err
    assert "(1 ⵟ ops in the plugin, 0 decomposed)" in result.out
    assert "note: 1 other plugin layers do not come from a ⵟ op of ai.nmn: 'head'" in result.out
    assert record()["plugin"]["others"] == ["head"]
    assert record()["layer_counts"]["PLUGIN_V3"] == 2
    assert "other plugin layers head" in " ".join(cli("inspect", "m.engine").out.split())


def test_messages_of_tensorrt_are_printed_if_asked_for(cli):
    result = cli(*BUILD, "--verbose")
    assert result.code == 0
    assert "verbose: " in result.err


WRONG = {
    "no target": (BUILD[:-2], "builds for compute capability 7.5, 8.0, 8.6, 8.9, 12.0, 12.1; got"),
    "another target": ((*BUILD[:-1], "9.0"), "12.1; got 9.0. Specify one or more with"),
    "no number for a target": ((*BUILD[:-1], "sm_89"), "--compute-capability is a list of"),
    "half precision": ((*BUILD, "--fp16"), "got --fp16. Export in float16: nmn-export export --d"),
    "bfloat16": ((*BUILD, "--bf16"), "got --bf16. Export in bfloat16"),
    "8 bits": ((*BUILD, "--int8"), "got --int8. Add Q/DQ nodes to the model"),
    "8 bits, floating": ((*BUILD, "--fp8"), "got --fp8. Add Q/DQ nodes to the model"),
    "best": ((*BUILD, "--best"), "got --best. Choose with nmn-export export --dtype"),
    "no model": (BUILD[:1] + BUILD[2:], "Exactly one MODEL.onnx is needed; got none"),
    "two models": (
        (*BUILD, "--onnx=m.onnx"),
        "one MODEL.onnx is needed; got m.onnx and m.onnx",
    ),
    "no output": (BUILD[:2] + BUILD[4:], "Exactly one --output ENGINE is needed; got none"),
    "no such model": (("build", "no.onnx", *BUILD[2:]), "got no file 'no.onnx'"),
    "text for a model": (("build", "text.onnx", *BUILD[2:]), "not ONNX or is cut off"),
    "a truncated model": (("build", "cut.onnx", *BUILD[2:]), "not ONNX or is cut off"),
    "a model from elsewhere": (("build", "foreign.onnx", *BUILD[2:]), "ONNX file from elsewhere"),
    "an output that is the model": (("build", "m.onnx", "-o", "m.onnx"), "must be different files"),
    "an output that is not named as an engine": (
        ("build", "m.onnx", "-o", "m.trt"),
        "must end in .engine or .plan; got 'm.trt'. Name it 'm.engine'.",
    ),
    "an output without a folder": (("build", "m.onnx", "-o", "no/e"), "folder must exist"),
    "a folder for output": (("build", "m.onnx", "-o", "."), "The output must be a file"),
    "a folder where the record goes": (
        ("build", "m.onnx", "-o", "taken"),
        "the folder 'taken.",
    ),
    "unknown input": ((*BUILD, "--min-shapes", "y:1x3"), "The model's inputs are x; got shapes of"),
    "wrong rank": ((*BUILD, "--opt-shapes", "x:1x3"), "has shape batchx3x10x10; got min shape 1x3"),
    "wrong size": ((*BUILD, "--max-shapes", "x:8x4x10x10"), "got min shape 8x4x10x10"),
    "wrong order": (
        (*BUILD, "--min-shapes", "x:4x3x10x10", "--max-shapes", "x:2x3x10x10"),
        "must satisfy min <= opt <= max; got 4x3x10x10, 2x3x10x10, 2x3x10x10",
    ),
    "no shape": ((*BUILD, "--minShapes", "x=1"), "--min-shapes is NAME:SIZExSIZE"),
    "a huge size": (
        (*BUILD, "--opt-shapes", "x:99999999999x3x10x10"),
        "Use the same number of sizes, each from 1 to 2147483647",
    ),
    "thousands of digits": ((*BUILD, "--opt-shapes", f"x:{'9' * 5000}x3x10x10"), "to 2147483647"),
    "shapes said twice": (
        (*BUILD, "--shapes", "x:4x3x10x10", "--min-shapes", "x:1x3x10x10"),
        "--shapes replaces --min-shapes, --opt-shapes and --max-shapes; got both for",
    ),
    "no shape of all": ((*BUILD, "--shapes", "x"), "--shapes is NAME:SIZExSIZE"),
    "no such library": ((*BUILD, "--plugin-library", "no.so"), "got no file '"),
    "text for a library": ((*BUILD, "--plugin-library", "text.onnx"), "is not a shared library"),
    "no plugin, embedded": (
        (*BUILD, "--plugin", "off", "--embed-plugin"),
        "--plugin off builds an engine without the plugin; got --embed-plugin",
    ),
    "a timing cache": ((*BUILD, "--timing-cache", "t"), "on which it has no effect. Remove it"),
    "unknown pool": ((*BUILD, "--memPoolSize", "dlaSRAM:1"), "--memory-pools is POOL:SIZE"),
    "huge pool": (
        (*BUILD, "--memPoolSize=workspace:99999999999999999999G"),
        "The size of a memory pool is from 1 to 9223372036854775807 bytes; got 'workspace:9999",
    ),
    "pool of 2^63 bytes": ((*BUILD, f"--memPoolSize=workspace:{2**63}B"), "memory pool is from 1"),
    "empty pool": ((*BUILD, "--memPoolSize=workspace:0"), "got 'workspace:0'. Use"),
    "package that is not there": ((*BUILD, "--tensorrt", "tensorrt"), "got no package tensorrt."),
    "capability without kernels": (
        (*BUILD[:-1], "7.5", "--plugin", "require"),
        "got compute capability 7.5 with --plugin require",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_line_and_exit_code_2(cli, folder, arguments, message):
    (folder / "taken.json").mkdir()
    (folder / "text.onnx").write_text("text")
    (folder / "cut.onnx").write_bytes((folder / "m.onnx").read_bytes()[:-700])
    model = onnx.load("m.onnx")
    del model.metadata_props[:]
    for node in model.graph.node:
        node.domain = node.domain.replace("ai.nmn", "com.example")
    onnx.save(model, "foreign.onnx")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    result = cli(*arguments)
    assert result.code == 2, result.out + result.err
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_build_that_is_stopped_is_one_line(cli, folder, monkeypatch, number):
    monkeypatch.setattr(BuildProgress, "show", lambda *_: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    result = cli(*BUILD)
    assert result.code == 128 + number
    assert result.err == f"error: the build was stopped by {number.name}; nothing was written\n"
    assert [path.name for path in folder.iterdir()] == ["m.onnx"]
    assert signal.getsignal(number) == before


def test_the_installed_command_builds(folder):
    command = Path(sys.executable).with_name("nmn-export")
    done = subprocess.run([command, *BUILD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert record()["plugin"]["layers"] == 2
