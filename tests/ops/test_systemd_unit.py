"""The systemd service: what it may do, when it is stopped by force, and what systemd's own tool says of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from contracts.errors import ModelNotUsable, SettingsError
from service.setting_fields import setting_fields
from tests.shape_rules import ROOT

UNIT = (ROOT / "ops/systemd/quire.service").read_text("utf-8")
OLDEST_SYSTEMD = 250
"""The first with %d, and with `systemd-analyze security --offline`."""
MAX_EXPOSURE = 3.0
"""Of 10, as `systemd-analyze security` counts."""
MIN_STOP_MARGIN_S = 15
"""After the drain, for spans to be flushed and processes to end, before systemd kills."""


def find_analyze() -> str | None:
    """systemd's own tool, where it is new enough."""
    path = shutil.which("systemd-analyze")
    if path is None:
        return None
    told = subprocess.run([path, "--version"], check=False, capture_output=True, text=True, timeout=60).stdout
    version = re.match(r"systemd (\d+)", told)
    return path if version is not None and int(version[1]) >= OLDEST_SYSTEMD else None


ANALYZE = find_analyze()
NEEDS_ANALYZE = pytest.mark.skipif(ANALYZE is None, reason=f"needs systemd-analyze of systemd {OLDEST_SYSTEMD}")


def read_directives(text: str) -> dict[str, list[str]]:
    """Directive to its values; a directive may stand more than once."""
    directives: dict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            directives[name].append(value)
    return dict(directives)


DIRECTIVES = read_directives(UNIT)
VARIABLES = dict(pair.split("=", 1) for value in DIRECTIVES["Environment"] for pair in value.split())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DynamicUser", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("NoNewPrivileges", "yes"),
        ("StateDirectoryMode", "0700"),
        ("RuntimeDirectoryMode", "0700"),
        ("CapabilityBoundingSet", ""),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
        ("Restart", "on-failure"),
        ("KillMode", "mixed"),
        ("KillSignal", "SIGTERM"),
        ("MemoryDenyWriteExecute", "no"),
    ],
)
def test_directive_has_one_value(name: str, value: str) -> None:
    assert DIRECTIVES[name] == [value]


def test_calls_are_an_allow_list() -> None:
    assert DIRECTIVES["SystemCallFilter"][0] == "@system-service"


def test_keys_come_as_a_credential_and_never_as_a_variable() -> None:
    (credential,) = DIRECTIVES["LoadCredential"]
    assert VARIABLES["LLM_API_KEYS_FILE"] == f"%d/{credential.partition(':')[0]}"
    assert "LLM_API_KEYS" not in VARIABLES


def test_variables_are_settings_of_quire() -> None:
    known = {field.variable for field in setting_fields()}
    assert {name for name in VARIABLES if name.startswith("LLM_")} <= known


def test_service_is_killed_only_after_its_drain_would_have_ended() -> None:
    drain_s = float(VARIABLES["LLM_DRAIN_DELAY_S"]) + float(VARIABLES["LLM_DRAIN_TIMEOUT_S"])
    assert int(DIRECTIVES["TimeoutStopSec"][0]) >= drain_s + MIN_STOP_MARGIN_S


def test_private_socket_lies_in_the_directory_that_only_the_service_may_enter() -> None:
    assert VARIABLES["XDG_RUNTIME_DIR"] == f"%t/{DIRECTIVES['RuntimeDirectory'][0]}"


@pytest.mark.parametrize("name", ["HOME", "HF_HOME", "NUMBA_CACHE_DIR"])
def test_caches_lie_in_the_state_directory(name: str) -> None:
    assert VARIABLES[name].startswith(f"%S/{DIRECTIVES['StateDirectory'][0]}")


def test_start_is_not_repeated_for_what_a_restart_cannot_mend() -> None:
    codes = {SettingsError.exit_code, ModelNotUsable.exit_code}
    assert set(map(int, DIRECTIVES["RestartPreventExitStatus"][0].split())) == codes


@pytest.fixture
def unit_here(tmp_path: Path) -> Path:
    """The unit with a command that this machine has."""
    path = tmp_path / "quire.service"
    path.write_text(re.sub("^ExecStart=.*", "ExecStart=/bin/true", UNIT, flags=re.MULTILINE))
    return path


@NEEDS_ANALYZE
def test_systemd_reads_every_line(unit_here: Path) -> None:
    done = subprocess.run(
        [str(ANALYZE), "verify", str(unit_here)], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, done.returncode) == ("", 0)


@NEEDS_ANALYZE
def test_exposure_is_within_the_limit(unit_here: Path) -> None:
    command = [str(ANALYZE), "security", "--offline=true", "--no-pager", str(unit_here)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (exposure,) = re.findall(r"exposure level for quire\.service: ([\d.]+)", done.stdout)
    assert float(exposure) <= MAX_EXPOSURE
