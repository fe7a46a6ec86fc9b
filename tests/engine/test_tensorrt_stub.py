"""Builds with a stub of `tensorrt` 10 and 11, which need a GPU.

`tests/engine/stub/tensorrt.py` has the names that the bindings of 10.16 and 11.4 have.
"""

import json
from pathlib import Path

import pytest

from nmn_export import BuilderOptions, NmnExportError, build
from nmn_export.engine.plugin_library import find_plugin_library


@pytest.fixture(autouse=True)
def _stub(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "stub")


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "times" / "cache"


def options(cache: Path) -> BuilderOptions:
    cache.parent.mkdir(exist_ok=True)
    return BuilderOptions(
        timing_cache=cache, optimization_level=4, memory_pools={"workspace": 1024}
    )


@pytest.mark.parametrize(("version", "flags"), [("10.16.1.11", 2), ("11.4.0.106", 1)])
def test_options_reach_tensorrt(small_file, tmp_path, cache, monkeypatch, version, flags):
    monkeypatch.setenv("STUB_VERSION", version)
    built = build(
        small_file,
        tmp_path / "e.engine",
        tensorrt="tensorrt",
        plugin="require",
        options=options(cache),
    )
    reported = json.loads(built.path.read_text())
    shapes = {"x": [[1, 3, 10, 10], [2, 3, 10, 10], [8, 3, 10, 10]]}
    assert reported == {
        "flags": flags,
        "tf32": False,
        "pools": {"WORKSPACE": 1024},
        "level": 4,
        "shapes": shapes,
    }
    assert (built.record.tensorrt_package, built.record.tensorrt) == ("tensorrt", version)
    assert built.record.compute_capabilities == []
    assert built.record.plugin.layers == 2
    assert built.record.layer_counts["PLUGIN_V3"] == 2


def test_a_timing_cache_is_written_and_read_again(small_file, tmp_path, cache):
    for expected in (b"times ", b"times times "):
        build(small_file, tmp_path / "e.engine", tensorrt="tensorrt", options=options(cache))
        assert cache.read_bytes() == expected
    cache.write_bytes(b"other")
    with pytest.raises(NmnExportError, match="timing cache must be from this version of TensorRT"):
        build(small_file, tmp_path / "f.engine", tensorrt="tensorrt", options=options(cache))
    assert cache.read_bytes() == b"other"
    assert not (tmp_path / "f.engine").exists()


def test_a_plugin_is_embedded_in_a_version_compatible_engine(small_file, tmp_path, cache):
    library = find_plugin_library()
    built = build(
        small_file,
        tmp_path / "e.engine",
        tensorrt="tensorrt",
        embed_plugin=True,
        options=options(cache),
    )
    assert built.path.read_bytes().endswith(library.path.read_bytes())


def test_an_engine_that_lacks_its_plugin_is_not_kept(small_file, tmp_path, cache, monkeypatch):
    monkeypatch.setenv("STUB_FORGETS", "1")
    with pytest.raises(NmnExportError, match="must put the plugin library into the engine; got"):
        build(
            small_file,
            tmp_path / "e.engine",
            tensorrt="tensorrt",
            embed_plugin=True,
            options=options(cache),
        )
    assert not (tmp_path / "e.engine").exists()


def test_tensorrt_builds_for_the_gpu_of_this_machine_only(small_file, tmp_path):
    with pytest.raises(
        NmnExportError, match=r"only for the GPU of this machine; got --compute.*8\.9"
    ):
        build(small_file, tmp_path / "e.engine", tensorrt="tensorrt", compute_capabilities=[89])
