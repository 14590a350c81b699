"""What a stage ran on, as its worker tells it: provenance, shown with the artifact and never in a key."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resources.gpu import Device
from resources.peak_memory import peak_memory_bytes

MESSAGE = "ran_on"  # beside a worker's log


def ran_on(device: Device) -> dict[str, Any]:
    """What this process ran on, and its peaks of memory in bytes.

    device, cpu, peak_memory; threads where PyTorch was used; on "cuda" also gpu, gpu_memory, driver, capability,
    peak_gpu_memory.
    """
    told: dict[str, Any] = {"device": device.name, "cpu": cpu_name(), "peak_memory": peak_memory_bytes()}
    if "torch" in sys.modules:
        import torch

        told["threads"] = torch.get_num_threads()
        if device.name == "cuda":
            gpu = device.gpus[0]
            told |= {
                "gpu": gpu.name,
                "gpu_memory": gpu.memory or torch.cuda.get_device_properties(0).total_memory,
                "driver": gpu.driver,
                "capability": gpu.capability,
                "peak_gpu_memory": torch.cuda.max_memory_allocated(),
            }
    return told


def told_ran_on(messages: Sequence[Any]) -> Mapping[str, Any]:
    """What a worker told of where it ran, among its messages; empty where it told nothing."""
    told = [message[MESSAGE] for message in messages if isinstance(message, Mapping) and MESSAGE in message]
    return told[-1] if told else {}


def cpu_name() -> str:
    """The name of the processor, as far as the system tells it."""
    file = Path("/proc/cpuinfo")
    if file.is_file():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
