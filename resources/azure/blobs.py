"""Artifacts as blobs: sent in parallel blocks, the manifest last, and fetched with every digest checked.

A block's name holds the sha256 of its bytes, so what an interrupted attempt, or another machine, sent already is known
by name and not sent again. A file becomes a blob as a whole, once, and what is a blob never changes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.azure.container import SEND_AGAIN, Container
from resources.errors import ConfigurationError, StageError
from resources.store.manifest import FileRecord, Manifest
from resources.store.remote import RemoteDamageError, Transfer

PARALLEL = 6
BLOCK = 8 << 20  # bytes sent at once; seven of them are in memory at most
PIECE = 4 << 20  # bytes fetched at once; the SDK holds each one twice
MOST_MANIFEST = 64 << 20


@dataclass(frozen=True)
class Names:
    """Where an artifact's blobs lie below the container's prefix: `file` names one file's, `manifest` the manifest."""

    file: Callable[[FileRecord], str]
    manifest: str


def publish(
    container: Container,
    manifest: Manifest,
    file_of: Callable[[FileRecord], Path],
    names: Names,
    block: int = BLOCK,
    thorough: bool = False,
) -> Transfer:
    """Leave the files of `manifest`, read from `file_of`, and then the manifest itself in `container`.

    A file of more than `block` bytes is sent in blocks of that size. Where the manifest is, the files are taken to be,
    unless `thorough` says to look at each.

    Nothing that is there already is sent. Raises StageError when a file is not what `manifest` says, when another blob
    is in its place, or when Azure refuses; a second call goes on from where the first ended.
    """
    document = manifest.to_json()
    is_there = _is_there(container, names.manifest, len(document), manifest.digest)
    if is_there and not thorough:
        return Transfer(0, manifest.bytes)
    with _Crew() as crew:
        there = crew.map(
            lambda record: _is_there(container, names.file(record), record.size, record.sha256), manifest.files
        )
        missing = {names.file(record): record for record, known in zip(manifest.files, there, strict=True) if not known}
        moved = sum(_send(crew, container, name, one, file_of(one), block) for name, one in missing.items())
        crew.finish()
    if not is_there and not container.create(names.manifest, document, manifest.digest):
        _is_there(container, names.manifest, len(document), manifest.digest)
    return Transfer(moved, manifest.bytes)


def read_manifest(container: Container, digest: str, name: str) -> Manifest | None:
    """The manifest with this digest under `name`, checked; None when there is none, a StageError when it is damaged."""
    found = container.look(name)
    if found is None:
        return None
    document = container.read(name, 0, found.size) if 0 < found.size <= MOST_MANIFEST else b""
    if hashlib.sha256(document).hexdigest() != digest:
        raise _damaged(container, name)
    try:
        return Manifest.from_json(document)
    except ConfigurationError as error:
        raise RemoteDamageError(
            container.place + name, f"it is no manifest to follow: {error}", f"Delete that blob. {SEND_AGAIN}"
        ) from error


def fetch(container: Container, manifest: Manifest, folder: Path, name_of: Callable[[FileRecord], str]) -> Transfer:
    """Leave the files of `manifest` in `folder`, each with the bytes of its digest; whole files there are not fetched.

    `folder` must be the caller's own, since it holds half files until this returns. Raises StageError for a blob that
    is missing or damaged, or when Azure refuses.
    """
    with _Crew() as crew:
        has = crew.map(lambda record: _has(folder / record.path, record), manifest.files)
        missing = [record for record, there in zip(manifest.files, has, strict=True) if not there]
        _check_sizes(crew, container, missing, name_of)
        arrived = [_receive(crew, container, name_of(record), record.size, folder / record.path) for record in missing]
        crew.finish()
        digests = crew.map(lambda arrival: arrival(), arrived)
        for record, digest in zip(missing, digests, strict=True):
            if digest != record.sha256:
                (folder / record.path).unlink()
                raise _damaged(container, name_of(record))
    return Transfer(sum(record.size for record in missing), manifest.bytes)


def verify(container: Container, manifest: Manifest, name_of: Callable[[FileRecord], str]) -> None:
    """Read every blob of `manifest`; a RemoteDamageError names the first that is missing or has other bytes."""

    def check(record: FileRecord) -> None:
        name, content = name_of(record), hashlib.sha256()
        for offset in range(0, record.size, PIECE):
            content.update(container.read(name, offset, min(PIECE, record.size - offset)))
        if content.hexdigest() != record.sha256:
            raise _damaged(container, name)

    with _Crew() as crew:
        _check_sizes(crew, container, manifest.files, name_of)
        crew.map(check, manifest.files)


