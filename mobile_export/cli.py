"""mobile-export: the command line. Verbs are in commands/."""

from __future__ import annotations

import sys

from rich.console import Console

from correction import CheckFailed, ProjectError
from mobile_export.commands import evaluate, export, look, recipe, simulate
from mobile_export.commands.app import app
from mobile_export.quiet import quiet_third_parties
from mobile_export.terminal import error_text

__all__ = ["app", "evaluate", "export", "look", "main", "recipe", "simulate"]


def main() -> None:
    """Console entry point. Exit codes: 0 ok, 1 a check failed, 2 usage, 130 interrupted (typer's)."""
    quiet_third_parties()
    try:
        app()
    except (ProjectError, OSError) as error:  # OSError: no right to write, no space left
        # One line however long: whoever reads it through a pipe has no 80 columns.
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {error_text(error)}")
        sys.exit(1 if isinstance(error, CheckFailed) else 2)


if __name__ == "__main__":
    main()
