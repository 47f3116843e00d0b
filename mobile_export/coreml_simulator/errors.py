"""Errors of the simulator; all of them are SimulatorError."""

from __future__ import annotations


class SimulatorError(Exception):
    """Base of everything that the simulator raises on purpose; the message says what, where, and what to do."""


class PackageError(SimulatorError):
    """The package on disk is damaged, incomplete or outside of what a reader should accept."""


class UnsupportedError(SimulatorError):
    """The program needs an operation or a type that the simulator lacks; the message names it and its layer."""


class ProgramError(SimulatorError):
    """The program contradicts itself or its inputs: a shape or type is not the declared one."""
