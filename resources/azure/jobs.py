"""Jobs of a workspace as Dagster's PipesAzureMLClient needs them: created once, taken up again, cancelled when asked.

A job's name comes from the key that it makes and the number of the try. So who starts again, here or on another
machine, finds the job that runs and starts no second one.
"""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Any

from resources.azure.failures import azure_errors, error_code
from resources.azure.retries import RETRIES, again
from resources.azure.workspace import AzureWorkspace
from resources.errors import ConfigurationError

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command, Job

ENDED = ("Completed", "Failed", "Canceled", "CancelRequested")
LABELLED = re.compile(r"(?:azureml:)?(?P<name>[^:@/]+)(?P<mark>[:@])(?P<rest>[^/]+)")


class Jobs:
    """What PipesAzureMLClient asks of an MLClient, of the one job called `name`.

    Raises a StageError when Azure refuses or cannot be reached for long; the job goes on then, and is found again.
    """

    def __init__(self, workspace: AzureWorkspace, name: str, found: Job | None) -> None:
        self._workspace = workspace
        self._name = name
        self._found = found
        self.was_cancelled = False

    @property
    def jobs(self) -> Jobs:
        return self

    def create_or_update(self, command: Command) -> Job:
        """The job, created where it is not there yet."""
        from azure.core.exceptions import AzureError

        if self._found is not None:
            return self._found
        with azure_errors(f"job {self._name}"):
            try:
                return again(lambda: self._workspace.client.jobs.create_or_update(command), RETRIES)
            except AzureError:
                # Its answer was lost, or another machine created it meanwhile.
                made = find_job(self._workspace, self._name)
                if made is None:
                    raise
                return made

    def get(self, name: str) -> Job:
        with azure_errors(f"job {name}"):
            return again(lambda: self._workspace.client.jobs.get(name), RETRIES)

    def begin_cancel(self, name: str) -> None:
        """Have the job cancelled, where there is one."""
        if find_job(self._workspace, name) is None:
            return
        with azure_errors(f"job {name}"):
            again(lambda: self._workspace.client.jobs.begin_cancel(name), RETRIES)
        self.was_cancelled = True


def choose_job(workspace: AzureWorkspace, stem: str, own: str | None) -> tuple[str, Job | None]:
    """The name of the job to use, and the job where there is one: it runs, or it is `own` and completed.

    stem: what the names of all tries begin with. own: the job that this machine started and has not taken in yet.
    """
    for number in count(1):
        name = f"{stem}-{number}"
        job = find_job(workspace, name)
        if job is None or job.status not in ENDED or (name == own and job.status == "Completed"):
            return name, job
    raise AssertionError("counting ends with a return")


def find_job(workspace: AzureWorkspace, name: str) -> Job | None:
    """The job called `name`; None when there is none."""
    from azure.core.exceptions import ResourceNotFoundError

    with azure_errors(f"job {name}"):
        try:
            return again(lambda: workspace.client.jobs.get(name), RETRIES)
        except ResourceNotFoundError:
            return None


def check_cluster(workspace: AzureWorkspace, cluster: str, place: str) -> None:
    """Return when there is such a compute cluster and one may see it."""
    _check(f"{place}.cluster", f"cluster {cluster}", lambda: workspace.client.compute.get(cluster))


def check_environment(workspace: AzureWorkspace, environment: str, place: str) -> None:
    """Return when there is such an environment in the workspace; one of a registry is not looked up."""
    named = LABELLED.fullmatch(environment)
    if named is None:
        return
    which = {"version" if named["mark"] == ":" else "label": named["rest"]}
    environments = workspace.client.environments
    _check(f"{place}.environment", f"environment {environment}", lambda: environments.get(named["name"], **which))


def _check(place: str, what: str, ask: Any) -> None:
    from azure.ai.ml.exceptions import ValidationException
    from azure.core.exceptions import HttpResponseError

    with azure_errors(place):
        try:
            again(ask, RETRIES)
        except ValidationException:  # what the SDK says when a label has no version
            raise ConfigurationError(place, f"no {what}", "one of the workspace") from None
        except HttpResponseError as error:
            if error.status_code == 404:
                remedy = "docs/azure.md says how to make one"
                raise ConfigurationError(place, f"no {what}", "one of the workspace", remedy) from None
            if error.status_code in (401, 403):
                told = f"no rights on the {what} ({error.status_code} {error_code(error)})".replace(" )", ")")
                remedy = "Ask for the role AzureML Data Scientist on the workspace"
                raise ConfigurationError(place, told, "one that may be used", remedy) from None
            raise
