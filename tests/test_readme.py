"""The README says what is so: its settings, routes, commands, files and curl lines."""

from __future__ import annotations

import re

import msgspec
import pytest

from contracts.settings import EMBEDDED_MODEL, ServerSettings
from service.cli import main
from service.listen_address import ListenAddress
from service.ready_panel import curl_lines
from service.settings_table import renew_table
from tests.shape_rules import ROOT

README = (ROOT / "README.md").read_text("utf-8")


def test_settings_table_is_what_the_structs_say() -> None:
    assert renew_table(README) == README


def test_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        renew_table("no table here")


def test_routes_are_those_of_the_api_description() -> None:
    description = msgspec.json.decode((ROOT / "contracts/openapi.json").read_bytes())
    described = {f"{method.upper()} {path}" for path, methods in description["paths"].items() for method in methods}
    listed = set(re.findall(r"^\| `((?:GET|POST|PATCH|DELETE) [^`]+)` \|", README, flags=re.MULTILINE))
    assert listed == {route for route in described if "/assets/" not in route}


def test_commands_are_those_of_the_command_line() -> None:
    listed = re.findall(r"^\| `quire (\w+)", README, flags=re.MULTILINE)
    assert listed == main.list_commands(main.make_context("quire", [], resilient_parsing=True))


def test_curl_lines_are_those_of_the_ready_panel() -> None:
    url = ListenAddress(ip=ServerSettings().host, port=ServerSettings().port).url
    shown = [line for line in README.splitlines() if line.startswith("curl ")]
    assert shown[:3] == curl_lines(url, EMBEDDED_MODEL)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z-]+)", README))))
def test_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_linked_file_exists(path: str) -> None:
    assert (ROOT / path).is_file()
