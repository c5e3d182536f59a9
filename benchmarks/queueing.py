"""A simulation of the service under load: queues, batches, and threads that share cores.

A request takes these stages in turn; `app.explainer` is what they stand for.

    stage      servers         threads of a job   work
    client     1               1                  to send a request and read its answer
    loop       1               1                  the event loop's: HTTP, header, figures
    decode     `decoders`      1                  the photo
    inference  1, batched      all cores          the model, for whoever waits, up to `max_batch`
    render     `renderers`     1                  heatmap, box, PNG, JSON
    delay      unbounded       0                  waiting that costs no core

The loop's work is halved: before decoding, and after rendering. A job runs at the speed of its
threads. All threads of a machine share its cores evenly: with `n` busy threads on `c` cores each
runs at `min(1, c / n)`. Work is in seconds of a job that has the machine to itself.
"""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Costs", "Machine", "Outcome", "simulate"]

_NOTHING_S = 1e-12
"""Work that rounding leaves over."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds that a request takes at each stage of an idle machine.

    Attributes:
        loop: of the event loop, in all.
        decode: of a decoder process.
        inference: of a call of the model with 1, 2, 3 ... photos.
        render: of an image thread.
        delay: of nobody: hand-overs between threads and processes.
        client: of the client, where it runs on the same cores.
        refusal: of the event loop, for a request that is answered 429.
    """

    loop: float
    decode: float
    inference: tuple[float, ...]
    render: float
    delay: float = 0.0
    client: float = 0.0
    refusal: float = 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What one process of the service has to run on.

    Attributes:
        cores: that all threads share.
        decoders: processes that decode.
        renderers: threads that draw.
        max_pending: requests in work at once; one more is refused.
    """

    cores: int = 2
    decoders: int = 2
    renderers: int = 2
    max_pending: int = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulated service did.

    Attributes:
        rate: requests answered a second.
        refused: share of the requests that were refused.
        latencies: seconds from arrival to answer, float64 `[answers]`.
        busy: share of the time that a stage's servers were busy, by stage.
        cores: share of all cores that was used.
        batch: photos in a call of the model, on average.
    """

    rate: float
    refused: float
    latencies: npt.NDArray[np.float64]
    busy: dict[str, float]
    cores: float
    batch: float

    def quantile(self, share: float) -> float:
        """Seconds within which this share of the answers came; NaN without answers."""
        return float(np.quantile(self.latencies, share)) if len(self.latencies) else math.nan


@dataclass(slots=True)
class _Request:
    """A request on its way.

    Attributes:
        arrived: when the client sent it.
        stages: those to come, in turn, each with its seconds of work.
        accepted: false where it is answered 429.
        work: at the stage that it waits for.
    """

    arrived: float
    stages: Iterator[tuple[str, float]]
    accepted: bool = True
    work: float = 0.0


@dataclass(slots=True)
class _Job:
    """Work in progress at a stage: of a request, or of a batch of them."""

    stage: "_Stage"
    requests: list[_Request]
    left: float
    threads: int


@dataclass(slots=True)
class _Stage:
    servers: int
    waiting: deque[_Request] = field(default_factory=deque)
    running: int = 0
    busy_s: float = 0.0


def simulate(
    costs: Costs,
    machine: Machine,
    *,
    seconds: float,
    clients: int = 0,
    rate: float = 0.0,
    warm_up: float = 0.1,
    seed: int = 0,
) -> Outcome:
    """Run a machine for some time.

    Args:
        costs: of one request.
        machine: cores and servers.
        seconds: simulated.
        clients: a closed loop of so many, each of which sends again when it is answered.
        rate: an open loop: requests a second, at times of a Poisson process.
        warm_up: share of the time that is not counted.
        seed: of the arrivals.

    Raises:
        ValueError: neither or both of `clients` and `rate`, or more clients than `max_pending`.
    """
    if bool(clients) == bool(rate):
        raise ValueError("simulate either a number of clients or a rate")
    if clients > machine.max_pending:
        raise ValueError(f"{clients} clients are over max_pending, {machine.max_pending}")
    return _Simulation(costs, machine, seconds * warm_up, seed).run(seconds, clients, rate)


