"""The errors that a user sees: each one says where, what was found, what is accepted and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PressError(Exception):
    """A failure with one clear message for the user; `exit_code` is what the press command ends with."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """An error crosses to another process whole, whatever its class wants to be made with."""
        return _same_error, (type(self), self.args, self.__dict__)

    def to_json(self) -> dict[str, Any]:
        """What `told_error` makes an error with the same message and exit code of, in another process."""
        return {"exit_code": self.exit_code, "message": str(self)}


def _same_error(kind: type[PressError], args: tuple[Any, ...], state: dict[str, Any]) -> PressError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def told_error(document: Mapping[str, Any]) -> PressError:
    """The error that a process of ours told of itself."""
    error = PressError(document["message"])
    error.exit_code = document["exit_code"]
    return error


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
