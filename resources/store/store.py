"""The store: artifacts by key, computed once, committed whole, never altered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resources.errors import ConfigurationError, StageError
from resources.progress import Progress
from resources.store.ancestry import ancestors
from resources.store.arrivals import Arrivals
from resources.store.blobs import Blobs
from resources.store.commits import ARTIFACT, NOT_A_FILE, Commits
from resources.store.digests import FileDigests
from resources.store.disk import FullDisk
from resources.store.durable import make_folder, read_bytes, write_durably
from resources.store.entry import Built, Entry
from resources.store.gc import Collected, Request, collect
from resources.store.keys import Key
from resources.store.layout import VERSION, Layout
from resources.store.lease import Leases, OnWait
from resources.store.manifest import Manifest
from resources.store.remote import Remote
from resources.store.repair import Repair, repair
from resources.store.trees import Trees
from resources.store.usage import BEGAN
from resources.store.use import mark_used
from resources.store.verification import Verification, verify

Produce = Callable[[Path, Path], Mapping[str, Any] | None]  # gives what to add to the provenance


class Store:
    """The store in `home`/store; nothing is touched on the disk before the first write.

    Every method raises a ConfigurationError when another version of Olive Press wrote the store.
    """

    def __init__(self, home: Path) -> None:
        self._layout = Layout(home.absolute() / "store")
        self.digests = FileDigests(self._layout.digests)
        self._blobs = Blobs(self._layout, self.digests)
        self._leases = Leases(self._layout)
        self._trees = Trees(self._layout, self._leases)
        self._commits = Commits(self._layout, self._leases, self._blobs)
        self._arrivals = Arrivals(self._layout, self._leases, self._blobs, self._commits)

    def find(self, key: Key) -> Entry | None:
        """The entry of `key` when its whole artifact is there, else None; reads no blob that nobody wrote to."""
        if not self._layout.check_version():
            return None
        entry = self._entry_or_none(key.id)
        if entry is None or (entry.ingredients != key.ingredients and Key(entry.ingredients).id != key.id):
            return None
        manifest = self._commits.manifest(entry.digest)
        return entry if manifest and not self._blobs.missing(manifest.files) else None

    def build(
        self,
        key: Key,
        produce: Produce,
        provenance: Mapping[str, Any] | None = None,
        *,
        force: bool = False,
        on_wait: OnWait | None = None,
    ) -> Built:
        """The artifact of `key`: reused when it is there, else made by `produce(folder, scratch)` and committed.

        folder is fresh and goes away when `produce` fails; scratch stays until the key is committed. Of several
        processes that want the same key one computes and the others wait (`on_wait` gets a line) and reuse. `force`
        computes in any case. Raises StageError when the artifact cannot be committed or the disk is full.
        """
        started = time.monotonic()
        ingredients, given = _as_json(key.ingredients), _as_json(provenance or {})
        if Key(ingredients).id != key.id:
            raise TypeError("ingredients must be JSON values with text as names")
        if not force and (entry := self._find_for_use(key)):
            return _reused(entry, started)
        stage = str(key.ingredients.get("recipe", key.id[:12]))
        with FullDisk(stage, self._layout.root):
            self._prepare()
            with self._leases.take(key.id, on_wait):
                if not force and (entry := self._find_for_use(key)):
                    return _reused(entry, started)
                draft = Entry(key.id, ingredients, "", 0.0, "", given)
                return Built(self._compute(stage, draft, produce), "computed", time.monotonic() - started)

    def restore(self, key_id: str, remote: Remote, on_wait: OnWait | None = None) -> Built | None:
        """The artifact of the key: reused when it is there, else brought from `remote`; None when that lacks it, too.

        Several processes that want it bring it once. Raises what `remote` raises, and a StageError for a full disk.
        """
        started = time.monotonic()
        if entry := self._filed_for_use(key_id):
            return _reused(entry, started)
        with FullDisk(f"key {key_id[:12]}", self._layout.root):
            self._prepare()
            with self._leases.take(key_id, on_wait):
                if entry := self._filed_for_use(key_id):
                    return _reused(entry, started)
                kept = remote.look(key_id)
                if kept is None:
                    return None
                moved = self._arrivals.bring(remote, kept.manifest, kept.entry)
                return Built(kept.entry, "restored", time.monotonic() - started, moved)

    def restore_artifact(self, digest: str, remote: Remote) -> Manifest | None:
        """The manifest of the artifact, here or brought from `remote`, then under no key; None when both lack it."""
        self._layout.check_version()
        manifest = self._commits.manifest(digest)
        if manifest is not None and not self._blobs.missing(manifest.files):
            with suppress(FileNotFoundError):  # freed meanwhile
                mark_used(self._layout.manifest(digest))
                return manifest
        manifest = remote.manifest(digest)
        if manifest is not None:
            with FullDisk(f"artifact {digest[:12]}", self._layout.root):
                self._prepare()
                self._arrivals.bring(remote, manifest, None)
        return manifest

    def open(self, digest: str) -> Path:
        """The folder of the artifact, read-only files; a StageError when some of it was lost or damaged.

        Inside `produce` of a build it stays; elsewhere until `gc` finds it the least recently used.
        """
        manifest = self.manifest(digest)
        if missing := self._blobs.missing(manifest.files):
            what = f"{len(missing)} of {len(manifest.files)} files are lost or damaged, first {missing[0].path}"
            raise StageError(f"artifact {digest[:12]}", what, "Run press store repair, then press run")
        self.use(digest)
        try:
            with FullDisk(f"artifact {digest[:12]}", self._layout.root):
                return self._trees.open(manifest)
        except FileNotFoundError as error:
            raise _freed(digest) from error

    def use(self, digest: str) -> None:
        """Let the artifact count as used now, as opening it does; a StageError when `gc` freed it."""
        self._layout.check_version()
        try:
            mark_used(self._layout.manifest(digest))
        except FileNotFoundError as error:
            raise _freed(digest) from error

    def manifest(self, digest: str) -> Manifest:
        """The manifest of the artifact; a StageError when the store does not have it."""
        self._layout.check_version()
        manifest = self._commits.manifest(digest)
        if manifest is None:
            raise StageError(f"artifact {digest[:12]}", "the store does not have its manifest", "Run press run")
        return manifest

    def entry(self, key_id: str) -> Entry | None:
        """What is filed under the key id; None when there is nothing or it was altered."""
        self._layout.check_version()
        return self._entry_or_none(key_id)

    def entries(self) -> Iterator[Entry]:
        """All entries, sorted by key id; of altered ones `verify` tells."""
        self._layout.check_version()
        for path in sorted(self._layout.keys.glob("*.json")):
            if len(path.stem) == 64 and (entry := self.entry(path.stem)):
                yield entry

    def verify(self, progress: Progress | None = None) -> Verification:
        """Every key, manifest, blob and tree read again, and what is wrong with which; changes nothing."""
        return verify(self._layout, progress)

    def repair(self, progress: Progress | None = None) -> Repair:
        """Mend what a tree proves, drop what cannot be trusted; says which artifacts must be built again."""
        with FullDisk("store", self._layout.root):
            return repair(self._layout, self._leases, progress)

    def gc(
        self,
        max_bytes: int,
        needed: Collection[str],
        *,
        used_since: float | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Collected:
        """Free what was used least recently until at most `max_bytes` are left, and what belongs to nothing.

        Nothing goes whose digest or key is in `needed`, that was used since `used_since` (seconds since 1970) or since
        the first build in progress began, or that is being built or opened. With `dry_run` nothing is touched. Raises
        StageError when a key or manifest is damaged, because then nobody knows what belongs to it.
        """
        request = Request(max_bytes, needed, used_since)
        return collect(self._layout, self._leases, request, dry_run=dry_run, progress=progress)

    def ancestors(self, digests: Iterable[str]) -> set[str]:
        """`digests` and those of everything they were made from, as far as the store knows; sources included."""
        present = {path.stem for path in self._layout.manifests.glob("*.json")}
        return ancestors(self.entries(), digests, present)

    def _compute(self, stage: str, draft: Entry, produce: Produce) -> Entry:
        began = time.monotonic()
        scratch = self._layout.scratch(draft.key_id)
        folders = self._leases.work_folder(draft.key_id)
        with folders as work, FullDisk(stage, self._layout.root, (work, scratch)):
            (work / BEGAN).touch()  # what this build uses from now on stays until it ends
            folder = work / ARTIFACT
            folder.mkdir()
            make_folder(scratch)
            provenance = draft.provenance | _as_json(produce(folder, scratch) or {})

            def entry_of(manifest: Manifest) -> Entry:
                seconds, now = time.monotonic() - began, datetime.now(UTC).isoformat(timespec="seconds")
                return Entry(draft.key_id, draft.ingredients, manifest.digest, seconds, now, provenance)

            entry = self._commits.commit(stage, work, entry_of)
            with suppress(FileNotFoundError):
                scratch.rename(work / "scratch")  # gone at once: half of it would mislead the next attempt
        return entry

    def _filed_for_use(self, key_id: str) -> Entry | None:
        entry = self.entry(key_id)
        return self._find_for_use(Key(entry.ingredients)) if entry and Key(entry.ingredients).id == key_id else None

    def _find_for_use(self, key: Key) -> Entry | None:
        entry = self.find(key)
        try:
            if entry:
                mark_used(self._layout.manifest(entry.digest))
        except FileNotFoundError:  # freed meanwhile
            return None
        return entry

    def _entry_or_none(self, key_id: str) -> Entry | None:
        path = self._layout.key_name(key_id)
        try:
            return Entry.from_json(read_bytes(path), key_id)
        except (*NOT_A_FILE, ConfigurationError):
            return None

    def _prepare(self) -> None:
        """Make the store when there is none; its version is what it gets first."""
        if not self._layout.check_version():
            with self._leases.take("version"), self._leases.work_folder("version") as work:
                write_durably(f"{VERSION}\n".encode(), self._layout.version, work)


def _freed(digest: str) -> StageError:
    return StageError(f"artifact {digest[:12]}", "it is not in the store any more", "Run press run")


def _reused(entry: Entry, started: float) -> Built:
    return Built(entry, "reused", time.monotonic() - started)


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(values)))
