"""Timing contestants against each other, in turn, in one run."""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

C = TypeVar("C")
T = TypeVar("T")

_RESAMPLES = 400


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


@dataclass(frozen=True)
class Ratio:
    """Of the median of one contestant to that of another.

    Attributes:
        value: The ratio.
        low: Of its 95 % interval, by bootstrap.
        high: Likewise.
    """

    value: float
    low: float
    high: float


def interleave(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 3,
    pause: float = 0.005,
    on_round: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time every contestant once a round, and summarise; see `sample`."""
    sampled = sample(contestants, rounds, warmup, pause, on_round)
    return {name: timing(seconds) for name, seconds in sampled.items()}


def sample(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 3,
    pause: float = 0.005,
    on_round: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Return the seconds that every contestant took in each round, in an order drawn for each.

    Before each turn is a pause, in which the idle threads of the one before stop spinning. Each
    timed call follows an untimed one, so that a contestant meets its own data in the cache.

    Args:
        contestants: What to call, by name.
        rounds: How often.
        warmup: Untimed calls of each before the first round.
        pause: Before each turn, in seconds.
        on_round: Called after each round, for a progress bar.
    """
    for call in contestants.values():
        for _ in range(warmup):
            call()

    def timed(call: Callable[[], object]) -> float:
        time.sleep(pause)
        call()
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return take_turns(contestants, timed, rounds, on_round)


def take_turns(
    contestants: Mapping[str, C],
    measure: Callable[[C], T],
    rounds: int,
    on_round: Callable[[], object] = lambda: None,
) -> dict[str, list[T]]:
    """Measure every contestant once a round, in an order drawn anew for each."""
    order = list(contestants)
    shuffle = random.Random(0).shuffle
    found: dict[str, list[T]] = {name: [] for name in contestants}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            found[name].append(measure(contestants[name]))
        on_round()
    return found


def timing(seconds: Sequence[float]) -> Timing:
    """Summarise what was measured."""
    if len(seconds) < 2:
        return Timing(seconds[0], seconds[0], seconds[0], len(seconds))
    fifths = statistics.quantiles(seconds, n=5)
    return Timing(statistics.median(seconds), fifths[0], fifths[-1], len(seconds))


def ratio(seconds: Sequence[float], of: Sequence[float]) -> Ratio:
    """Return the ratio of the medians, and how far it would move with other samples of the same.

    Args:
        seconds: Of one contestant.
        of: Of the contestant it is measured by; the very same sequence gives exactly one.
    """
    value = statistics.median(seconds) / statistics.median(of)
    if seconds is of:
        return Ratio(value, value, value)
    draw = random.Random(0)
    resampled = sorted(
        statistics.median(draw.choices(seconds, k=len(seconds)))
        / statistics.median(draw.choices(of, k=len(of)))
        for _ in range(_RESAMPLES)
    )
    tail = _RESAMPLES // 40
    return Ratio(value, resampled[tail], resampled[-1 - tail])
