"""A port that is taken is found before the server starts, even where the taker would share it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from contracts.errors import AddressInUse, SettingsError
from service.listen_address import ListenAddress, find_listen_address


@pytest.fixture
def shared_port() -> Iterator[int]:
    """A port whose listener has set SO_REUSEPORT, as granian does."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_port_zero_becomes_a_free_port() -> None:
    assert find_listen_address("127.0.0.1", 0).port > 0


def test_name_is_resolved() -> None:
    assert find_listen_address("localhost", 0).ip in {"127.0.0.1", "::1"}


def test_taken_port_is_refused_with_a_free_one(shared_port: int) -> None:
    with pytest.raises(AddressInUse, match=rf"Port {shared_port} on 127\.0\.0\.1 .* --port \d+\.$") as refusal:
        find_listen_address("127.0.0.1", shared_port)
    proposed = int(refusal.value.message.rstrip(".").rpartition(" ")[2])
    assert find_listen_address("127.0.0.1", proposed).port == proposed


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"])
def test_host_that_is_not_here_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match="--host"):
        find_listen_address(host, 0)


@pytest.mark.parametrize(
    ("ip", "url"),
    [("127.0.0.1", "http://127.0.0.1:8000"), ("0.0.0.0", "http://127.0.0.1:8000"), ("::", "http://[::1]:8000")],  # noqa: S104
)
def test_url_is_one_that_a_client_can_open(ip: str, url: str) -> None:
    assert ListenAddress(ip=ip, port=8000).url == url
