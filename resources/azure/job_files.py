"""The blobs by which an orchestrator and its job speak; job_names says what they are called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import dagster as dg
from dagster._core.pipes.client import PipesContextInjector
from dagster._core.pipes.utils import PipesBlobStoreMessageReader
from dagster_pipes import PipesContextData, PipesParams

from resources.azure.container import Container
from resources.azure.failures import azure_errors
from resources.azure.job_names import CONTEXT, JOBS, MESSAGE_SECONDS, OUTCOMES
from resources.azure.retries import RETRIES, again
from resources.azure.workspace import AzureWorkspace
from resources.errors import StageError


class JobFiles:
    """The blobs of one job."""

    def __init__(self, workspace: AzureWorkspace, job: str) -> None:
        self._workspace = workspace
        self._job = job
        self._blobs = Container(workspace.container, f"{JOBS}{job}/")
        self._outcomes = Container(workspace.container, OUTCOMES)

    def message(self, number: int) -> bytes | None:
        """The message, counted from 1; None while there is none."""
        return _read(self._blobs, f"{number}.json")

    def write_once(self, name: str, data: bytes) -> None:
        """Leave `data` under `name`, unless an orchestrator before this one did."""
        self._blobs.create(name, data, hashlib.sha256(data).hexdigest())

    def outcome(self) -> dict[str, Any] | None:
        """What the job left at its end; None when it left nothing."""
        data = _read(self._outcomes, f"{self._job}.json")
        return None if data is None else json.loads(data)

    def params(self, name: str) -> PipesParams:
        """Where `name` is, in the words of the loaders and writers of dagster_pipes."""
        return {"bucket": self._workspace.container().container_name, name: f"{JOBS}{self._job}"}

    def begin(self) -> None:
        """Remove what another job of this name left, which was deleted, or never came to be."""
        self.remove()

        def remove_outcome() -> None:
            _delete(self._workspace.container(), f"{OUTCOMES}{self._job}.json")

        with azure_errors(f"{OUTCOMES}{self._job}"):
            again(remove_outcome, RETRIES)

    def remove(self) -> None:
        """Remove what was said to and by this job, and the ended ones before it that were for the same key."""
        stem, _, number = self._job.rpartition("-")

        def remove_all() -> None:
            client = self._workspace.container()
            for blob in list(client.list_blobs(name_starts_with=f"{JOBS}{stem}-")):
                attempt = blob.name.removeprefix(f"{JOBS}{stem}-").partition("/")[0]
                if attempt.isdecimal() and int(attempt) <= int(number):
                    _delete(client, blob.name)

        with azure_errors(f"{JOBS}{self._job}"):
            again(remove_all, RETRIES)


def _read(container: Container, name: str) -> bytes | None:
    found = container.look(name)
    if found is None:
        return None
    return container.read(name, 0, found.size) if found.size else b""


def _delete(client: Any, name: str) -> None:
    from azure.core.exceptions import ResourceNotFoundError

    with suppress(ResourceNotFoundError):  # the try before this one did it, and its answer was lost
        client.delete_blob(name)


class JobContext(PipesContextInjector):
    """Tells a job what it is to do."""

    def __init__(self, files: JobFiles) -> None:
        self._files = files

    @contextmanager
    def inject_context(self, context_data: PipesContextData) -> Iterator[PipesParams]:
        self._files.write_once(CONTEXT, json.dumps(context_data).encode())
        params = self._files.params("key")
        yield {**params, "key": f"{params['key']}/{CONTEXT}"}

    def no_messages_debug_text(self) -> str:
        return "The job was told what to do by a blob of the workspace's default datastore."


class JobMessages(PipesBlobStoreMessageReader):
    """Reads the messages of a job from the first on, also those that an orchestrator before this one read."""

    def __init__(self, files: JobFiles, log: dg.DagsterLogManager) -> None:
        super().__init__(interval=MESSAGE_SECONDS)
        self._files = files
        self._log = log
        self._is_quiet = False

    @contextmanager
    def get_params(self) -> Iterator[PipesParams]:
        yield self._files.params("key_prefix")

    def messages_are_readable(self, params: PipesParams) -> bool:
        return self._message(1) is not None

    def download_messages_chunk(self, index: int, params: PipesParams) -> str | None:
        data = self._message(index)
        return None if data is None else data.decode()

    def no_messages_debug_text(self) -> str:
        return "Its messages are blobs of the workspace's default datastore."

    def _message(self, index: int) -> bytes | None:
        try:
            return self._files.message(index)
        except StageError as error:  # this thread may not end; what the job made does not hang on what it says
            if not self._is_quiet:
                self._log.warning(f"The job's messages cannot be read: {error}")
            self._is_quiet = True
            return None
