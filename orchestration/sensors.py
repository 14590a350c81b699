"""A sensor for each experiment that keeps it up to date unattended; off until it is switched on in the UI."""

from collections.abc import Mapping

import dagster as dg

from assets.experiment import Experiment, open_experiment
from orchestration.history import asset_key, group_name, recorded_materializations, report_observations
from orchestration.planner import Plan, plan
from orchestration.run import settle_known
from orchestration.terminal import Terminal
from resources.registry.local import LocalRegistry
from resources.store.keys import Key
from resources.store.store import Store

SECONDS_BETWEEN_LOOKS = 30
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def up_to_date_sensor(experiment: Experiment) -> dg.SensorDefinition:
    """Plans on the files as they are now; restores at once, requests one run for the rest."""
    name = experiment.name

    @dg.sensor(
        name=f"keep_{group_name(name)}_up_to_date",
        asset_selection=dg.AssetSelection.key_prefixes([name]),
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        description=f"Runs what is stale of {name}, as soon as its files change; one attempt for each state of them.",
        required_resource_keys={"store", "registry"},
    )
    def look(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if _is_busy(context.instance, name):
            return dg.SkipReason(f"a run of {name} is in progress")
        store, registry = context.resources.store, context.resources.registry
        return _request(context.instance, open_experiment(name), store, registry)

    return look


def _request(
    instance: dg.DagsterInstance, experiment: Experiment, store: Store, registry: LocalRegistry
) -> dg.RunRequest | dg.SkipReason:
    recorded = recorded_materializations(instance, experiment.name)
    planned = plan(experiment, store, registry, recorded)
    report_observations(instance, experiment.name, planned.sources)
    blocked = [one.stage.name for one in planned.stages if one.status == "blocked"]
    pending = settle_known(planned, {one.stage.name for one in planned.stages}, store, registry, instance, Terminal())
    wanted = [name for name in pending if name not in blocked]
    if not wanted:
        return dg.SkipReason("a gate holds: " + ", ".join(blocked) if blocked else "nothing is stale")
    return dg.RunRequest(
        run_key=plan_id(planned), asset_selection=[asset_key(experiment.name, name) for name in wanted]
    )


def plan_id(planned: Plan) -> str:
    """One id for one state of spec, code, tools and sources: the same state is never requested twice."""
    state: Mapping[str, object] = {
        "sources": dict(planned.sources),
        "stages": {one.stage.name: [one.stage.code_version(), one.status] for one in planned.stages},
    }
    return Key(state).id


def _is_busy(instance: dg.DagsterInstance, experiment: str) -> bool:
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        if any(key.path[0] == experiment for key in run.asset_selection or ()):
            return True
    return False
