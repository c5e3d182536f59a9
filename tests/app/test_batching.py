import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import batching
from app.batching import Batcher, Outcome
from app.errors import EngineDown, EngineFailed, NotReady, QueueFull
from tests.app.conftest import LONG

pytestmark = pytest.mark.anyio

Work = Callable[[str, Sequence[int]], Sequence[Any]]
Make = Callable[..., Batcher[str, int, Any]]


class Held:
    """Squares numbers, but lets no batch through until `go` is set; remembers what it saw."""

    def __init__(self, *, poison: int | None = None) -> None:
        self.seen: list[tuple[str, list[int]]] = []
        self.busy = threading.Event()
        self.go = threading.Event()
        self._poison = poison

    def __call__(self, key: str, items: Sequence[int]) -> list[int]:
        self.seen.append((key, list(items)))
        self.busy.set()
        assert self.go.wait(LONG)
        if self._poison in items:
            raise RuntimeError("tensor of the wrong shape in /srv/secret")
        return [item * item for item in items]


@pytest.fixture
def make() -> Iterator[Make]:
    """Started batchers, which are stopped at the end."""
    made: list[Batcher[str, int, Any]] = []

    def factory(
        work: Work, *, max_batch: int = 8, max_pending: int = 100, wait_s: float = 0.0
    ) -> Batcher[str, int, Any]:
        batcher: Batcher[str, int, Any] = Batcher(
            work, max_batch=max_batch, max_pending=max_pending, wait_s=wait_s
        )
        batcher.start()
        made.append(batcher)
        return batcher

    yield factory
    for batcher in made:
        batcher.stop()
        assert not batcher.alive


def squares(key: str, items: Sequence[int]) -> list[int]:
    return [item * item for item in items]


Submitted = asyncio.Task[Outcome[Any]]


def submit(
    batcher: Batcher[str, int, Any], item: int, key: str = "a", patience_s: float = LONG
) -> Submitted:
    """As a caller who waits no longer than that."""

    async def wait() -> Outcome[Any]:
        async with asyncio.timeout(patience_s):
            [outcome] = await batcher.submit(key, [item])
            return outcome

    return asyncio.create_task(wait())


async def reached(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, LONG)


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def closed(batcher: Batcher[str, int, Any]) -> None:
    for _ in range(10_000):
        if not batcher.alive:
            return
        await asyncio.sleep(0.001)
    pytest.fail("the batcher goes on taking items")


async def test_everyone_gets_their_own_result(make: Make) -> None:
    batcher = make(squares, max_batch=4)
    outcomes = await asyncio.gather(*[submit(batcher, item) for item in range(50)])
    assert [outcome.result for outcome in outcomes] == [item * item for item in range(50)]


async def test_what_came_while_the_worker_was_busy_goes_together_in_order(make: Make) -> None:
    work = Held()
    batcher = make(work, max_batch=3)
    tasks = [submit(batcher, 0)]
    await reached(work.busy)
    tasks += [submit(batcher, item) for item in range(1, 6)]
    await settle()
    work.go.set()
    await asyncio.gather(*tasks)
    assert work.seen == [("a", [0]), ("a", [1, 2, 3]), ("a", [4, 5])]


async def test_keys_are_not_mixed_and_take_turns(make: Make) -> None:
    work = Held()
    batcher = make(work)
    tasks = [submit(batcher, 0)]
    await reached(work.busy)
    tasks += [submit(batcher, item, key) for item, key in enumerate("babcb", start=1)]
    await settle()
    work.go.set()
    outcomes = await asyncio.gather(*tasks)
    assert work.seen == [("a", [0]), ("b", [1, 3, 5]), ("a", [2]), ("c", [4])]
    assert [outcome.result for outcome in outcomes] == [0, 1, 4, 9, 16, 25]


async def test_a_crowd_of_one_key_does_not_keep_another_waiting(make: Make) -> None:
    work = Held()
    batcher = make(work, max_batch=2)
    tasks = [submit(batcher, 0, "deep")]
    await reached(work.busy)
    tasks += [submit(batcher, item, "deep") for item in range(1, 7)]
    tasks += [submit(batcher, 7, "last"), submit(batcher, 8, "third")]
    await settle()
    work.go.set()
    await asyncio.gather(*tasks)
    assert work.seen == [
        ("deep", [0]),
        ("last", [7]),
        ("deep", [1, 2]),
        ("third", [8]),
        ("deep", [3, 4]),
        ("deep", [5, 6]),
    ]


