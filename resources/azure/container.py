"""Create-only blobs below a prefix of one container: what is there never changes, and says its own sha256.

Every call is safe to repeat, retried where Azure asks for it, and made once more with fresh credentials where those
at hand came to their end.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from resources.azure.failures import STATUS_REMEDIES, azure_errors, error_code
from resources.azure.retries import RETRIES, again
from resources.errors import ConfigurationError, StageError
from resources.store.remote import RemoteDamageError

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

T = TypeVar("T")
SEND_AGAIN = "Send it again: press store push, or for a registered model press run"
DIGEST_FIELD = "sha256"
PREFIX = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_.-]*/)*")
# What an end of the credentials looks like; AuthorizationFailure is also what a firewall says, and then stays.
ENDED = {"AuthenticationFailed", "AuthorizationFailure", "ExpiredAuthenticationToken", "InvalidAuthenticationInfo"}


@dataclass(frozen=True)
class Blob:
    """What the service says of a blob: size in bytes, and the sha256 that its writer gave (None: written by others)."""

    size: int
    sha256: str | None


@dataclass(frozen=True)
class ForeignBlob:
    """A blob as others wrote it.

    name: below the container's prefix. size: bytes. version: its ETag, another one after every write. md5: of all its
    bytes, where its writer said it.
    """

    name: str
    size: int
    version: str
    md5: bytes | None


class Container:
    """The blobs below `prefix` (empty, or ending in a slash) of the container that `open_client` opens.

    `open_client` gives a client that retries nothing itself; it is called again when the credentials that it gave last
    came to their end. Every method raises a StageError when Azure refuses or cannot be reached; `url` is where the
    container is, and `remedies` (status → what to do) what is proper to it, for its words. `on_moved` gets the size of
    each piece of data that was sent or received, from whichever thread moved it.
    """

    def __init__(
        self,
        open_client: Callable[[], ContainerClient],
        prefix: str = "",
        retries: int = RETRIES,
        url: str = "",
        remedies: Mapping[int, str] = STATUS_REMEDIES,
    ) -> None:
        if not PREFIX.fullmatch(prefix):
            raise ConfigurationError("prefix", repr(prefix), "plain folder names, each with a slash behind it")
        self._open_client = open_client
        self.prefix = prefix
        self.place = f"{url}/{prefix}" if url else prefix
        self._retries = retries
        self._remedies = remedies
        self.on_moved: Callable[[int], None] = lambda _: None
        self._lock = threading.Lock()
        self._client: ContainerClient | None = None

    def look(self, name: str) -> Blob | None:
        """What is under `name`; None when nothing is, or nothing whole."""
        from azure.core.exceptions import ResourceNotFoundError

        def properties(blob: BlobClient) -> Blob | None:
            try:
                found = blob.get_blob_properties()
            except ResourceNotFoundError as error:
                if error_code(error) == "ContainerNotFound":
                    raise
                return None
            return Blob(found.size, (found.metadata or {}).get(DIGEST_FIELD))

        return self._call(name, properties)

    def create(self, name: str, data: bytes, sha256: str) -> bool:
        """Whether this call put `data` under `name`; False when something was there already."""
        from azure.core.exceptions import ResourceExistsError

        def upload(blob: BlobClient) -> bool:
            try:
                blob.upload_blob(data, overwrite=False, validate_content=True, metadata={DIGEST_FIELD: sha256})
            except ResourceExistsError:
                return False
            return True

        is_new = self._call(name, upload)
        if is_new:
            self.on_moved(len(data))
        return is_new

    def stage(self, name: str, block: str, data: bytes) -> None:
        """Send one block; it is kept for a week, and becomes part of a blob with `commit`."""
        self._call(name, lambda blob: blob.stage_block(block, data, length=len(data), validate_content=True))
        self.on_moved(len(data))

    def staged(self, name: str) -> dict[str, int]:
        """The blocks that arrived under `name` and belong to no blob yet, and their sizes."""
        from azure.core.exceptions import ResourceNotFoundError

        def blocks(blob: BlobClient) -> dict[str, int]:
            try:
                _, uncommitted = blob.get_block_list("uncommitted")
            except ResourceNotFoundError:
                return {}
            return {block.id: block.size for block in uncommitted}

        return self._call(name, blocks)

    def commit(self, name: str, blocks: Sequence[str], sha256: str) -> bool:
        """Whether this call made a blob of `blocks`; False when another was there first."""
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError
        from azure.storage.blob import BlobBlock

        def commit_blocks(blob: BlobClient) -> bool:
            listed: Any = [BlobBlock(block) for block in blocks]
            condition: dict[str, Any] = {"match_condition": MatchConditions.IfMissing}
            try:
                blob.commit_block_list(listed, metadata={DIGEST_FIELD: sha256}, **condition)
            except (ResourceExistsError, ResourceModifiedError):
                return False
            return True

        return self._call(name, commit_blocks)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer where the blob ends before; a StageError when there is none."""
        from azure.core.exceptions import ResourceNotFoundError

        def download(blob: BlobClient) -> bytes:
            try:
                return blob.download_blob(offset, length, max_concurrency=1).readall()
            except ResourceNotFoundError as error:
                if error_code(error) == "ContainerNotFound":
                    raise
                raise RemoteDamageError(self.place + name, "there is no such blob", SEND_AGAIN) from None

        data = self._call(name, download)
        self.on_moved(len(data))
        return data

    def read_version(self, name: str, offset: int, length: int, version: str) -> bytes:
        """Like `read`, of the blob while it is `version`; a StageError when it is another one by now."""
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError

        def download(blob: BlobClient) -> bytes:
            condition: dict[str, Any] = {"etag": version, "match_condition": MatchConditions.IfNotModified}
            try:
                return blob.download_blob(offset, length, max_concurrency=1, **condition).readall()
            except (ResourceModifiedError, ResourceNotFoundError):
                told = "it was replaced or removed while it was fetched"
                raise StageError(self.place + name, told, "Run again to use it as it is now") from None

        return self._call(name, download)

    def list_foreign(self, start: str) -> list[ForeignBlob]:
        """The blobs whose names begin with `start`, whoever wrote them, sorted by name."""

        def listed(client: ContainerClient) -> list[ForeignBlob]:
            return [
                ForeignBlob(
                    blob.name.removeprefix(self.prefix), blob.size, blob.etag, _md5(blob.content_settings.content_md5)
                )
                for blob in client.list_blobs(name_starts_with=self.prefix + start)
            ]

        return sorted(self._act(start, listed), key=lambda blob: blob.name)

    def _call(self, name: str, action: Callable[[BlobClient], T]) -> T:
        return self._act(name, lambda client: action(client.get_blob_client(self.prefix + name)))

    def _act(self, name: str, action: Callable[[ContainerClient], T]) -> T:
        from azure.core.exceptions import HttpResponseError

        def act(client: ContainerClient) -> T:
            return again(lambda: action(client), self._retries)

        with azure_errors(self.place + name, self._remedies):
            client = self._opened(None)
            try:
                return act(client)
            except HttpResponseError as error:
                if error.status_code not in (401, 403) or error_code(error) not in ENDED:
                    raise
            return act(self._opened(client))

    def _opened(self, ended: ContainerClient | None) -> ContainerClient:
        """The client in use; another one when that is the one whose credentials ended."""
        with self._lock:
            if self._client is None or self._client is ended:
                self._client = self._open_client()
            return self._client


def _md5(found: bytes | bytearray | None) -> bytes | None:
    return bytes(found) if found else None
