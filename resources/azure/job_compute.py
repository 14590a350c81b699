"""Azure Machine Learning as a Compute: the worker runs as a command job, through Dagster's PipesAzureMLClient.

Inputs and result go through the shared store, by digest. The source that the job runs is this project's own, as blobs
under their digest: the SDK's upload of `code` hangs or stays blocked after a failure, so the job gets it as an input.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError

from resources.azure.blobs import Names, publish
from resources.azure.container import Container
from resources.azure.job_names import ACCOUNT, CODE
from resources.azure.jobs import Jobs, check_cluster, check_environment, choose_job
from resources.azure.shared_store import SharedStore
from resources.azure.workspace import AzureWorkspace
from resources.compute import Request
from resources.errors import PressError, StageError, told_error
from resources.preloaded import PROJECT, QUIET
from resources.ran_on import told_ran_on
from resources.store.digests import FileDigests
from resources.store.manifest import FileRecord, Manifest

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command

    from resources.azure.job_files import JobFiles

PACKAGES = ("assets", "resources")  # all that a worker imports of this project
MARKER = ".azureml-job"  # in the scratch of the key
POLL_SECONDS = 5.0
KEY_LETTERS = 40


@dataclass(frozen=True)
class JobPlace:
    """Where jobs run: cluster, environment and limit as the experiment says them; `place` names its section."""

    cluster: str
    environment: str
    timeout_minutes: float
    place: str = "compute.azureml"


class AzureMLCompute:
    """Runs workers as jobs of `workspace`; `shared` is the shared store, `remote` what a job opens it by.

    A run that is cancelled cancels its job. One that ends otherwise leaves it, and the next one takes it up again.
    """

    def __init__(
        self,
        workspace: AzureWorkspace,
        where: JobPlace,
        shared: SharedStore,
        remote: Mapping[str, str],
        digests: FileDigests,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._workspace = workspace
        self._where = where
        self._shared = shared
        self._remote = dict(remote)
        self._digests = digests
        self._poll_seconds = poll_seconds

    def check(self) -> None:
        """Return when jobs can be started and the shared store written; a ConfigurationError says why not."""
        self._workspace.check()
        check_cluster(self._workspace, self._where.cluster, self._where.place)
        check_environment(self._workspace, self._where.environment, self._where.place)
        self._shared.check(push=True)

    def run(self, context: dg.AssetExecutionContext, request: Request) -> Mapping[str, Any]:
        marker = request.scratch / MARKER
        own = marker.read_text() if marker.is_file() else None
        name, found = choose_job(self._workspace, f"press-{request.key_id[:KEY_LETTERS]}", own)
        jobs = Jobs(self._workspace, name, found)
        context.log.info(f"job {name} {'is taken up again' if found else 'is started'} on {self._where.cluster}")
        extras = {} if found else self._extras(request)
        command = self._command(name, request, None if found else self._publish_code())
        marker.write_text(name)
        return self._await(context, jobs, name, command, extras, request)

    def _await(
        self,
        context: dg.AssetExecutionContext,
        jobs: Jobs,
        name: str,
        command: Command,
        extras: dict[str, Any],
        request: Request,
    ) -> Mapping[str, Any]:
        from dagster_azure.pipes import PipesAzureMLClient

        from resources.azure.job_files import JobContext, JobFiles, JobMessages

        files = JobFiles(self._workspace, name)
        if extras:
            files.begin()
        client: Any = jobs  # it asks for nothing else of an MLClient
        pipes = PipesAzureMLClient(client, JobContext(files), JobMessages(files, context.log), self._poll_seconds)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", dg.PreviewWarning)  # Dagster's own, about its own method
                told = pipes.run(context=context, command=command, extras=extras).get_custom_messages()
        except dg.DagsterExecutionInterruptedError:
            jobs.begin_cancel(name)
            raise
        except DagsterPipesExecutionError as error:
            failure = self._failure(request.recipe, name, jobs.get(name), files.outcome())
            _remove(files, context)
            raise failure from error
        if jobs.was_cancelled:  # the client cancels it and then returns as if it had succeeded
            _remove(files, context)
            raise dg.DagsterExecutionInterruptedError
        self._take_in(request, name, files)
        _remove(files, context)
        return told_ran_on(told)

    def _take_in(self, request: Request, name: str, files: JobFiles) -> None:
        """Bring what the job made into `request.folder`, every digest checked."""
        outcome = files.outcome()
        manifest = self._shared.manifest(str(outcome["digest"])) if outcome and "digest" in outcome else None
        if manifest is None:
            remedy = "Run again: another job is started"
            raise StageError(request.recipe, f"job {name} completed and left nothing in the shared store", remedy)
        self._shared.bring(manifest, request.folder)

    def _extras(self, request: Request) -> dict[str, Any]:
        """What the job is told, and its inputs in the shared store."""
        inputs: dict[str, str] = {}
        for name, folder in request.inputs.items():
            manifest = self._digests.folder_manifest(folder)
            self._shared.push_folder(manifest, folder)
            inputs[name] = manifest.digest
        return {
            "experiment": dict(request.experiment),
            "recipe": request.recipe,
            "device": request.device,
            "inputs": inputs,
            "tools": dict(request.tools),
            "remote": self._remote,
        }

    def _command(self, name: str, request: Request, code: str | None) -> Command:
        from azure.ai.ml import Input, command

        path = f"azureml://datastores/{self._workspace.datastore}/paths/{CODE}{code}/"
        environment = self._where.environment
        made: Any = command(
            name=name,
            display_name=f"{request.experiment['name']}/{request.recipe}",
            experiment_name="olive-press",
            command="cd ${{inputs.code}} && python -m assets.worker",
            inputs={"code": Input(type="uri_folder", path=path, mode="download")},
            environment=environment if environment.startswith("azureml:") else f"azureml:{environment}",
            compute=self._where.cluster,
            environment_variables={**QUIET, "PYTHONDONTWRITEBYTECODE": "1", ACCOUNT: self._account()},
            tags={"olive_press.key": request.key_id, "olive_press.recipe": request.recipe},
        )
        made.set_limits(timeout=max(1, round(self._where.timeout_minutes * 60)))
        return made

    def _publish_code(self) -> str:
        """The digest of this project's source, which is in the default datastore from now on."""
        files = sorted(
            path
            for package in PACKAGES
            for path in (PROJECT / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        )
        manifest = Manifest(tuple(self._digests.record(path, path.relative_to(PROJECT).as_posix()) for path in files))
        names = Names(lambda record: f"{manifest.digest}/{record.path}", f"{manifest.digest}.json")
        publish(Container(self._workspace.container, CODE), manifest, _in_project, names)
        return manifest.digest

    def _account(self) -> str:
        client = self._workspace.container()
        return f"https://{client.primary_hostname}"

    def _failure(self, recipe: str, name: str, job: Any, outcome: Mapping[str, Any] | None) -> PressError:
        """What the job said of its failure, or what is known of one that could say nothing."""
        if outcome and "message" in outcome:
            return told_error(outcome)
        if job.status == "Canceled":
            limit = f"{self._where.timeout_minutes:g} minutes"
            what = f"job {name} was cancelled: it took longer than {self._where.place}.timeout_minutes, {limit}"
            return StageError(recipe, f"{what}, or somebody cancelled it", f"See {job.studio_url}")
        what = f"job {name} ended without an answer ({job.status})"
        return StageError(recipe, what, f"Its output tells why: {job.studio_url}")


def _remove(files: JobFiles, context: dg.AssetExecutionContext) -> None:
    """Remove the blobs of an ended job; what cannot be removed now hinders nothing."""
    try:
        files.remove()
    except StageError as error:
        context.log.warning(f"The job's messages stay: {error}")


def _in_project(record: FileRecord) -> Path:
    return PROJECT / record.path
