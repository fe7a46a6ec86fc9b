"""GPU time and host time of launches."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

LAUNCHES = 10
"""Number of consecutive launches between the two CUDA events of a measurement."""

WARMUP = 0.5
"""Seconds of warm-up before the first round, because GPU clocks rise under load."""


@dataclass(frozen=True)
class Turn:
    """One measurement of one contestant, in seconds per launch.

    Attributes:
        gpu: GPU time between two CUDA events around consecutive launches.
        host: Host time of one launch, including the wait for its end.
        enqueue: Host time to enqueue one of the consecutive launches.
    """

    gpu: float
    host: float
    enqueue: float


@dataclass(frozen=True)
class Percentiles:
    """Median and percentiles of measured times, in seconds."""

    median: float
    p20: float
    p80: float
    p90: float
    p95: float
    p99: float


def take_turn(launch: Callable[[], object], stream: Any) -> Turn:
    """Measure a contestant once, after an untimed launch that warms the cache.

    Args:
        launch: Enqueues work on the current stream.
        stream: The stream to launch on.
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
    """Summarize measured times; with a single time, every percentile is that time."""
    if len(seconds) < 2:
        return Percentiles(*[seconds[0]] * 6)
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return Percentiles(statistics.median(seconds), *(cuts[p - 1] for p in (20, 80, 90, 95, 99)))
