"""The shared store: artifacts of many machines in one container of Azure Blob Storage, laid out like the store here.

Blobs are created only where there is none, the manifest after its blobs, the key after its manifest: who finds a key
finds all of its artifact. What comes from there is checked bit by bit before any of it counts; who may write there is
trusted to say truly which artifact belongs to a key.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from resources.azure.blobs import Names, fetch, publish, read_manifest, verify
from resources.azure.container import SEND_AGAIN, Container
from resources.azure.failures import SIGN_IN, STATUS_REMEDIES
from resources.azure.workspace import be_quiet, open_credential
from resources.errors import ConfigurationError, StageError
from resources.store.entry import Entry
from resources.store.layout import VERSION
from resources.store.manifest import FileRecord, Manifest
from resources.store.remote import Kept, RemoteDamageError, Transfer
from resources.store.store import Store

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

SAS = "AZURE_STORAGE_SAS_TOKEN"
LAYOUT = f"{VERSION}\n".encode()
MOST_ENTRY = 4 << 20  # bytes
CHECK_NAMES = "Check account_url and container of store.remote"
WITHOUT = "press run --no-remote goes on without the shared store"
REMEDIES = {**STATUS_REMEDIES, 0: f"{CHECK_NAMES}, and the network; what arrived is kept. {WITHOUT}", 404: CHECK_NAMES}
SAS_REMEDY = f"Set {SAS} to one of this container with the rights r, c and w (r alone to fetch). {WITHOUT}"
SAS_REMEDIES = {**REMEDIES, 401: SAS_REMEDY, 403: SAS_REMEDY}
ROLE = "Ask for the role Storage Blob Data Contributor on the container (Storage Blob Data Reader to fetch)"
IDENTITY_REMEDIES = {**REMEDIES, 401: f"{SIGN_IN}, or set {SAS}. {WITHOUT}", 403: f"{ROLE}, or set {SAS}. {WITHOUT}"}


class SharedStore:
    """A Remote of `store` in `container`. Methods raise a StageError when Azure refuses or cannot be reached."""

    def __init__(self, container: Container, store: Store) -> None:
        self._container = container
        self._store = store
        self._lock = threading.Lock()
        self._is_writable = False
        self._suspects: set[str] = set()  # artifacts that were damaged when they were to come

    @property
    def place(self) -> str:
        return self._container.place

    def watch(self, on_moved: Callable[[int], None]) -> None:
        """Have `on_moved` called with the size of each piece sent or received, from whichever thread moves it."""
        self._container.on_moved = on_moved

    def check(self, push: bool = False) -> None:
        """Return when one may fetch here, and `push`, as far as is seen now; the error exits as a configuration's."""
        try:
            self._check(push)
        except StageError as error:
            error.exit_code = ConfigurationError.exit_code
            raise

    def look(self, key_id: str) -> Kept | None:
        entry = self._entry(key_id)
        if entry is None:
            return None
        manifest = self.manifest(entry.digest)
        if manifest is None:
            raise self._damage(_manifest_name(entry.digest), f"there is no such blob, which key {key_id[:12]} names")
        return Kept(entry, manifest)

    def manifest(self, digest: str) -> Manifest | None:
        manifest = read_manifest(self._container, digest, _manifest_name(digest))
        if manifest is not None and not manifest.files:
            raise self._damage(_manifest_name(digest), "it names no file")
        return manifest

    def bring(self, manifest: Manifest, folder: Path) -> int:
        try:
            return fetch(self._container, manifest, folder, _blob_name).moved
        except RemoteDamageError:
            self._suspects.add(manifest.digest)
            raise

    def fetch(self, key_id: str) -> Entry | None:
        """What is filed under the key, its artifact in the store here from now on; None when neither has the key."""
        built = self._store.restore(key_id, self)
        return built.entry if built else None

    def fetch_digest(self, digest: str) -> Manifest | None:
        """The manifest of the artifact, which is in the store here from now on; None when neither has it."""
        return self._store.restore_artifact(digest, self)

    def push(self, key_id: str, verify: bool = False) -> Transfer:
        """Leave here what the store has under the key: blobs, manifest, key, each only where it is not there.

        `verify` reads what is there. Where the key names another artifact already, that stays and nothing is sent.
        """
        entry = self._store.entry(key_id)
        if entry is None:
            raise StageError(f"key {key_id[:12]}", "the store does not have it", "Run press run")
        self._begin()
        there = self._entry(key_id)
        if there is not None and there.digest != entry.digest:
            return self._keep_other(there, verify)
        transfer = self.push_digest(entry.digest, verify)
        document = entry.to_json()
        if there is None and not self._container.create(_key_name(key_id), document, _sha256(document)):
            there = self._entry(key_id)
            if there is not None and there.digest != entry.digest:
                return Transfer(transfer.moved, transfer.bytes, _OTHER)
        return transfer

    def push_digest(self, digest: str, verify: bool = False) -> Transfer:
        """Leave here the artifact alone, under no key."""
        self._begin()
        manifest, folder = self._store.manifest(digest), self._store.open(digest)
        names = Names(_blob_name, _manifest_name(digest))
        try:
            done = publish(self._container, manifest, lambda record: folder / record.path, names, thorough=True)
        except FileNotFoundError as error:
            raise StageError(f"artifact {digest[:12]}", "it was freed while it was sent", "Run press run") from error
        if verify or digest in self._suspects:
            self._verify(manifest)
        return done

    def push_folder(self, manifest: Manifest, folder: Path) -> None:
        """Leave here the files of `folder` as an artifact, under no key; `manifest` says what they are."""
        self._begin()
        publish(
            self._container,
            manifest,
            lambda record: folder / record.path,
            Names(_blob_name, _manifest_name(manifest.digest)),
        )

    def _keep_other(self, there: Entry, verify: bool) -> Transfer:
        """What another machine filed under the key stays, as long as it is whole: nobody here can mend it."""
        try:
            manifest = self.manifest(there.digest)
            if manifest is None:
                raise self._damage(_manifest_name(there.digest), "there is no such blob")
            if verify or there.digest in self._suspects:
                self._verify(manifest)
        except RemoteDamageError as error:
            raise self._damage(_key_name(there.key_id), f"it names an artifact that is damaged ({error})") from error
        return Transfer(0, manifest.bytes, _OTHER)

    def _verify(self, manifest: Manifest) -> None:
        verify(self._container, manifest, _blob_name)
        self._suspects.discard(manifest.digest)

    def _entry(self, key_id: str) -> Entry | None:
        name = _key_name(key_id)
        found = self._container.look(name)
        if found is None:
            return None
        document = self._container.read(name, 0, found.size) if 0 < found.size <= MOST_ENTRY else b""
        try:
            entry = Entry.from_json(document, key_id)
            _check_types(entry)
            entry.check_key()
        except (ConfigurationError, RecursionError) as error:
            raise self._damage(name, f"it is no entry of its key: {error}") from error
        return entry

    def _begin(self) -> None:
        with self._lock:
            if not self._is_writable:
                self._check(push=True)

    def _check(self, push: bool) -> None:
        is_new = push and self._container.create("VERSION", LAYOUT, _sha256(LAYOUT))
        if not is_new and (found := self._container.look("VERSION")):
            told = self._container.read("VERSION", 0, 20) if found.size else b""
            if told != LAYOUT:
                remedy = "Use the Olive Press that wrote it, or another prefix"
                raise ConfigurationError(f"{self.place}VERSION", repr(told), repr(LAYOUT), remedy)
        self._is_writable = self._is_writable or push

    def _damage(self, name: str, what: str) -> RemoteDamageError:
        return RemoteDamageError(self.place + name, what, f"Delete that blob. {SEND_AGAIN}")


