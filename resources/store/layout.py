"""Where everything lies in a store, and which layouts this version can read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from resources.errors import ConfigurationError
from resources.store.manifest import DIGEST

VERSION = "1"


@dataclass(frozen=True)
class Layout:
    """The paths of the store in `root`; digests and key ids are checked, so that no path leads out of it."""

    root: Path

    @property
    def version(self) -> Path:
        return self.root / "VERSION"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def manifests(self) -> Path:
        return self.root / "manifests"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def spare_keys(self) -> Path:
        """A second copy of each key: bytes can be proved by their digest, but nothing else tells what a key was."""
        return self.root / "spare_keys"

    @property
    def trees(self) -> Path:
        return self.root / "trees"

    @property
    def scratches(self) -> Path:
        return self.root / "scratch"

    @property
    def temporary(self) -> Path:
        """What is being written; each folder here is named owner~random, and the owner's lease protects it."""
        return self.root / "temporary"

    @property
    def temporary_trees(self) -> Path:
        """The same for trees, which may lie on another file system than the blobs."""
        return self.trees / ".temporary"

    @property
    def leases(self) -> Path:
        return self.root / "leases"

    @property
    def digests(self) -> Path:
        return self.root / "digests.sqlite"

    def blob(self, digest: str) -> Path:
        return Path(self.blob_name(digest))

    # The same as text, which costs a tenth: planning looks at them by the ten thousand.

    def blob_name(self, digest: str) -> str:
        return f"{self._root_name}/blobs/{_checked(digest)[:2]}/{digest}"

    def manifest_name(self, digest: str) -> str:
        return f"{self._root_name}/manifests/{_checked(digest)}.json"

    def key_name(self, key_id: str) -> str:
        return f"{self._root_name}/keys/{_checked(key_id)}.json"

    @cached_property
    def _root_name(self) -> str:
        return str(self.root)

    def manifest(self, digest: str) -> Path:
        return Path(self.manifest_name(digest))

    def key(self, key_id: str) -> Path:
        return Path(self.key_name(key_id))

    def spare_key(self, key_id: str) -> Path:
        return self.spare_keys / f"{_checked(key_id)}.json"

    def tree(self, digest: str) -> Path:
        return self.trees / _checked(digest)

    def scratch(self, key_id: str) -> Path:
        return self.scratches / _checked(key_id)

    def lease(self, owner: str) -> Path:
        return self.leases / f"{owner}.lock"

    def check_version(self) -> bool:
        """Whether there is a store; a ConfigurationError when another version of Olive Press wrote it."""
        try:
            found = self.version.read_text("utf-8", "replace").strip()
        except FileNotFoundError:
            # The version is written before anything else, so content without one is not ours.
            if self.keys.exists() or self.blobs.exists():
                raise self._refused("no version") from None
            return False
        if found != VERSION:
            raise self._refused(f"version {found[:40]!r}")
        return True

    def _refused(self, found: str) -> ConfigurationError:
        remedy = "Use the Olive Press that wrote it, or set PRESS_HOME to another folder"
        return ConfigurationError(f"store {self.version}", found, f"layout version {VERSION}", remedy)


def _checked(digest: str) -> str:
    if not DIGEST.fullmatch(digest):
        raise ConfigurationError("store", f"the digest {digest!r}", "64 hexadecimal digits")
    return digest
