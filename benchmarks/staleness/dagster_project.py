"""A plain Dagster project of the same six assets, as its documentation teaches to write one.

python -m benchmarks.staleness.dagster_project [--find]

External inputs are observable source assets whose data version is the digest of their files. A stage's code version is
a string that a person raises, "1", and the fields of its section that count, because Dagster looks at neither. Data
versions are Dagster's own. What native staleness marks, and everything after it, is materialized in this process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.definitions.data_version import DATA_VERSION_TAG, CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

MADE_FROM = {
    "dataset": ("source_data",),
    "awq_model": ("base_model", "calibration_text"),
    "lora_adapter": ("awq_model", "dataset"),
    "onnx_model": ("awq_model", "lora_adapter"),
    "eval_report": ("onnx_model", "dataset", "awq_model", "lora_adapter"),
    "registered_model": ("onnx_model", "eval_report"),
}
SOURCES = {
    "source_data": ("dataset", "path"),
    "base_model": ("base_model", "folder"),
    "calibration_text": ("awq_model", "calibration_text"),
}
WITHOUT_EFFECT = ("path", "calibration_text", "checkpoint_steps")  # names of places, and what changes no result


def stage_asset(root: Path, experiment: str, name: str, document: dict[str, Any]) -> dg.AssetsDefinition:
    """The asset [experiment, name]; its body leaves the artifact in artifacts/."""
    settings = {field: value for field, value in document[name].items() if field not in WITHOUT_EFFECT}

    @dg.asset(
        key=[experiment, name],
        deps=[dg.AssetKey([one] if one in SOURCES else [experiment, one]) for one in MADE_FROM[name]],
        code_version=f"1 {json.dumps(settings, sort_keys=True)}",
    )
    def body() -> None:
        from benchmarks.staleness.stage import produce_stage

        produce_stage(root, experiment, name)

    return body


def source_asset(name: str, path: Path) -> dg.SourceAsset:
    """The observable source asset [name]."""

    @dg.observable_source_asset(key=[name])
    def observe() -> dg.DataVersion:
        return dg.DataVersion(digest(path))

    return observe


def digest(path: Path) -> str:
    """sha256 of the file at `path`, or of the names and bytes of the files in it."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode() + file.read_bytes())
    return total.hexdigest()


def source_paths(root: Path, document: dict[str, Any]) -> dict[str, Path]:
    return {name: root / document[section][field] for name, (section, field) in SOURCES.items()}


def read_documents(root: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Experiment → the document of its file."""
    return {name: yaml.safe_load((root / "experiments" / f"{name}.yaml").read_text("utf-8")) for name in names}


def project_assets(
    root: Path, documents: dict[str, dict[str, Any]]
) -> tuple[list[dg.SourceAsset], list[dg.AssetsDefinition]]:
    """The source assets, which the experiments share, and six assets for each experiment."""
    sources = [source_asset(name, path) for name, path in source_paths(root, next(iter(documents.values()))).items()]
    stages = [
        stage_asset(root, experiment, name, document)
        for experiment, document in documents.items()
        for name in MADE_FROM
    ]
    return sources, stages


def find_stale(
    instance: dg.DagsterInstance, assets: Iterable[dg.SourceAsset | dg.AssetsDefinition], versions: dict[str, str]
) -> list[dg.AssetKey]:
    """Observe the sources, whose `versions` are given, and return the assets that are not fresh."""
    graph = dg.Definitions(assets=assets).get_repository_def().asset_graph
    before = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    for name, version in versions.items():
        if before.get_current_data_version(dg.AssetKey([name])).value != version:
            observation = dg.AssetObservation([name], tags={DATA_VERSION_TAG: version})
            instance.report_runless_asset_event(observation)
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    resolver.instance_queryer.prefetch_asset_records(graph.get_all_asset_keys())
    keys = sorted(graph.materializable_asset_keys)
    return [key for key in keys if resolver.get_status(key) != StaleStatus.FRESH]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--find", action="store_true", help="say what is stale and materialize nothing")
    parser.add_argument("experiments", nargs="*", default=["tiny"])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    root = Path.cwd()
    documents = read_documents(root, options.experiments)
    sources, stages = project_assets(root, documents)
    paths = source_paths(root, next(iter(documents.values())))
    with dg.DagsterInstance.get() as instance:
        stale = find_stale(instance, [*sources, *stages], {name: digest(path) for name, path in paths.items()})
        print(json.dumps([key.to_user_string() for key in stale]))
        if stale and not options.find:
            selection = dg.AssetSelection.assets(*stale).downstream()
            dg.materialize([*sources, *stages], instance=instance, selection=selection)


if __name__ == "__main__":
    main()
