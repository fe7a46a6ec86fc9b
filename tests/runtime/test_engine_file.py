"""Errors of opening an engine, and their order."""

import contextlib
import importlib.util
import json
import types
from pathlib import Path

import pytest
import torch

from nmn_export import NmnExportError
from nmn_export.engine.build import build
from nmn_export.engine.plugin_library import PluginLibrary, find_plugin_library
from nmn_export.engine.record import FileRecord, record_path
from nmn_export.ops import OPS
from nmn_export.runtime import engine_file
from nmn_export.runtime.engine_file import Log
from nmn_export.runtime.tensorrt import TensorRtRunner, is_engine

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about having no GPU")


@pytest.fixture(scope="module")
def built(small_file, tmp_path_factory):
    """An engine without the plugin, as `nmn-export build` writes it."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed")
    path = tmp_path_factory.mktemp("engines") / "m.engine"
    build(small_file, path, plugin="off", compute_capabilities=[89], tensorrt="tensorrt-rtx")
    return path


@pytest.fixture
def engine(built, tmp_path):
    """A copy of the engine, for tests that damage it."""
    path = tmp_path / built.name
    path.write_bytes(built.read_bytes())
    record_path(path).write_text(record_path(built).read_text())
    return path


@pytest.fixture
def pretended_gpu(monkeypatch):
    """Simulate a GPU of capability 8.9, except for the checks of TensorRT."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())


