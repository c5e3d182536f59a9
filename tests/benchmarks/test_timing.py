import time

import pytest

from benchmarks.timing import Spread, interleave, spread, timed


def test_quartiles_are_those_of_the_numbers() -> None:
    assert spread([5, 1, 4, 2, 3]) == Spread(2, 3, 4, 5)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0, 1)


def test_spread_reads_with_two_or_three_digits() -> None:
    assert str(Spread(1.234, 5.678, 9.999, 3)) == "5.68 (1.23 to 10.00)"
    assert str(Spread(12.34, 56.78, 99.99, 3)) == "56.8 (12.3 to 100.0)"
    assert str(Spread(99.9, 123.4, 1234.5, 3)) == "123 (100 to 1234)"


def test_calls_take_turns_and_the_first_round_is_left_out() -> None:
    order: list[str] = []
    times = {"a": iter([90.0, 1.0, 3.0]), "b": iter([80.0, 2.0, 2.0])}

    def call(name: str) -> list[float]:
        order.append(name)
        return [next(times[name])]

    spreads = interleave({name: lambda name=name: call(name) for name in times}, rounds=2)  # type: ignore[misc]

    assert order == ["a", "b"] * 3
    assert spreads["a"] == Spread(1.5, 2.0, 2.5, 2)
    assert spreads["b"] == Spread(2.0, 2.0, 2.0, 2)


def test_timed_gives_the_milliseconds_of_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = [10.0]
    durations_s = iter([0.5, 0.25, 2.0])
    monkeypatch.setattr(time, "perf_counter", lambda: clock_s[0])

    def call() -> None:
        clock_s[0] += next(durations_s)

    assert timed(call, 3) == [500, 250, 2000]
