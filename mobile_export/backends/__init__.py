"""Backends by name; adding one touches its own folder and this table."""

from __future__ import annotations

from collections.abc import Callable

from correction.errors import UsageError
from mobile_export.backends.backend import Backend
from mobile_export.backends.executorch.backend import ExecuTorchBackend

BACKENDS: dict[str, Callable[[int], Backend]] = {ExecuTorchBackend.name: ExecuTorchBackend}


def get_backend(name: str, workers: int = 1) -> Backend:
    """The backend of that name, which may use `workers` processes; raises UsageError naming those that exist."""
    if name not in BACKENDS:
        raise UsageError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
    return BACKENDS[name](workers)
