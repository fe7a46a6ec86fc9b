from pathlib import Path

from benchmarks.gpu_records import Records


def test_an_incomplete_last_line_spoils_no_other_record(tmp_path: Path) -> None:
    file = tmp_path / "out" / "run.jsonl"
    file.parent.mkdir()
    file.write_text('{"kind": "a"}\n{"kind": "b"')
    Records(file).append("c", x=1)
    assert list(Records(file)) == [{"kind": "a"}, {"kind": "c", "x": 1}]


def test_a_record_is_in_the_file_at_once(tmp_path: Path) -> None:
    records = Records(tmp_path / "new" / "folder" / "run.jsonl")
    records.append("a")
    assert records.file.read_text() == '{"kind": "a"}\n'
    records.append("done", item="x")
    records.append("error", item="y")
    assert records.finished() == {"x"}
