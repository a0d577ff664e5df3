"""Math threads spin only shortly, unless the operator says otherwise."""

from __future__ import annotations

from service.cpu_threads import SPIN_COUNT, limit_spinning


def test_spinning_is_limited_by_default() -> None:
    """The variable is there before torch loads libgomp."""
    environment: dict[str, str] = {}
    limit_spinning(environment)
    assert environment == {"GOMP_SPINCOUNT": SPIN_COUNT}


def test_the_operators_choice_stays() -> None:
    """A wait policy that is set already is not touched."""
    environment = {"OMP_WAIT_POLICY": "active"}
    limit_spinning(environment)
    assert environment == {"OMP_WAIT_POLICY": "active"}
