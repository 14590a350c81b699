"""Repair: mend what another copy proves, drop what cannot be trusted, say what must be built again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resources.errors import ConfigurationError
from resources.progress import Progress
from resources.store.contents import MISSING, Contents, items_of, read_entry, stage_of
from resources.store.digests import sha256_of
from resources.store.durable import move_durably, remove_tree, sync_file, write_durably
from resources.store.entry import Entry
from resources.store.layout import Layout
from resources.store.lease import COMMIT, Leases
from resources.store.manifest import FileRecord, Manifest
from resources.store.sealing import SEALED_NS, mark_sealed
from resources.store.trees import link_or_copy, names_below
from resources.store.verification import blob_damage, read_contents, tree_damage

Damage = dict[str, Any]


@dataclass(frozen=True)
class Repair:
    """What was done about the damage.

    mended and dropped: as in `Verification.damaged`. rebuild: one {"stage", "key_id", "digest", "seconds"} for each
    artifact that is lost; seconds are what computing it took.
    """

    mended: list[Damage] = field(default_factory=list)
    dropped: list[Damage] = field(default_factory=list)
    rebuild: list[dict[str, Any]] = field(default_factory=list)


def repair(layout: Layout, leases: Leases, progress: Progress | None = None) -> Repair:
    """Verify the store and leave nothing in it that cannot be trusted."""
    if not layout.check_version():
        return Repair()
    contents = read_contents(layout, progress)
    with leases.take(COMMIT), leases.work_folder(COMMIT) as work:
        return _Repairer(layout, leases, contents, work).run()


class _Repairer:
    """One repair; holds the lease of committing, so what it drops cannot be what another process just placed."""

    def __init__(self, layout: Layout, leases: Leases, contents: Contents, work: Path) -> None:
        self._layout = layout
        self._leases = leases
        self._contents = contents
        self._work = work
        self._result = Repair()

    def run(self) -> Repair:
        by_kind = {kind: [item for item in self._contents.damaged if item["kind"] == kind] for kind in KINDS}
        self._settle(by_kind["manifest"], self._mend_manifest)
        self._settle(by_kind["blob"] + self._missing_since(by_kind["manifest"]), self._mend_blob)
        self._settle(by_kind["key"], self._mend_key)
        self._drop_incomplete()
        self._settle(by_kind["spare_key"], self._mend_spare_key)
        self._copy_keys()
        self._settle(by_kind["tree"], self._tree_is_sound)
        self._seal_copied_blobs()
        self._drop_finished_scratches()
        return self._result

    def _settle(self, damaged: list[Damage], mend: Callable[[Damage], bool]) -> None:
        for item in damaged:
            if mend(item):
                self._result.mended.append(item)
            else:
                remove_tree(self._layout.root / item["path"])
                self._result.dropped.append(item)

    def _mend_manifest(self, item: Damage) -> bool:
        """A tree whose files give the digest proves the manifest."""
        tree = self._layout.trees / item["digest"]
        manifest = _manifest_of(tree) if tree.is_dir() else None
        if manifest is None or manifest.digest != item["digest"]:
            return False
        write_durably(manifest.to_json(), self._layout.manifest(manifest.digest), self._work)
        self._contents.manifests[manifest.digest] = manifest
        return True

    def _missing_since(self, manifests: list[Damage]) -> list[Damage]:
        """The blobs that only a manifest just mended asks for."""
        mended = [self._contents.manifests[item["digest"]] for item in manifests if item in self._result.mended]
        blobs = {record.sha256: self._layout.blob(record.sha256) for manifest in mended for record in manifest.files}
        return [
            {
                "kind": "blob",
                "digest": sha256,
                "path": blob.relative_to(self._layout.root).as_posix(),
                "reason": MISSING,
            }
            for sha256, blob in blobs.items()
            if not blob.exists()
        ]

    def _mend_blob(self, item: Damage) -> bool:
        """A file of a tree that has the sha256 is as good as the blob."""
        blob = self._layout.root / item["path"]
        if not blob_damage(blob) and blob.exists():
            return True  # another process placed it anew
        for digest, record in self._places_of(item["digest"]):
            file = self._layout.tree(digest) / record.path
            if file.is_symlink() or not file.is_file() or sha256_of(file) != record.sha256:
                continue
            staged = self._work / record.sha256
            link_or_copy(file, staged)
            mark_sealed(staged)
            sync_file(staged)
            move_durably(staged, blob)
            return True
        return False

    def _places_of(self, sha256: str) -> Iterator[tuple[str, FileRecord]]:
        for digest, manifest in self._contents.manifests.items():
            for record in manifest.files:
                if record.sha256 == sha256:
                    yield digest, record

    def _mend_key(self, item: Damage) -> bool:
        spare = _entry_or_none(self._layout.spare_keys / f"{item['digest']}.json")
        if spare is None:
            return False
        write_durably(spare.to_json(), self._layout.key(spare.key_id), self._work)
        return True

    def _mend_spare_key(self, item: Damage) -> bool:
        return _entry_or_none(self._layout.keys / f"{item['digest']}.json") is not None

    def _copy_keys(self) -> None:
        """A spare for every key, and none for keys that are gone."""
        for path in items_of(self._layout.keys):
            spare = self._layout.spare_key(path.stem)
            if _entry_or_none(spare) != (entry := read_entry(path)):
                with suppress(OSError):  # a disk that is full has the key all the same
                    write_durably(entry.to_json(), spare, self._work)
        for spare in items_of(self._layout.spare_keys):
            if not (self._layout.keys / spare.name).exists():
                remove_tree(spare)

    def _drop_incomplete(self) -> None:
        """Without all of its blobs an artifact is nothing, and its key would promise it."""
        for digest, manifest in self._contents.manifests.items():
            if not all(self._layout.blob(record.sha256).exists() for record in manifest.files):
                self._layout.manifest(digest).unlink(missing_ok=True)
        for path in items_of(self._layout.keys):
            entry = read_entry(path)
            if not self._layout.manifest(entry.digest).exists():
                self._layout.spare_key(entry.key_id).unlink(missing_ok=True)
                path.unlink()
                lost = {
                    "stage": stage_of(entry),
                    "key_id": entry.key_id,
                    "digest": entry.digest,
                    "seconds": entry.seconds,
                }
                self._result.rebuild.append(lost)
        for tree in items_of(self._layout.trees):
            if tree != self._layout.temporary_trees and not (self._layout.manifests / f"{tree.name}.json").exists():
                remove_tree(tree)

    def _tree_is_sound(self, item: Damage) -> bool:
        tree = self._layout.root / item["path"]
        return tree.exists() and not tree_damage(self._layout, tree, self._contents.manifests.get(item["digest"]))

    def _seal_copied_blobs(self) -> None:
        """Blobs that were copied here with new modification times would be read again at every look."""
        for sha256 in self._contents.sizes:
            blob = self._layout.blobs / sha256[:2] / sha256
            if blob.is_file() and blob.lstat().st_mtime_ns != SEALED_NS and not blob_damage(blob):
                mark_sealed(blob)

    def _drop_finished_scratches(self) -> None:
        for key_id in self._contents.entries:
            scratch = self._layout.scratch(key_id)
            if scratch.exists():
                with self._leases.take_if_free(key_id) as taken:
                    if taken:
                        remove_tree(scratch.rename(self._work / key_id))


KINDS = ("key", "spare_key", "manifest", "blob", "tree")


def _entry_or_none(path: Path) -> Entry | None:
    try:
        return read_entry(path)
    except (ConfigurationError, OSError):
        return None


def _manifest_of(tree: Path) -> Manifest | None:
    try:
        return Manifest(
            tuple(FileRecord(name, (tree / name).lstat().st_size, sha256_of(tree / name)) for name in names_below(tree))
        )
    except (ConfigurationError, OSError):
        return None
