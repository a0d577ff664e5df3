"""The names that a server answers to: loopback ones, its own, and a literal list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InvalidRequest, SettingsError
from service.hosts import HostPolicy, host_name
from service.http_errors import ForbiddenOrigin

ANYWHERE = "0.0.0.0"  # noqa: S104
LISTED = "models.example.org, ai.example.org:8443, [fd00::1]"
OURS = ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "127.0.0.2"]
LISTED_ONES = ["models.example.org", "Models.Example.org:9000", "ai.example.org:8443", "[fd00::1]", "[FD00::1]:8000"]
FOREIGN = [
    "evil.com",
    "localhost.evil.com",
    "127.0.0.1.evil.com",
    "models.example.org.evil.com",
    "modelsxexample.org",
    "xmodels.example.org",
    "ai.example.org",
    "ai.example.org:8444",
    "models.example.org:x",
    "models.example.org:",
    "evil@localhost",
    "localhost@evil.com",
    "localhost/evil.com",
    "localhost, evil.com",
    " localhost",
    "localhost\x00",
    "fd00::1",
    "[::1",
    "l\u00f6calhost",
    "",
]


def is_served(policy: HostPolicy, *hosts: str, is_probe: bool = False) -> bool:
    try:
        policy.check([(b"host", host.encode("latin-1")) for host in hosts], is_probe=is_probe)
    except ForbiddenOrigin:
        return False
    return True


@pytest.mark.parametrize("bound", ["127.0.0.1", "localhost", "::1"])
@pytest.mark.parametrize(("names", "expected"), [(OURS, True), (LISTED_ONES, False), (FOREIGN, False)])
def test_loopback_without_a_list_answers_to_loopback_names(bound: str, names: list[str], expected: bool) -> None:
    policy = HostPolicy(bound, "")
    assert {name: is_served(policy, name) for name in names} == dict.fromkeys(names, expected)


@pytest.mark.parametrize("bound", ["127.0.0.1", ANYWHERE, "192.168.1.5"])
@pytest.mark.parametrize(("names", "expected"), [(OURS, True), (LISTED_ONES, True), (FOREIGN, False)])
def test_list_is_literal_and_enforced_on_every_address(bound: str, names: list[str], expected: bool) -> None:
    policy = HostPolicy(bound, LISTED)
    assert {name: is_served(policy, name) for name in names} == dict.fromkeys(names, expected)


def test_without_a_list_other_addresses_answer_to_any_name() -> None:
    assert is_served(HostPolicy(ANYWHERE, ""), "evil.com")


def test_the_bound_name_is_the_servers_own() -> None:
    assert is_served(HostPolicy("Models.lan", "other.lan"), "models.LAN:8000")


def test_missing_host_is_refused_where_names_count() -> None:
    assert not is_served(HostPolicy("127.0.0.1", ""))
    assert not is_served(HostPolicy(ANYWHERE, LISTED))
    assert is_served(HostPolicy(ANYWHERE, ""))


@pytest.mark.parametrize("bound", ["127.0.0.1", ANYWHERE])
def test_several_hosts_are_refused_everywhere(bound: str) -> None:
    with pytest.raises(InvalidRequest, match="several Host headers"):
        HostPolicy(bound, "").check([(b"host", b"localhost"), (b"host", b"localhost")], is_probe=True)


def test_probes_come_by_any_name_except_on_loopback() -> None:
    assert is_served(HostPolicy(ANYWHERE, LISTED), "10.1.2.3:8000", is_probe=True)
    assert not is_served(HostPolicy("127.0.0.1", LISTED), "evil.com", is_probe=True)


def test_forwarded_names_do_not_count() -> None:
    headers = [(b"host", b"evil.com"), (b"x-forwarded-host", b"localhost"), (b"forwarded", b"host=localhost")]
    with pytest.raises(ForbiddenOrigin):
        HostPolicy("127.0.0.1", "").check(headers, is_probe=False)


@pytest.mark.parametrize(
    "entry", ["*", "*.example.org", "https://a.org", "a.org/", "a.org:x", "::1", "a b", "a.org:123456", "^a.org$"]
)
def test_entry_that_is_no_literal_name_is_refused(entry: str) -> None:
    with pytest.raises(SettingsError, match="--allowed-hosts holds"):
        HostPolicy(ANYWHERE, f"good.org,{entry}")


@given(st.text())
def test_a_name_is_found_only_in_what_could_be_a_host_header(host: str) -> None:
    name = host_name(host)
    assert name is None or set(host) <= set("[]:._-" + "0123456789") | set(map(chr, range(65, 91))) | set(
        map(chr, range(97, 123))
    )
