"""Costs from measurements, and what follows from them."""

import re

import pytest

from benchmarks import capacity
from benchmarks.capacity import Load, measured_costs
from benchmarks.queueing import Costs, Machine, simulate

STAGES = {"decode": 0.004, "queue": 0.0002, "inference": 0.010, "render": 0.003}


def load(latency_s: float = 0.024, loop_s: float = 0.003) -> Load:
    return Load(40.0, latency_s, 0.001, loop_s, 0.0035, STAGES)


def test_costs_are_the_medians_and_the_rest_of_the_latency() -> None:
    loads = [load(), load(loop_s=0.009, latency_s=0.05), load()]
    costs = measured_costs(loads, {1: 0.008, 2: 0.012, 3: 0.020})
    assert costs.loop == 0.003
    assert costs.decode == 0.0035
    assert costs.render == 0.003
    assert costs.client == 0.001
    # The model alone takes 8 ms, in the service 10: calls of more photos are slower by as much.
    assert costs.inference == pytest.approx((0.010, 0.015, 0.025))
    assert costs.delay == pytest.approx(0.024 - (0.003 + 0.0035 + 0.010 + 0.003 + 0.001))
    # So one simulated client takes as long as the measured one.
    outcome = simulate(costs, Machine(), seconds=10, clients=1)
    assert outcome.quantile(0.5) == pytest.approx(0.024, rel=1e-3)


def test_stages_that_take_longer_than_the_latency_leave_no_delay() -> None:
    assert measured_costs([load(latency_s=0.01)], {1: 0.008}).delay == 0


def test_the_rate_within_a_time_is_kept_and_not_far_from_the_limit() -> None:
    costs = Costs(loop=0.001, decode=0.004, inference=(0.01, 0.015), render=0.002, refusal=0.0002)
    machine = Machine(max_pending=64)
    rate = capacity._rate_within(costs, machine, 0.1)
    kept = simulate(costs, machine, seconds=capacity.SIMULATED_S, rate=rate)
    missed = simulate(costs, machine, seconds=capacity.SIMULATED_S, rate=1.1 * rate)
    assert kept.quantile(0.99) <= 0.1 < missed.quantile(0.99)


def test_machines_for_a_rate_and_their_price() -> None:
    costs = Costs(loop=0.001, decode=0.004, inference=(0.01, 0.015), render=0.002, refusal=0.0002)
    table = capacity._machines(costs, Machine(), 0.5, 100_000, 150_000)
    rate = capacity._rate_within(costs, Machine(), capacity.TARGET_S)
    *_, last = table.rows
    total, processes, cores, gigabits, hourly, million = (
        float(cell.replace(",", "")) for cell in last
    )
    assert total == 10_000
    assert processes == pytest.approx(10_000 / rate, abs=1)
    assert cores == 2 * processes
    assert gigabits == 20  # 10,000 x 250 kB x 8
    assert hourly == cores * 0.5
    assert million == pytest.approx(hourly / 3600 / 10_000 * 1e6, abs=0.01)


@pytest.mark.slow
def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Rates within a factor of 2.5 of those measured, since other work may come and go meanwhile.

    On a quiet machine it is within 20 %: docs/capacity.md has the figures.
    """
    capacity.main(["--rounds", "1"])
    output = capsys.readouterr().out
    loops = output.partition("Closed loops")[2].partition("One process")[0]
    rows = re.findall(r"^\| (\d+) \| [\d.]+ \| [\d.]+ \| ([\d.]+) \|", loops, re.MULTILINE)
    ratios = {int(clients): float(ratio) for clients, ratio in rows}
    assert set(ratios) == set(capacity.CLIENTS)
    assert {clients: ratio for clients, ratio in ratios.items() if not 0.4 < ratio < 2.5} == {}
    assert len(re.findall(r"^(?:\| --- )+\|$", output, re.MULTILINE)) == 5
