"""Which accelerator a stage runs on."""

from __future__ import annotations

import shutil
import subprocess

from resources.errors import ConfigurationError


def nvidia_gpus() -> list[str]:
    """One line for each NVIDIA GPU that the driver lists; empty without a driver or a GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False, timeout=30)
    return [line for line in listed.stdout.splitlines() if line.startswith("GPU ")] if listed.returncode == 0 else []


def choose_device(asked: str) -> str:
    """Returns "cpu" or "cuda" for compute.device; asking for cuda where there is none is a ConfigurationError."""
    if asked == "cpu":
        return "cpu"
    if nvidia_gpus():
        return "cuda"
    if asked == "cuda":
        raise ConfigurationError("compute.device", "cuda, and no NVIDIA GPU on this machine", "auto, cpu")
    return "cpu"
