"""A hundred experiments of six stages, all up to date, in a workspace of each tool.

Every experiment has settings of its own in every stage, so nothing is found once for all of them. Nobody waits for 600
stages: each tool is told, by its own means, that the finished experiment's artifacts are those of the others.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assets.build import Builder
from assets.experiment import open_experiment
from assets.recipes import STAGE_NAMES, open_sources
from assets.stage import Attempt, Recipe
from benchmarks.staleness.dagster_project import digest, project_assets, read_documents, source_paths
from benchmarks.staleness.dvc import Dvc, write_dvc_yaml
from benchmarks.staleness.plain_dagster import PlainDagster
from benchmarks.staleness.press import Press
from benchmarks.staleness.tool import Tool
from benchmarks.staleness.workspace import EXPERIMENT, Workspace, write_experiment
from resources.progress import RecordedProgress

NAMES = [f"e{number:03d}" for number in range(100)]


def find_all_command(tool: Tool, workspace: Workspace) -> list[str] | None:
    """The command that finds what is stale of all experiments; None where the tool has none."""
    if isinstance(tool, Press):
        return tool.find_all_command()
    command = tool.find_command(workspace)
    return [*command, *NAMES] if command and isinstance(tool, PlainDagster) else command


def create_many(tool: Tool, workspace: Workspace) -> None:
    """Turn the finished workspace of one experiment into one of NAMES, all up to date."""
    document = workspace.document()
    for number, name in enumerate(NAMES):
        write_experiment(workspace.root / "experiments" / f"{name}.yaml", variant(document, number))
    for other in (EXPERIMENT, "other"):
        (workspace.root / "experiments" / f"{other}.yaml").unlink()
    if isinstance(tool, Press):
        _fill_press(tool, workspace)
    elif isinstance(tool, Dvc):
        _fill_dvc(tool, workspace)
    elif isinstance(tool, PlainDagster):
        _fill_dagster(tool, workspace)


def variant(document: dict[str, Any], number: int) -> dict[str, Any]:
    """The experiment `document` with settings that no other number has, in every stage."""
    changed = {section: dict(values) for section, values in document.items()}
    changed["dataset"]["max_damaged"] = number
    for section in ("awq_model", "lora_adapter", "eval_report"):
        changed[section]["seed"] = number
    changed["onnx_model"]["adapter"] = f"adapter-{number}"
    changed["registered_model"]["gates"] = document["registered_model"]["gates"] | {"max_kl_nats": 100.0 + number}
    return changed


def _fill_press(tool: Press, workspace: Workspace) -> None:
    """Store the artifacts under every experiment's keys and record them, as press run does with what it finds there."""
    from orchestration.planner import Planner
    from orchestration.recorded import SqliteRecords
    from orchestration.registries import Registries
    from orchestration.run import run
    from orchestration.terminal import Terminal
    from resources.store.store import Store

    home, finished = tool.home_folder(workspace), tool.artifacts(workspace)

    def copy_finished(recipe: Recipe, folder: Path, scratch: Path, inputs: Mapping[str, Path]) -> None:
        if recipe.name == "registered_model":  # it names what it was made from
            recipe.produce(Attempt(folder, scratch, inputs, RecordedProgress()))
            return
        shutil.copytree(finished[recipe.name], folder, dirs_exist_ok=True)
        for adapter in folder.glob("adapters/*.onnx_adapter"):  # what press shows of it is looked up by its name
            adapter.rename(adapter.with_stem(recipe.experiment.onnx_model.adapter))

    for name in NAMES:
        experiment = open_experiment(name, workspace.root / "experiments")
        planner = Planner(Store(home), Registries(home), SqliteRecords(home))
        builder = Builder(Store(home), open_sources(experiment), copy_finished, {})
        for stage in STAGE_NAMES:
            planned = planner.plan(experiment).stage(stage)
            if planned.status == "run" and planned.inputs is not None:
                builder.build(planned.stage, planned.inputs)
        report = run(experiment, home, Terminal())
        assert not any(one.outcome == "computed" for one in report.stages), report


def _fill_dvc(tool: Dvc, workspace: Workspace) -> None:
    """Lay the artifacts where every experiment's stages would, and commit them."""
    write_dvc_yaml(workspace, NAMES)
    (workspace.root / "dvc.lock").unlink()
    artifacts = workspace.root / "artifacts"
    for name in NAMES:
        shutil.copytree(artifacts / EXPERIMENT, artifacts / name)
    shutil.rmtree(artifacts / EXPERIMENT)
    tool.run(workspace, [*tool.update_command(workspace)[:1], "commit", "--force", "--quiet"])


def _fill_dagster(tool: PlainDagster, workspace: Workspace) -> None:
    """Report a materialization of every asset with the data versions that Dagster would compute."""
    import dagster as dg
    from dagster._core.definitions import data_version as versions
    from dagster._core.instance.ref import InstanceRef

    documents = read_documents(workspace.root, NAMES)
    _, stages = project_assets(workspace.root, documents)
    paths = source_paths(workspace.root, next(iter(documents.values())))
    known = {dg.AssetKey([name]): versions.DataVersion(digest(path)) for name, path in paths.items()}
    home = tool.environment(workspace)["DAGSTER_HOME"]
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(home)) as instance:
        for asset in stages:
            code_version = asset.code_versions_by_key[asset.key]
            assert code_version is not None
            inputs = {key: known[key] for key in asset.asset_deps[asset.key]}
            known[asset.key] = versions.compute_logical_data_version(code_version, inputs)
            tags = {versions.CODE_VERSION_TAG: code_version, versions.DATA_VERSION_TAG: known[asset.key].value}
            for key, version in inputs.items():
                tags[versions.get_input_data_version_tag(key)] = version.value
                tags[versions.get_input_event_pointer_tag(key)] = versions.NULL_EVENT_POINTER
            instance.report_runless_asset_event(dg.AssetMaterialization(asset.key, tags=tags))
