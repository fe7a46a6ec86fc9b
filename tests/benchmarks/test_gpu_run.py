import json
from pathlib import Path

import pytest

from benchmarks import gpu_run
from benchmarks.gpu_subjects import TINY_SHAPES

REASONS = {"wrong": "exit code 1"}


@pytest.mark.parametrize("fault", REASONS)
def test_a_broken_kernel_is_recorded_and_the_others_are_checked(tmp_path: Path, fault: str) -> None:
    broken = TINY_SHAPES[0].name
    arguments = ["--dry-run", "--only", "correctness", "--budget", "150", "--limit", "50"]
    code = gpu_run.main([*arguments, "--out", str(tmp_path), "--inject-fault", fault, broken])
    records = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert code == 1
    (error,) = (r for r in records if r["kind"] == "error")
    assert error["item"].startswith(broken)
    assert error["reason"] == REASONS[fault]
    assert ("is wrong" in error["text"]) == (fault == "wrong")
    checked = [r["shape"] for r in records if r["kind"] == "correctness"]
    assert checked == [shape.name for shape in TINY_SHAPES[1:]]


def test_without_an_output_folder_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OUT", raising=False)
    with pytest.raises(SystemExit) as caught:
        gpu_run.main(["--dry-run"])
    assert caught.value.code == 2
    assert "--out FOLDER" in capsys.readouterr().err
