"""`quire` with another module as its engine's process: `python -m tests.system.faulty_quire MODULE ARGUMENTS...`.

It also restarts without pauses and gives up early, so that a crash loop is a matter of seconds.
"""

from __future__ import annotations

import sys
from typing import Any

from service import model_fleet, restart_policy, supervisor
from service.cli import main


class _Fleet(model_fleet.ModelFleet):
    """The engines' places are filled by the wanted module."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.engine_module = sys.argv[1]


if __name__ == "__main__":
    vars(supervisor)["ModelFleet"] = _Fleet
    restart_policy.DELAYS_S = (0.0, 0.0, 0.0)
    main(sys.argv[2:], prog_name="quire")