class _Crew:
    """A few threads, and never more work handed out than they have room for; the first failure ends it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(PARALLEL, "azure-blobs")
        self._running: set[Future[Any]] = set()

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def hand(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have `work` done by a thread; waits for room first, and raises what failed meanwhile."""
        if len(self._running) >= PARALLEL:
            self._drain(FIRST_COMPLETED)
        future = self._pool.submit(work, *arguments)
        self._running.add(future)
        return future

    def map(self, work: Callable[[Any], Any], items: Any) -> list[Any]:
        """What `work` gives for each of `items`, in their order."""
        return list(self._pool.map(work, items))

    def finish(self) -> None:
        """Wait for everything handed out."""
        self._drain("ALL_COMPLETED")

    def _drain(self, until: str) -> None:
        done, self._running = wait(self._running, return_when=until)
        for future in done:
            future.result()


def _check_sizes(
    crew: _Crew, container: Container, records: Sequence[FileRecord], name_of: Callable[[FileRecord], str]
) -> None:
    """Raise a RemoteDamageError for the first blob that is missing or has another size."""
    for record, blob in zip(records, crew.map(lambda one: container.look(name_of(one)), records), strict=True):
        if blob is None:
            raise RemoteDamageError(container.place + name_of(record), "there is no such blob", SEND_AGAIN)
        if blob.size != record.size:
            raise _damaged(container, name_of(record))


def _is_there(container: Container, name: str, size: int, sha256: str) -> bool:
    """Whether the blob is there; a StageError when something else is in its place."""
    found = container.look(name)
    if found is not None and (found.size, found.sha256) != (size, sha256):
        what = f"something else is in the place of {sha256[:12]}: {found.size} bytes, sha256 {found.sha256}"
        raise RemoteDamageError(container.place + name, what, f"Delete that blob. {SEND_AGAIN}")
    return found is not None


def _send(crew: _Crew, container: Container, name: str, record: FileRecord, path: Path, block: int) -> int:
    """Send one file; returns the bytes that were not there yet."""
    if record.size <= block:
        crew.hand(_send_small, container, name, record, path)
        return record.size
    arrived = container.staged(name)
    content, blocks = hashlib.sha256(), []
    with path.open("rb") as file:
        while data := file.read(block):
            content.update(data)
            # Named by all content up to its end: what an interrupted upload of other content left is never taken.
            block_name = f"{len(blocks):05d}-{content.copy().hexdigest()[:32]}"
            blocks.append(crew.hand(_send_block, container, name, block_name, data, arrived))
    crew.finish()
    _check(path, content.hexdigest(), record)
    sent = [future.result() for future in blocks]
    if not container.commit(name, [one for one, _ in sent], record.sha256):
        _is_there(container, name, record.size, record.sha256)
    return sum(size for _, size in sent)


def _send_small(container: Container, name: str, record: FileRecord, path: Path) -> None:
    data = path.read_bytes()
    _check(path, hashlib.sha256(data).hexdigest(), record)
    if not container.create(name, data, record.sha256):
        _is_there(container, name, record.size, record.sha256)


def _send_block(container: Container, name: str, block: str, data: bytes, arrived: dict[str, int]) -> tuple[str, int]:
    """The block's name and the bytes sent for it."""
    if arrived.get(block) == len(data):
        return block, 0
    container.stage(name, block, data)
    return block, len(data)


def _check(path: Path, digest: str, record: FileRecord) -> None:
    if digest != record.sha256:
        raise StageError(str(path), f"its bytes are not those of {record.path}", "Run press store verify")


def _receive(crew: _Crew, container: Container, name: str, size: int, path: Path) -> Callable[[], str]:
    """Have the blob fetched to `path`; what comes back gives the sha256 of the file once everything arrived.

    That of a large one is taken while it arrives, piece by piece in order.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.truncate(size)
    content, arriving = hashlib.sha256(), deque[Future[None]]()
    with path.open("rb") as file:
        for offset in range(0, size, PIECE):
            arriving.append(crew.hand(_receive_piece, container, name, offset, min(PIECE, size - offset), path))
            while len(arriving) > PARALLEL:
                arriving.popleft().result()
                content.update(file.read(PIECE))
        read = file.tell()

    def rest() -> str:
        with path.open("rb") as file:
            file.seek(read)
            while data := file.read(PIECE):
                content.update(data)
        return content.hexdigest()

    return rest


def _receive_piece(container: Container, name: str, offset: int, length: int, path: Path) -> None:
    data = container.read(name, offset, length)
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        file.write(data)


def _has(path: Path, record: FileRecord) -> bool:
    """Whether the file at `path` is a plain one with the bytes of `record`."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != record.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == record.sha256


def _damaged(container: Container, name: str) -> RemoteDamageError:
    what = "its bytes are not those of its digest"
    return RemoteDamageError(container.place + name, what, f"Delete that blob. {SEND_AGAIN}")
