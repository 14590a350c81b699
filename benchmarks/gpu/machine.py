"""What the GPU is, and how fast it copies and multiplies: the ceilings that the measurements are held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ceilings:
    """Bytes read plus bytes written in a second, and multiplications plus additions in a second."""

    bytes: float
    bfloat16: float
    tf32: float


def require_cuda() -> None:
    """End the benchmark with a line that says so where PyTorch finds no GPU."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu: PyTorch finds no NVIDIA GPU here; it needs one, and PyTorch built for CUDA")


def description() -> str:
    """One line: the GPU, its memory and driver, and the versions of what runs on it."""
    import platform

    import torch
    import transformers

    found = torch.cuda.get_device_properties(0)
    gpu = f"{found.name}, {found.total_memory / 1e9:.0f} GB, compute capability {found.major}.{found.minor}"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    return f"{gpu}, driver {_driver()}, {versions}"


def _driver() -> str:
    import pynvml  # pyright: ignore[reportMissingImports]

    pynvml.nvmlInit()
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()


def measured_ceilings() -> Ceilings:
    """Ceilings of this GPU: a copy of 4 GB, and products of random square matrices of 8192 rows."""
    import torch

    source = torch.empty(1 << 30, device="cuda").normal_()
    target = torch.empty_like(source)
    copying = seconds(lambda target=target, source=source: target.copy_(source))
    copied = 2 * source.numel() * source.element_size()
    del source, target  # 8 GB
    size = 8192
    rates = {}
    for dtype, precision in ((torch.bfloat16, "highest"), (torch.float32, "high")):
        torch.set_float32_matmul_precision(precision)
        a, b = torch.randn(2, size, size, device="cuda").to(dtype)
        out = torch.empty_like(a)
        rates[dtype] = 2 * size**3 / seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
    torch.set_float32_matmul_precision("highest")
    return Ceilings(copied / copying, rates[torch.bfloat16], rates[torch.float32])


def seconds(work: Callable[[], Any], repeats: int = 15) -> float:
    """Median seconds of `work` on the GPU, after three runs to warm up."""
    import torch

    for _ in range(3):
        work()
    taken = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end) / 1e3)
    return sorted(taken)[repeats // 2]
