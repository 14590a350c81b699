"""Manifests: path, size and sha256 of each file of an artifact, in one canonical form."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from resources.errors import ConfigurationError

DIGEST = re.compile(r"[0-9a-f]{64}")
# No part that is empty or leads elsewhere, nothing that Windows takes for a separator, nothing that is no text.
PATH = re.compile(r"(?!(?:.*/)?\.{0,2}(?:/|\Z))[^\\\0\ud800-\udfff]+", re.DOTALL)


class FileRecord(NamedTuple):
    """One file of an artifact: its path below the artifact's folder with forward slashes, size in bytes, sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The files of an artifact, sorted by path; `digest` is the artifact's digest, that is its data version.

    Raises ConfigurationError for a path that would leave the artifact's folder or that lies there twice.
    """

    files: tuple[FileRecord, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(sorted(self.files)))
        _check_paths(record.path for record in self.files)
        for record in self.files:
            if not DIGEST.fullmatch(record.sha256) or type(record.size) is not int or record.size < 0:
                raise _refused(
                    record.path, f"size {record.size!r}, sha256 {record.sha256!r}", "a size and 64 hex digits"
                )

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self._json).hexdigest()

    @cached_property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(record.size for record in self.files)

    def to_json(self) -> bytes:
        """Canonical JSON: the same files always give the same bytes."""
        return self._json

    @cached_property
    def _json(self) -> bytes:
        files = [{"path": record.path, "sha256": record.sha256, "size": record.size} for record in self.files]
        return json.dumps({"files": files}, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()

    @staticmethod
    def from_json(data: bytes) -> Manifest:
        """The manifest in `data`; anything but the canonical JSON of a valid manifest is a ConfigurationError."""
        try:
            files = json.loads(data)["files"]
            manifest = Manifest(tuple(_record(item) for item in files))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigurationError("manifest", f"unreadable content ({error!r})", "canonical JSON") from error
        if manifest._json != data:
            raise ConfigurationError("manifest", "JSON that is not canonical", "canonical JSON")
        return manifest


def _record(item: dict[str, Any]) -> FileRecord:
    path, size, sha256 = item["path"], item["size"], item["sha256"]
    if not (isinstance(path, str) and type(size) is int and isinstance(sha256, str)):
        raise TypeError(f"a file record cannot hold {item!r}")
    return FileRecord(path, size, sha256)


def _check_paths(paths: Iterable[str]) -> None:
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        if not PATH.fullmatch(path):
            raise _refused(path, repr(path), "a relative path below the artifact's folder, with forward slashes")
        if path in files:
            raise _refused(path, "the path twice", "each path once")
        files.add(path)
        while path := path.rpartition("/")[0]:
            folders.add(path)
    if both := sorted(files & folders):
        raise _refused(both[0], "a file that is also a folder", "one of the two")


def _refused(path: str, found: str, accepted: str) -> ConfigurationError:
    return ConfigurationError(f"manifest, file {path!r}", found, accepted)
