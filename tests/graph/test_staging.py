import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nmn_export.errors import NmnExportError
from nmn_export.graph.staging import staged


def refusal(path: Path) -> str:
    with pytest.raises(NmnExportError) as raised, staged(path):
        pytest.fail("the body ran")
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_staged_files_take_their_place_when_all_went_well(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with staged(path) as staging:
        staging.write_text("new")
        staging.with_name(staging.name + ".data").write_text("weights")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert (tmp_path / "model.onnx.data").read_text() == "weights"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_behind_when_something_goes_wrong(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("old")

    def write_half_of_it() -> None:
        with staged(path) as staging:
            staging.write_text("half of the new")
            staging.with_name(staging.name + ".data").write_text("weights")
            raise error

    with pytest.raises(error):
        write_half_of_it()
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_text() == "old"


def test_a_folder_that_does_not_exist_is_refused_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "none" / "model.onnx"
    with pytest.raises(NmnExportError) as raised, staged(path):
        pytest.fail("the body ran")
    assert str(raised.value) == (
        f"The output folder must exist and be writable; got '{path.parent}' "
        "(No such file or directory). Create it or choose another."
    )


def test_a_folder_in_the_place_of_the_file_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.mkdir()
    with pytest.raises(NmnExportError) as raised, staged(path):
        pytest.fail("the body ran")
    assert str(raised.value) == (
        f"The output must be a file; got the folder '{path}'. Name a file in it."
    )
    assert path.is_dir()


def test_a_pipe_in_the_place_of_the_file_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        assert refusal(tmp_path / name).startswith(
            f"The output must be a file; got the device, pipe or socket '{tmp_path / name}'. "
        )
    assert stat.S_ISFIFO(path.lstat().st_mode)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_one_and_its_target_is_written(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    target, link = folder / "v1.onnx", tmp_path / "model.onnx"
    link.symlink_to("folder/v1.onnx")
    if there:
        target.write_text("old")
    with staged(link) as staging:
        staging.write_text("new")
        staging.with_name(staging.name + ".data").write_text("weights")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert sorted(p.name for p in folder.iterdir()) == ["v1.onnx", "v1.onnx.data"]


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert refusal(tmp_path / "a").startswith("The output must be a file; got '")


@pytest.mark.parametrize("length", [240, 255])
def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("m" * length)
    with staged(path) as staging:
        staging.write_text("new")
    assert path.read_text() == "new"


def test_a_longer_name_is_measured(tmp_path: Path) -> None:
    assert refusal(tmp_path / ("ⵟ" * 100)) == (
        "The name of an output file has at most 255 bytes; got 300 bytes (File name too long). "
        "Choose a shorter one."
    )


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), OSError("9 requested and 4 written")],
    ids=["system", "numpy"],
)
def test_a_full_folder_is_one_line_and_nothing_is_left(tmp_path: Path, error: OSError) -> None:
    path = tmp_path / "model.onnx"

    def fill() -> None:
        with staged(path) as staging:
            staging.write_text("half")
            raise error

    with pytest.raises(NmnExportError, match=r"^The output folder must have room for the file; "):
        fill()
    assert not [*tmp_path.iterdir()]


def test_another_error_of_the_system_is_not_taken_for_a_full_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staged(tmp_path / "model.onnx"):
        (tmp_path / "none").read_text()


HOLD = """
import sys, time
from pathlib import Path
from nmn_export.graph.staging import staged

with staged(Path(sys.argv[1])) as staging:
    staging.write_text("half of it")
    print("writing", flush=True)
    time.sleep(60)
"""


def writer(path: Path) -> subprocess.Popen[str]:
    """Return a process that is in the middle of writing `path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def test_what_killed_processes_left_is_removed_and_what_others_write_is_not(tmp_path: Path) -> None:
    processes = [writer(tmp_path / f"model{i}.onnx") for i in range(3)]
    try:
        for process in processes[:2]:
            process.kill()
            process.wait()
        folders = {p.name for p in tmp_path.iterdir()}
        assert len(folders) == 3
        with staged(tmp_path / "model.onnx") as staging:
            staging.write_text("whole")
        left = {p.name for p in tmp_path.iterdir()} - {"model.onnx"}
        assert len(left) == 1
        assert left < folders
        assert (tmp_path / left.pop() / "model2.onnx").read_text() == "half of it"
    finally:
        processes[2].kill()
        processes[2].wait()
    with staged(tmp_path / "model.onnx") as staging:
        staging.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    "name", [".nmn-export-mine", ".nmn-export-abcdefgh1", ".nmn", "nmn-export"]
)
def test_no_other_folder_is_ever_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious").write_text("kept")
    with staged(tmp_path / "model.onnx") as staging:
        staging.write_text("new")
    assert (tmp_path / name / "precious").read_text() == "kept"


def test_a_link_that_is_named_as_a_stale_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("kept")
    (tmp_path / ".nmn-export-abcdefgh").symlink_to(tmp_path / "elsewhere")
    with staged(tmp_path / "model.onnx") as staging:
        staging.write_text("new")
    assert (tmp_path / "elsewhere" / "precious").read_text() == "kept"


def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (tmp_path / ".nmn-export-abcdefgh").mkdir()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with staged(tmp_path / "model.onnx") as staging:
        staging.write_text("new")
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [".nmn-export-abcdefgh", "model.onnx"]


def test_a_folder_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = tempfile.mkdtemp

    def removed_the_first_time(**options: object) -> str:
        made.append(real(**options))
        if len(made) == 1:
            Path(made[0]).rmdir()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", removed_the_first_time)
    with staged(tmp_path / "model.onnx") as staging:
        staging.write_text("new")
    assert len(made) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