_OTHER = "another artifact is there under this key, and stays"


def open_shared_store(account_url: str, container: str, prefix: str, store: Store) -> SharedStore:
    """The shared store in that container below `prefix`, with nobody asked yet.

    The credential is AZURE_STORAGE_SAS_TOKEN where that is set, else whoever DefaultAzureCredential finds signed in.
    """
    folders = prefix.strip("/")
    remedies = SAS_REMEDIES if os.environ.get(SAS) else IDENTITY_REMEDIES
    account_url = account_url.rstrip("/")
    opened = Container(
        lambda: _open_client(account_url, container),
        f"{folders}/" if folders else "",
        url=f"{account_url}/{container}",
        remedies=remedies,
    )
    return SharedStore(opened, store)


def _open_client(account_url: str, container: str) -> ContainerClient:
    be_quiet()
    from azure.core.credentials import AzureSasCredential
    from azure.storage.blob import ContainerClient

    token = os.environ.get(SAS, "").lstrip("?")
    if token:
        _check_sas(token)
    credential = AzureSasCredential(token) if token else open_credential()
    return ContainerClient(account_url, container, credential=credential, retry_total=0)


def _check_sas(token: str) -> None:
    """Raise a ConfigurationError for a SAS that is none, or that is seen to have ended; nothing of it is shown."""
    fields = parse_qs(token)
    if "sig" not in fields or "://" in token:
        raise ConfigurationError(SAS, "something that is no SAS token", "what stands behind the ? of a signed address")
    try:
        end = datetime.fromisoformat(fields["se"][0])
    except (KeyError, ValueError):
        return  # a stored access policy says when
    end = end if end.tzinfo else end.replace(tzinfo=UTC)
    if end <= datetime.now(UTC):
        remedy = f"What arrived is kept. {SAS_REMEDY}"
        raise ConfigurationError(SAS, f"a token that ended at {end.isoformat()}", "one that is good now", remedy)


def _check_types(entry: Entry) -> None:
    """Raise a ConfigurationError when its values are not of the types that who reads an entry relies on."""
    sound = (
        isinstance(entry.ingredients, dict)
        and isinstance(entry.built_at, str)
        and type(entry.seconds) in (int, float)
        and 0 <= entry.seconds < math.inf
        and isinstance(entry.provenance, dict)
        and all(_holds_texts(entry.provenance.get(name, {})) for name in ("inputs", "modules"))
    )
    if not sound:
        raise ConfigurationError(f"key {entry.key_id}", "values of other types", "what press store push wrote")


def _holds_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _blob_name(record: FileRecord) -> str:
    return f"blobs/{record.sha256[:2]}/{record.sha256}"


def _manifest_name(digest: str) -> str:
    return f"manifests/{digest}.json"


def _key_name(key_id: str) -> str:
    return f"keys/{key_id}.json"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
