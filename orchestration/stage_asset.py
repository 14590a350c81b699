"""The Dagster asset of a stage: its body looks the key up, builds what is missing and says what came out."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from assets.build import Builder
from assets.experiment import Experiment
from assets.gates import GateError
from assets.recipes import GPU_STAGES, SOURCES, STAGES, open_sources
from assets.stage import Attempt, Recipe, Source, Stage
from orchestration.before_run import check_stages
from orchestration.computes import Computes
from orchestration.gpu_pool import POOL, holds_pool
from orchestration.history import InstanceEvents, InstanceRecords, asset_key, dagster_metadata, group_name
from orchestration.interrupted import name_process
from orchestration.metadata import Value, metadata
from orchestration.registries import Registries
from orchestration.remotes import Remotes
from orchestration.reports import report_observations, version_tags
from orchestration.savings import saving
from orchestration.terminal import Terminal
from orchestration.turns import Turns
from resources.compute import Request
from resources.errors import PressError
from resources.progress import Progress
from resources.store.remote import Remote
from resources.store.store import Built, Store

KINDS = {
    "dataset": {"pandas"},
    "awq_model": {"olive", "pytorch"},
    "lora_adapter": {"olive", "pytorch"},
    "onnx_model": {"olive", "onnx"},
    "eval_report": {"onnx"},
    "registered_model": {"onnx"},
}


def stage_asset(stage: Stage) -> dg.AssetsDefinition:
    """The asset `[experiment, stage]`."""
    experiment = stage.experiment
    source_names = {source.name for source in SOURCES}

    @dg.asset(
        key=asset_key(experiment.name, stage.name),
        deps=[asset_key(experiment.name, name) for name in stage.made_from],
        group_name=group_name(experiment.name),
        code_version=stage.code_version(),
        description=(type(stage).__doc__ or "").strip(),
        kinds=KINDS[stage.name],
        pool=POOL if holds_pool(experiment, stage.name) else None,
        required_resource_keys={"store", "registries", "computes", "terminal", "turns", "savings", "facts", "remotes"},
    )
    def body(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        name_process(context.instance, context.run)
        _take_turns(context)
        _check_places(context, stage)
        inputs = _inputs(context, stage, source_names & set(stage.made_from))
        return _materialize(context, stage, inputs)

    return body


def source_asset(source: Source) -> dg.SourceAsset:
    """The external asset of a source; observing it in the UI records what it is now."""
    experiment = source.experiment

    def observe(context: dg.OpExecutionContext) -> dg.DataVersion:
        name_process(context.instance, context.run)
        return dg.DataVersion(source.source_key(context.resources.store.digests).id)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # Dagster's word for this decorator, no news to a user
        return dg.observable_source_asset(
            key=asset_key(experiment.name, source.name),
            group_name=group_name(experiment.name),
            description=(type(source).__doc__ or "").strip(),
            required_resource_keys={"store"},
        )(observe)


def _take_turns(context: dg.AssetExecutionContext) -> None:
    """Wait until this run is the only one of its experiments; it keeps their turns until its process ends."""
    turns: Turns = context.resources.turns
    turns.hold({key.path[0] for key in context.run.asset_selection or [context.asset_key]}, context.log.info)


def _check_places(context: dg.AssetExecutionContext, stage: Stage) -> None:
    """End a run that cannot reach what it needs, a registry or a shared store, at its first stage, not at its last."""
    experiment = stage.experiment
    registering = {asset_key(experiment.name, one.name) for one in STAGES if one.registers}
    try:
        check_stages(experiment, [key.path[-1] for key in context.run.asset_selection or ()])
        if not registering.isdisjoint(context.run.asset_selection or ()):
            context.resources.registries.check(experiment)
        if context.resources.remotes.pushes(experiment):
            context.resources.remotes.check(experiment)  # who only looks there asks before computing in any case
        context.resources.computes.check(experiment, [key.path[-1] for key in context.run.asset_selection or ()])
    except PressError as error:
        context.resources.terminal.stage_failed(stage.name, error)
        raise dg.Failure(str(error), allow_retries=False) from error


def _inputs(context: dg.AssetExecutionContext, stage: Stage, sources: set[str]) -> dict[str, str]:
    """Input name → data version: of sources as they are now, of stages as last materialized."""
    experiment = stage.experiment
    store: Store = context.resources.store
    opened = open_sources(experiment)
    versions = {name: opened[name].source_key(store.digests).id for name in sorted(sources)}
    history = InstanceRecords(context.instance).histories([experiment.name])[experiment.name]
    report_observations(InstanceEvents(context.instance), experiment.name, history.sources, versions)
    for name in stage.made_from:
        if name in versions:
            continue
        if name not in history.stages:
            raise dg.Failure(
                f"{stage.name}: {name} was never materialized. Materialize {name} first, or both together",
                allow_retries=False,
            )
        versions[name] = history.stages[name].data_version
    return versions


def _materialize(
    context: dg.AssetExecutionContext, stage: Stage, inputs: Mapping[str, str]
) -> dg.MaterializeResult[Any]:
    store: Store = context.resources.store
    registries: Registries = context.resources.registries
    terminal: Terminal = context.resources.terminal
    terminal.stage_started(stage.name)
    try:
        built = _builder(context, stage.experiment, terminal.is_forced(stage.name)).build(stage, inputs)
        version = registries.publish(stage, store.open(built.entry.digest), inputs)
    except PressError as error:
        terminal.stage_failed(stage.name, error, blocked=isinstance(error, GateError))
        raise dg.Failure(str(error), allow_retries=False) from error
    saved = saving(store, stage.experiment.name, stage.name, built.outcome, built.seconds, built.entry)
    context.resources.savings.add([saved])
    terminal.stage_finished(saved, built.entry.digest)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(built.entry.digest),
        tags=version_tags(stage, built.entry, inputs, built.outcome),
        metadata=dagster_metadata(
            metadata(stage, context.resources.facts, built.entry, inputs, saved, version)
            | _restored_from(context.resources.remotes.of(stage.experiment), built)
        ),
    )


def _restored_from(remote: Remote | None, built: Built) -> dict[str, Value]:
    """Where an artifact came from that was not computed here."""
    if remote is None or built.outcome != "restored":
        return {}
    return {"restored from": remote.place, "bytes fetched": built.moved}


def _builder(context: dg.AssetExecutionContext, experiment: Experiment, force: bool) -> Builder:
    computes: Computes = context.resources.computes
    document = experiment.model_dump(mode="json")

    def launch(recipe: Recipe, folder: Path, scratch: Path, inputs: Mapping[str, Path]) -> Mapping[str, Any]:
        if recipe.heavy:
            tools = {name[5:]: told for name, told in recipe.own_ingredients().items() if name.startswith("tool.")}
            key_id = scratch.name  # a scratch is called after the key that it belongs to
            device = experiment.compute.device if recipe.name in GPU_STAGES else "cpu"
            request = Request(document, recipe.name, folder, scratch, inputs, key_id, tools, device)
            ran_on = computes.of(experiment, recipe.name).run(context, request)
            return {"ran_on": ran_on} if ran_on else {}
        recipe.produce(Attempt(folder, scratch, inputs, _LogProgress(context)))
        return {}

    def on_damage(line: str) -> None:
        context.log.warning(line)
        context.resources.terminal.warned(line)

    remotes: Remotes = context.resources.remotes
    return Builder(
        context.resources.store,
        open_sources(experiment),
        launch,
        {"experiment": experiment.name, "run_id": context.run_id},
        force,
        context.log.info,
        remotes.of(experiment),
        remotes.pushes(experiment),
        on_damage,
    )


class _LogProgress(Progress):
    """Progress of a light recipe, which runs in this process: Dagster's log."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._context = context

    def log(self, message: str) -> None:
        self._context.log.info(message)

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        if done >= total:
            self._context.log.info(f"{what} {done}/{total} {note}".rstrip())