def refusal(path, **options) -> str:
    with pytest.raises(NmnExportError) as caught:
        TensorRtRunner(path, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def edit_record(path, **changes):
    record = json.loads(record_path(path).read_text())
    for key, value in changes.items():
        record[key] = record[key] | value if isinstance(value, dict) else value
    record_path(path).write_text(json.dumps(record))


def replace_engine(engine, content: bytes):
    """Replace the content of an engine, and its hash in the record."""
    engine.write_bytes(content)
    edit_record(engine, engine={"sha256": FileRecord.of(engine).sha256})


def test_engines_are_known_by_their_suffix(tmp_path):
    assert is_engine(tmp_path / "m.engine")
    assert is_engine(tmp_path / "m.plan")
    assert not is_engine(tmp_path / "m.onnx")


def test_a_missing_engine_is_reported(tmp_path):
    assert "An engine is a file; got no file" in refusal(tmp_path / "no.engine")


def test_a_changed_engine_is_reported(engine):
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    assert "An engine must not change after it was built" in refusal(engine)
    engine.write_bytes(content[:1000])
    assert "1000 bytes, whose hash differs from that" in refusal(engine)


def test_an_invalid_record_is_reported(engine):
    record_path(engine).write_text("{")
    assert "must be JSON of format 1" in refusal(engine)


@needs_no_gpu
def test_a_missing_gpu_is_reported(engine, monkeypatch):
    # The GPU is checked before TensorRT: without both, the missing GPU is reported.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    reported = refusal(engine)
    assert reported.startswith("An engine needs a machine with an NVIDIA GPU")
    assert torch.__version__ in reported
    assert "inspect` needs no GPU" in reported


@needs_no_gpu
def test_without_a_record_a_missing_gpu_is_reported(engine):
    record_path(engine).unlink()
    assert "needs a machine with an NVIDIA GPU" in refusal(engine)


def test_an_invalid_device_number_is_reported(engine, pretended_gpu):
    assert "numbered from 0 to 0; got 1" in refusal(engine, device=1)


@pytest.mark.parametrize(
    ("package", "extra"), [("tensorrt", "[tensorrt]"), ("tensorrt_rtx", "[tensorrt-rtx]")]
)
def test_a_missing_tensorrt_package_is_reported(engine, pretended_gpu, monkeypatch, package, extra):
    edit_record(engine, tensorrt_package=package, tensorrt="10.3")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    reported = refusal(engine)
    assert f"needs the package {package} 10.3, which built it; got no such package" in reported
    assert f"pip install 'nmn-export{extra}'" in reported


def test_without_a_record_both_packages_are_suggested(engine, pretended_gpu, monkeypatch):
    record_path(engine).unlink()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "needs the package tensorrt or tensorrt_rtx; got no such package" in refusal(engine)


def test_another_version_of_tensorrt_is_reported(engine, pretended_gpu):
    edit_record(engine, tensorrt="1.6.0.1")
    reported = refusal(engine)
    assert "in the version of TensorRT that built it; got tensorrt_rtx 1.7" in reported
    assert "and 1.6.0.1 in the engine" in reported
    assert "pip install 'tensorrt_rtx==1.6.0.1'" in reported


@pytest.mark.parametrize(
    ("package", "embedded", "version", "runs"),
    [
        ("tensorrt", False, "10.3.0", True),
        ("tensorrt", False, "10.9.0", False),
        ("tensorrt", True, "10.12.0", True),
        ("tensorrt", True, "10.2.9", False),
        ("tensorrt_rtx", True, "10.9.0", False),
    ],
)
def test_only_an_engine_of_tensorrt_that_holds_its_plugin_runs_in_later_versions(
    package, embedded, version, runs
):
    plugin = types.SimpleNamespace(embedded=embedded)
    record = types.SimpleNamespace(tensorrt_package=package, tensorrt="10.3.0", plugin=plugin)
    expected = contextlib.nullcontext() if runs else pytest.raises(NmnExportError)
    with expected:
        engine_file._check_version(record, version)


@needs_no_gpu
def test_the_error_of_tensorrt_is_reported(engine, pretended_gpu):
    reported = refusal(engine)
    assert reported.startswith("tensorrt_rtx 1.7")
    assert "must be able to run the engine on this GPU" in reported
    assert "driver" in reported


def test_a_file_that_is_not_an_engine_is_malformed(engine, pretended_gpu):
    replace_engine(engine, b"not an engine " * 100)
    assert "got malformed engine (capability 8.9)" in refusal(engine)
    replace_engine(engine, b"")
    assert "must be able to run the engine" in refusal(engine)


@needs_no_gpu
def test_an_engine_that_does_not_load_is_reported_with_the_error_of_tensorrt(
    engine, pretended_gpu, monkeypatch
):
    monkeypatch.setattr(engine_file, "_check_validity", lambda *_: None)
    assert "must be able to load the engine; got IRuntime::deserializeCudaEngine" in refusal(engine)
    replace_engine(engine, b"not an engine " * 100)
    assert "created with incompatible serialization version" in refusal(engine)


LIBRARY = PluginLibrary(
    path=Path("libnmn_plugin.so"),
    sha256="",
    version="0.1.0",
    tensorrt_headers="10.14",
    capabilities=(80, 89),
    ptx=None,
)


@pytest.fixture
def with_layers(engine, monkeypatch, pretended_gpu):
    """An engine whose record has two plugin layers, and the description of the library."""
    layers = json.loads(record_path(engine).read_text())["layers"]
    layers += [{"name": name, "type": "PLUGIN_V3"} for name in ("yat_conv", "head")]
    plugin = {"layers": 2, "version": "0.1.0"}
    edit_record(engine, plugin=plugin, layers=layers, layer_counts={"PLUGIN_V3": 2})

    def library(**changes):
        found = types.SimpleNamespace(**vars(LIBRARY) | changes)
        found.runs_on = types.MethodType(PluginLibrary.runs_on, found)
        monkeypatch.setattr(engine_file, "find_plugin_library", lambda path: found)

    return engine, library


def test_plugin_layers_need_the_library_and_the_plugins_are_named(with_layers, monkeypatch):
    monkeypatch.setattr(engine_file, "find_plugin_library", lambda path: None)
    reported = refusal(with_layers[0])
    plugins = ", ".join(OPS)
    assert f"2 layers of this engine need the plugins {plugins} of version 1" in reported
    assert "in namespace ai.nmn; got no plugin library" in reported


def test_the_library_that_was_named_has_to_be_there(with_layers, tmp_path):
    reported = refusal(with_layers[0], plugin_library=tmp_path / "no.so")
    assert "The plugin library must be a file" in reported


def test_a_library_of_another_version_is_refused(with_layers):
    engine, library = with_layers
    library(version="0.2.0")
    assert "of the version that the engine was built with; got 0.2.0 in" in refusal(engine)


def test_a_library_without_kernels_for_the_gpu_is_refused(with_layers, monkeypatch):
    engine, library = with_layers
    library(capabilities=(80, 86))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert "got capability 9.0, and kernels for 8.0, 8.6" in refusal(engine)


def test_a_library_without_a_plugin_is_refused(with_layers, monkeypatch):
    engine, library = with_layers
    library()
    others = {(op, "1", "ai.nmn") for op in OPS if op != "YatConv"}
    plugins = {*others, ("YatConv", "2", "ai.nmn")}
    monkeypatch.setattr(engine_file, "load_plugins", lambda trt, runtime, path: plugins)
    reported = refusal(engine)
    assert "must have the plugins YatConv of version 1 in namespace ai.nmn; got " in reported


def test_the_library_is_registered_with_the_runtime_before_the_engine_is_loaded(
    with_layers, monkeypatch
):
    if find_plugin_library() is None:
        pytest.skip("the plugin library is not built: make plugin")
    engine, _ = with_layers
    found = []

    def note(trt, runtime, plan, device, log):
        creators = runtime.get_plugin_registry().all_creators
        found.extend((c.name, c.plugin_version, c.plugin_namespace) for c in creators)
        found.append(runtime.engine_host_code_allowed)
        raise NmnExportError("far enough", got="it", fix="")

    monkeypatch.setattr(engine_file, "_check_validity", note)
    assert "far enough" in refusal(engine)
    assert ("YatDense", "1", "ai.nmn") in found
    assert ("YatConv", "1", "ai.nmn") in found
    assert found[-1] is False


def test_an_engine_that_holds_the_library_needs_none_and_may_run_it(with_layers, monkeypatch):
    engine, _ = with_layers
    edit_record(engine, plugin={"embedded": True})
    allowed = []

    def note(trt, runtime, plan, device, log):
        allowed.append(runtime.engine_host_code_allowed)
        raise NmnExportError("far enough", got="it", fix="")

    monkeypatch.setattr(engine_file, "find_plugin_library", lambda path: 1 / 0)
    monkeypatch.setattr(engine_file, "_check_validity", note)
    assert "far enough" in refusal(engine)
    assert allowed == [True]


def test_a_missing_plugin_is_reported_by_name():
    words = "Cannot find plugin: YatDense, version: 1, namespace: ai.nmn."
    reported = str(engine_file._unloadable(types.SimpleNamespace(__name__="tensorrt"), words))
    assert words in reported
    assert "Specify the library that has this plugin with --plugin-library" in reported


def test_only_the_first_error_is_reported():
    log = Log()
    log("INFO", "loading")
    log("ERROR", "no driver\n  at all")
    log("INTERNAL_ERROR", "no context")
    assert log.take() == "no driver at all"
    assert log.take() == "no reason from TensorRT"
