"""All checks of `quire smoke`, in their order, and the proof that they leave out no route. Knows no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from contracts.checkup import Finding
from contracts.errors import QuireError
from service.terminal import smoke_conversations, smoke_dialects, smoke_generation, smoke_operations
from service.terminal.examination import examine, found
from service.terminal.smoke_session import NotTried, SmokeCheck, SmokeSession

NAME_LEN = 13
NOT_EXERCISED: dict[str, str] = {}
"""Routes that no check may touch, each with the reason; a route of the API is either here or exercised by a check."""


def all_checks() -> tuple[SmokeCheck, ...]:
    """In the order in which they run."""
    return (
        *smoke_operations.early_checks(),
        *smoke_generation.checks(),
        *smoke_conversations.checks(),
        *smoke_operations.late_checks(),
        *smoke_dialects.checks(),
    )


def run_smoke(session: SmokeSession) -> Iterator[Finding]:
    """Each finding as soon as it is there."""
    for check in all_checks():
        yield examine_check(check, session)
    yield examine("coverage", partial(_check_coverage, session))


def examine_check(check: SmokeCheck, session: SmokeSession) -> Finding:
    """Run one check; what it raises is a finding, and its words are left whole."""

    def run() -> Finding:
        served = session.served()
        if check.is_optional and served is not None and not served.intersection(check.routes):
            return found("skipped", "This server does not speak it (--compat).")
        try:
            return check.run(session)
        except NotTried as error:
            return found("skipped", error.message)
        except QuireError as error:
            return found("failed", error.message)
        except (KeyError, IndexError, TypeError) as error:
            return found("failed", f"A reply lacks what it should have: {error!r}.")

    return examine(check.name, run)


def _check_coverage(session: SmokeSession) -> Finding:
    """Every route that the server describes is known to a check."""
    served = session.served()
    if served is None:
        return found("skipped", "The server does not show /openapi.json to this key.")
    known = {route for check in all_checks() for route in check.routes} | NOT_EXERCISED.keys()
    unknown = sorted(served - known)
    tried = len(served & session.exercised)
    if unknown:
        return found(
            "warning",
            f"{tried} of {len(served)} routes were tried; unknown to this smoke test: {', '.join(unknown[:10])}.",
            "Use the smoke test of the server's own version.",
            num_routes=len(served),
            num_tried=tried,
        )
    return found("ok", f"{tried} of {len(served)} routes were tried.", num_routes=len(served), num_tried=tried)
