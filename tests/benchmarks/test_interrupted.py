"""A run writes its results once it is complete, and keeps finished subjects if it is not."""

import json

import pytest

from benchmarks import onnxruntime_cpu, readme_table

ROW = {
    "target": None,
    "seconds": {n: {"median": 1.0, "calls": 3} for n in onnxruntime_cpu.NAMES},
    "ratios": {n: {"ratio": 1, "p20": 1, "p80": 1} for n in onnxruntime_cpu.NAMES},
}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the benchmark on subjects that cost nothing; it is interrupted in one of them."""
    monkeypatch.setattr(onnxruntime_cpu, "RESULTS", tmp_path)

    def run(*arguments, interrupt_at=None):
        def measure(subject, rounds, progress):
            if subject.name == interrupt_at:
                raise KeyboardInterrupt
            return ROW

        monkeypatch.setattr(onnxruntime_cpu, "measure", measure)
        monkeypatch.setattr("sys.argv", ["benchmark", *arguments])
        onnxruntime_cpu.main()

    return run


def test_a_complete_run_leaves_one_file(run, tmp_path):
    run()
    (file,) = tmp_path.iterdir()
    assert file.name.endswith(onnxruntime_cpu.SUFFIX)
    names = [s.name for s in onnxruntime_cpu.SUBJECTS]
    assert list(json.loads(file.read_text())["subjects"]) == names


def test_an_interrupted_run_keeps_finished_subjects_and_the_earlier_results(
    run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(readme_table, "RESULTS", tmp_path)
    run()
    (complete,) = tmp_path.iterdir()
    before = complete.read_bytes()
    first, second = onnxruntime_cpu.SUBJECTS[:2]
    with pytest.raises((SystemExit, KeyboardInterrupt)) as caught:
        run(interrupt_at=second.name)
    assert caught.type is SystemExit
    assert caught.value.code == 130  # so that make does not go on to the README
    partial = onnxruntime_cpu.partial_file(complete)
    assert str(partial) in capsys.readouterr().err
    assert list(json.loads(partial.read_text())["subjects"]) == [first.name]
    assert complete.read_bytes() == before
    assert readme_table.newest() == complete


def test_a_run_of_named_subjects_writes_nothing(run, tmp_path):
    run("dense")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds is 1 or more; got 0"),
        (["no-such-subject"], "No subject has such a name; got ['no-such-subject']"),
        (["--output", "no/such/folder.json"], "an existing folder; got no/such/folder.json"),
    ],
)
def test_a_wrong_argument_is_one_line_before_anything_is_measured(
    run, arguments, message, tmp_path, capsys
):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("results", "readme", "message"),
    [
        ({"seconds": {}}, f"{readme_table.BEGIN}{readme_table.END}", "Run `make bench`"),
        ({"subjects": {}}, f"{readme_table.END}{readme_table.BEGIN}", "needs the comments"),
        ({"subjects": {}}, "no comments", "needs the comments"),
    ],
)
def test_the_readme_is_left_alone_if_its_table_cannot_be_made(
    results, readme, message, tmp_path, monkeypatch, capsys
):
    file, text = tmp_path / "results.json", tmp_path / "README.md"
    file.write_text(json.dumps(results))
    text.write_text(readme)
    monkeypatch.setattr(readme_table, "README", text)
    monkeypatch.setattr("sys.argv", ["readme_table", str(file)])
    with pytest.raises(SystemExit) as caught:
        readme_table.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert text.read_text() == readme
