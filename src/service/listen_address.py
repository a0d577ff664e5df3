"""Where the server listens: resolved, checked to be free, and turned into the address that a client types."""

from __future__ import annotations

import errno
import socket
from typing import Literal

import msgspec

from contracts.errors import AddressInUse, SettingsError
from service.port_holder import find_port_holder

_NUM_PORTS_TRIED = 100
_WILDCARD_TO_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class ListenAddress(msgspec.Struct, frozen=True, kw_only=True):
    """One IP address and port to listen on."""

    ip: str
    port: int
    scheme: Literal["http", "https"] = "http"

    @property
    def url(self) -> str:
        """The root as a client on this machine reaches it."""
        host = _WILDCARD_TO_LOOPBACK.get(self.ip, self.ip)
        return f"{self.scheme}://[{host}]:{self.port}" if ":" in host else f"{self.scheme}://{host}:{self.port}"


def find_listen_address(host: str, port: int) -> ListenAddress:
    """The address behind `host` and `port`, known to be free a moment ago; port 0 takes any free one.

    granian sets SO_REUSEPORT, so that a second server on the port would start and take half of the connections: the
    check binds without it. Raises AddressInUse with a free port nearby, SettingsError for a host that is not here.
    """
    try:
        family, _, _, _, (ip, *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise SettingsError(f"--host is {host!r}, which no address is known for ({error.strerror}).") from error
    try:
        return ListenAddress(ip=str(ip), port=_bind_once(family, str(ip), port))
    except OSError as error:
        raise _refusal(error, family, str(ip), port) from error


def _bind_once(family: int, ip: str, port: int) -> int:
    """Bind and let go; the port bound."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((ip, port))
        probe.listen(1)
        return int(probe.getsockname()[1])


def _refusal(error: OSError, family: int, ip: str, port: int) -> AddressInUse | SettingsError:
    if error.errno == errno.EADDRINUSE:
        free = _next_free_port(family, ip, port)
        holder = find_port_holder(port) or "another process"
        return AddressInUse(f"Port {port} on {ip} is in use by {holder}. Port {free} is free: --port {free}.")
    if error.errno == errno.EACCES:
        return SettingsError(f"--port is {port}, which needs more rights than this user has. Take one above 1023.")
    return SettingsError(
        f"Cannot listen on {ip} port {port}: {error.strerror}. --host names an address of this machine."
    )


def _next_free_port(family: int, ip: str, port: int) -> int:
    for candidate in range(port + 1, min(port + _NUM_PORTS_TRIED, 65536)):
        try:
            return _bind_once(family, ip, candidate)
        except OSError:
            continue
    return _bind_once(family, ip, 0)
