"""Times calls in turn on a GPU, as CUDA graphs over buffers larger than the L2 cache."""

import random
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

CALLS = 20
"""Maximum number of calls per CUDA graph."""

GRAPH_SECONDS = 0.02
"""Time of a CUDA graph that is long enough to measure. Slow layers have fewer calls."""

ITEM_SECONDS = 12.0
"""Time of all rounds. Slow layers have fewer rounds, but at least `MIN_ROUNDS`."""

MIN_ROUNDS = 10

WARMUP = 0.5
"""Seconds of warm-up before timing on a GPU."""

Summary = dict[str, dict[str, float]]
"""For every contestant: median, p20 and p80 in seconds, the ratio to linear with its interval,
and the number of rounds."""


def buffer_copies(item_bytes: int) -> int:
    """Return how many copies of a call's tensors together exceed twice the L2 cache."""
    if not torch.cuda.is_available():
        return 1
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return min(CALLS, 1 + 2 * cache // item_bytes)


def replayed(calls: Sequence[Callable[[], Tensor]]) -> Callable[[], float]:
    """Return a function that makes calls in rotation and returns the seconds of one."""
    if not torch.cuda.is_available():

        def timed_on_cpu() -> float:
            start = time.perf_counter()
            calls[0]()
            return time.perf_counter() - start

        return timed_on_cpu

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            calls[0]()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        calls[0]()
        torch.cuda.synchronize()
    count = max(len(calls), min(CALLS, int(GRAPH_SECONDS / (time.perf_counter() - begin))))
    graph = torch.cuda.CUDAGraph()
    outputs: list[Tensor | None] = [None] * len(calls)
    with torch.cuda.graph(graph, stream=stream):
        for i in range(count):
            outputs[i % len(calls)] = calls[i % len(calls)]()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def timed() -> float:
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / count

    return timed


def time_in_turn(
    work: dict[str, list[Callable[[], Tensor]]], rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of every contestant in at most `rounds` rounds.

    Every round times all contestants, in a new random order. A contestant's calls rotate over
    its buffers, so that the cache does not hold them.
    """
    runs = {name: replayed(calls) for name, calls in work.items()}
    if torch.cuda.is_available():
        until = time.perf_counter() + WARMUP
        while (begin := time.perf_counter()) < until:
            for run in runs.values():
                run()
            round_seconds = time.perf_counter() - begin
        rounds = min(rounds, max(MIN_ROUNDS, int(ITEM_SECONDS / round_seconds)))
    order, shuffle = list(runs), random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            seconds[name].append(runs[name]())
    return seconds


def summarize(seconds: dict[str, list[float]]) -> Summary:
    """Return the statistics of `time_in_turn`; the interval covers 95 % of 400 bootstraps."""
    draw, linear = random.Random(0), seconds["linear"]
    rows = {}
    for name, times in seconds.items():
        ratios = sorted(
            statistics.median(draw.choices(times, k=len(times)))
            / statistics.median(draw.choices(linear, k=len(linear)))
            for _ in range(400)
        )
        fifths = statistics.quantiles(times, n=5)
        median = statistics.median(times)
        rows[name] = {
            "median": median,
            "p20": fifths[0],
            "p80": fifths[-1],
            "ratio": median / statistics.median(linear),
            "ratio_low": ratios[10],
            "ratio_high": ratios[-11],
            "rounds": len(times),
        }
    return rows


def clocks() -> str:
    """Return driver version, SM clock, power and temperature from nvidia-smi; empty without it."""
    query = "--query-gpu=driver_version,clocks.sm,power.draw,temperature.gpu"
    command = ["nvidia-smi", query, "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def measured_rates() -> dict[str, object]:
    """Return the GPU's copy bandwidth in TB/s and cuBLAS rates in TFLOP/s by dtype."""
    size = 8192
    big = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    copy = 2 * big.numel() / _median_seconds(big.clone) / 1e12
    rates = {}
    for name in ("float16", "bfloat16", "float32"):
        x = torch.randn(size, size, device="cuda", dtype=getattr(torch, name))
        rates[name] = 2 * size**3 / _median_seconds(lambda x=x: x @ x) / 1e12
    return {"copy_tb_s": copy, "matmul_tflop_s": rates}


def _median_seconds(call: Callable[[], Tensor]) -> float:
    timed = replayed([call])
    return statistics.median(timed() for _ in range(20))
