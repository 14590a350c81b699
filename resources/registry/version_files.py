"""Versions as files: NAME/VERSION.json holds a version, its card and a checksum of both."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from resources.errors import ConfigurationError, StageError
from resources.registry.registry import Version
from resources.store.digests import RACY_SECONDS
from resources.store.disk import FullDisk
from resources.store.durable import make_folder, write_durably
from resources.store.manifest import DIGEST

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


class VersionFiles:
    """The versions kept in the folder `root`; files are written once, whole."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, tuple[int, dict[str, Version]]] = {}  # name → change of its folder, digest → version

    def find(self, name: str, digest: str) -> Version | None:
        """The version of `name` with this digest; its files are read again only when one came or went."""
        folder = self._folder(name)
        changed = folder.stat().st_mtime_ns if folder.is_dir() else None
        known = self._known.get(name)
        if known is not None and known[0] == changed:
            return known[1].get(digest)
        versions = self.by_digest(name)
        if changed is not None and changed / 1e9 < time.time() - RACY_SECONDS:
            self._known[name] = changed, versions
        return versions.get(digest)

    def names(self) -> list[str]:
        """The names of all registered models, sorted."""
        return sorted(folder.name for folder in self._root.glob("*") if NAME.fullmatch(folder.name) and folder.is_dir())

    def versions(self, name: str) -> list[Version]:
        """All versions of `name`, oldest first."""
        return [_read(folder_file)[0] for folder_file in self._files(name)]

    def by_digest(self, name: str) -> dict[str, Version]:
        """Digest → its oldest version, read now."""
        return {version.digest: version for version in reversed(self.versions(name))}

    def card(self, name: str, version: int) -> str:
        """The model card of a version; a ConfigurationError when there is no such version."""
        file = self._folder(name) / f"{version}.json"
        if not file.is_file():
            known = ", ".join(file.stem for file in self._files(name)) or "none"
            raise ConfigurationError("registry", f"no version {version} of {name}", f"one of its versions: {known}")
        return _read(file)[1]

    def numbers(self, name: str) -> list[int]:
        """The numbers of the versions of `name`, ascending."""
        return [int(file.stem) for file in self._files(name)]

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """A block that alone adds versions of `name`."""
        folder = self._folder(name)
        with FullDisk("registered_model", self._root):
            make_folder(folder)
            # A lock that is a mere file would outlive its process, so a file system without real ones is refused.
            with FileLock(self._root / f".{name}.lock", fallback_to_soft=False):
                yield

    def add(self, version: Version, card: str) -> None:
        """Keep one more version, inside `writing`."""
        fields = asdict(version) | {"card": card}
        document = json.dumps(fields | {"sha256": _checksum(fields)}, indent=1, sort_keys=True, ensure_ascii=False)
        folder = self._folder(version.name)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as work:
            write_durably(document.encode() + b"\n", folder / f"{version.version}.json", Path(work))

    def forget(self, name: str, number: int) -> None:
        """Keep a version no longer, inside `writing`."""
        (self._folder(name) / f"{number}.json").unlink()

    def _files(self, name: str) -> list[Path]:
        numbered = [file for file in self._folder(name).glob("*.json") if file.stem.isdecimal()]
        return sorted(numbered, key=lambda file: int(file.stem))

    def _folder(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise ConfigurationError("registry", f"the model name {name!r}", "letters, digits, _ . - (at most 63)")
        return self._root / name


def check_digest(digest: str) -> None:
    """Raise a ConfigurationError for what is no digest."""
    if not DIGEST.fullmatch(digest):
        raise ConfigurationError("registry", f"the digest {digest!r}", "64 hexadecimal digits")


def _read(file: Path) -> tuple[Version, str]:
    try:
        fields = json.loads(file.read_bytes())
        if fields.pop("sha256") != _checksum(fields):
            raise ValueError("its checksum does not match")
        card = fields.pop("card")
        return Version(**fields), card
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{file} was damaged or altered ({error})"
        raise StageError("registry", what, "Put it back from a backup, or remove it to register anew") from error


def _checksum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
