import random

import pytest

from nmn_export.report.timing import Ratio, Spread, interleave, ratio, spread, take_turns


def test_contestants_take_turns_and_warm_up():
    calls = []
    rounds = []
    timings = interleave(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        rounds=4,
        warmup=2,
        on_round=lambda: rounds.append(len(calls)),
    )
    assert calls[:4] == ["a", "a", "b", "b"]
    # The first call of each pair is not timed.
    assert all(sorted(calls[4 + 4 * i : 8 + 4 * i]) == ["a", "a", "b", "b"] for i in range(4))
    assert rounds == [8, 12, 16, 20]
    assert {name: t.calls for name, t in timings.items()} == {"a": 4, "b": 4}
    assert all(0 <= t.p20 <= t.median <= t.p80 for t in timings.values())


def test_turns_are_taken_in_another_order_each_round():
    turns = []
    found = take_turns({str(i): i for i in range(6)}, turns.append, rounds=3)
    rounds = [turns[i : i + 6] for i in (0, 6, 12)]
    assert all(sorted(order) == list(range(6)) for order in rounds)
    assert rounds[0] != rounds[1]
    assert found == {str(i): [None] * 3 for i in range(6)}


def test_a_spread_is_that_of_ratios_within_a_round():
    linear = [1.0, 10.0, 1.0, 10.0, 1.0]  # the machine is ten times slower in every other round
    assert spread([2 * s for s in linear], linear) == Spread(2.0, 2.0, 2.0)
    found = spread([1.0, 20.0, 3.0, 20.0, 2.0], linear)
    assert (found.ratio, found.p20, found.p80) == pytest.approx((3.0, 1.2, 2.8))


def test_a_ratio_comes_with_how_far_other_samples_would_move_it():
    draw = random.Random(0)
    first = [draw.gauss(1, 0.05) for _ in range(60)]
    assert ratio(first, first) == Ratio(1.0, 1.0, 1.0)
    twice = ratio([2 * draw.gauss(1, 0.05) for _ in range(60)], first)
    assert twice.value == pytest.approx(2, rel=0.05)
    assert 1.8 < twice.low < twice.value < twice.high < 2.2
    loose = ratio([2 * draw.gauss(1, 0.2) for _ in range(60)], first)
    assert loose.high - loose.low > 2 * (twice.high - twice.low)