class TestTogether:
    """Items of one caller."""

    async def test_they_go_in_one_batch_and_come_in_order(self, make: Make) -> None:
        work = Held()
        batcher = make(work, max_batch=4)
        first = submit(batcher, 0)
        await reached(work.busy)
        three = asyncio.create_task(batcher.submit("a", [3, 1, 2]))
        await settle()
        work.go.set()
        assert [outcome.result for outcome in await three] == [9, 1, 4]
        assert work.seen == [("a", [0]), ("a", [3, 1, 2])]
        await first

    async def test_they_take_their_turn_as_others_do(self, make: Make) -> None:
        work = Held()
        batcher = make(work, max_batch=2)
        tasks = [submit(batcher, 0)]
        await reached(work.busy)
        tasks += [submit(batcher, 1)]
        await settle()
        three = asyncio.create_task(batcher.submit("a", [2, 3, 4]))
        await settle()
        tasks += [submit(batcher, 5), submit(batcher, 6, "b")]
        await settle()
        work.go.set()
        await asyncio.gather(*tasks)
        assert [outcome.result for outcome in await three] == [4, 9, 16]
        assert work.seen == [("a", [0]), ("b", [6]), ("a", [1, 2]), ("a", [3, 4]), ("a", [5])]

    async def test_where_there_is_a_place_for_one_there_is_for_all(self, make: Make) -> None:
        work = Held()
        batcher = make(work, max_pending=1)
        tasks = [submit(batcher, 0)]
        await reached(work.busy)
        three = asyncio.create_task(batcher.submit("a", [1, 2, 3]))
        await settle()
        assert batcher.depth == 3
        with pytest.raises(QueueFull):
            await submit(batcher, 4)
        work.go.set()
        assert len(await three) == 3
        await asyncio.gather(*tasks)

    async def test_cancelling_them_gives_back_every_place(self, make: Make) -> None:
        work = Held()
        batcher = make(work, max_batch=2)
        running = asyncio.create_task(batcher.submit("a", [0, 1, 2, 3]))
        await reached(work.busy)
        waiting = asyncio.create_task(batcher.submit("a", [4, 5]))
        await settle()
        for task in (waiting, running):
            task.cancel()
            await settle()
            assert task.cancelled()
        assert batcher.depth == 0
        work.go.set()
        assert (await submit(batcher, 6)).result == 36
        assert work.seen == [("a", [0, 1]), ("a", [6])]

    @pytest.mark.parametrize("max_batch", [1, 3])
    async def test_what_fails_fails_them_all_and_is_said_once(
        self, make: Make, max_batch: int
    ) -> None:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))

        def work(key: str, items: Sequence[int]) -> list[int]:
            if any(item < 0 for item in items):
                raise RuntimeError
            return list(items)

        batcher = make(work, max_batch=max_batch)
        with pytest.raises(EngineFailed):
            await batcher.submit("a", [1, -1, -2])
        assert (await submit(batcher, 2)).result == 2
        gc.collect()
        await settle()
        assert faults == []
        assert batcher.depth == 0


