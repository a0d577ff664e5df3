"""Which names a request may call this server by: the answer to pages that reach it under a name of their own.

Owns the Host header; knows nothing of keys and origins.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable

from contracts.errors import InvalidRequest, SettingsError, clip
from service.http_errors import ForbiddenOrigin

MAX_REMEMBERED_LEN = 64
"""No address is longer."""
_HOST = re.compile(r"(?:(?P<name>[A-Za-z0-9._-]+)|\[(?P<ip>[0-9A-Fa-f:.]+)\])(?::[0-9]{1,5})?", re.ASCII)


class HostPolicy:
    """Names of this server: loopback ones, the address it is bound to, and what the operator lists.

    On a loopback address every other name is refused; on other addresses only if there is a list.
    """

    def __init__(self, bound_host: str, allowed_hosts: str) -> None:
        """Raises SettingsError for an entry that is no name."""
        self._bound_host = bound_host.lower()
        self._allowed = frozenset(_read_entry(entry) for entry in split_list(allowed_hosts))
        self._is_loopback = is_loopback(bound_host)

    def check(self, headers: Iterable[tuple[bytes, bytes]], *, is_probe: bool) -> str:
        """The Host header of a request; raises InvalidRequest for several, ForbiddenOrigin for a foreign one.

        `is_probe` says that the path tells nothing but health: orchestrators ask it by whatever address there is, so
        beyond loopback its name does not matter.
        """
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if len(hosts) > 1:
            raise InvalidRequest("There are several Host headers; send one.")
        host = hosts[0] if hosts else ""
        is_checked = self._is_loopback or (bool(self._allowed) and not is_probe)
        if is_checked and not self._is_ours(host.lower()):
            raise ForbiddenOrigin(
                f"Host '{clip(host)}' is not a name of this server; use localhost or 127.0.0.1, or list the name in "
                "--allowed-hosts."
            )
        return host

    def _is_ours(self, host: str) -> bool:
        name = host_name(host)
        return name is not None and (
            is_loopback(name) or name == self._bound_host or name in self._allowed or host in self._allowed
        )


def host_name(host: str) -> str | None:
    """A Host header without its port, an IPv6 address without its brackets; None for what is no Host header."""
    found = _HOST.fullmatch(host)
    return None if found is None else found["name"] or found["ip"]


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine alone; names are not looked up."""
    return _is_loopback(host) if len(host) <= MAX_REMEMBERED_LEN else False


@functools.lru_cache(maxsize=256)
def _is_loopback(host: str) -> bool:
    """Reading an address takes 8 us (2-core x86, November 2026), and most requests name the same one."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_list(text: str) -> list[str]:
    """The entries of a setting that is a list with commas."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _read_entry(entry: str) -> str:
    """An entry as Host headers are compared with: with its port, or without port and brackets."""
    name = host_name(entry)
    if name is None:
        raise SettingsError(
            f"--allowed-hosts holds {clip(entry)!r}, which is no host name, with or without a port; "
            "examples are models.example.org and models.example.org:8443."
        )
    is_bare = entry.strip("[]") == name
    return (name if is_bare else entry).lower()
