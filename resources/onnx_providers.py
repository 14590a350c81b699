"""Whether this machine's ONNX Runtime runs what a graph was built for: without this it would fall back to the CPU."""

from __future__ import annotations

import json
from pathlib import Path

from resources.errors import ConfigurationError
from resources.olive.targets import TARGETS, provider_called


def check_provider(provider: str, place: str) -> None:
    """Raise a ConfigurationError, at `place`, where ONNX Runtime cannot run a graph for `provider` here."""
    import onnxruntime

    installed = onnxruntime.get_available_providers()
    if TARGETS[provider].onnxruntime in installed:
        return
    runs = [name for name, target in TARGETS.items() if target.onnxruntime in installed]
    raise ConfigurationError(
        place,
        f"{provider}, which ONNX Runtime {onnxruntime.__version__} on this machine cannot run "
        f"(it has {', '.join(installed)})",
        ", ".join(runs),
        f"A graph for {provider} can be built here (press run --select onnx_model) and is evaluated, registered and "
        f"asked where ONNX Runtime has {TARGETS[provider].onnxruntime}",
    )


def check_folder_runs(folder: Path) -> None:
    """Raise a ConfigurationError where ONNX Runtime cannot run the ONNX Runtime GenAI folder `folder` here."""
    for provider in providers_of(json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))):
        check_provider(provider, f"{folder}: the provider")


def providers_of(genai_config: dict) -> list[str]:
    """What a genai_config.json names beside the CPU."""
    options = genai_config["model"]["decoder"]["session_options"].get("provider_options", [])
    return [provider_called(name) for one in options for name in one]
