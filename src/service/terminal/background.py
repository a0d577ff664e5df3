"""Work beside a terminal command: a thread that is told when to end, and waited for a moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CLOSE_S = 1.0
"""What the thread uses may be closed next; one that does not end in this time ends with the process."""


@contextmanager
def in_background(name: str, work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` meanwhile; the event that it gets is set at the end."""
    closed = threading.Event()
    thread = threading.Thread(target=work, args=(closed,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        closed.set()
        thread.join(CLOSE_S)
