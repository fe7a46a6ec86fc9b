"""Timing contestants against each other, in turn, in one run."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """What one contestant took.

    Attributes:
        median: Of its calls, in seconds.
        p20: Of every ten calls two were faster.
        p80: And two were slower.
        calls: How many were timed.
    """

    median: float
    p20: float
    p80: float
    calls: int


def interleave(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 3,
    pause: float = 0.005,
    on_round: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time every contestant once a round, in an order drawn anew for each.

    Before each turn is a pause, in which the idle threads of the one before stop spinning. Each
    timed call follows an untimed one, so that a contestant meets its own data in the cache.

    Args:
        contestants: What to call, by name.
        rounds: How often.
        warmup: Untimed calls of each before the first round.
        pause: Before each turn, in seconds.
        on_round: Called after each round, for a progress bar.
    """
    order = list(contestants)
    shuffle = random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for call in contestants.values():
        for _ in range(warmup):
            call()
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            call = contestants[name]
            time.sleep(pause)
            call()
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
        on_round()
    return {name: _timing(found) for name, found in seconds.items()}


def _timing(seconds: list[float]) -> Timing:
    if len(seconds) < 2:
        return Timing(seconds[0], seconds[0], seconds[0], len(seconds))
    fifths = statistics.quantiles(seconds, n=5)
    return Timing(statistics.median(seconds), fifths[0], fifths[-1], len(seconds))
