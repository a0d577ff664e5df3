"""Dashboards, alerts and compose: every queried name exists, every mounted file is there, nothing is open to others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from batching.latencies import LatencyBook
from contracts.model_state import ModelState, ModelTable
from contracts.settings import ServerSettings
from service.metrics import EngineMetrics
from tests.fakes import fake_engine_info
from tests.service.scripted_engine import STATS
from tests.service.test_why import sample
from tests.shape_rules import ROOT

OPS = ROOT / "ops"
FOLDER = OPS / "observability"
NAME = re.compile(r"\b(?:quire|vllm)[_:][a-z_:]+")
PROMTOOL = shutil.which("promtool")

COMPOSE: dict[str, Any] = yaml.safe_load((OPS / "compose.yaml").read_text("utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana/dashboards/quire.json").read_text("utf-8"))
TABLE = ModelTable(default_alias="fake/model", models=(ModelState(alias="fake/model"),))


def served_names() -> dict[str, set[str]]:
    """Every sample name that /metrics can have, with its labels."""
    book = LatencyBook()
    book.end(sample())
    book.decode_step(0.01, 1)
    stats = msgspec.structs.replace(STATS, latencies=book.snapshot())
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EngineMetrics([(fake_engine_info(ROOT), stats)], TABLE, is_vllm_compatible=True))
    names: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for one in family.samples:
            names.setdefault(one.name, set()).update(one.labels)
    return names


def queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


@pytest.mark.parametrize(("title", "expression"), list(queries()))
def test_every_queried_name_and_label_is_served(title: str, expression: str) -> None:
    served = served_names()
    names = set(NAME.findall(expression))
    assert names, title
    assert names <= set(served)
    labels = {label for name in names for label in served[name]} | {"le"}
    for group in re.findall(r"by \(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",")} <= labels


def test_every_alert_says_what_to_do() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    assert all(rule["annotations"]["summary"] and rule["annotations"]["description"] for rule in rules)
    assert {rule["labels"]["severity"] for rule in rules} <= {"page", "warn"}


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool_accepts_rules_and_names() -> None:
    assert PROMTOOL is not None
    subprocess.run([PROMTOOL, "check", "rules", str(FOLDER / "alerts.yml")], check=True)


def test_compose_opens_nothing_beyond_this_machine() -> None:
    for name, service in COMPOSE["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert "build" in service or re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"]), name


def test_compose_mounts_files_that_are_there() -> None:
    mounts = [mount for service in COMPOSE["services"].values() for mount in service.get("volumes", ())]
    sources = [mount.split(":")[0] for mount in mounts]
    local = [source for source in sources if source.startswith(".")]
    assert len(local) == 4
    assert all((OPS / source).exists() for source in local)
    assert {source for source in sources if not source.startswith(".")} == set(COMPOSE["volumes"])


def test_compose_asks_quire_for_what_it_knows() -> None:
    quire = COMPOSE["services"]["quire"]
    flags = [word for word in quire["command"] if word.startswith("--")]
    assert {flag.removeprefix("--").replace("-", "_") for flag in flags} <= set(ServerSettings.__struct_fields__)
    for name in quire["environment"]:
        assert name.removeprefix("LLM_").lower() in ServerSettings.__struct_fields__


def test_grafana_finds_its_dashboard_and_sources() -> None:
    sources = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/quire.yaml").read_text("utf-8"))["datasources"]
    uids = {source["uid"] for source in sources}
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} <= uids
    (provider,) = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/quire.yaml").read_text("utf-8"))[
        "providers"
    ]
    mounts = COMPOSE["services"]["grafana"]["volumes"]
    assert any(mount.split(":")[1] == provider["options"]["path"] for mount in mounts)
    hosts = {source["url"].split("/")[2].split(":")[0] for source in sources}
    assert hosts <= set(COMPOSE["services"])
