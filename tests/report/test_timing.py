from nmn_export.report.timing import interleave


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
    # Of each pair, the first call is not timed.
    assert all(sorted(calls[4 + 4 * i : 8 + 4 * i]) == ["a", "a", "b", "b"] for i in range(4))
    assert rounds == [8, 12, 16, 20]
    assert {name: t.calls for name, t in timings.items()} == {"a": 4, "b": 4}
    assert all(0 <= t.p20 <= t.median <= t.p80 for t in timings.values())
