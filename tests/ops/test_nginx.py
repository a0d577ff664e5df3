"""The nginx sample: what a stream, a large body and the Host check need of a proxy."""

from __future__ import annotations

import re

import pytest

from contracts.settings import ServerSettings
from tests.shape_rules import ROOT

MIB = 1024 * 1024
CONFIG = (ROOT / "ops/proxy/nginx.conf").read_text("utf-8")
DIRECTIVES = dict(re.findall(r"^\s*(\w+)\s+(.+);$", CONFIG, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("proxy_buffering", "off"),
        ("gzip", "off"),
        ("proxy_ignore_client_abort", "off"),
        ("proxy_next_upstream", "off"),
        ("proxy_http_version", "1.1"),
    ],
)
def test_streams_pass_as_they_come_and_once(name: str, value: str) -> None:
    assert DIRECTIVES[name] == value


def test_host_of_the_client_reaches_the_server() -> None:
    assert re.search(r"proxy_set_header Host +\$host;", CONFIG)


def test_body_limit_is_a_little_above_the_servers_own() -> None:
    limit_bytes = int(DIRECTIVES["client_max_body_size"].removesuffix("m")) * MIB
    assert ServerSettings().max_body_bytes < limit_bytes <= 2 * ServerSettings().max_body_bytes


def test_old_tls_is_off() -> None:
    assert DIRECTIVES["ssl_protocols"].split() == ["TLSv1.2", "TLSv1.3"]


@pytest.mark.parametrize("path", ["/stats", "/health", "/health/ready", "/healthz", "/readyz"])
def test_inner_routes_are_not_passed_on(path: str) -> None:
    (pattern,) = re.findall(r"location ~ (\S+) \{", CONFIG)
    assert re.search(pattern, path)
    assert not re.search(pattern, "/v1/chat/completions")


def test_traces_of_jaegers_page_come_from_the_server() -> None:
    config = (ROOT / "ops/proxy/jaeger-ui.conf").read_text("utf-8")
    targets = dict(re.findall(r"location (\S+) \{\s+proxy_pass http://127\.0\.0\.1:(\d+);", config))
    assert targets == {"/api/": str(ServerSettings().port), "/": "16686"}
