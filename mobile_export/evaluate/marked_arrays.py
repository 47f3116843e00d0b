"""Marked arrays: what a study keeps in a file, with a digest of all that decides it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from correction import CheckFailed


def write_marked(
    path: Path, arrays: Mapping[str, np.ndarray], mark: str, about: Mapping[str, str] | None = None
) -> None:
    """Replace the file as a whole. mark: digest of all that decides the arrays; about: more text beside them."""
    partial = path.with_name(path.name + ".partial")
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    partial.write_bytes(save(whole, {**(about or {}), "mark": mark}))
    partial.replace(path)


def read_marked(path: Path, mark: str) -> tuple[dict[str, np.ndarray], Mapping[str, str]] | None:
    """(arrays, text) that `write_marked` wrote for this mark; None if there are none.

    Raises CheckFailed for a file that cannot be read.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            about: Mapping[str, str] = file.metadata() or {}
            if about.get("mark") != mark:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> CheckFailed:
    """What is raised for a file that does not hold what it should."""
    return CheckFailed(f"{path} cannot be read ({error}); delete it to measure again")
