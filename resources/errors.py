"""The errors that a user sees: each one says where, what was found, what is accepted and what to do."""

from __future__ import annotations


class PressError(Exception):
    """A failure with one clear message for the user; `exit_code` is what the press command ends with."""

    exit_code = 1


class ConfigurationError(PressError):
    """The request or the configuration is wrong; nothing was run."""

    exit_code = 2

    def __init__(self, place: str, found: str, accepted: str, remedy: str = "") -> None:
        super().__init__(f"{place}: found {found}; accepted: {accepted}" + (f". {remedy}" if remedy else ""))
        self.place = place


class StageError(PressError):
    """A stage could not produce its artifact; what was complete before is untouched."""

    def __init__(self, stage: str, what: str, remedy: str = "") -> None:
        super().__init__(f"{stage}: {what}" + (f". {remedy}" if remedy else ""))
        self.stage = stage
