"""The local registry: one file a version under PRESS_HOME, no server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from resources.registry.registry import Version
from resources.registry.version_files import VersionFiles, check_digest


class LocalRegistry(VersionFiles):
    """A Registry in `home`/registry; versions are numbered under a lock that ends with the process that holds it."""

    def __init__(self, home: Path) -> None:
        super().__init__(home.absolute() / "registry")

    def check(self) -> None:
        """There is nobody to ask."""

    def register(self, name: str, digest: str, tags: Mapping[str, str], card: str) -> Version:
        check_digest(digest)
        with self.writing(name):
            if known := self.by_digest(name).get(digest):
                return known
            now = datetime.now(UTC).isoformat(timespec="seconds")
            version = Version(name, max(self.numbers(name), default=0) + 1, digest, dict(tags), now)
            self.add(version, card)
            return version