class _Simulation:
    """The state at a moment, which moves from one event to the next."""

    def __init__(self, costs: Costs, machine: Machine, counted_from: float, seed: int) -> None:
        self._costs, self._machine, self._counted_from = costs, machine, counted_from
        self._rng = np.random.default_rng(seed)
        self._stages = {
            "client": _Stage(1),
            "loop": _Stage(1),
            "decode": _Stage(machine.decoders),
            "inference": _Stage(1),
            "render": _Stage(machine.renderers),
        }
        self._jobs: list[_Job] = []
        self._delays: list[tuple[float, int, _Request]] = []
        self._order = itertools.count()
        self._now = self._core_s = 0.0
        self._pending = self._refused = 0
        self._closed = False
        self._latencies: list[float] = []
        self._batches: list[int] = []

    def run(self, seconds: float, clients: int, rate: float) -> Outcome:
        self._closed = not rate
        for _ in range(clients):
            self._arrive()
        due = self._interval(rate)
        while self._now < seconds:
            self._start_jobs()
            threads = sum(job.threads for job in self._jobs)
            speed = min(1.0, self._machine.cores / max(1, threads))
            until = min(
                self._now + min((job.left for job in self._jobs), default=math.inf) / speed,
                self._delays[0][0] if self._delays else math.inf,
                due,
                seconds,
            )
            self._advance(until, speed, threads)
            if until == due:
                self._arrive()
                due += self._interval(rate)
        return self._outcome(seconds - self._counted_from)

    def _interval(self, rate: float) -> float:
        return float(self._rng.exponential(1 / rate)) if rate else math.inf

    def _arrive(self) -> None:
        costs = self._costs
        full = self._pending >= self._machine.max_pending
        stages = [
            ("client", costs.client / 2),
            ("loop", costs.loop / 2),
            ("decode", costs.decode),
            ("inference", 0.0),  # the batch's, which is not known yet
            ("render", costs.render),
            ("delay", costs.delay),
            ("loop", costs.loop / 2),
            ("client", costs.client / 2),
        ]
        refusal = [("loop", costs.refusal)]
        self._pending += not full
        self._move(_Request(self._now, iter(refusal if full else stages), accepted=not full))

    def _move(self, request: _Request) -> None:
        """Send a request to its next stage; after the last, answer it."""
        for stage, work in request.stages:
            request.work = work
            if stage == "delay":
                due = self._now + work
                heapq.heappush(self._delays, (due, next(self._order), request))
                return
            if work or stage == "inference":
                self._stages[stage].waiting.append(request)
                return
        self._pending -= request.accepted
        if self._now >= self._counted_from:
            self._refused += not request.accepted
            if request.accepted:
                self._latencies.append(self._now - request.arrived)
        if self._closed:
            self._arrive()

    def _start_jobs(self) -> None:
        """Let every free server take who waits longest; the model takes as many as it can."""
        for name, stage in self._stages.items():
            while stage.waiting and stage.running < stage.servers:
                size, threads = 1, 1
                if name == "inference":
                    size = min(len(stage.waiting), len(self._costs.inference))
                    threads = self._machine.cores
                requests = [stage.waiting.popleft() for _ in range(size)]
                work = requests[0].work
                if name == "inference":
                    work = self._costs.inference[size - 1]
                    self._batches.append(size)
                self._jobs.append(_Job(stage, requests, work, threads))
                stage.running += 1

    def _advance(self, until: float, speed: float, threads: int) -> None:
        """Let the jobs go on until then, and move the requests that are through."""
        step = until - self._now
        self._now = until
        if until > self._counted_from:
            self._core_s += step * speed * threads
        done = []
        for job in self._jobs:
            job.left -= step * speed
            if until > self._counted_from:
                job.stage.busy_s += step
            if job.left <= _NOTHING_S:
                done.append(job)
        self._jobs = [job for job in self._jobs if job.left > _NOTHING_S]
        for job in done:
            job.stage.running -= 1
        for request in [request for job in done for request in job.requests]:
            self._move(request)
        while self._delays and self._delays[0][0] <= self._now:
            self._move(heapq.heappop(self._delays)[2])

    def _outcome(self, counted_s: float) -> Outcome:
        answered = len(self._latencies)
        return Outcome(
            rate=answered / counted_s,
            refused=self._refused / max(1, self._refused + answered),
            latencies=np.array(self._latencies),
            busy={
                name: stage.busy_s / counted_s / stage.servers
                for name, stage in self._stages.items()
            },
            cores=self._core_s / counted_s / self._machine.cores,
            batch=float(np.mean(self._batches)) if self._batches else 0.0,
        )
