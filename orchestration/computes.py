"""Where each stage of an experiment runs: the one place that decides it."""

from __future__ import annotations

from collections.abc import Iterable

from assets.experiment import AzureMLJobSpec, Experiment
from assets.recipes import STAGES
from orchestration.remotes import Remotes
from resources.compute import Compute
from resources.errors import ConfigurationError
from resources.store.store import Store

STAGE_OF = {recipe.name: stage.name for stage in STAGES for recipe in (stage, *stage.parts)}
HEAVY = tuple(stage.name for stage in STAGES if stage.heavy)


class Computes:
    """The computes of experiments: `local`, and jobs where the experiment asks for them; opening one asks nobody."""

    def __init__(self, store: Store, local: Compute, remotes: Remotes) -> None:
        self._store = store
        self._local = local
        self._remotes = remotes
        self._opened: dict[object, Compute] = {}
        self._checked: list[Compute] = []

    def of(self, experiment: Experiment, recipe: str) -> Compute:
        """Where `recipe` runs: a part where its stage does, a source on this machine."""
        stage = STAGE_OF.get(recipe, "")
        jobs = experiment.compute.jobs_of(stage) if stage in HEAVY else None
        return self._local if jobs is None else self._jobs(experiment, stage, jobs)

    def check(self, experiment: Experiment, stages: Iterable[str]) -> None:
        """Return when `stages` can run where they are to run; asks each place once, an error says why it cannot be."""
        for stage in stages:
            compute = self.of(experiment, stage)
            if compute not in self._checked:
                compute.check()
                self._checked.append(compute)

    def _jobs(self, experiment: Experiment, stage: str, jobs: AzureMLJobSpec) -> Compute:
        from resources.azure.job_compute import AzureMLCompute, JobPlace
        from resources.azure.workspace import AzureWorkspace, find_workspace

        own = stage in {str(name) for name in experiment.compute.stages}
        place = f"{experiment.name}.yaml: compute.{f'stages.{stage}.' if own else ''}azureml"
        shared = self._remotes.of(experiment)
        remote = experiment.store.remote
        if shared is None or remote is None:
            raise ConfigurationError(place, "--no-remote", "the shared store, through which jobs get their inputs")
        workspace = find_workspace(experiment.azure.model_dump(), experiment.root)
        where = JobPlace(jobs.cluster, jobs.environment, jobs.timeout_minutes, place)
        known = (workspace, where, shared)
        if known not in self._opened:
            told = remote.model_dump(include={"account_url", "container", "prefix"})
            digests = self._store.digests
            self._opened[known] = AzureMLCompute(AzureWorkspace(workspace), where, shared, told, digests)
        return self._opened[known]
