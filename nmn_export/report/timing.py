"""Timing of several contestants, which are measured alternately in one run."""

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
    """Times of one contestant, in seconds.

    Attributes:
        median: Median.
        p20: 20th percentile.
        p80: 80th percentile.
        calls: Number of timed calls.
    """

    median: float
    p20: float
    p80: float
    calls: int


@dataclass(frozen=True)
class Ratio:
    """Ratio of the medians of two contestants.

    Attributes:
        value: The ratio.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end of that interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """Ratio of two contestants, and how much it varies between rounds.

    Attributes:
        ratio: Ratio of the medians.
        p20: 20th percentile of the ratios within one round.
        p80: 80th percentile of these ratios.
    """

    ratio: float
    p20: float
    p80: float


def interleave(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 3,
    pause: float = 0.005,
    on_round: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time every contestant once per round, and summarize; see `sample`."""
    sampled = sample(contestants, rounds, warmup, pause, on_round)
    return {name: timing(seconds) for name, seconds in sampled.items()}


def sample(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 3,
    pause: float = 0.005,
    on_round: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Return the time of every contestant in each round, in seconds.

    The order is random in each round. A pause before each measurement lets idle threads of the
    previous contestant stop spinning. An untimed call before each timed call warms the cache.

    Args:
        contestants: Functions to call, by name.
        rounds: Number of rounds.
        warmup: Number of untimed calls of each contestant before the first round.
        pause: Pause before each measurement, in seconds.
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
    """Measure every contestant once per round, in a random order."""
    order = list(contestants)
    shuffle = random.Random(0).shuffle
    results: dict[str, list[T]] = {name: [] for name in contestants}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            results[name].append(measure(contestants[name]))
        on_round()
    return results


def timing(seconds: Sequence[float]) -> Timing:
    """Summarize measured times."""
    if len(seconds) < 2:
        return Timing(seconds[0], seconds[0], seconds[0], len(seconds))
    fifths = statistics.quantiles(seconds, n=5)
    return Timing(statistics.median(seconds), fifths[0], fifths[-1], len(seconds))


def spread(seconds: Sequence[float], of: Sequence[float]) -> Spread:
    """Return the ratio of two contestants that were measured in the same rounds.

    Args:
        seconds: Times of a contestant, by round.
        of: Times of the baseline, by round.
    """
    rounds = timing([one / other for one, other in zip(seconds, of, strict=True)])
    return Spread(statistics.median(seconds) / statistics.median(of), rounds.p20, rounds.p80)


def ratio(seconds: Sequence[float], of: Sequence[float]) -> Ratio:
    """Return the ratio of the medians with its bootstrap interval.

    Args:
        seconds: Times of a contestant.
        of: Times of the baseline. The same sequence object gives a ratio of exactly 1.
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
