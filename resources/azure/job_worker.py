"""The side of the job: how a worker on a compute cluster gets its inputs and leaves what it made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dagster_pipes import (
    PipesAzureBlobStorageContextLoader,
    PipesBlobStoreMessageWriter,
    PipesBlobStoreMessageWriterChannel,
    PipesContext,
    PipesParams,
    open_dagster_pipes,
)
from dagster_pipes import PipesEnvVarParamsLoader as Params

from resources.azure.container import Container
from resources.azure.job_names import ACCOUNT, MESSAGE_SECONDS, OUTCOMES
from resources.azure.shared_store import open_shared_store
from resources.azure.workspace import be_quiet, open_credential
from resources.errors import StageError
from resources.store.digests import FileDigests
from resources.store.store import Store

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient, ContainerClient


class JobSide:
    """What a job does around its work: `home` is an empty folder that becomes its store."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def open_pipes(self) -> PipesContext:
        """The session with the orchestrator; what it is told is in `extras`."""
        loader = PipesAzureBlobStorageContextLoader(_service())
        return open_dagster_pipes(context_loader=loader, message_writer=JobMessageWriter(interval=MESSAGE_SECONDS))

    def fetch_inputs(self, request: Mapping[str, Any]) -> dict[str, Path]:
        """Input name → folder of its artifact, brought from the shared store and verified."""
        store, remote = Store(self._home), request["remote"]
        shared = open_shared_store(remote["account_url"], remote["container"], remote["prefix"], store)
        for name, digest in request["inputs"].items():
            if shared.fetch_digest(digest) is None:
                raise StageError(
                    request["recipe"], f"{shared.place} lacks its input {name}, {digest[:12]}", "Run again"
                )
        return {name: store.open(digest) for name, digest in request["inputs"].items()}

    def leave(self, request: Mapping[str, Any], folder: Path) -> None:
        """Leave `folder` in the shared store as an artifact, and then its digest as the outcome."""
        remote = request["remote"]
        shared = open_shared_store(remote["account_url"], remote["container"], remote["prefix"], Store(self._home))
        manifest = FileDigests(self._home / "digests.sqlite").folder_manifest(folder)
        shared.push_folder(manifest, folder)
        self.tell({"digest": manifest.digest})

    def tell(self, outcome: Mapping[str, Any]) -> None:
        """Leave the outcome under the job's name, which its messages bear."""
        params = _messages()
        data = json.dumps(outcome).encode()
        container = Container(lambda: _container(str(params["bucket"])), OUTCOMES)
        job = str(params["key_prefix"]).rpartition("/")[2]
        container.create(f"{job}.json", data, hashlib.sha256(data).hexdigest())


class JobMessageWriter(PipesBlobStoreMessageWriter):
    """Like that of dagster_pipes for Azure, whose thread ends with the first upload whose answer is lost."""

    def make_channel(self, params: PipesParams) -> JobMessageChannel:
        bucket, prefix = str(params["bucket"]), str(params["key_prefix"])
        return JobMessageChannel(Container(lambda: _container(bucket), f"{prefix}/"), self.interval)


class JobMessageChannel(PipesBlobStoreMessageWriterChannel):
    """Leaves messages as blobs, each once."""

    def __init__(self, blobs: Container, interval: float) -> None:
        super().__init__(interval=interval)
        self._blobs = blobs

    def upload_messages_chunk(self, payload: IO[str], index: int) -> None:
        data = payload.read().encode()
        self._blobs.create(f"{index}.json", data, hashlib.sha256(data).hexdigest())


def _messages() -> PipesParams:
    return Params().load_messages_params()


def _service() -> BlobServiceClient:
    be_quiet()
    from azure.storage.blob import BlobServiceClient

    return BlobServiceClient(os.environ[ACCOUNT], credential=open_credential())


def _container(name: str) -> ContainerClient:
    be_quiet()
    from azure.storage.blob import ContainerClient

    return ContainerClient(os.environ[ACCOUNT], name, credential=open_credential(), retry_total=0)
