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


def test_bytes_are_counted_as_they_come_and_given_back() -> None:
    admission = Admission(1, 100)
    with admission.hold_bytes() as first, admission.hold_bytes() as second:
        first(60)
        second(40)
        assert admission.held_bytes == 100
        with pytest.raises(QueueFull):
            second(1)
    assert admission.held_bytes == 0
    with admission.hold_bytes() as third:
        third(100)
