"""DVC: a dvc.yaml of the same six stages, as a careful user writes it.

Its stages run the code that press runs (benchmarks/staleness/stage.py). Every stage lists what decides its artifact:
the data it reads, of an input with files that it never opens the others one by one; every module behind it, which press
finds by itself and a DVC user keeps by hand; every field of the experiment that counts. DVC has no word for the
versions of installed packages. It lives in a virtual environment of its own, with analytics and update checks off.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from assets.experiment import Experiment
from assets.fingerprint import implementing_modules
from assets.recipes import SOURCES, STAGES
from assets.stage import Recipe
from benchmarks.staleness.tool import Tool
from benchmarks.staleness.workspace import EXPERIMENT, ROOT, Workspace, read_document

VERSION = "3.67.1"
# The files of inputs that a stage opens only some of.
FILES = {
    "awq_model": (
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ),
    "lora_adapter": ("adapter_config.json", "adapter_model.safetensors"),
}
SIDES = {("lora_adapter", "dataset"): ("train.jsonl",), ("eval_report", "dataset"): ("eval.jsonl",)}
WHOLE = {("registered_model", "onnx_model"), ("registered_model", "eval_report"), ("eval_report", "onnx_model")}


def install_dvc(folder: Path) -> Path:
    """The dvc program of a virtual environment in `folder`, made where it is missing."""
    program = folder / f"dvc-{VERSION}" / "bin" / "dvc"
    if not program.is_file():
        environment = program.parent.parent
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--quiet", f"dvc=={VERSION}"]
        subprocess.run(pip, check=True, stdout=sys.stderr)
    return program


def dvc_yaml(experiments: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The document of dvc.yaml: six stages for each experiment, name → document of its file."""
    if list(experiments) == [EXPERIMENT]:
        return {"stages": {stage.name: _stage(stage, EXPERIMENT, experiments[EXPERIMENT]) for stage in STAGES}}
    first = next(iter(experiments.values()))
    names = list(experiments)
    return {
        "stages": {stage.name: {"foreach": names, "do": _stage(stage, "${item}", first)} for stage in STAGES},
    }


def _stage(stage: type[Recipe], experiment: str, document: dict[str, Any]) -> dict[str, Any]:
    deps = [path for name in stage.made_from for path in _input(stage.name, name, experiment, document)]
    option = "" if experiment == EXPERIMENT else f" --experiment {experiment}"
    section: dict[str, Any] = {
        "cmd": f"python -m benchmarks.staleness.stage {stage.name}{option}",
        "deps": sorted({*deps, *_modules(stage)}),
    }
    section["params"] = [{f"experiments/{experiment}.yaml": _params(stage, document)}]
    section["outs"] = [f"artifacts/{experiment}/{stage.name}"]
    return section


def _input(stage: str, name: str, experiment: str, document: dict[str, Any]) -> list[str]:
    places = {
        "source_data": document["dataset"]["path"],
        "base_model": document["base_model"]["folder"],
        "calibration_text": document["awq_model"]["calibration_text"],
    }
    if name in places:
        return [places[name]]
    folder = f"artifacts/{experiment}/{name}"
    if (stage, name) in WHOLE:
        return [folder]
    return [f"{folder}/{file}" for file in SIDES.get((stage, name)) or FILES[name]]


def _modules(stage: type[Recipe]) -> Iterable[str]:
    """The files of the modules behind a stage and what brings its sources in; empty ones change nothing."""
    parts: tuple[type[Recipe], ...] = getattr(stage, "parts", ())
    sources = [source for source in SOURCES if source.name in stage.made_from]
    names = set[str]().union(*(implementing_modules(one.__module__) for one in (stage, *parts, *sources)))
    for name in names:
        module = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        if module.is_file():
            yield module.relative_to(ROOT).as_posix()


def _params(stage: type[Recipe], document: dict[str, Any]) -> list[str]:
    """The fields of the experiment that decide the artifact of `stage`; those that name a place are none."""
    experiment = Experiment(name=EXPERIMENT, root=ROOT, **document)
    fields = [f"{stage.name}.{name}" for name in getattr(experiment, stage.name).key_fields()]
    return [*fields, "base_model.trust_remote_code"] if "base_model" in stage.made_from else fields


class Dvc(Tool):
    """One dvc.yaml; artifacts lie in artifacts/ of the workspace, DVC's cache in .dvc/cache."""

    name = "DVC"
    home = ".dvc/cache"

    def __init__(self, program: Path) -> None:
        self._program = str(program)

    def prepare(self, workspace: Workspace) -> None:
        self.follow(workspace)
        for command in (
            ["git", "init", "--quiet"],
            ["git", "config", "user.name", "benchmark"],
            ["git", "config", "user.email", "benchmark@example.com"],
            [self._program, "init", "--quiet"],
            [self._program, "config", "core.analytics", "false"],
            [self._program, "config", "core.check_update", "false"],
            ["git", "add", "--all"],
            ["git", "commit", "--quiet", "--message", "Begin"],
        ):
            self.run(workspace, command)

    def environment(self, workspace: Workspace) -> dict[str, str]:
        own = workspace.root / ".dvc" / "tmp"
        return {
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(own / "site"),
            "DVC_GLOBAL_CONFIG_DIR": str(own / "global"),
            "DVC_SYSTEM_CONFIG_DIR": str(own / "system"),
        }

    def update_command(self, workspace: Workspace) -> list[str]:
        return [self._program, "repro"]

    def find_command(self, workspace: Workspace) -> list[str]:
        return [self._program, "status", "--json"]

    def follow(self, workspace: Workspace) -> None:
        write_dvc_yaml(workspace, [EXPERIMENT])

    def move_home(self, workspace: Workspace) -> None:
        super().move_home(workspace)
        self.run(workspace, [self._program, "cache", "dir", "--local", str(self.home_folder(workspace))])


def write_dvc_yaml(workspace: Workspace, names: list[str]) -> None:
    """dvc.yaml of the workspace for the experiments `names`."""
    folder = workspace.root / "experiments"
    document = dvc_yaml({name: read_document(folder / f"{name}.yaml") for name in names})
    text = yaml.safe_dump(document, sort_keys=False, width=1000)
    (workspace.root / "dvc.yaml").write_text(text, encoding="utf-8")
