"""Contents: every key and manifest of a store as far as it can be read, and the damage met on the way."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resources.errors import ConfigurationError
from resources.store.entry import Entry
from resources.store.layout import Layout
from resources.store.manifest import Manifest

MISSING = "missing"


@dataclass
class Contents:
    """All that can be read of a store, and the damage met on the way."""

    entries: dict[str, Entry] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    lost: dict[str, Entry] = field(default_factory=dict)  # entries whose keys are missing, from the spare ones
    sizes: dict[str, int] = field(default_factory=dict)  # of the blobs that are there
    damaged: list[dict[str, Any]] = field(default_factory=list)

    def stages_of(self, digests: set[str]) -> list[str]:
        """The stages whose artifact is one of `digests`."""
        entries = [*self.entries.values(), *self.lost.values()]
        return sorted({stage_of(entry) for entry in entries if entry.digest in digests})

    def artifacts_with(self, sha256: str) -> set[str]:
        """The digests of the artifacts that hold the blob."""
        return {
            digest
            for digest, manifest in self.manifests.items()
            if any(record.sha256 == sha256 for record in manifest.files)
        }


def stage_of(entry: Entry) -> str:
    return str(entry.ingredients.get("recipe", entry.key_id[:12]))


def read_index(layout: Layout) -> Contents:
    """Every key and manifest, read again, and the damage met on the way."""
    contents = Contents()
    if layout.check_version():
        _read_keys(layout, contents)
        _read_manifests(layout, contents)
        _read_spare_keys(layout, contents)
    return contents


def read_entry(path: Path) -> Entry:
    """The entry in the file of a key; a ConfigurationError or OSError when there is none that can be used."""
    entry = Entry.from_json(path.read_bytes(), path.stem)
    entry.check_key()
    return entry


def _read_keys(layout: Layout, contents: Contents) -> None:
    for path in items_of(layout.keys):
        try:
            contents.entries[path.stem] = read_entry(path)
        except FileNotFoundError:
            continue
        except (ConfigurationError, OSError) as error:
            note_damage(layout, contents, "key", path, f"cannot be used: {error}", set())


def _read_manifests(layout: Layout, contents: Contents) -> None:
    for path in items_of(layout.manifests):
        try:
            manifest = Manifest.from_json(path.read_bytes())
        except FileNotFoundError:
            continue
        except (ConfigurationError, OSError) as error:
            note_damage(layout, contents, "manifest", path, f"cannot be used: {error}", {path.stem})
            continue
        if manifest.digest == path.stem:
            contents.manifests[path.stem] = manifest
        else:
            note_damage(layout, contents, "manifest", path, "is not the one its name says", {path.stem})
    for digest in sorted({entry.digest for entry in contents.entries.values()}):
        if not layout.manifest(digest).exists():
            note_damage(layout, contents, "manifest", layout.manifest(digest), MISSING, {digest})


def _read_spare_keys(layout: Layout, contents: Contents) -> None:
    """A spare key whose key is missing tells that this was lost, as long as the artifact is there."""
    for path in items_of(layout.spare_keys):
        try:
            entry = read_entry(path)
        except FileNotFoundError:
            continue
        except (ConfigurationError, OSError) as error:
            note_damage(layout, contents, "spare_key", path, f"cannot be used: {error}", set())
            continue
        if entry.digest in contents.manifests and not os.path.lexists(layout.key(entry.key_id)):
            contents.lost[entry.key_id] = entry
            note_damage(layout, contents, "key", layout.key(entry.key_id), MISSING, {entry.digest})


def items_of(folder: Path) -> list[Path]:
    """What lies in the folder, sorted; nothing when there is no such folder."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def note_damage(layout: Layout, contents: Contents, kind: str, path: Path, reason: str, artifacts: set[str]) -> None:
    name = path.name if kind in ("blob", "tree") else path.stem
    where = path.relative_to(layout.root).as_posix()
    stages = contents.stages_of(artifacts)
    contents.damaged.append({"kind": kind, "digest": name, "path": where, "reason": reason, "stages": stages})
