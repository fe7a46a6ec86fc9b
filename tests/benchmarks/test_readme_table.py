import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import onnxruntime_cpu, readme_table
from benchmarks.contestants import NAMES

ROOT = Path(__file__).parents[2]


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


def test_a_run_of_named_subjects_writes_to_output_only(tmp_path) -> None:
    # A separate process, because all sessions of the benchmark share one thread pool, and every
    # later session of their process would have to use it.
    output = tmp_path / "some.json"
    command = [sys.executable, "-m", "benchmarks.onnxruntime_cpu", "--rounds", "2", "dense 512"]
    kept = sorted(onnxruntime_cpu.RESULTS.iterdir())
    result = subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    assert "dense 512→1000 b8" in result.stdout
    assert sorted(onnxruntime_cpu.RESULTS.iterdir()) == kept
    (row,) = json.loads(output.read_text())["subjects"].values()
    ours = row["ratios"]["ours"]
    assert ours["p20"] <= ours["p80"]
    assert row["seconds"]["ours"]["calls"] == 2
