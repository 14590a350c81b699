"""Garbage collection: what was used least recently goes first, until the store keeps to a size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resources.progress import Progress
from resources.store.contents import stage_of
from resources.store.durable import make_folder, remove_tree, sync_folder
from resources.store.layout import Layout
from resources.store.lease import COMMIT, Leases, tree_owner
from resources.store.usage import Item, Usage, last_written_ns, read_usage
from resources.store.use import hold_unused

# A modification time may lie this much before the moment that a clock told: the kernel counts in ticks.
TICK = 0.1


@dataclass(frozen=True)
class Collected:
    """What was freed, or with `dry_run` what would be, least recently used first.

    freed: one {"kind", "stage", "digest", "keys", "bytes", "seconds", "last_used"} each. kind is "artifact", or
    "scratch" for what an interrupted attempt left, which has a key and no digest; bytes are those that nothing which
    stays refers to; seconds are what computing it took; last_used is UTC, ISO 8601. bytes_leftover: what belonged to
    nothing. bytes_needed: of what is protected. reached: whether the store now keeps to the size.
    """

    freed: list[dict[str, Any]]
    bytes_before: int
    bytes_after: int
    bytes_needed: int
    bytes_leftover: int
    seconds_to_rebuild: float
    reached: bool
    dry_run: bool


@dataclass(frozen=True)
class Request:
    """What a garbage collection is asked: keep to `max_bytes`; free nothing in `needed`, nor used since then."""

    max_bytes: int
    needed: Collection[str]
    used_since: float | None


def collect(
    layout: Layout, leases: Leases, request: Request, *, dry_run: bool, progress: Progress | None = None
) -> Collected:
    """Free what is left over and then artifacts, or with `dry_run` say what that would be and touch nothing."""
    if not layout.check_version():
        return _report(Usage(), [], [], request, dry_run)
    if dry_run:
        usage = read_usage(layout, leases, committing=False)
        kept, chosen = _divide(usage, leases, request)
        return _report(usage, kept, chosen, request, dry_run)
    with leases.take(COMMIT):  # nothing is committed meanwhile
        usage = read_usage(layout, leases, committing=True)
        kept, chosen = _divide(usage, leases, request)
        freed = _Collector(layout, leases).free(usage, chosen, progress)
    return _report(usage, kept, freed, request, dry_run)


def _divide(usage: Usage, leases: Leases, request: Request) -> tuple[list[Item], list[Item]]:
    """What is protected, and what is to be freed."""
    times = [time for time in (request.used_since, usage.began) if time is not None]
    since = min(times) - TICK if times else None
    needed = frozenset(request.needed)
    protected = [item for item in usage.items if _is_protected(item, leases, needed, since)]
    return protected, choose(usage, {item.name for item in protected}, request.max_bytes)


def _is_protected(item: Item, leases: Leases, needed: Collection[str], since: float | None) -> bool:
    if item.name in needed or any(entry.key_id in needed for entry in item.entries):
        return True
    if since is not None and item.last_used_ns / 1e9 >= since:
        return True
    return any(leases.is_held(owner) for owner in _owners(item))


def _owners(item: Item) -> list[str]:
    """Whose leases say that the item is being built or opened."""
    return item.key_ids + ([tree_owner(item.name)] if item.kind == "artifact" else [])


def choose(usage: Usage, protected: Collection[str], max_bytes: int) -> list[Item]:
    """The least recently used items that have to go for the rest to keep to `max_bytes`, in that order.

    An item whose bytes all stay with others is left: without it nothing would be gained.
    """
    references = Counter(blob for item in usage.items for blob in item.blobs)
    total = usage.bytes - usage.leftover_bytes
    chosen: list[Item] = []
    for item in sorted(usage.items, key=lambda item: (item.last_used_ns, item.name)):
        if total <= max_bytes:
            break
        if item.name not in protected:
            total -= _let_go(item, references, usage)
            chosen.append(item)
    return [item for item in chosen if item.own_bytes or not all(references[blob] for blob in item.blobs)]


def _let_go(item: Item, references: Counter[str], usage: Usage) -> int:
    """The bytes that go with the item, which is taken out of the references to blobs."""
    references.subtract(item.blobs)
    return item.own_bytes + sum(usage.blobs.get(blob, 0) for blob in item.blobs if not references[blob])


class _Collector:
    """Frees what was chosen; holds the lease of committing, so what it frees nobody refers to the next moment.

    A kill at any point leaves an artifact whole or not there: its names go before its bytes. Nothing is written,
    because the disk may be full.
    """

    def __init__(self, layout: Layout, leases: Leases) -> None:
        self._layout = layout
        self._leases = leases

    def free(self, usage: Usage, chosen: list[Item], progress: Progress | None) -> list[Item]:
        """Free the leftovers, then the items; those that nobody used meanwhile, which are gone on return."""
        self._free_leftovers(usage)
        references = Counter(blob for item in usage.items for blob in item.blobs)
        freed: list[Item] = []
        for done, item in enumerate(chosen, start=1):
            if self._free_scratch(item) if item.kind == "scratch" else self._free_artifact(item):
                references.subtract(item.blobs)
                self._remove_blobs(blob for blob in item.blobs if not references[blob])
                freed.append(item)
            if progress is not None:
                progress.step("gc", done, len(chosen))
        return freed

    def _free_leftovers(self, usage: Usage) -> None:
        for parent in (self._layout.temporary, self._layout.temporary_trees):
            if parent.exists():
                self._leases.sweep(parent, COMMIT)
        self._remove_blobs(usage.orphans)
        for digest in usage.stray_trees:
            with self._leases.take_if_free(tree_owner(digest)) as taken:
                if taken:
                    self._remove(self._layout.tree(digest), self._layout.temporary_trees)
        for key_id in usage.finished:
            with self._leases.take_if_free(key_id) as taken:
                if taken:
                    self._remove(self._layout.scratch(key_id), self._layout.temporary)

    def _free_scratch(self, item: Item) -> bool:
        with self._leases.take_if_free(item.name) as taken:
            if not taken or last_written_ns(self._layout.scratch(item.name)) != item.last_used_ns:
                return False
            self._remove(self._layout.scratch(item.name), self._layout.temporary)
        return True

    def _free_artifact(self, item: Item) -> bool:
        """Remove keys, manifest and tree; False, with all of it as it was, when somebody uses the artifact."""
        with self._held(_owners(item)) as held:
            if not held or not self._remove_names(item):
                return False
            if self._layout.tree(item.name).exists():
                self._remove(self._layout.tree(item.name), self._layout.temporary_trees)
        return True

    def _remove_names(self, item: Item) -> bool:
        manifest = self._layout.manifest(item.name)
        with hold_unused(manifest) as last_used_ns:
            if last_used_ns != item.last_used_ns:
                return False
            for key_id in item.key_ids:
                self._layout.spare_key(key_id).unlink(missing_ok=True)  # or it would say that the key was lost
                self._layout.key(key_id).unlink()
            if item.key_ids:
                sync_folder(self._layout.keys)
            manifest.unlink()
            sync_folder(self._layout.manifests)
        return True

    @contextmanager
    def _held(self, owners: list[str]) -> Iterator[bool]:
        with ExitStack() as stack:
            yield all([stack.enter_context(self._leases.take_if_free(owner)) for owner in owners])

    def _remove(self, folder: Path, temporary: Path) -> None:
        """Remove a tree or a scratch at once, because half of it would mislead."""
        make_folder(temporary)
        remove_tree(folder.rename(temporary / f"{COMMIT}~{folder.name}"))

    def _remove_blobs(self, names: Iterator[str] | Collection[str]) -> None:
        for name in names:
            self._layout.blob(name).unlink(missing_ok=True)


def _report(usage: Usage, kept: list[Item], freed: list[Item], request: Request, dry_run: bool) -> Collected:
    references = Counter(blob for item in usage.items for blob in item.blobs)
    rows = [_row(item, _let_go(item, references, usage)) for item in freed]
    needed = {blob for item in kept for blob in item.blobs}
    after = usage.bytes - usage.leftover_bytes - sum(row["bytes"] for row in rows)
    return Collected(
        freed=rows,
        bytes_before=usage.bytes,
        bytes_after=after,
        bytes_needed=sum(usage.blobs.get(blob, 0) for blob in needed)
        + sum(item.own_bytes for item in kept)
        + usage.busy_bytes,
        bytes_leftover=usage.leftover_bytes,
        seconds_to_rebuild=sum(row["seconds"] for row in rows),
        reached=after <= request.max_bytes,
        dry_run=dry_run,
    )


def _row(item: Item, freed_bytes: int) -> dict[str, Any]:
    stages = sorted({stage_of(entry) for entry in item.entries}) or ["interrupted" if item.kind == "scratch" else "-"]
    return {
        "kind": item.kind,
        "stage": ", ".join(stages),
        "digest": item.name if item.kind == "artifact" else "",
        "keys": item.key_ids,
        "bytes": freed_bytes,
        "seconds": sum(entry.seconds for entry in item.entries),
        "last_used": datetime.fromtimestamp(item.last_used_ns / 1e9, UTC).isoformat(timespec="seconds"),
    }