class TestFailure:
    async def test_only_the_poisonous_item_fails(self, make: Make) -> None:
        work = Held(poison=3)
        batcher = make(work)
        tasks = [submit(batcher, 0)]
        await reached(work.busy)
        tasks += [submit(batcher, item) for item in range(1, 5)]
        await settle()
        work.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert work.seen[1:] == [("a", [1, 2, 3, 4])] + [("a", [item]) for item in range(1, 5)]
        assert isinstance(outcomes[3], EngineFailed)
        good = [outcome.result for outcome in outcomes if isinstance(outcome, Outcome)]
        assert good == [0, 1, 4, 16]
        assert batcher.alive
        assert (await submit(batcher, 5)).result == 25

    async def test_the_models_words_do_not_reach_the_client(self, make: Make) -> None:
        work = Held(poison=1)
        work.go.set()
        with pytest.raises(EngineFailed) as caught:
            await submit(make(work), 1)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("wrong", [[], [1], [1, 2, 3], None])
    async def test_results_that_do_not_match_the_items_reach_nobody(
        self, make: Make, wrong: Any
    ) -> None:
        go = threading.Event()

        def work(key: str, items: Sequence[int]) -> Sequence[int]:
            assert go.wait(LONG)
            if len(items) == 2:
                return wrong  # type: ignore[no-any-return]
            return [item * item for item in items]

        batcher = make(work, max_batch=2)
        tasks = [submit(batcher, item) for item in range(5)]
        await settle()
        go.set()
        outcomes = await asyncio.gather(*tasks)
        assert [outcome.result for outcome in outcomes] == [0, 1, 4, 9, 16]

    async def test_a_loop_that_is_gone_does_not_end_the_worker(self, make: Make) -> None:
        work = Held()
        batcher = make(work)

        def abandon() -> None:
            async def leave() -> None:
                task = submit(batcher, 1)
                await reached(work.busy)
                task.cancel()

            asyncio.run(leave())

        await asyncio.to_thread(abandon)
        work.go.set()
        assert (await submit(batcher, 2)).result == 4
        assert batcher.alive


class TestCancellation:
    async def test_a_cancelled_item_is_never_worked_on(self, make: Make) -> None:
        work = Held()
        batcher = make(work)
        tasks = [submit(batcher, 0)]
        await reached(work.busy)
        tasks += [submit(batcher, item) for item in (1, 2, 3)]
        await settle()
        tasks[2].cancel()
        await settle()
        assert tasks[2].cancelled()
        work.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert work.seen == [("a", [0]), ("a", [1, 3])]
        good = [outcome.result for outcome in outcomes if isinstance(outcome, Outcome)]
        assert good == [0, 1, 9]

    async def test_not_even_when_the_worker_is_quicker_than_the_loop(self, make: Make) -> None:
        work = Held()
        batcher = make(work)
        tasks = [submit(batcher, 0)]
        await reached(work.busy)
        tasks += [submit(batcher, item) for item in (1, 2)]
        await settle()
        work.busy.clear()
        tasks[1].cancel()
        # From here to the end of the wait the loop does not turn.
        work.go.set()
        assert work.busy.wait(LONG)
        assert work.seen == [("a", [0]), ("a", [2])]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def test_cancelling_what_is_being_worked_on_hurts_nobody_else(self, make: Make) -> None:
        work = Held()
        batcher = make(work)
        tasks = [submit(batcher, 0)]
        await reached(work.busy)
        tasks.append(submit(batcher, 1))
        tasks[0].cancel()
        await settle()
        assert tasks[0].cancelled()
        work.go.set()
        assert (await tasks[1]).result == 1

    async def test_a_cancelled_item_gives_its_place_back_at_once(self, make: Make) -> None:
        work = Held()
        batcher = make(work, max_pending=1)
        first = submit(batcher, 0)
        await reached(work.busy)
        waiting = submit(batcher, 1)
        await settle()
        waiting.cancel()
        await settle()
        instead = submit(batcher, 2)
        await settle()
        work.go.set()
        assert [(await first).result, (await instead).result] == [0, 4]

    async def test_what_is_cancelled_while_its_batch_fails_is_not_tried_alone(
        self, make: Make
    ) -> None:
        seen: list[list[int]] = []
        busy, go = threading.Event(), threading.Event()

        def work(key: str, items: Sequence[int]) -> list[int]:
            seen.append(list(items))
            if len(items) > 1:
                busy.set()
                assert go.wait(LONG)
                raise RuntimeError
            return [item * item for item in items]

        batcher = make(work, max_batch=3, wait_s=LONG)
        tasks = [submit(batcher, item) for item in (1, 2, 3)]
        await reached(busy)
        tasks[1].cancel()
        await settle()
        go.set()
        assert [(await tasks[0]).result, (await tasks[2]).result] == [1, 9]
        assert seen == [[1, 2, 3], [1], [3]]


