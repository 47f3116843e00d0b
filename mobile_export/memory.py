"""Memory: what is no longer used goes back to the system, so that large networks follow each other in one process."""

from __future__ import annotations

import ctypes
import gc


def release_memory() -> None:
    """Collect garbage, and let glibc return the free pages between what is still used; elsewhere that is left out."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
