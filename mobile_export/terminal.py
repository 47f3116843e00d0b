"""What the command line shows: progress, tables of figures, one-sentence errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table

from mobile_export.progress import Progress

LONG_LIST = 16  # a longer list of numbers is shown by its ends


class TerminalProgress(Progress):
    """A line per stage on standard error, with a bar, a count, elapsed time and an estimate."""

    def __init__(self) -> None:
        self._bars = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task: Any = None

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        self._bars.stop()

    def _finish(self) -> None:
        if self._task is not None:
            total = self._bars.tasks[-1].total or 1
            self._bars.update(self._task, total=total, completed=total)

    def stage(self, title: str) -> None:
        self._finish()
        self._task = self._bars.add_task(escape(title), total=None)

    def advance(self, done: int, total: int) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)


def table_of(title: str, figures: Mapping[str, Any]) -> Table:
    """Two columns, nested mappings indented."""
    table = Table(title=escape(title), show_header=False, title_justify="left")
    table.add_column(style="dim")
    table.add_column(overflow="fold")

    def add(figures: Mapping[str, Any], indent: str) -> None:
        for key, value in figures.items():
            if isinstance(value, Mapping) and value:
                table.add_row(indent + escape(str(key)), "")
                add(value, indent + "  ")
            else:
                table.add_row(indent + escape(str(key)), escape(_text(value)))

    add(figures, "")
    return table


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        if len(value) > LONG_LIST and isinstance(value[0], (int, float)):
            return f"{len(value)}: {_text(value[0])}, {_text(value[1])}, … {_text(value[-1])}"
        return ", ".join(_text(v) for v in value) or "none"
    return "none" if value is None or value == {} else str(value)


def error_text(error: Exception) -> str:
    """The message on one line, safe for rich."""
    return escape(" ".join(str(error).split()))
