"""Edits of a bundle, in the words of index.json: README.md explains them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tiny_bundle import Files, sha256, text

Edit = dict[str, Any]


def splice(files: Files, file: str, new: bytes) -> list[Edit]:
    """The one stretch in which `new` differs from the file, as an edit."""
    old = files[file]
    at = common(old, new)
    end = common(old[at:][::-1], new[at:][::-1])
    return [{"op": "splice", "file": file, "at": at, "remove": len(old) - end - at, **shown(new[at : len(new) - end])}]


def common(a: bytes, b: bytes) -> int:
    """How many bytes both begin with."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def shown(data: bytes) -> Edit:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"hex": data.hex()}


def content(edit: Edit) -> bytes:
    """What an edit puts in: `text` in UTF-8, or `hex`."""
    return edit["text"].encode() if "text" in edit else bytes.fromhex(edit["hex"])


def apply(folder: Path, edits: Sequence[Edit], outside: Path) -> None:
    """Edit a copy of the bundle. outside: a folder, empty but for what links of earlier edits lead to."""
    for edit in edits:
        path = folder / edit["file"]
        match edit["op"]:
            case "splice":
                data = path.read_bytes()
                path.write_bytes(data[: edit["at"]] + content(edit) + data[edit["at"] + edit["remove"] :])
            case "delete":
                path.unlink()
            case "add":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content(edit))
            case "pad":
                with path.open("ab") as file:
                    file.write(b" " * (edit["bytes"] - path.stat().st_size))
            case "link":
                kept = outside / path.name
                shutil.move(path, kept)
                path.symlink_to(kept)
            case other:
                raise ValueError(f"unknown edit {other!r}")


def change(files: Files, *changes: Callable[[dict[str, Any]], Any]) -> list[Edit]:
    """An edit of the manifest: its content changed in place."""
    content = json.loads(files["manifest.json"])
    for each in changes:
        each(content)
    return splice(files, "manifest.json", text(content))


def put(where: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets the value at "a/b/c"; None removes the key."""

    def set_in(content: Any) -> None:
        *path, last = where.split("/")
        for key in path:
            content = content[key]
        if value is None:
            del content[last]
        else:
            content[last] = value

    return set_in


def listed(name: str, data: bytes = b"x") -> Callable[[dict[str, Any]], None]:
    """Adds an entry of the list of files, or replaces it by that of other content."""
    return lambda content: content["files"].update({name: {"bytes": len(data), "sha256": sha256(data)}})


def replaced(files: Files, name: str, data: bytes) -> list[Edit]:
    """Other content, and a manifest that agrees with it."""
    return splice(files, name, data) + change(files, listed(name, data))
