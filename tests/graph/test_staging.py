"""Leftovers of killed runs are removed, and running exports are not disturbed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nmn_export.graph import staging
from nmn_export.graph.file import staged

DAY = 24 * 3600

EXPORTS = """
import os, signal, sys, time
from pathlib import Path
import torch
from nmn_export import export
from nmn_export.layers import YatDense

torch.set_num_threads(1)
folder, action = Path(sys.argv[1]), sys.argv[2]
layer, x = YatDense(4, 3), torch.randn(2, 4)

def start(name):
    child = os.fork()
    if not child:
        try:
            for _ in range(3):
                export(layer, x, folder / name)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return child

if action == "killed":
    for delay in (0, 0.001, 0.01, 0.03, 0.1, 0.2):
        before = set(folder.glob(".nmn-*"))
        child = start("model.onnx")
        while set(folder.glob(".nmn-*")) <= before:
            pass
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(len(list(folder.glob(".nmn-*"))))
else:
    children = [start(name) for name in ("a.onnx", "b.onnx", "c.onnx")]
    sys.exit(max(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def exports(folder: Path, action: str) -> subprocess.CompletedProcess[str]:
    """Run exports into a folder in separate processes."""
    command = [sys.executable, "-c", EXPORTS, str(folder), action]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def left_by_a_killed_run(parent: Path, name: str = ".nmn-abcdefgh", host: bytes = b"") -> Path:
    """Make a staging folder like that of a run, but without a lock."""
    folder = parent / name
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "model.onnx").write_text("half")
    (folder / ".nmn-lock").write_bytes(host)
    return folder


def write(path: Path) -> None:
    with staged(path) as file:
        file.write_text("new")


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_folders_of_killed_exports_are_removed_by_the_next_export(tmp_path: Path) -> None:
    result = exports(tmp_path, "killed")
    assert result.returncode == 0, result.stderr
    assert "1" in result.stdout.split(), "no export was killed while it had a folder"
    write(tmp_path / "other.onnx")
    assert {path.name for path in tmp_path.iterdir()} <= {"model.onnx", "other.onnx"}


def test_exports_into_one_folder_at_one_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    result = exports(tmp_path, "together")
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx", "c.onnx"]


def test_the_folder_of_a_run_that_goes_on_stays(tmp_path: Path) -> None:
    with staged(tmp_path / "slow.onnx") as slow:
        slow.write_text("slow")
        (folder,) = tmp_path.glob(".nmn-*")
        for path in (folder, folder / ".nmn-lock"):
            age(path, 2 * DAY)
        write(tmp_path / "quick.onnx")
        assert slow.read_text() == "slow"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quick.onnx", "slow.onnx"]


def test_the_folder_of_another_machine_stays_for_a_day(tmp_path: Path) -> None:
    folder = left_by_a_killed_run(tmp_path, host=b"another machine")
    write(tmp_path / "model.onnx")
    assert (folder / "files" / "model.onnx").exists()
    age(folder / ".nmn-lock", DAY + 60)
    write(tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_folder_without_a_lock_is_removed_if_it_is_empty(tmp_path: Path) -> None:
    empty, full = tmp_path / ".nmn-aaaaaaaa", tmp_path / ".nmn-bbbbbbbb"
    for folder in (empty, full):
        folder.mkdir()
    (full / "notes.txt").write_text("mine")
    write(tmp_path / "model.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".nmn-bbbbbbbb", "model.onnx"]
    assert (full / "notes.txt").read_text() == "mine"


def test_a_run_whose_folder_is_removed_before_it_is_locked_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_and_removed(lock: int, operation: int) -> None:
        (folder,) = tmp_path.glob(".nmn-*")
        (folder / ".nmn-lock").unlink()
        folder.rmdir()
        monkeypatch.undo()

    names = iter(["gone", ".nmn-aaaaaaaa"])

    def mkdtemp(prefix: str, dir: Path) -> str:
        name = next(names)
        if name != "gone":
            (dir / name).mkdir()
        return str(dir / name)

    monkeypatch.setattr(staging.tempfile, "mkdtemp", mkdtemp)
    monkeypatch.setattr(staging.fcntl, "flock", made_and_removed)
    write(tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_other_files_are_never_removed(tmp_path: Path) -> None:
    host = staging.platform.node().encode()
    mixed = left_by_a_killed_run(tmp_path, host=host)
    (mixed / "notes.txt").write_text("mine")
    elsewhere = left_by_a_killed_run(tmp_path / "elsewhere", host=host)
    (tmp_path / ".nmn-cccccccc").symlink_to(elsewhere)
    linked = tmp_path / ".nmn-dddddddd"
    linked.mkdir()
    (linked / "files").symlink_to(elsewhere)
    (linked / ".nmn-lock").symlink_to(elsewhere / ".nmn-lock")
    (tmp_path / ".nmn-file").write_text("mine")
    write(tmp_path / "model.onnx")
    assert (mixed / "notes.txt").read_text() == "mine"
    assert (tmp_path / ".nmn-file").read_text() == "mine"
    assert (elsewhere / "files" / "model.onnx").read_text() == "half"
    assert linked.is_dir()


def test_without_locks_files_are_written_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(staging.fcntl, "flock", refuse)
    folder = left_by_a_killed_run(tmp_path, host=staging.platform.node().encode())
    write(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "new"
    assert (folder / "files" / "model.onnx").exists()
