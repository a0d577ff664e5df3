"""`quire` with another module as its engine's process: `python -m tests.system.faulty_quire MODULE ARGUMENTS...`.

It also restarts without pauses and gives up early, so that a crash loop is a matter of seconds.
"""

from __future__ import annotations

import sys

from contracts.frames import ChildBound
from service import restart_policy, supervisor
from service.cli import main


class _Slot(supervisor._Slot):
    """The engine's place is filled by the wanted module."""

    def __init__(self, name: str, module: str, launch: ChildBound, timeout_s: float) -> None:
        super().__init__(name, sys.argv[1] if name == "engine" else module, launch, timeout_s)


if __name__ == "__main__":
    supervisor._Slot = _Slot  # type: ignore[misc]
    restart_policy.DELAYS_S = (0.0, 0.0, 0.0)
    main(sys.argv[2:], prog_name="quire")
