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


def test_an_item_is_finished_if_its_last_run_ended_without_an_error(tmp_path: Path) -> None:
    records = Records(tmp_path / "run.jsonl")
    for kind, item in (("done", "x"), ("error", "y"), ("done", "z"), ("error", "z"), ("done", "y")):
        records.append(kind, item=item)
    assert records.finished() == {"x", "y"}
