"""Progress: how long work tells what it is doing; silent unless a caller shows it."""

from __future__ import annotations


class Progress:
    """Silent progress; the command line overrides the methods."""

    def stage(self, title: str) -> None:
        """A new piece of work begins."""

    def advance(self, done: int, total: int) -> None:
        """`done` of `total` parts of the current stage are ready."""
