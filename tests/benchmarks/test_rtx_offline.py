"""TensorRT-RTX in pieces: packed, installed, and every unanswered question recorded."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks import rtx_offline
from benchmarks.rtx_pieces import LIST, PIECES, RtxError, cut, running_python

PACKAGE = {
    "tensorrt_rtx.py": "raise ImportError('no libtensorrt_rtx.so.1')\n",
    "tensorrt_rtx_libs/libtensorrt_rtx.so.1": "library",
    "fake-1.dist-info/METADATA": "Version: 1\n",
}


def pack(folder: Path, contents: dict[str, str], python: str | None = None) -> Path:
    """Cut a wheel of these files and one subject into small pieces."""
    folder.mkdir()
    wheel, subject = folder / "fake-1-py3-none-any.whl", folder / "net.onnx"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    subject.write_bytes(bytes(range(256)) * 40)
    cut([wheel], [subject], folder / PIECES, 3000, python or running_python())
    return folder / PIECES


def install(source: Path, target: Path) -> int:
    return rtx_offline.main(["install", str(source), str(target)])


def installed(target: Path) -> list[str]:
    """Return what lies in the target folder beside the pieces."""
    return sorted(p.name for p in target.iterdir() if p.name != PIECES)


def test_pieces_that_arrive_one_by_one_are_installed_in_the_end(tmp_path, capsys):
    pieces, target = pack(tmp_path / "packed", PACKAGE), tmp_path / "target"
    names = sorted(file.name for file in pieces.glob("piece-*"))
    assert len(names) > 3
    assert all(file.stat().st_size <= 3000 for file in pieces.iterdir())
    for received, name in enumerate(names, 1):
        part = tmp_path / f"part-{received}"
        part.mkdir()
        shutil.copy(pieces / name, part)
        if received == 1:  # the list has to be there once
            shutil.copy(pieces / LIST, part)
        assert install(part, target) == 0
        printed = capsys.readouterr().out
        if received < len(names):
            missing = ", ".join(map(str, range(received + 1, len(names) + 1)))
            assert printed == f"waiting for pieces {missing}\n"
            assert installed(target) == []
    assert printed.startswith("installed ")
    for name, content in PACKAGE.items():
        assert (target / name).read_text() == content
    assert (target / "subjects/net.onnx").read_bytes() == bytes(range(256)) * 40
    assert (target / "tensorrt_rtx_libs/libtensorrt_rtx.so").read_text() == "library"


def test_repeated_installation_changes_nothing(tmp_path, capsys):
    pieces, target, empty = pack(tmp_path / "packed", PACKAGE), tmp_path / "target", tmp_path / "no"
    empty.mkdir()
    assert install(pieces, target) == 0
    before = {p: p.stat().st_mtime_ns for p in target.rglob("*") if p.name != LIST and p.is_file()}
    capsys.readouterr()
    assert install(empty, target) == 0
    assert capsys.readouterr().out == f"already installed in {target}\n"
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_new_pack_replaces_an_old_one(tmp_path):
    old = pack(tmp_path / "old", {**PACKAGE, "removed/module.py": ""})
    new = pack(tmp_path / "new", {**PACKAGE, "tensorrt_rtx.py": "x = 2\n"})
    target = tmp_path / "target"
    assert install(old, target) == install(new, target) == 0
    assert not (target / "removed").exists()
    assert (target / "tensorrt_rtx.py").read_text() == "x = 2\n"


def test_the_same_files_make_the_same_pieces(tmp_path):
    first, second = pack(tmp_path / "first", PACKAGE), pack(tmp_path / "second", PACKAGE)
    assert (first / LIST).read_text() == (second / LIST).read_text()


@pytest.mark.parametrize("damage", [lambda b: b[:-1] + b"?", lambda b: b[:-1], lambda b: b""])
def test_with_a_damaged_piece_nothing_is_installed(tmp_path, capsys, damage):
    pieces, target = pack(tmp_path / "packed", PACKAGE), tmp_path / "target"
    piece = pieces / "piece-02"
    whole = piece.read_bytes()
    piece.write_bytes(damage(whole))
    assert install(pieces, target) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: A piece must have the SHA-256")
    assert str(piece) in printed.err
    assert printed.err.count("\n") == 1
    assert installed(target) == []
    piece.write_bytes(whole)
    assert install(pieces, target) == 0
    assert "tensorrt_rtx.py" in installed(target)


def test_without_a_list_nothing_is_received(tmp_path, capsys):
    pieces = pack(tmp_path / "packed", PACKAGE)
    (pieces / LIST).write_text("{}")
    assert install(pieces, tmp_path / "target") == 2
    assert "must be as `pack` wrote it" in capsys.readouterr().err
    (pieces / LIST).unlink()
    assert install(pieces, tmp_path / "target") == 2
    assert "The list of pieces must be there first" in capsys.readouterr().err
    assert not (tmp_path / "target").exists()


def test_every_question_without_an_answer_is_recorded(tmp_path, capsys):
    target, out = tmp_path / "target", tmp_path / "out"
    install(pack(tmp_path / "packed", PACKAGE), target)
    assert rtx_offline.main(["measure", str(target), "--out", str(out)]) == 1
    records = [json.loads(line) for line in (out / "rtx.jsonl").read_text().splitlines()]
    assert [r["item"] for r in records] == [" ".join(q) for q in rtx_offline.QUESTIONS]
    assert [r["of"] for r in records] == [q[0] for q in rtx_offline.QUESTIONS]
    for record in records:
        assert record["kind"] == "error"
        assert record["reason"] == "exit code 1"
        assert record["text"].endswith("ImportError: no libtensorrt_rtx.so.1\n")
    count = len(rtx_offline.QUESTIONS)
    assert f"{count} of {count} questions were not answered" in capsys.readouterr().out


def test_questions_beyond_the_budget_are_recorded(tmp_path):
    target = tmp_path / "target"
    install(pack(tmp_path / "packed", PACKAGE), target)
    arguments = ["measure", str(target), "--out", str(tmp_path), "--budget", "0"]
    assert rtx_offline.main(arguments) == 1
    records = [json.loads(line) for line in (tmp_path / "rtx.jsonl").read_text().splitlines()]
    assert len(records) == len(rtx_offline.QUESTIONS)
    assert {(r["kind"], r["reason"]) for r in records} == {("skipped", "budget")}


def test_measure_needs_a_complete_installation_for_this_python(tmp_path, capsys):
    target, out = tmp_path / "target", tmp_path / "out"
    arguments = ["measure", str(target), "--out", str(out)]
    assert rtx_offline.main(arguments) == 2
    assert "Install all pieces into it first" in capsys.readouterr().err
    install(pack(tmp_path / "packed", PACKAGE, python="3.1"), target)
    assert rtx_offline.main(arguments) == 2
    assert f"are for Python 3.1; got {running_python()}" in capsys.readouterr().err
    assert not out.exists()


def test_wheels_of_an_earlier_pack_are_used_again(tmp_path, monkeypatch):
    def fail(*command: str) -> None:
        raise AssertionError(command)

    monkeypatch.setattr(rtx_offline, "_run", fail)
    wheel = tmp_path / "pygments-2.21.0-py3-none-any.whl"
    wheel.touch()
    (tmp_path / "pygments-2.2-py3-none-any.whl").touch()
    assert rtx_offline._wheel("Pygments", tmp_path, "3.12") == wheel
    with pytest.raises(AssertionError, match="manylinux"):
        rtx_offline._wheel("rich", tmp_path, "3.12")
    with pytest.raises(RtxError, match="no version of unknown"):
        rtx_offline._wheel("unknown", tmp_path, "3.12")


def test_pack_needs_the_plugin_library(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rtx_offline, "LIBRARY", tmp_path / "libnmn_plugin.so")
    assert rtx_offline.main(["pack", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.endswith("Run `make plugin`.\n")
    assert not (tmp_path / "out").exists()


def test_a_command_that_fails_is_one_line():
    with pytest.raises(RtxError, match=r"must succeed; got: the reason$"):
        rtx_offline._run(sys.executable, "-c", "import sys; sys.exit('first\\nthe reason')")


def test_a_target_that_cannot_be_written_is_an_error(tmp_path, capsys):
    pieces, target = pack(tmp_path / "packed", PACKAGE), tmp_path / "target"
    target.touch()
    assert install(pieces, target) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_every_packed_package_is_pinned():
    lines = (rtx_offline.ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines}
    assert {*rtx_offline.SOURCES, *rtx_offline.PACKAGES} <= pinned


def test_a_wheel_that_unpacking_does_not_install_is_refused(tmp_path):
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a.py", "")
        archive.writestr("a-1.data/purelib/b.py", "")
    with pytest.raises(RtxError, match=r"got 'a-1.data/purelib/b.py'"):
        rtx_offline._check_unpackable(wheel)
