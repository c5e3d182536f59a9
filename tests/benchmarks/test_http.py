"""The real service, the usual way and the load generator, at the least counts."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from app.bundle import Bundle
from benchmarks import http, services, weights
from benchmarks.http import Loads
from benchmarks.protocol import Worker, WorkerFailed
from benchmarks.services import Service
from benchmarks.timing import Spread
from tests.app.services import family, resident_mb


@pytest.fixture(scope="module")
def ours() -> Iterator[Service]:
    with services.ours(max_batch=1, engine="openvino") as service:
        yield service


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loads]:
    monkeypatch.setattr(http, "PHOTOS", {"224 px": (224, 224)})
    with Worker("benchmarks.workers.load") as worker:
        loads = Loads(worker)
        loads.keep_photos()
        yield loads


@pytest.mark.parametrize("raw", [False, True])
def test_each_request_is_timed_and_the_answers_tell_their_stages(
    ours: Service, loads: Loads, raw: bool
) -> None:
    times, rate = loads.send("case", ours, http.PICTURE, "224 px", clients=2, requests=5, raw=raw)

    assert len(times) == 5
    # Two clients wait at the same time: all requests take at least half the sum of their times.
    assert 0 < rate <= 5 / (sum(times) / 1000 / 2)
    assert set(loads.stages["case"][0]) == {"decode", "queue", "inference", "render"}
    assert len(loads.cpu_ms) == 1


def test_answer_that_is_no_success_ends_the_measurement(ours: Service, loads: Loads) -> None:
    with pytest.raises(WorkerFailed, match="404"):
        loads.send("case", ours, "/nowhere", "224 px")


def test_service_tells_its_start_and_its_memory(ours: Service) -> None:
    process = Path(f"/proc/{ours.process_id}")
    # Field 22 of `stat`, after the command in brackets: ticks from the machine's start to its own.
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    age_s = uptime_s - int(fields[19]) / os.sysconf("SC_CLK_TCK")

    assert 0 < ours.started_s < age_s + 0.1
    assert len(family(ours.process_id)) == 4  # its decoders count, too
    assert ours.resident_mb == pytest.approx(resident_mb(family(ours.process_id)), rel=0.05)
    assert 50 < ours.resident_mb < 5000


@pytest.mark.slow
def test_usual_way_sees_what_ours_sees(
    ours: Service, loads: Loads, shipped_bundle: Bundle, tmp_path: Path
) -> None:
    weights.write(shipped_bundle, tmp_path / "weights.npz")
    assert shipped_bundle.card.confidence is not None
    temperature = shipped_bundle.card.confidence.temperature

    def likeliest(answer: dict[str, object]) -> list[float]:
        if "probabilities" in answer:
            assert isinstance(answer["probabilities"], list)
            return sorted(answer["probabilities"], reverse=True)
        assert isinstance(answer["predictions"], list)
        return [prediction["probability"] for prediction in answer["predictions"]]

    with services.plain(tmp_path / "weights.npz") as plain:
        for path in (http.PREDICT, http.FIGURES, http.PICTURE):
            loads.send("case", plain, path, "224 px", requests=1)
            plainly = np.array(likeliest(loads.generator.ask("last"))) ** (1 / temperature)
            usual = (plainly / plainly.sum()).tolist()  # which calibrates nothing
            loads.send("case", ours, path, "224 px", requests=1)
            calibrated = likeliest(loads.generator.ask("last"))
            assert calibrated == pytest.approx(usual[: len(calibrated)], abs=0.03)  # bfloat16


def test_table_holds_each_case_against_the_engine_and_the_usual_way() -> None:
    def ms(median: float) -> Spread:
        return Spread(median, median, median, 1)

    spreads = {"engine": ms(4), "`/predict`": ms(6), "`/predict`, raw": ms(5)}
    spreads["usual way, `/predict`"] = ms(60)

    table = http._one_client_table(spreads, base="engine")

    assert [row[2:] for row in table.rows] == [
        ("1.00", ""),
        ("1.50", "10.0"),
        ("1.25", "12.0"),
        ("15.00", ""),
    ]


def test_stages_are_those_of_one_client_and_what_is_left_is_the_rest() -> None:
    timings: dict[str, list[Mapping[str, float]]] = {
        "mine": [{"decode": 1.0, "queue": 0.5, "inference": 4.0}] * 3,
        "mine, 8 clients": [{"decode": 9.0}],
        "usual way": [{}],
    }
    spreads = {case: Spread(7, 7, 7, 3) for case in ("mine", "usual way")}

    assert http._stages(timings, spreads).rows == [("mine", "1.00", "0.50", "4.00", "0.00", "1.50")]


def test_targets_of_many_clients_are_shares_of_the_engine_and_the_worst_step() -> None:
    rates = {1: 50.0, 2: 60.0, 4: 54.0, 8: 70.0, 16: 81.0, 32: 80.0}

    targets = http._many_clients_targets(rates, base=90.0)

    # With 8 clients, with 16, and the worst of the steps, from 2 to 4.
    assert [target.measured for target in targets] == pytest.approx([70 / 90, 81 / 90, 54 / 60])
    assert [target.reached for target in targets] == [False, True, False]
