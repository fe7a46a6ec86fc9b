import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu_items import Budget, run_item
from benchmarks.gpu_records import Records

FAULTS = {
    "raises": ("raise RuntimeError('bad launch')", "exit code 1"),
    "segfaults": ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
    "hangs": ("import time; time.sleep(60)", "killed after 1.0 s"),
}


def item(records: Records, code: str, limit: float = 1.0) -> bool:
    return run_item(
        records, Budget(100), "timing", "dense", [sys.executable, "-S", "-c", code], limit
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_item_is_recorded_and_the_next_one_runs(tmp_path: Path, fault: str) -> None:
    code, reason = FAULTS[fault]
    records = Records(tmp_path / "out" / "run.jsonl")
    begin = time.monotonic()
    assert not item(
        records, "print('{\"step\": 1}', flush=True); " + code, 1.0 if fault == "hangs" else 20
    )
    assert time.monotonic() - begin < 20
    assert item(records, "print('{\"us\": 2.5}')", 20)
    first, error, last = records
    assert first == {"kind": "timing", "item": "dense", "step": 1}
    assert (error["kind"], error["of"], error["reason"]) == ("error", "timing", reason)
    assert ("bad launch" in error["text"]) == (fault == "raises")
    assert last == {"kind": "timing", "item": "dense", "us": 2.5}


def test_half_a_line_spoils_no_other_record(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text('{"kind": "a"}\n{"kind": "b"')
    Records(file).append("c", x=1)
    assert list(Records(file)) == [{"kind": "a"}, {"kind": "c", "x": 1}]


def test_a_budget_starts_nothing_that_is_unlikely_to_fit() -> None:
    budget = Budget(10, first=5)
    assert budget.fits("timing")
    budget.spent("timing", 20)
    assert not budget.fits("timing")
    assert budget.fits("correctness")
