"""Backends by name; adding one touches its own folder and this table. A backend is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from correction.errors import UsageError
from mobile_export.backends.backend import Backend, BackendOptions


def _executorch(options: BackendOptions) -> Backend:
    from mobile_export.backends.executorch.backend import ExecuTorchBackend

    return ExecuTorchBackend(options)


def _coreml(options: BackendOptions) -> Backend:
    from mobile_export.backends.coreml.backend import CoreMLBackend

    return CoreMLBackend(options)


BACKENDS: dict[str, Callable[[BackendOptions], Backend]] = {"executorch": _executorch, "coreml": _coreml}


def get_backend(target: str, options: BackendOptions | None = None) -> Backend:
    """The backend of that name; raises UsageError naming those that exist."""
    if target not in BACKENDS:
        raise UsageError(f"unknown target {target!r}: choose one of {', '.join(BACKENDS)}")
    return BACKENDS[target](options or BackendOptions())
