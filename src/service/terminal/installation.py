"""Whether Python and the packages are new enough, as the distribution itself declares. Imports none of them."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from contracts.checkup import Finding
from service.terminal.examination import found

DISTRIBUTION = "quire"
PYTHON_FLOOR = (3, 11)
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?\s*(?P<bounds>[^;]*)(?P<marker>;.*)?")
_FLOOR = re.compile(r">=\s*([0-9.]+)")


def check_python() -> Finding:
    """The interpreter."""
    wanted = ".".join(map(str, PYTHON_FLOOR))
    told = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < PYTHON_FLOOR:
        return found("failed", f"{told} is older than {wanted}.", f"Install Python {wanted} or later.")
    return found("ok", f"{told}; {wanted} is needed.", version=platform.python_version(), floor=wanted)


def check_packages(installed: Callable[[str], str] = version, declared: list[str] | None = None) -> Finding:
    """Every package that is required, against its lowest version."""
    problems: list[str] = []
    versions: dict[str, str] = {}
    try:
        floors = list(read_floors(requires(DISTRIBUTION) or [] if declared is None else declared))
    except PackageNotFoundError:
        return found("skipped", "Quire runs from a checkout that is not installed: nothing declares what it needs.")
    for name, floor in floors:
        try:
            versions[name] = installed(name)
        except PackageNotFoundError:
            problems.append(f"{name} is not installed")
            continue
        if release_of(versions[name]) < release_of(floor):
            problems.append(f"{name} is {versions[name]}, at least {floor} is needed")
    if problems:
        return found("failed", f"{'; '.join(problems)}.", "Run `pip install --upgrade quire`.", **versions)
    told = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "litestar") if name in versions)
    return found("ok", f"{len(floors)} packages are at or above their floors: {told}.", **versions)


def read_floors(requirements: list[str]) -> Iterator[tuple[str, str]]:
    """Name and lowest version of each requirement that always applies; those of extras do not."""
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None or "extra" in (match["marker"] or ""):
            continue
        floor = _FLOOR.search(match["bounds"])
        yield match["name"], floor[1].rstrip(".") if floor else "0"


def release_of(text: str) -> tuple[int, ...]:
    """The numbers at the beginning of a version: 2.13.0+cpu is (2, 13, 0)."""
    match = re.match(r"[0-9]+(\.[0-9]+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()
