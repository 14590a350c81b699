"""The registry protocol: named models, numbered versions, each one content under tags that say where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Version:
    """One version of a registered model.

    digest: of the content registered, hexadecimal sha256. tags: name → text. registered_at: UTC, ISO 8601. page: the
    address where people see it, empty where there is none.
    """

    name: str
    version: int
    digest: str
    tags: Mapping[str, str] = field(hash=False)
    registered_at: str
    page: str = ""


class Registry(Protocol):
    """Where models are registered. A version never changes; the same content has one version, whoever registers it.

    What it knows is answered from this machine, so that planning waits for nothing; `register` alone asks further.
    """

    def check(self) -> None:
        """Return when one can register here, as far as is seen without doing so; an error says what is in the way."""
        ...

    def find(self, name: str, digest: str) -> Version | None:
        """The version of `name` that holds the content `digest`, as far as this machine knows; else None."""
        ...

    def register(self, name: str, digest: str, tags: Mapping[str, str], card: str) -> Version:
        """The version that holds the content `digest`; a new one, numbered next, when there is none yet.

        tags: lineage and labels of a new version. card: its model card, markdown.
        """
        ...

    def names(self) -> list[str]:
        """The names of all registered models, sorted."""
        ...

    def versions(self, name: str) -> list[Version]:
        """All known versions of `name`, oldest first; none for a name that was never registered."""
        ...

    def card(self, name: str, version: int) -> str:
        """The model card of a version, markdown; a ConfigurationError when there is no such version."""
        ...
