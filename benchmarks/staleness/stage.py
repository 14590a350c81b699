"""One stage by itself, for tools that run commands: the same code as press runs, inputs and artifact in folders.

python -m benchmarks.staleness.stage NAME [--experiment tiny]

Reads artifacts/EXPERIMENT/INPUT, leaves artifacts/EXPERIMENT/NAME, and adds NAME to the file $STAGE_LOG.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from assets.experiment import Experiment, read_experiment
from assets.recipes import SOURCE_NAMES, open_recipe, open_stages
from assets.stage import Attempt, Recipe, Stage
from resources.gpu import choose_device
from resources.progress import RecordedProgress
from resources.registry.local import LocalRegistry
from resources.store.digests import FileDigests

STAGE_LOG = "STAGE_LOG"


def produce_stage(root: Path, experiment: str, name: str) -> None:
    """Leave the artifact of the stage `name` in artifacts/ below `root`; what lay there before is replaced."""
    opened = read_experiment(root / "experiments" / f"{experiment}.yaml")
    stage = open_stages(opened)[name]
    folder = artifact_folder(root, experiment, name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stage.check()
    with tempfile.TemporaryDirectory(prefix="stage-") as temporary:
        work = Path(temporary)
        inputs = {one: _input(root, opened, one, work) for one in stage.made_from}
        for part in stage.parts:
            inputs[part.name] = _produce(part(opened), work / part.name, inputs)
        _produce(stage, folder, inputs)
    _publish(root, experiment, stage, folder)
    log_executed(name)


def artifact_folder(root: Path, experiment: str, name: str) -> Path:
    return root / "artifacts" / experiment / name


def log_executed(name: str) -> None:
    """Tell the benchmark that `name` was executed; outside of it, nobody."""
    if log := os.environ.get(STAGE_LOG):
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(name + "\n")


def _input(root: Path, experiment: Experiment, name: str, work: Path) -> Path:
    if name not in SOURCE_NAMES:
        return artifact_folder(root, experiment.name, name)
    return _produce(open_recipe(experiment, name), work / name, {})


def _produce(recipe: Recipe, folder: Path, inputs: dict[str, Path]) -> Path:
    folder.mkdir(exist_ok=True)
    device = choose_device(recipe.experiment.compute.device).name
    with tempfile.TemporaryDirectory(prefix="scratch-") as scratch:
        recipe.produce(Attempt(folder, Path(scratch), inputs, RecordedProgress(), device))
    return folder


def _publish(root: Path, experiment: str, stage: Stage, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        digests = FileDigests(Path(temporary) / "digests.sqlite")
        versions = {
            name: digests.folder(artifact_folder(root, experiment, name))
            for name in stage.made_from
            if name not in SOURCE_NAMES
        }
        stage.publish(folder, versions, LocalRegistry(root))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--experiment", default="tiny")
    options = parser.parse_args()
    produce_stage(Path.cwd(), options.experiment, options.name)


if __name__ == "__main__":
    main()
