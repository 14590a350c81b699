"""Lists of Olive passes that an experiment names: what is seen of them without importing Olive, and the full check.

The names, modules and needs of Olive's passes are read from its package config; whether the parameters of a pass fit is
Olive's own validation, in a process of its own (pass_check.py), because that imports torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from re import match
from typing import Any, Literal

from resources.errors import ConfigurationError, StageError
from resources.telemetry import TELEMETRY_OFF

Kind = Literal["awq_model", "onnx_model"]
OlivePass = Mapping[str, Any]  # {"type": NAME, PARAMETER: VALUE, …}

OURS = "OlivePressAwq"
PROJECT = Path(__file__).resolve().parent.parent.parent
# Modules whose passes take what the stage has and leave what the next one takes.
MODULES: Mapping[Kind, str] = {"awq_model": "olive.passes.pytorch.", "onnx_model": "olive.passes.onnx."}
TAKES: Mapping[Kind, str] = {"awq_model": "a Hugging Face model", "onnx_model": "an ONNX graph"}

TRAINS = "it trains an adapter, which is what lora_adapter does"
BUILDS = "it makes a graph of a PyTorch model, and the graph is built before this list"
SPLITS = "it leaves several graphs, and ONNX Runtime GenAI opens one"
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("LoRA", "LoHa", "LoKr", "DoRA", "QLoRA", "LoftQ", "MergeAdapterWeights"), TRAINS),
    **dict.fromkeys(("OnnxConversion", "OptimumConversion", "ModelBuilder", "MobiusBuilder"), BUILDS),
    **dict.fromkeys(("SplitModel", "StaticLLM", "ComposeOnnxModels", "OptimumMerging"), SPLITS),
    "SpinQuant": "it calibrates on a data set that it downloads",
    "SliceGPT": "its model has layers of another size, which transformers does not load",
    "OrtSessionParamsTuning": "it searches settings of this machine, which make no model",
    "OnnxDiscrepancyCheck": "it compares and makes no model; eval_report holds graphs to PyTorch",
}
NOT_NEEDED = ("onnxoptimizer",)  # passes that name it do without


def check_list(passes: Sequence[OlivePass], kind: Kind, place: str, provider: str = "CPUExecutionProvider") -> None:
    """Raise a ConfigurationError for the first pass that `kind` cannot run, as far as is seen without Olive's code.

    place: of the list, "NAME.yaml: awq_model.olive_passes". provider: ONNX Runtime's name of what the graph is for.
    """
    for index, one in enumerate(passes):
        _check_pass(one, kind, f"{place}[{index}]", provider)


def check_parameters(passes: Sequence[OlivePass], kind: Kind, place: str, device: str, provider: str) -> None:
    """Raise a ConfigurationError for the first parameter that Olive refuses; takes seconds once for each list.

    device: Olive's word, "cpu" or "gpu".
    """
    found = _mistakes(json.dumps({"passes": list(passes), "kind": kind, "device": device, "provider": provider}))
    if found:
        first, *others = [(f"{place}{mistake['at']}", mistake["found"], mistake["accepted"]) for mistake in found]
        also = "; ".join(f"{where}: found {what}; accepted: {accepted}" for where, what, accepted in others)
        raise ConfigurationError(*first, f"Also {also}" if also else "")


def pass_tools(passes: Sequence[OlivePass]) -> dict[str, str]:
    """Package → installed version, for the installed ones that passes need beside Olive's own."""
    named = {package: _installed(package) for one in passes for package in _packages(one["type"])}
    return {package: told for package, told in named.items() if told is not None}


def known_passes() -> dict[str, dict[str, Any]]:
    """Name → what Olive's package config says of the pass."""
    return _package_config()["passes"]


def canonical(name: str) -> str | None:
    """Olive's spelling of a pass's name, which it reads in any case; None for an unknown one."""
    return _spellings().get(name.lower())


def _check_pass(one: OlivePass, kind: Kind, place: str, provider: str) -> None:
    name = canonical(one["type"])
    if name is None:
        raise ConfigurationError(f"{place}.type", repr(one["type"]), ", ".join(sorted(_offered(kind))))
    if name == OURS and kind == "awq_model":
        if extra := sorted(one.keys() - {"type"}):
            accepted = "no parameter; those of OlivePressAwq are the fields of awq_model"
            raise ConfigurationError(f"{place}.{extra[0]}", repr(one[extra[0]]), accepted)
        return
    reason = REFUSED.get(name)
    if reason is None and not known_passes().get(name, {}).get("module_path", "").startswith(MODULES[kind]):
        reason = f"{kind} runs passes on {TAKES[kind]}, and it is none of them"
    if reason is None and (missing := _missing(name)):
        reason = f"it needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
    told = known_passes().get(name, {})
    if reason is None and kind == "onnx_model" and told.get("dataset") == "dataset_required":
        reason = "it needs a data set, and there are no samples for a graph"
    providers = told.get("supported_providers", ["*"])
    if reason is None and providers != ["*"] and provider not in providers:
        reason = f"it is for {', '.join(providers)}, and the model is for {provider}"
    if reason is not None:
        others = ", ".join(sorted(other for other in _offered(kind) if other != name))
        raise ConfigurationError(f"{place}.type", f"{name}: {reason}", others)


def _offered(kind: Kind) -> Iterator[str]:
    """The passes that `kind` may run, as far as their packages are there."""
    for name, told in known_passes().items():
        if told["module_path"].startswith(MODULES[kind]) and name not in REFUSED and not _missing(name):
            yield name
    if kind == "awq_model":
        yield OURS


def _missing(name: str) -> list[str]:
    return [package for package in _packages(name) if _installed(package) is None and package not in NOT_NEEDED]


def _packages(name: str) -> list[str]:
    """The distributions that a pass needs beside Olive's own."""
    told = known_passes().get(canonical(name) or "", {})
    extras = _package_config()["extra_dependencies"]
    named = [
        *told.get("module_dependencies", []),
        *(p for e in told.get("extra_dependencies", []) for p in extras.get(e, [e])),
    ]
    found = (match(r"[A-Za-z0-9._-]+", requirement) for requirement in named)
    return sorted({one[0] for one in found if one})


def _installed(package: str) -> str | None:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None


@cache
def _package_config() -> dict[str, Any]:
    olive = find_spec("olive")
    if olive is None or not olive.submodule_search_locations:
        raise ConfigurationError("the package olive-ai", "no installation", "the version in constraints.txt")
    file = Path(olive.submodule_search_locations[0]) / "olive_config.json"
    return json.loads(file.read_text(encoding="utf-8"))


@cache
def _spellings() -> dict[str, str]:
    return {name.lower(): name for name in (*known_passes(), OURS)}


@cache
def _mistakes(request: str) -> list[dict[str, str]]:
    """What pass_check.py says of `request`: [{"at": "[0].bits", "found": …, "accepted": …}, …]."""
    import os

    done = subprocess.run(
        [sys.executable, "-m", "resources.olive.pass_check"],
        cwd=PROJECT,
        env=os.environ | TELEMETRY_OFF,
        input=request,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        raise StageError("olive_passes", f"Olive could not be asked whether it runs the passes: {last}")
    return json.loads(done.stdout)
