import socket
import sys

import pytest

from benchmarks.services import free_port


def test_a_free_port_can_be_listened_on() -> None:
    port = free_port()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="ports stay reserved on Linux alone")
def test_a_free_port_is_not_given_to_others() -> None:
    """Neither to somebody who asks for any port nor to one who takes it without the option."""
    port = free_port()

    with socket.socket() as other, pytest.raises(OSError, match="already in use"):
        other.bind(("127.0.0.1", port))
    assert len({port, *(free_port() for _ in range(100))}) == 101
