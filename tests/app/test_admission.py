from contextlib import ExitStack

import pytest

from app.admission import Admission
from app.errors import QueueFull


def test_places_are_given_back() -> None:
    admission = Admission(2, 100)
    with admission.admit(), admission.admit():
        assert admission.admitted == 2
        with pytest.raises(QueueFull):
            admission.check_room()
        with pytest.raises(QueueFull), admission.admit():
            pytest.fail("a place was given")
    with admission.admit():
        admission.check_room()
        assert admission.admitted == 1


def test_a_place_is_given_back_after_an_error() -> None:
    admission = Admission(1, 100)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), admission.admit():
            raise ZeroDivisionError


@pytest.mark.anyio
async def test_bytes_are_counted_as_they_come_and_given_back() -> None:
    admission = Admission(1, 100)
    with admission.hold_bytes() as first, admission.hold_bytes() as second:
        await first(60)
        await second(40)
        assert admission.held_bytes == 100
        with pytest.raises(QueueFull):
            await second(1)
    assert admission.held_bytes == 0
    with admission.hold_bytes() as third:
        await third(100)


@pytest.mark.anyio
async def test_room_is_made_as_long_as_there_is_any() -> None:
    admission = Admission(1, 100)
    with ExitStack() as stalled, admission.hold_bytes() as take:
        lacking: list[int] = []
        holds = [ExitStack() for _ in range(3)]
        for hold in holds:
            stalled.push(hold)
            await hold.enter_context(admission.hold_bytes())(30)

        async def make_room(size: int) -> bool:
            lacking.append(size)
            if not holds:
                return False
            holds.pop().close()
            return True

        admission.make_room = make_room
        await take(10)
        assert len(holds) == 3
        await take(50)
        assert len(holds) == 1
        assert lacking == [50, 20]
        with pytest.raises(QueueFull):
            await take(101)  # it would not fit into an empty service
        assert len(holds) == 1
        with pytest.raises(QueueFull):
            await take(50)
        assert holds == []
