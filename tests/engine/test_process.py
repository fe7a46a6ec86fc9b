"""Builds that end early leave no files, and report the reason in one line."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nmn_export.engine.build
from nmn_export import NmnExportError, build
from nmn_export.engine.process.client import BuildProcess

ABORTING = """
import ctypes
__version__ = "11.4.0"
class Builder:
    def __init__(self, logger):
        print("terminate called without an active exception", file=__import__("sys").stderr)
        ctypes.CDLL(None).abort()
class ILogger:
    def __init__(self): pass
"""

WITHOUT_GPU = """
__version__ = "10.16.1"
class Builder:
    def __init__(self, logger):
        raise TypeError("pybind11::init(): factory function returned nullptr")
class ILogger:
    def __init__(self): pass
"""

WRONG_PACKAGES = {
    "that aborts": (ABORTING, "got signal SIGABRT (terminate called without an active exception)"),
    "without a GPU": (WITHOUT_GPU, "needs the GPU that it builds for; got no GPU that it can"),
    "without libraries": (
        "raise ImportError('libnvinfer.so.11: cannot open')",
        "got libnvinfer.so",
    ),
    "that is empty": ("", "The package tensorrt must be complete; got module 'tensorrt' has no"),
    "with an error in it": ("1 / 0", "got exit code 1 (ZeroDivisionError: division by zero)"),
    "that ends": ("import os; os._exit(3)", "must not end before it is built; got exit code 3."),
}


@pytest.fixture
def files(tmp_path):
    """A folder in which engines are written."""
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
def process_ids(monkeypatch) -> list[int]:
    """Process ids of the builds that were started."""
    found = []

    class Known(BuildProcess):
        def __init__(self, package: str) -> None:
            super().__init__(package)
            found.append(self._process.pid)

    monkeypatch.setattr(nmn_export.engine.build, "BuildProcess", Known)
    return found


@pytest.mark.parametrize(("source", "message"), WRONG_PACKAGES.values(), ids=WRONG_PACKAGES)
def test_a_package_that_cannot_build_is_reported(
    small_file, files, temporary, tmp_path, monkeypatch, source, message
):
    package = tmp_path / "packages" / "tensorrt.py"
    package.parent.mkdir()
    package.write_text(source)
    monkeypatch.syspath_prepend(package.parent)
    with pytest.raises(NmnExportError) as caught:
        build(small_file, files / "e.engine", tensorrt="tensorrt")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not [*files.iterdir(), *temporary.iterdir()]


def test_output_of_tensorrt_does_not_disturb_messages(small_file, files, tmp_path, monkeypatch):
    package = tmp_path / "tensorrt.py"
    package.write_text(f"print('hello')\nimport os; os.system('echo hello')\n{WITHOUT_GPU}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NmnExportError, match="got no GPU that it can use"):
        build(small_file, files / "e.engine", tensorrt="tensorrt")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_build_that_is_killed_leaves_nothing(small_file, files, temporary, process_ids, number):
    (files / "e.engine").write_bytes(b"the engine of yesterday")
    with pytest.raises(NmnExportError, match=f"got signal {number.name}") as caught:
        build(
            small_file,
            files / "e.engine",
            compute_capabilities=[89],
            report=lambda _: os.kill(process_ids[0], number),
        )
    assert ("out of memory" in str(caught.value)) == (number == signal.SIGKILL)
    assert [path.name for path in files.iterdir()] == ["e.engine"]
    assert (files / "e.engine").read_bytes() == b"the engine of yesterday"
    assert not list(temporary.iterdir())


def test_an_interrupted_build_leaves_nothing(small_file, files, temporary, process_ids):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(small_file, files / "e.engine", compute_capabilities=[89], report=interrupt)
    assert not [*files.iterdir(), *temporary.iterdir()]
    assert not is_running(process_ids[0])


PARENT = """
import os, signal, sys, time
from nmn_export import build
def stop(step):
    print("building", flush=True)
    time.sleep(60)
build(sys.argv[1], sys.argv[2], compute_capabilities=[89], report=stop)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_build_ends_with_the_process_that_asked_for_it(small_file, files, temporary, number):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(small_file), str(files / "e.engine")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with parent:
        assert parent.stdout.readline() == "building\n"
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        parent.send_signal(number)
    for _ in range(100):
        if not any(is_running(int(child)) for child in children):
            break
        time.sleep(0.05)
    assert children
    assert not any(is_running(int(child)) for child in children)
    assert not [*files.iterdir(), *temporary.iterdir()]


def is_running(pid: int) -> bool:
    """Return whether a process is running and not a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_full_disk_while_the_engine_is_moved_is_reported(
    small_file, files, temporary, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nmn_export.engine.output.shutil.move", full)
    with pytest.raises(NmnExportError, match=r"must have room for the file; got .*No space left"):
        build(small_file, files / "e.engine", compute_capabilities=[89])
    assert not [*files.iterdir(), *temporary.iterdir()]


def test_another_disk_error_is_reported(small_file, files, temporary, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("nmn_export.engine.output.shutil.move", broken)
    with pytest.raises(NmnExportError, match=r"be written; got .*Input/output error") as caught:
        build(small_file, files / "e.engine", compute_capabilities=[89])
    assert "room" not in str(caught.value)
    assert not [*files.iterdir(), *temporary.iterdir()]


def test_a_full_disk_while_the_model_is_written_is_reported(
    small_file, files, temporary, monkeypatch
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nmn_export.engine.build.ir.save", full)
    with pytest.raises(NmnExportError, match=r"must have room for the model; got .*No space left"):
        build(small_file, files / "e.engine", compute_capabilities=[89])
    assert not [*files.iterdir(), *temporary.iterdir()]


def test_a_full_disk_while_the_engine_is_written_is_reported(small_file, files, temporary):
    options = {"compute_capabilities": [89], "plugin": "off"}
    build(small_file, files / "e.engine", **options)
    engine = (files / "e.engine").stat().st_size
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (engine - 1, hard))
    try:
        with pytest.raises(NmnExportError, match="must have room for the engine; got") as caught:
            build(small_file, files / "f.engine", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert (
        f"'{temporary}' (File too large). Free some space, or set the environment variable TMPDIR"
        in str(caught.value)
    )
    assert not list(temporary.iterdir())
    assert len(list(files.iterdir())) == 2


@pytest.mark.parametrize("name", ["a:b", "a;b"])
def test_a_folder_that_cannot_be_in_ld_library_path_is_refused(
    small_file, files, tmp_path, monkeypatch, name
):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(NmnExportError, match="must not contain : or ;") as caught:
        build(small_file, files / "e.engine", compute_capabilities=[89])
    assert "TMPDIR" in str(caught.value)
    assert not [*files.iterdir(), *folder.iterdir()]


LATE = """
import sys, time
import nmn_export.engine.build as build
def place(*_):
    time.sleep(1)
    print("placing", flush=True)
    time.sleep(60)
build.place = place
build.build(sys.argv[1], sys.argv[2], compute_capabilities=[89])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
def test_nothing_is_left_by_a_parent_that_dies_late(small_file, files, temporary, number):
    parent = subprocess.Popen(
        [sys.executable, "-c", LATE, str(small_file), str(files / "e.engine")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with parent:
        assert parent.stdout.readline() == "placing\n"
        assert list(temporary.iterdir())
        parent.send_signal(number)
    for _ in range(100):
        if not list(temporary.iterdir()):
            break
        time.sleep(0.05)
    assert not [*files.iterdir(), *temporary.iterdir()]
