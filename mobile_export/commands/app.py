"""App: the command line itself, options that verbs share, and how figures are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from correction import UsageError
from mobile_export.terminal import table_of

app = typer.Typer(
    help="Put a low-bit diffusion UNet on a phone, and prove on this machine what the phone will draw.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
Json = Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object on standard output.")]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder made by export.")]
Targets = Annotated[
    list[str] | None, typer.Option("--target", help="executorch or coreml; may be repeated. Default: all parts.")
]


def show(as_json: bool, title: str, figures: dict[str, Any]) -> None:
    """Figures as a table, or as one JSON object."""
    if as_json:
        print(json.dumps(figures, indent=1, sort_keys=True, default=str))
    else:
        Console(highlight=False).print(table_of(title, figures))


def show_bundle(as_json: bool, title: str, figures: dict[str, Any], parts: dict[str, dict[str, Any]]) -> None:
    """The figures of a bundle and of its parts by target: a table for each, or one JSON object."""
    if as_json:
        show(True, title, figures | parts)
        return
    show(False, title, figures)
    for target, values in parts.items():
        show(False, f"{title}, {target}", values)


def require_folder(path: Path) -> None:
    """Minutes of work should not end at a misspelt path."""
    if not path.parent.is_dir() or path.is_dir():
        reason = "it is a folder" if path.is_dir() else f"there is no folder {str(path.parent)!r}"
        raise UsageError(f"cannot write {str(path)!r}: {reason}")
