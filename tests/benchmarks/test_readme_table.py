import copy
import json

import pytest

from benchmarks import onnxruntime_cpu, readme_table
from benchmarks.contestants import NAMES


@pytest.fixture
def results():
    return json.loads(readme_table.newest().read_text())


def test_the_readme_has_the_table_of_the_newest_results(results) -> None:
    readme = readme_table.README.read_text()
    assert readme_table.BEGIN in readme
    assert readme_table.replaced(readme, readme_table.rendered(results)) == readme


def test_every_subject_of_the_benchmark_is_in_the_results(results) -> None:
    assert list(results["subjects"]) == [s.name for s in onnxruntime_cpu.SUBJECTS]
    for row in results["subjects"].values():
        assert set(row["ratios"]) == set(NAMES)
        assert row["ratios"]["linear"] == {"ratio": 1, "p20": 1, "p80": 1}


def test_other_results_make_another_table(results) -> None:
    changed = copy.deepcopy(results)
    name, row = next(iter(changed["subjects"].items()))
    row["ratios"]["ours"] = {"ratio": 1.234, "p20": 1.1, "p80": 1.4}
    changed["machine"]["processor"] = "A processor"
    table = readme_table.rendered(changed)
    assert f"| {name} | 1 | **1.23** (1.10–1.40) |" in table
    assert "A processor, " in table
    assert table != readme_table.rendered(results)


def test_a_run_of_some_subjects_is_printed_and_not_kept(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(onnxruntime_cpu, "RESULTS", None)
    output = tmp_path / "some.json"
    for options in ([], ["--output", str(output)]):
        monkeypatch.setattr("sys.argv", ["benchmark", "--rounds", "2", "dense 512", *options])
        onnxruntime_cpu.main()
        assert "dense 512→1000 b8" in capsys.readouterr().out
    (row,) = json.loads(output.read_text())["subjects"].values()
    ours = row["ratios"]["ours"]
    assert ours["p20"] <= ours["p80"]
    assert row["seconds"]["ours"]["calls"] == 2
