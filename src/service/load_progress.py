"""Shows how far the loading of a model is: a moving line on a terminal, one plain line per stage elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class LoadProgress:
    """A context within which `report` may be called, from one thread at a time; closing it clears the moving line."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console if console is not None else Console(stderr=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task_id: TaskID | None = None
        self._stage: str | None = None
        self._is_closed = False

    def __enter__(self) -> LoadProgress:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def report(self, stage: str, fraction: float | None) -> None:
        """Show that `stage` is under way; `fraction` is what is done of it, 0 to 1, None where nobody knows."""
        if self._is_closed:
            return
        if not self._console.is_terminal:
            if stage != self._stage:
                self._console.print(f"{stage} ...", soft_wrap=True)
            self._stage = stage
            return
        if stage != self._stage:
            if self._task_id is not None:
                self._progress.remove_task(self._task_id)
            self._task_id = self._progress.add_task(stage, total=None if fraction is None else 1.0)
            self._stage = stage
        if self._task_id is not None and fraction is not None:
            self._progress.update(self._task_id, total=1.0, completed=fraction)

    def close(self) -> None:
        """Stop and clear; further reports are dropped."""
        if not self._is_closed:
            self._is_closed = True
            if self._console.is_terminal:
                self._progress.stop()
