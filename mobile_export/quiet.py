"""Quiet: keeps third-party import chatter off the terminal of the command line and its workers."""

from __future__ import annotations

import logging
import warnings


def quiet_third_parties() -> None:
    """Process-wide; for programs, never for library code: only errors are logged, warnings are dropped."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
