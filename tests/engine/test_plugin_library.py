import shutil
from pathlib import Path

import numpy as np
import pytest

from nmn_export import NmnExportError
from nmn_export.engine import plugin_library
from nmn_export.engine.plugin_library import VARIABLE, PluginLibrary, find_plugin_library


@pytest.fixture
def library() -> PluginLibrary:
    found = find_plugin_library()
    assert found, "the tests need the plugin library: run `make plugin`"
    return found


def test_the_library_describes_itself(library):
    assert library.path.is_absolute()
    assert len(library.sha256) == 64
    assert library.tensorrt_headers.startswith("1")
    assert library.runs_on(89)
    assert library.runs_on(120)
    assert not library.runs_on(75)


@pytest.mark.parametrize(
    ("capabilities", "ptx", "runs", "does_not"),
    [
        ((80,), None, (80, 86, 89), (75, 90, 120)),
        ((86, 120), None, (86, 89, 120, 121), (80, 90, 100)),
        ((80,), 89, (80, 89, 90, 120), (75,)),
    ],
)
def test_kernels_run_on_later_minor_versions_and_ptx_on_all_later(
    capabilities, ptx, runs, does_not
):
    library = PluginLibrary(Path("x"), "", "", "", capabilities, ptx)
    assert all(library.runs_on(c) for c in runs)
    assert not any(library.runs_on(c) for c in does_not)


def test_a_library_is_found_by_name_and_by_environment(library, tmp_path, monkeypatch):
    first = shutil.copy(library.path, tmp_path / "first.so")
    second = shutil.copy(library.path, tmp_path / "second.so")
    monkeypatch.setenv(VARIABLE, str(first))
    assert find_plugin_library().path == first
    assert find_plugin_library(second).path == second
    monkeypatch.chdir(tmp_path)
    assert find_plugin_library("second.so").path == second


@pytest.mark.usefixtures("no_plugin")
def test_there_may_be_none():
    assert find_plugin_library() is None


def test_a_named_library_has_to_be_there(monkeypatch):
    with pytest.raises(NmnExportError, match=r"must be a file; got no file '/no/such\.so'"):
        find_plugin_library("/no/such.so")
    monkeypatch.setenv(VARIABLE, "/no/other.so")
    with pytest.raises(NmnExportError, match=f"no file '/no/other.so'.*{VARIABLE}"):
        find_plugin_library()


def test_a_file_that_is_not_a_library_is_reported(tmp_path):
    path = tmp_path / "text.so"
    path.write_text("not a library")
    with pytest.raises(NmnExportError, match="got a file that is not a shared library"):
        find_plugin_library(path)


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_truncated_library_is_reported(library, tmp_path, size):
    path = tmp_path / "cut.so"
    path.write_bytes(library.path.read_bytes()[:size])
    with pytest.raises(NmnExportError, match=r"must be the libnmn_plugin\.so of nmn_export; got "):
        find_plugin_library(path)


def test_another_library_is_reported():
    with pytest.raises(NmnExportError, match=r"got undefined symbol: nmnPluginDescription: '/"):
        find_plugin_library(np._core._multiarray_umath.__file__)


def test_a_library_of_another_version_is_reported(library, monkeypatch):
    monkeypatch.setattr(plugin_library.metadata, "version", lambda _: "9.9.9")
    message = rf"must be of this version of nmn_export, 9\.9\.9; got version {library.version}"
    with pytest.raises(NmnExportError, match=message):
        find_plugin_library()
