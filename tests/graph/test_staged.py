import errno
import os
import stat
from pathlib import Path

import pytest

from nmn_export.errors import NmnExportError
from nmn_export.graph.file import staged


def refusal(path: Path) -> str:
    with pytest.raises(NmnExportError) as raised, staged(path):
        pytest.fail("the body ran")
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_staged_files_are_moved_at_the_end(tmp_path: Path) -> None:
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
def test_nothing_is_left_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
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


def test_a_folder_at_the_path_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.mkdir()
    with pytest.raises(NmnExportError) as raised, staged(path):
        pytest.fail("the body ran")
    assert str(raised.value) == (
        f"The output must be a file; got the folder '{path}'. Name a file in it."
    )
    assert path.is_dir()


def test_a_pipe_at_the_path_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        assert refusal(tmp_path / name).startswith(
            f"The output must be a file; got the device, pipe or socket '{tmp_path / name}'. "
        )
    assert stat.S_ISFIFO(path.lstat().st_mode)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_a_link_and_its_target_is_written(tmp_path: Path, there: bool) -> None:
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
def test_a_name_may_have_the_maximum_length(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("m" * length)
    with staged(path) as staging:
        staging.write_text("new")
    assert path.read_text() == "new"


def test_a_name_that_is_too_long_is_refused_with_its_length(tmp_path: Path) -> None:
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


def test_another_system_error_is_not_reported_as_a_full_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staged(tmp_path / "model.onnx"):
        (tmp_path / "none").read_text()