class TestImpatience:
    """A caller with a deadline of its own gives up; see `app.clock.deadline`."""

    async def test_it_ends_though_the_model_stalls(self, make: Make) -> None:
        work = Held()
        batcher = make(work)
        with pytest.raises(TimeoutError):
            await submit(batcher, 1, patience_s=0.05)
        work.go.set()
        assert (await submit(batcher, 2)).result == 4

    async def test_an_item_that_is_given_up_is_never_worked_on(self, make: Make) -> None:
        work = Held()
        batcher = make(work)
        first = submit(batcher, 0)
        await reached(work.busy)
        late = submit(batcher, 1, patience_s=0.01)
        patient = submit(batcher, 2)
        with pytest.raises(TimeoutError):
            await late
        work.go.set()
        await asyncio.gather(first, patient)
        assert work.seen == [("a", [0]), ("a", [2])]


class TestLimits:
    async def test_one_too_many_is_refused_and_the_others_served(self, make: Make) -> None:
        work = Held()
        batcher = make(work, max_pending=3)
        tasks = [submit(batcher, 0)]
        await reached(work.busy)
        tasks += [submit(batcher, item) for item in (1, 2, 3)]
        await settle()
        with pytest.raises(QueueFull):
            await submit(batcher, 4)
        work.go.set()
        outcomes = await asyncio.gather(*tasks)
        assert [outcome.result for outcome in outcomes] == [0, 1, 4, 9]
        assert (await submit(batcher, 5)).result == 25

    async def test_without_a_wait_a_lone_item_goes_at_once(self, make: Make) -> None:
        assert (await submit(make(squares), 3)).result == 9

    async def test_a_wait_lets_company_arrive(self, make: Make) -> None:
        work = Held()
        work.go.set()
        batcher = make(work, max_batch=3, wait_s=2 * LONG)
        tasks = [submit(batcher, 1)]
        for item in (2, 3):
            await asyncio.sleep(0.01)
            assert work.seen == []
            tasks.append(submit(batcher, item))
        # A full batch waits no longer: else `submit` would lose its patience.
        await asyncio.gather(*tasks)
        assert work.seen == [("a", [1, 2, 3])]

    async def test_a_wait_ends(self, make: Make) -> None:
        assert (await submit(make(squares, max_batch=3, wait_s=0.05), 3)).result == 9

    async def test_a_batchs_time_is_that_of_each_of_its_items(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seconds = 100.0
        batching_time = SimpleNamespace(monotonic=lambda: seconds)
        monkeypatch.setattr(batching, "time", batching_time)

        def work(key: str, items: Sequence[int]) -> list[int]:
            nonlocal seconds
            seconds += 0.25 * len(items)
            return list(items)

        batcher = make(work, max_batch=2, wait_s=2 * LONG)
        outcomes = await asyncio.gather(submit(batcher, 1), submit(batcher, 2))
        assert [(outcome.begun, outcome.ended) for outcome in outcomes] == [(100.0, 100.5)] * 2


async def test_an_exception_among_the_results_is_that_items_alone(make: Make) -> None:
    calls: list[list[int]] = []

    def work(key: str, items: Sequence[int]) -> list[int | Exception]:
        calls.append(list(items))
        return [EngineFailed("not finite") if item == 2 else item for item in items]

    batcher = make(work, max_batch=3, wait_s=LONG)
    outcomes = await asyncio.gather(
        *[submit(batcher, item) for item in (1, 2, 3)], return_exceptions=True
    )
    assert isinstance(outcomes[1], EngineFailed)
    assert [outcome.result for outcome in outcomes[::2]] == [1, 3]  # type: ignore[union-attr]
    assert calls == [[1, 2, 3]]


class TestDown:
    """A worker that hangs, or dies."""

    async def test_how_long_a_call_has_taken_so_far(self, make: Make) -> None:
        work = Held()
        batcher = make(work)
        assert batcher.running_s == 0
        task = submit(batcher, 1)
        await reached(work.busy)
        earlier = batcher.running_s
        await asyncio.sleep(0.02)
        assert earlier + 0.02 <= batcher.running_s < LONG
        work.go.set()
        await task
        assert await asyncio.to_thread(batcher.stop)
        assert batcher.running_s == 0

    async def test_each_item_of_a_batch_that_failed_has_its_own_time(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[float] = []
        seconds = 100.0
        monkeypatch.setattr(batching, "time", SimpleNamespace(monotonic=lambda: seconds))

        def work(key: str, items: Sequence[int]) -> list[int]:
            nonlocal seconds
            seen.append(batcher.running_s)
            seconds += 0.25
            if len(items) > 1:
                raise RuntimeError("too many")
            return list(items)

        batcher = make(work, max_batch=3, wait_s=LONG)
        await asyncio.gather(*[submit(batcher, item) for item in range(3)])
        assert seen == [0.0] * 4

    async def test_who_waits_and_who_comes_is_answered(self, make: Make) -> None:
        work = Held()
        batcher = make(work, max_batch=1)
        tasks = [submit(batcher, item) for item in range(3)]
        await reached(work.busy)
        assert batcher.down is None
        batcher.abandon("It hangs.")
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [(type(outcome), str(outcome)) for outcome in outcomes] == [
            (EngineDown, "It hangs.")
        ] * 3
        with pytest.raises(EngineDown, match=r"It hangs\."):
            await submit(batcher, 3)
        assert batcher.down == "It hangs."
        assert not batcher.alive
        work.go.set()  # its late answer is nobody's
        assert await asyncio.to_thread(batcher.stop)
        assert work.seen == [("a", [0])]

    @pytest.mark.parametrize("fatal", [SystemExit(3), KeyboardInterrupt()])
    async def test_a_worker_that_dies_leaves_nobody_waiting(
        self, make: Make, fatal: BaseException
    ) -> None:
        held = Held()

        def work(key: str, items: Sequence[int]) -> list[int]:
            held(key, items)
            raise fatal

        batcher = make(work, max_batch=2)
        tasks = [submit(batcher, item) for item in range(5)]
        await reached(held.busy)
        held.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [EngineDown] * 5
        assert batcher.down == "The thread that runs the model has died."
        assert not batcher.alive

    async def test_stop_does_not_wait_for_ever(self, make: Make) -> None:
        work = Held()
        batcher = make(work, max_batch=1)
        tasks = [submit(batcher, item) for item in range(2)]
        await reached(work.busy)
        assert not await asyncio.to_thread(batcher.stop, 0.05)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [EngineDown] * 2
        work.go.set()
        assert await asyncio.to_thread(batcher.stop, LONG)


class TestTidying:
    async def test_after_work_on_its_thread_and_again_as_long_as_it_has_to(self) -> None:
        threads: list[str] = []
        done = threading.Event()

        def tidy() -> bool:
            threads.append(threading.current_thread().name)
            if len(threads) < 3:
                return True
            done.set()
            return False

        batcher: Batcher[str, int, int] = Batcher(
            squares, max_batch=1, max_pending=1, tidy=tidy, tidy_s=0.01
        )
        batcher.start()
        try:
            await reached(done)  # the work has run before the start, to warm up
            await asyncio.sleep(0.05)
            assert threads == ["inference"] * 3
            done.clear()
            await submit(batcher, 3)  # after work, anew
            await reached(done)
        finally:
            await asyncio.to_thread(batcher.stop)
        assert len(threads) == 4

    async def test_while_work_keeps_coming(self) -> None:
        done = threading.Event()

        def tidy() -> bool:
            done.set()
            return False

        batcher: Batcher[str, int, int] = Batcher(
            squares, max_batch=1, max_pending=2, tidy=tidy, tidy_s=0.01
        )
        batcher.start()
        try:
            next_one = submit(batcher, 1)
            async with asyncio.timeout(LONG):
                while not done.is_set():  # something always waits
                    last, next_one = next_one, submit(batcher, 1)
                    await last
            await next_one
        finally:
            await asyncio.to_thread(batcher.stop)

    async def test_a_tidying_that_fails_costs_no_answer(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        failed = threading.Event()

        def tidy() -> bool:
            failed.set()
            raise RuntimeError("no memory to spare")

        batcher: Batcher[str, int, int] = Batcher(
            squares, max_batch=1, max_pending=1, tidy=tidy, tidy_s=0.01
        )
        batcher.start()
        try:
            await reached(failed)
            assert (await submit(batcher, 3)).result == 9
            assert batcher.alive
        finally:
            assert batcher.stop(LONG)
        assert "memory could not be given back" in caplog.text

    async def test_a_tidying_that_hangs_is_seen_as_work_that_does(self) -> None:
        busy, go = threading.Event(), threading.Event()

        def tidy() -> bool:
            busy.set()
            assert go.wait(LONG)
            return False

        batcher: Batcher[str, int, int] = Batcher(
            squares, max_batch=1, max_pending=1, tidy=tidy, tidy_s=0.0
        )
        batcher.start()
        try:
            await reached(busy)
            await asyncio.sleep(0.01)
            assert batcher.running_s > 0
        finally:
            go.set()
            await asyncio.to_thread(batcher.stop)


class TestLife:
    async def test_before_the_start_nothing_is_taken(self) -> None:
        batcher: Batcher[str, int, int] = Batcher(squares, max_batch=1, max_pending=1)
        assert not batcher.alive
        with pytest.raises(NotReady):
            await batcher.submit("a", [1])
        batcher.stop()

    async def test_stop_finishes_what_waits_and_takes_no_more(self, make: Make) -> None:
        work = Held()
        batcher = make(work, max_batch=2)
        tasks = [submit(batcher, item) for item in range(5)]
        await reached(work.busy)
        stopping = asyncio.create_task(asyncio.to_thread(batcher.stop))
        await closed(batcher)
        with pytest.raises(NotReady):
            await submit(batcher, 9)
        assert not stopping.done()
        work.go.set()
        await stopping
        outcomes = await asyncio.gather(*tasks)
        assert [outcome.result for outcome in outcomes] == [0, 1, 4, 9, 16]

    async def test_stop_ends_an_idle_worker_and_may_be_repeated(self, make: Make) -> None:
        batcher = make(squares)
        assert batcher.alive
        for _ in range(2):
            await asyncio.to_thread(batcher.stop)
            assert not batcher.alive


# What becomes of a caller: (what the work does with its item, its key, when it is cancelled: after
# so many turns of the loop, and its patience in seconds).
callers = st.tuples(
    st.sampled_from(["square", "square", "fail", "stall"]),
    st.sampled_from("ab"),
    st.none() | st.integers(0, 8),
    st.sampled_from([LONG, LONG, 0.002]),
)


@settings(max_examples=40, deadline=None)
@given(
    crowd=st.lists(callers, min_size=1, max_size=20),
    max_batch=st.integers(1, 5),
    wait_s=st.sampled_from([0.0, 0.0, 0.002]),
)
def test_every_caller_gets_exactly_one_outcome_and_it_is_theirs(
    crowd: list[tuple[str, str, int | None, float]], max_batch: int, wait_s: float
) -> None:
    deeds = [deed for deed, *_ in crowd]
    broken_keys: list[Sequence[int]] = []
    faults: list[dict[str, Any]] = []

    def work(key: str, items: Sequence[int]) -> list[tuple[str, int]]:
        if any(crowd[item][1] != key for item in items) or len(items) > max_batch:
            broken_keys.append(items)
        if any(deeds[item] == "stall" for item in items):
            time.sleep(0.003)
        if any(deeds[item] == "fail" for item in items):
            raise RuntimeError("fail")
        return [(key, item) for item in items]

    async def scene() -> list[Outcome[Any] | BaseException]:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        tasks = []
        for item, (_, key, turns, patience_s) in enumerate(crowd):
            tasks.append(submit(batcher, item, key, patience_s))
            if turns is not None:
                asyncio.create_task(cancel_later(tasks[-1], turns))  # noqa: RUF006
        async with asyncio.timeout(LONG):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        # Not one place is lost, and the worker still works.
        assert batcher.alive
        good = [item for item, deed in enumerate(deeds) if deed == "square"][:1]
        for item in good * len(crowd):
            again = await submit(batcher, item, crowd[item][1])
            assert again.result == (crowd[item][1], item)
        return outcomes

    async def cancel_later(task: Submitted, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()

    batcher: Batcher[str, int, tuple[str, int]] = Batcher(
        work, max_batch=max_batch, max_pending=len(crowd), wait_s=wait_s
    )
    batcher.start()
    try:
        outcomes = asyncio.run(scene())
    finally:
        batcher.stop()

    assert broken_keys == []
    assert faults == []
    for item, outcome in enumerate(outcomes):
        deed, key, turns, patience_s = crowd[item]
        if isinstance(outcome, Outcome):
            assert deed != "fail"
            assert outcome.result == (key, item)
        elif isinstance(outcome, asyncio.CancelledError):
            assert turns is not None
        elif isinstance(outcome, EngineFailed):
            assert deed == "fail"
        else:
            assert isinstance(outcome, TimeoutError)
            assert patience_s < LONG
