"""The container image, as far as its file shows it; whether it builds is seen where there is a Docker daemon."""

from __future__ import annotations

import fnmatch
import re
from typing import NamedTuple

import msgspec
import pytest

from contracts.settings import ServerSettings
from ops.container.probe import PATH
from service.setting_fields import setting_fields
from tests.shape_rules import ROOT

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
INSTALL_LOCKED = "install --require-hashes --no-deps --requirement requirements.lock"
SECRET = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)


class Instruction(NamedTuple):
    """One instruction of the file, continued lines joined."""

    name: str
    value: str


def parse(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [Instruction(name.upper(), value.strip()) for name, value in pairs]


INSTRUCTIONS = parse((ROOT / "ops/Dockerfile").read_text("utf-8"))
LAST_STAGE = INSTRUCTIONS[max(i for i, step in enumerate(INSTRUCTIONS) if step.name == "FROM") :]


def values(name: str, instructions: list[Instruction] = LAST_STAGE) -> list[str]:
    return [step.value for step in instructions if step.name == name]


def test_two_stages_share_one_base_that_an_argument_can_pin() -> None:
    assert values("FROM", INSTRUCTIONS) == ["${PYTHON_IMAGE} AS builder", "${PYTHON_IMAGE} AS runtime"]
    assert INSTRUCTIONS[0].name == "ARG"
    assert INSTRUCTIONS[0].value.startswith("PYTHON_IMAGE=")


def test_last_user_is_a_fixed_number_that_is_not_root() -> None:
    user, group = values("USER")[-1].split(":")
    assert int(user) >= 10_000
    assert int(group) >= 10_000
    assert INSTRUCTIONS.index(Instruction("USER", f"{user}:{group}")) > max(
        i for i, step in enumerate(INSTRUCTIONS) if step.name in {"RUN", "COPY"}
    )


@pytest.mark.parametrize("name", ["ENTRYPOINT", "CMD"])
def test_process_1_is_quire_itself(name: str) -> None:
    """The exec form: no shell stands between the container's SIGTERM and the supervisor."""
    (value,) = values(name)
    assert isinstance(msgspec.json.decode(value), list)
    assert "sh" not in msgspec.json.decode(value)


def test_stop_signal_is_the_one_that_drains() -> None:
    assert values("STOPSIGNAL") == ["SIGTERM"]


def test_health_check_runs_the_probe_in_exec_form() -> None:
    (value,) = values("HEALTHCHECK")
    command = msgspec.json.decode(value[value.index("[") :], type=list[str])
    assert command[0].endswith("/python")
    assert f"COPY ops/container/probe.py {command[-1]}" in [f"{step.name} {step.value}" for step in LAST_STAGE]
    assert PATH == "/health/ready"


def test_locked_packages_are_installed_as_the_makefile_does() -> None:
    installs = [value for value in values("RUN", INSTRUCTIONS) if "pip install" in value]
    assert INSTALL_LOCKED in installs[0]
    assert INSTALL_LOCKED in MAKEFILE
    assert "${TORCH}" in installs[1]


def test_torch_is_the_build_that_the_makefile_names() -> None:
    (named,) = re.findall(r"^TORCH \?= (.+)$", MAKEFILE, flags=re.MULTILINE)
    assert f'TORCH="{named}"' in values("ARG", INSTRUCTIONS)


def test_nothing_is_fetched_by_add_and_no_secret_is_an_argument() -> None:
    assert values("ADD", INSTRUCTIONS) == []
    assert [value for value in values("ARG", INSTRUCTIONS) if SECRET.search(value)] == []
    assert [value for value in values("ENV", INSTRUCTIONS) if SECRET.search(value)] == []


def test_only_named_paths_are_copied() -> None:
    """`COPY . .` would take whatever lies in the checkout."""
    sources = {source for value in values("COPY", INSTRUCTIONS) for source in value.split()[:-1]}
    assert sources.isdisjoint({".", "./", "*"})


def environment() -> dict[str, str]:
    pairs = (pair.partition("=") for value in values("ENV") for pair in value.split())
    return {name: value for name, _, value in pairs}


def test_variables_are_settings_of_quire() -> None:
    known = {field.variable for field in setting_fields()}
    assert {name for name in environment() if name.startswith("LLM_")} <= known


def test_port_is_the_default_one() -> None:
    assert int(environment()["LLM_PORT"]) == int(values("EXPOSE")[0]) == ServerSettings().port


@pytest.mark.parametrize("name", ["HOME", "HF_HOME", "NUMBA_CACHE_DIR", "TRITON_CACHE_DIR"])
def test_caches_lie_in_the_one_directory_that_may_be_written(name: str) -> None:
    """So that the root may be read-only."""
    assert f"{environment()[name]}/".startswith("/var/cache/quire/")


def is_ignored(path: str) -> bool:
    """What .dockerignore says: the last rule that names the path or a parent of it."""
    rules = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    parts = path.split("/")
    prefixes = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    verdict = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        names = parts if pattern.startswith("**/") else prefixes
        if any(fnmatch.fnmatchcase(name, pattern.removeprefix("**/")) for name in names):
            verdict = not rule.startswith("!")
    return verdict


@pytest.mark.parametrize("path", [".env", "src/.env", ".git/config", "keys.toml", "models/a", "tests/fakes.py"])
def test_context_lacks_what_no_image_should_hold(path: str) -> None:
    assert is_ignored(path)


def test_context_has_what_is_copied() -> None:
    copied = [value.split()[:-1] for value in values("COPY", INSTRUCTIONS) if "--from" not in value]
    paths = [path for sources in copied for path in sources]
    assert len(paths) >= 6
    assert [path for path in paths if is_ignored(path) or not (ROOT / path).exists()] == []
