"""Which accelerator a stage runs on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence

from resources.errors import ConfigurationError


def nvidia_gpus() -> list[str]:
    """One line for each NVIDIA GPU that the driver lists; empty without a driver or a GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False, timeout=30)
    return [line for line in listed.stdout.splitlines() if line.startswith("GPU ")] if listed.returncode == 0 else []


def choose_device(asked: str) -> str:
    """Returns "cpu" or "cuda" for compute.device; asking for cuda that cannot be had is a ConfigurationError."""
    if asked == "cpu":
        return "cpu"
    return agreed_device(asked, nvidia_gpus(), _torch_cuda)


def agreed_device(asked: str, gpus: Sequence[str], torch_cuda: Callable[[], tuple[str, bool]]) -> str:
    """Returns "cuda" where the driver lists GPUs and PyTorch can use them.

    asked: "auto" or "cuda"; torch_cuda: PyTorch's version and whether it can use a GPU, asked where there is one.
    """
    if not gpus:
        found = "no NVIDIA GPU on this machine"
    else:
        version, usable = torch_cuda()
        if usable:
            return "cuda"
        found = f"a GPU ({gpus[0].partition(' (UUID')[0]}) that PyTorch {version} cannot use"
    if asked == "cuda":
        remedy = "Install a PyTorch whose CUDA the driver supports" if gpus else ""
        raise ConfigurationError("compute.device", f"cuda, and {found}", "auto, cpu", remedy)
    return "cpu"


def _torch_cuda() -> tuple[str, bool]:
    import torch

    return str(torch.__version__), torch.cuda.is_available()
