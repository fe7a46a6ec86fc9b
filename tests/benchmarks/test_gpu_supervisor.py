import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu_supervisor
from benchmarks.gpu_items import Budget
from benchmarks.gpu_queue import Candidate, Item
from benchmarks.gpu_records import Record, Records
from benchmarks.gpu_shapes import Shape
from benchmarks.gpu_supervisor import Supervisor, WorkerDiedError

BAD, GOOD = Shape(7, 1, 1), Shape(8, 1, 1)

WORKER = """
import json, os, sys, time
print(json.dumps({"gpu": "fake"}), flush=True)
for line in sys.stdin:
    item = json.loads(line)
    print(json.dumps({"record": {"shape": item["shape"]["batch"], "pid": os.getpid()}}), flush=True)
    if item["shape"]["batch"] == 7:
        FAULT
    print(json.dumps({"done": True, "usable": True}), flush=True)
"""

FAULTS = {
    "raise": (
        "print(json.dumps({'failed': 'ValueError: x', 'text': '', 'usable': True}), flush=True)\n"
        "        continue",
        "ValueError: x",
    ),
    "illegal access": (
        "print(json.dumps({'failed': 'illegal access', 'text': '', 'usable': False}), flush=True)\n"
        "        sys.exit(1)",
        "illegal access",
    ),
    "crash": ("print('bad address', file=sys.stderr, flush=True); os.abort()", "ended by SIGABRT"),
    "exit": ("sys.exit(3)", "ended with code 3"),
    "half a line": ("print('{\"rec', end='', flush=True); os.abort()", "ended by SIGABRT"),
    "hang": ("time.sleep(60)", "killed at the time limit"),
}


def supervisor(folder: Path, fault: str, seconds: float = 60, limit: float = 20) -> Supervisor:
    command = [sys.executable, "-S", "-c", WORKER.replace("FAULT", fault)]
    records = Records(folder / "gpu.jsonl")
    return Supervisor(command, folder, records, Budget(seconds), limit)


def run(subject: Supervisor, items: list[Item]) -> list[Record]:
    try:
        subject.start()
        subject.run(items)
    finally:
        subject.stop()
    return [json.loads(line) for line in subject.records.file.read_text().splitlines()]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_item_is_recorded_and_the_others_run(tmp_path: Path, fault: str) -> None:
    code, reason = FAULTS[fault]
    items = [Item("timing", shape, mode) for mode in "ab" for shape in (GOOD, BAD)]
    begin = time.monotonic()
    subject = supervisor(tmp_path, code, limit=1 if fault == "hang" else 20)
    records = run(subject, items)
    assert time.monotonic() - begin < 20
    errors = [r for r in records if r["kind"] == "error"]
    bad = [items[1].name, items[3].name]
    assert [error["item"] for error in errors] == bad
    assert all(error["of"] == "timing" and reason in error["reason"] for error in errors)
    assert subject.failed == 2
    if fault == "crash":
        assert "bad address" in errors[0]["text"]
    assert [r["item"] for r in records if r["kind"] == "done"] == [items[0].name, items[2].name]
    # Results that came before the failure are kept. Only a dead worker is replaced.
    timed = [r for r in records if r["kind"] == "timing"]
    assert len(timed) == 4
    assert len({r["pid"] for r in timed}) == (1 if fault == "raise" else 2)


def test_a_shape_that_ended_two_workers_is_skipped_except_its_other_tiles(tmp_path: Path) -> None:
    tile = Item("tiles", BAD, "a", Candidate("grouped", 16, 16, 16, 4))
    items = [*(Item("timing", BAD, mode) for mode in "abc"), tile, Item("timing", GOOD, "a")]
    records = run(supervisor(tmp_path, "os.abort()"), items)
    failed = [r["item"] for r in records if r["kind"] == "error"]
    assert failed == [items[0].name, items[1].name, tile.name]
    (skipped,) = (r for r in records if r["kind"] == "skipped")
    assert skipped["items"] == [items[2].name]
    (done,) = (r for r in records if r["kind"] == "done")
    assert done["item"] == items[4].name


def test_the_budget_bounds_a_run_and_its_last_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_supervisor, "FIRST_ESTIMATES", {"timing": 0.0})
    items = [Item("timing", BAD, str(i)) for i in range(40)]
    begin = time.monotonic()
    records = run(supervisor(tmp_path, "time.sleep(0.7)", 4), items)
    assert time.monotonic() - begin < 5
    done = [r["item"] for r in records if r["kind"] == "done"]
    (skipped,) = (r["items"] for r in records if r["kind"] == "skipped")
    assert 1 <= len(done) <= 5
    assert done + skipped == [item.name for item in items]
    assert not [r for r in records if r["kind"] == "error"]


def test_an_item_that_the_end_of_the_budget_stops_is_no_failure(tmp_path: Path) -> None:
    subject = supervisor(tmp_path, "time.sleep(60)")
    subject.start()
    subject.budget = Budget(100, start=time.monotonic() - 99)
    subject._run(Item("timing", BAD, "a"))
    assert subject.failed == 0
    assert [(r["kind"], r.get("reason")) for r in subject.records] == [
        ("timing", None),
        ("skipped", "the budget ended"),
    ]


def test_estimates_are_per_kind_and_size(tmp_path: Path) -> None:
    large, small = Item("timing", Shape(65536, 4096, 4096)), Item("timing", GOOD)
    subject = supervisor(tmp_path, "pass", seconds=100)
    budget = subject.budget = Budget(100, start=time.monotonic() - 80)
    subject.start_seconds = 0.0
    assert subject._fits(large)
    budget.spent(large.size_class, 50)
    assert not subject._fits(large)
    budget.spent(small.size_class, 15)
    assert subject._fits(small)
    subject.start_seconds = 10.0  # no worker runs yet
    assert not subject._fits(small)


def test_a_worker_that_cannot_start_ends_the_run_with_its_message(tmp_path: Path) -> None:
    subject = supervisor(tmp_path, "pass")
    subject.command = [sys.executable, "-S", "-c", "raise ImportError('no torch')"]
    with pytest.raises(WorkerDiedError, match="no torch"):
        subject.start()


def test_items_that_an_interrupted_run_left_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Supervisor, item: Item) -> bool:
        raise KeyboardInterrupt

    subject = supervisor(tmp_path, "pass")
    monkeypatch.setattr(Supervisor, "_run", interrupted)
    items = [Item("timing", GOOD, mode) for mode in "ab"]
    with pytest.raises(KeyboardInterrupt):
        subject.run(items)
    subject.stop()
    (skipped,) = subject.records
    assert skipped["reason"] == "the run ended"
    assert skipped["items"] == [item.name for item in items]


def test_a_worker_that_is_not_ready_when_the_budget_ends_is_no_error(tmp_path: Path) -> None:
    subject = supervisor(tmp_path, "pass")
    subject.command = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    subject.budget = Budget(100, start=time.monotonic() - 94)
    item = Item("tiles", GOOD, "a")
    subject.run([item])
    (skipped,) = subject.records
    assert skipped["items"] == [item.name]
