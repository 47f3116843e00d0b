"""The models that come with the package, as ordinary diffusers folders."""

from __future__ import annotations

from pathlib import Path

_ZOO = Path(__file__).parent.parent / "zoo"


def zoo_names() -> tuple[str, ...]:
    """Names of the bundled models, sorted."""
    return tuple(sorted(p.parent.name for p in _ZOO.glob("*/model_index.json")))


def zoo_folder(name: str) -> Path:
    """The diffusers folder of a bundled model; KeyError for another name."""
    if name not in zoo_names():
        raise KeyError(name)
    return _ZOO / name
