"""Where a model computes: whole on a device that holds it, one module at a time on a smaller one."""

from __future__ import annotations

from typing import Any

BESIDE, SHARE = 1_000_000_000, 1.1  # bytes, and a share of the weights, for what goes through them


def fits(size: int, device: str, free: int | None = None) -> bool:
    """Whether weights of `size` bytes, and what goes through them, have room on `device`.

    free: bytes that are free there, asked where they are not told; the CPU's are not counted.
    """
    if not device.startswith("cuda"):
        return True
    return SHARE * size + BESIDE <= (free_memory(device) if free is None else free)


def free_memory(device: Any) -> int:
    """Bytes that are free on the GPU `device`, with those that PyTorch keeps there of what was deleted."""
    import torch

    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def placed(model: Any, device: str, free: int | None = None) -> Any:
    """`model` computing on `device`: moved there, or module by module where it does not fit."""
    if model.device.type == device.split(":")[0]:
        return model
    if fits(model.get_memory_footprint(), device, free):
        return model.to(device)
    return module_by_module(model, device)


def module_by_module(model: Any, device: str) -> Any:
    """`model` with its weights in the machine's memory; each module's are on `device` while it computes.

    Its values are those of the whole model on `device`; what it returns is where its inputs were.
    """
    import torch
    from accelerate import cpu_offload

    return cpu_offload(model, execution_device=torch.device(device))


def input_device(model: Any) -> str:
    """Where inputs of a `model` that is placed belong."""
    return "cpu" if model.device.type == "meta" else str(model.device)
