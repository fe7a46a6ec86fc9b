"""What a launch on a GPU takes: the GPU itself, and the host beside it."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

LAUNCHES = 10
"""Launches, one behind the other, between the two events of a turn."""

WARMUP = 0.5
"""Seconds for which all contestants take turns before the first round: clocks rise under load."""


@dataclass(frozen=True)
class Turn:
    """One turn of one contestant, each in seconds a launch.

    Attributes:
        gpu: Between two CUDA events around launches in a row.
        host: Of a launch that is waited for, from the call to the end of the wait.
        enqueue: Of the host until a launch in a row is enqueued.
    """

    gpu: float
    host: float
    enqueue: float


@dataclass(frozen=True)
class Percentiles:
    """Seconds: half of the turns were faster than the median, and of ten 2, 8, 9, 9.5 and 9.9."""

    median: float
    p20: float
    p80: float
    p90: float
    p95: float
    p99: float


def take_turn(launch: Callable[[], object], stream: Any) -> Turn:
    """Time a contestant after a launch that is not timed, with which it meets its data in cache.

    Args:
        launch: Enqueues work on the current stream.
        stream: The stream that is to be the current one.
    """
    with torch.cuda.stream(stream):
        launch()
        stream.synchronize()
        start = time.perf_counter()
        launch()
        stream.synchronize()
        host = time.perf_counter() - start
        first, last = _event(), _event()
        first.record(stream)
        start = time.perf_counter()
        for _ in range(LAUNCHES):
            launch()
        enqueue = time.perf_counter() - start
        last.record(stream)
        last.synchronize()
    return Turn(first.elapsed_time(last) / 1e3 / LAUNCHES, host, enqueue / LAUNCHES)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def percentiles(seconds: Sequence[float]) -> Percentiles:
    """Summarise what was measured; of fewer than two, every percentile is the first."""
    if len(seconds) < 2:
        return Percentiles(*[seconds[0]] * 6)
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return Percentiles(statistics.median(seconds), *(cuts[p - 1] for p in (20, 80, 90, 95, 99)))
