import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import attention_length
from nmn_export import export

ROOT = Path(__file__).parents[2]


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure two of the contestants."""
    kept = {name: attention_length.LAYERS[name] for name in ("exact", "slay")}
    monkeypatch.setattr(attention_length, "LAYERS", kept)
    monkeypatch.setattr(attention_length, "LONGEST", {"exact": 70})


@pytest.mark.usefixtures("layers")
def test_results_have_time_ratio_and_memory_of_every_length_and_of_the_step() -> None:
    results = attention_length.measure_all([70, 100], 1, Console(quiet=True))
    assert json.loads(json.dumps(results)) == results
    shorter, longer = results["lengths"]["70"], results["lengths"]["100"]
    assert list(shorter["seconds"]) == list(shorter["bytes"]) == ["exact", "slay"]
    assert list(longer["seconds"]) == ["slay"]
    assert shorter["ratios"]["exact"]["ratio"] == 1
    assert shorter["ratio_to"] == "exact"
    assert longer["ratio_to"] == "slay"
    assert set(results["step"]["ratios"]) == {"10", "100000"}
    rows = [row.count("ms") for row in attention_length.table(results).columns[2].cells]
    assert rows == [1, 1]


def test_memory_grows_with_the_length_and_that_of_exact_attention_with_its_square(
    tmp_path: Path,
) -> None:
    growth = {}
    for name in ("exact", "slay"):
        layer, file = attention_length.layer_of(name, 2048), tmp_path / f"{name}.onnx"
        x = torch.randn(1, 5, attention_length.EMBED)
        export(layer, x, file, dynamic_shapes={"x": {1: "length"}}, check=False)
        short, long = (attention_length.memory(file, length) for length in (512, 2048))
        growth[name] = long / short
    assert growth["slay"] < 6
    assert growth["exact"] > 9


def test_bad_options_are_refused_in_one_line() -> None:
    command = [sys.executable, "-m", "benchmarks.attention_length", "--rounds", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --lengths and --rounds are 1 or more")
