"""The doctor holds Python and the packages against the floors that the distribution declares."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from service.terminal.installation import check_packages, check_python, read_floors, release_of

DECLARED = ["torch>=2.11", "sqlalchemy[asyncio]<2.1,>=2.0.40", "uvloop>=0.22; sys_platform != 'win32'", "rich"]
EXTRA = 'asyncpg>=0.30; extra == "postgres"'


def newest(name: str) -> str:
    return "99.0"


def test_this_python_is_new_enough() -> None:
    finding = check_python()
    assert (finding.state, finding.evidence["floor"]) == ("ok", "3.11")


def test_floors_are_read_and_extras_left_out() -> None:
    floors = dict(read_floors([*DECLARED, EXTRA]))
    assert floors == {"torch": "2.11", "sqlalchemy": "2.0.40", "uvloop": "0.22", "rich": "0"}


def test_packages_at_their_floors_are_well() -> None:
    finding = check_packages(newest, DECLARED)
    assert (finding.state, finding.evidence["torch"]) == ("ok", "99.0")
    assert finding.summary.startswith("4 packages are at or above their floors: torch 99.0")


def test_old_package_is_named_with_its_floor() -> None:
    finding = check_packages(lambda name: "2.9.1+cpu" if name == "torch" else "99", DECLARED)
    assert (finding.state, finding.summary) == ("failed", "torch is 2.9.1+cpu, at least 2.11 is needed.")
    assert finding.remedy == "Run `pip install --upgrade quire`."


def test_missing_package_is_named() -> None:
    def installed(name: str) -> str:
        raise PackageNotFoundError(name)

    assert check_packages(installed, ["rich>=14"]).summary == "rich is not installed."


@pytest.mark.parametrize(("text", "release"), [("2.13.0+cpu", (2, 13, 0)), ("5.3rc1", (5, 3)), ("x", ())])
def test_releases_are_numbers(text: str, release: tuple[int, ...]) -> None:
    assert release_of(text) == release
