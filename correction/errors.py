"""Errors: one small hierarchy. A message is one or two sentences: what, expected, got, what to do."""

from __future__ import annotations


class ProjectError(Exception):
    """Base of every error that this project raises on purpose."""


class UsageError(ProjectError):
    """The caller asked for something that cannot be done (exit code 2)."""


class CheckFailed(ProjectError):
    """A check of a file or of a computation failed (exit code 1)."""


class TableError(UsageError):
    """A sampling plan or a correction holds values that it must not hold.

    `name` is a stable error code; the file reader reports it unchanged (see docs/correction-format.md).
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class NotLinearError(UsageError):
    """The scheduler cannot be compiled to a table, because its step is not the linear form of the device loop."""


class NonFiniteError(CheckFailed):
    """A NaN or an infinity appeared while sampling.

    Attributes:
        stage: what held it, for example "model output".
        step: index of the sampling step, from 0.
    """

    def __init__(self, stage: str, step: int, detail: str = "") -> None:
        super().__init__(f"{stage} holds NaN or infinity at step {step}{detail}.")
        self.stage = stage
        self.step = step


class FormatError(CheckFailed):
    """A correction file was refused.

    `name` is a stable error code, the same in every reader of the format; docs/correction-format.md lists all codes
    and the order of the checks.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
