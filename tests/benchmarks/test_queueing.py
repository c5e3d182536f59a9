"""The simulation, beside what queueing theory says."""

import math

import numpy as np
import pytest

from benchmarks.queueing import Costs, Machine, simulate

FAST = 1e-9
"""Seconds: work that takes no time."""


def test_a_single_client_takes_the_sum_of_its_stages() -> None:
    costs = Costs(
        loop=0.002, decode=0.003, inference=(0.005,), render=0.004, delay=0.001, client=0.006
    )
    outcome = simulate(costs, Machine(), seconds=10, clients=1)
    assert outcome.rate == pytest.approx(1 / 0.021, rel=0.01)
    assert outcome.quantile(0.99) == pytest.approx(0.021)
    assert outcome.batch == 1
    # The model has both cores, the others one, the delay none.
    used = 2 * 0.005 + 0.002 + 0.003 + 0.004 + 0.006
    assert outcome.cores == pytest.approx(used / 2 / 0.021, rel=0.01)
    assert outcome.busy["inference"] == pytest.approx(0.005 / 0.021, rel=0.01)
    assert outcome.busy["decode"] == pytest.approx(0.003 / 0.021 / 2, rel=0.01)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_server_with_constant_work_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    # M/D/1: the mean wait is load x work / 2 (1 - load).
    costs = Costs(loop=FAST, decode=0.01, inference=(FAST,), render=FAST)
    machine = Machine(cores=1, decoders=1, max_pending=10_000)
    outcome = simulate(costs, machine, seconds=600, rate=load / 0.01)
    wait = load * 0.01 / (2 * (1 - load))
    assert outcome.latencies.mean() == pytest.approx(0.01 + wait, rel=0.05)
    assert outcome.rate == pytest.approx(load / 0.01, rel=0.03)
    assert outcome.busy["decode"] == pytest.approx(load, rel=0.03)


def test_a_core_that_is_shared_is_the_bound() -> None:
    # Two decoders on one core finish as many photos as one does.
    costs = Costs(loop=FAST, decode=0.01, inference=(FAST,), render=FAST)
    rates = [
        simulate(costs, Machine(cores=1, decoders=servers), seconds=20, clients=4).rate
        for servers in (1, 2)
    ]
    assert rates == pytest.approx([100, 100], rel=0.01)
    two_cores = simulate(costs, Machine(cores=2, decoders=2), seconds=20, clients=4)
    assert two_cores.rate == pytest.approx(200, rel=0.01)


def test_who_waits_for_the_model_goes_in_one_batch() -> None:
    costs = Costs(loop=FAST, decode=FAST, inference=(0.01, 0.012, 0.014, 0.016), render=FAST)
    outcome = simulate(costs, Machine(), seconds=20, clients=8)
    assert outcome.batch == pytest.approx(4, rel=0.01)
    assert outcome.rate == pytest.approx(4 / 0.016, rel=0.01)


def test_a_full_service_refuses_what_it_cannot_answer() -> None:
    costs = Costs(loop=FAST, decode=0.01, inference=(FAST,), render=FAST, refusal=FAST)
    machine = Machine(cores=1, decoders=1, max_pending=8)
    outcome = simulate(costs, machine, seconds=40, rate=1_000)
    assert outcome.rate == pytest.approx(100, rel=0.01)
    assert outcome.refused == pytest.approx(0.9, abs=0.01)
    assert outcome.quantile(1.0) <= 8 * 0.01 + 1e-6


def test_refusals_take_time_from_the_rest() -> None:
    costs = Costs(loop=FAST, decode=0.01, inference=(FAST,), render=FAST, refusal=0.0005)
    machine = Machine(cores=1, decoders=1, max_pending=8)
    outcome = simulate(costs, machine, seconds=40, rate=1_000)
    # About 900 refusals a second take 0.45 s of the core; both threads share it evenly.
    assert outcome.rate == pytest.approx(100 * (1 - 0.45), rel=0.1)


def test_same_seed_same_outcome() -> None:
    costs = Costs(loop=0.001, decode=0.01, inference=(0.01,), render=0.002)
    first, second, other = (
        simulate(costs, Machine(), seconds=5, rate=40, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.latencies, second.latencies)
    assert not np.array_equal(first.latencies, other.latencies)


def test_what_cannot_be_simulated() -> None:
    costs = Costs(loop=0.001, decode=0.01, inference=(0.01,), render=0.002)
    with pytest.raises(ValueError, match="either"):
        simulate(costs, Machine(), seconds=1)
    with pytest.raises(ValueError, match="either"):
        simulate(costs, Machine(), seconds=1, clients=1, rate=1.0)
    with pytest.raises(ValueError, match="33 clients are over max_pending, 32"):
        simulate(costs, Machine(), seconds=1, clients=33)
    nobody = simulate(costs, Machine(), seconds=0.001, rate=0.001)
    assert math.isnan(nobody.quantile(0.5))
