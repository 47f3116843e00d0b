"""labels.json: the names of a class-conditional model's classes, beside model_index.json."""

from __future__ import annotations

import json
from pathlib import Path

from correction.errors import UsageError

LABELS_FILE = "labels.json"


def read_classes(folder: Path, source: str, count: int | None) -> tuple[tuple[str, ...], int | None]:
    """(class names by label, null label or None) of a network with `count` class embeddings, None for none.

    labels.json looks like {"classes": ["cat", "dog"], "null": 2}; without the file the classes are numbers. Raises
    UsageError where the file makes no sense or does not fit the network.
    """
    path = folder / LABELS_FILE
    if not path.is_file():
        return tuple(str(i) for i in range(count or 0)), None
    try:
        labels = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is not readable JSON ({error})") from error
    where = f"{source!r}: {LABELS_FILE}"
    if count is None:
        raise UsageError(f"{where} names classes, but the network has no class embeddings: remove the file")
    names = labels.get("classes") if isinstance(labels, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UsageError(f'{where} must look like {{"classes": ["cat", "dog"], "null": 2}}, the names by label')
    if len(set(names)) < len(names):
        raise UsageError(f"{where} names a class twice: {', '.join(names)}")
    if len(names) > count:
        raise UsageError(f"{where} names {len(names)} classes, the network has {count} embeddings")
    null = labels.get("null")
    if null is not None and (type(null) is not int or not len(names) <= null < count):
        raise UsageError(f"{where}: null must be a label after the classes, {len(names)} to {count - 1}, got {null!r}")
    return tuple(names), null
