import contextlib

import pytest
import torch

from nmn_export.report import gpu_timing
from nmn_export.report.gpu_timing import LAUNCHES, percentiles, take_turn


class Stream:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def synchronize(self) -> None:
        self.log.append("wait")


class Event:
    """A CUDA event whose clock advances 2 ms per launch."""

    def __init__(self, log: list[str]) -> None:
        self.log, self.at = log, -1

    def record(self, stream: Stream) -> None:
        assert stream.log is self.log
        self.at = self.log.count("launch")
        self.log.append("event")

    def synchronize(self) -> None:
        self.log.append("wait for event")

    def elapsed_time(self, other: "Event") -> float:
        return 2.0 * (other.at - self.at)


def test_a_turn_times_consecutive_launches_after_a_warm_up(monkeypatch):
    log: list[str] = []
    monkeypatch.setattr(gpu_timing, "_event", lambda: Event(log))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    turn = take_turn(lambda: log.append("launch"), Stream(log))
    assert log == [
        "launch", "wait", "launch", "wait", "event", *["launch"] * LAUNCHES, "event",
        "wait for event",
    ]  # fmt: skip
    assert turn.gpu == pytest.approx(2e-3)
    assert turn.host > 0
    assert turn.enqueue > 0


def test_percentiles_of_measured_times():
    found = percentiles([i / 100 for i in range(101)])
    assert [found.median, found.p20, found.p80] == pytest.approx([0.5, 0.2, 0.8])
    assert [found.p90, found.p95, found.p99] == pytest.approx([0.9, 0.95, 0.99])
    assert percentiles([3.0]).p99 == 3.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_turn_measures_the_gpu():
    stream = torch.cuda.Stream()
    turn = take_turn(lambda: torch.cuda._sleep(10_000_000), stream)
    assert turn.gpu == pytest.approx(turn.host, rel=0.2)
    assert turn.enqueue < 0.1 * turn.gpu
