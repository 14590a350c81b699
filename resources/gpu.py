"""The accelerator: which NVIDIA GPUs this machine has, told by NVML, and whether a stage computes on one of them.

Finding them takes milliseconds and does not import PyTorch, whose build is read from its files; only who is about to
compute tries it (`torch_obstacle`).
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from resources.errors import ConfigurationError

VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICES = "compute.device"


@dataclass(frozen=True)
class Gpu:
    """One GPU. memory: bytes, 0 where it is not told; cuda: major and minor version that its driver serves."""

    index: int
    uuid: str
    name: str
    memory: int
    capability: str
    driver: str
    cuda: tuple[int, int]


class Gpus(Protocol):
    """The GPUs of a machine."""

    def installed(self) -> tuple[Gpu, ...]:
        """Every GPU, in the order of the driver; none without a driver."""
        ...

    def free_memory(self, gpu: Gpu) -> int | None:
        """Bytes of `gpu` that nobody uses now; None where it is not told."""
        ...


@dataclass(frozen=True)
class DescribedGpus:
    """GPUs that are known by their description alone, all of their memory free."""

    gpus: tuple[Gpu, ...] = ()

    def installed(self) -> tuple[Gpu, ...]:
        return self.gpus

    def free_memory(self, gpu: Gpu) -> int | None:
        return gpu.memory


class NvidiaGpus:
    """The GPUs that NVIDIA's driver tells of through its management library."""

    def installed(self) -> tuple[Gpu, ...]:
        with _nvml() as nvml:
            if nvml is None:
                return ()
            driver, cuda = nvml.nvmlSystemGetDriverVersion(), nvml.nvmlSystemGetCudaDriverVersion()
            versions = str(driver), (cuda // 1000, cuda % 1000 // 10)
            found = (_described(nvml, index, *versions) for index in range(nvml.nvmlDeviceGetCount()))
            return tuple(gpu for gpu in found if gpu is not None)

    def free_memory(self, gpu: Gpu) -> int | None:
        with _nvml() as nvml:
            if nvml is None:
                return None
            try:
                return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(gpu.uuid)).free)
            except nvml.NVMLError:
                return None


@contextmanager
def _nvml() -> Iterator[Any]:
    """NVML, ready to be asked; None where there is no driver that answers."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _described(nvml: Any, index: int, driver: str, cuda: tuple[int, int]) -> Gpu | None:
    """The GPU at `index`; None for one that fell off its bus."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
    except nvml.NVMLError:
        return None
    try:
        memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:  # it shares the memory of the machine
        memory = 0
    return Gpu(index, str(uuid), str(name), memory, f"{major}.{minor}", driver, cuda)


def visible_gpus(gpus: Sequence[Gpu], setting: str | None) -> tuple[Gpu, ...]:
    """Those of `gpus` that CUDA_VISIBLE_DEVICES lets a process use, in its order; all where it is not set.

    Numbers count as the driver counts. As in CUDA, what follows an entry that names no GPU is not visible.
    """
    if setting is None:
        return tuple(gpus)
    visible: list[Gpu] = []
    for entry in setting.split(","):
        gpu = _named(gpus, entry.strip())
        if gpu is None or gpu in visible:
            break
        visible.append(gpu)
    return tuple(visible)


def _named(gpus: Sequence[Gpu], entry: str) -> Gpu | None:
    if entry.startswith("MIG-") and gpus:
        return replace(gpus[0], uuid=entry, memory=0)  # a slice of a GPU: its size is not told here
    if entry.isdecimal():
        return next((gpu for gpu in gpus if gpu.index == int(entry)), None)
    return next((gpu for gpu in gpus if entry.startswith("GPU-") and gpu.uuid.startswith(entry)), None)


class TorchBuild(NamedTuple):
    """The PyTorch that is installed; cuda: the version it was built for, None for a build without."""

    version: str
    cuda: str | None


def installed_torch() -> TorchBuild:
    """What PyTorch's own files say of it; imports nothing."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise ConfigurationError("the package torch", "no installation", "the version in constraints.txt")
    told = runpy.run_path(str(Path(spec.origin).parent / "version.py"))
    return TorchBuild(told["__version__"], told.get("cuda"))


@dataclass(frozen=True)
class Device:
    """What a stage computes on, and the GPUs that it may use where that is "cuda".

    warning: why it is not a GPU although there is one.
    """

    name: Literal["cpu", "cuda"]
    gpus: tuple[Gpu, ...] = ()
    warning: str = ""


def choose_device(
    asked: str,
    gpus: Gpus | None = None,
    torch_build: TorchBuild | None = None,
    environment: Mapping[str, str] = os.environ,
    place: str = DEVICES,
) -> Device:
    """The device for `asked`: "auto", "cpu" or "cuda"; asking for cuda that cannot be had is a ConfigurationError.

    gpus and torch_build are those of this machine where they are not told.
    """
    if asked == "cpu":
        return Device("cpu")
    installed = (gpus or NvidiaGpus()).installed()
    visible = visible_gpus(installed, environment.get(VISIBLE))
    if not visible:
        if asked == "cuda":
            raise _no_gpu(place, installed, environment.get(VISIBLE))
        return Device("cpu")
    build = torch_build or installed_torch()
    obstacle = _build_obstacle(visible[0], build)
    return without_torch(asked, visible[0], build.version, obstacle, place) if obstacle else Device("cuda", visible)


def without_torch(asked: str, gpu: Gpu, version: str, obstacle: str, place: str = DEVICES) -> Device:
    """The CPU, with a warning, where PyTorch cannot use the GPU; a ConfigurationError where cuda was asked for."""
    found = f"a GPU ({gpu.name}) that PyTorch {version} cannot use: {obstacle}"
    if asked == "cuda":
        remedy = f"Install a PyTorch whose CUDA the driver {gpu.driver} serves"
        raise ConfigurationError(place, f"cuda, and {found}", "auto, cpu", remedy)
    return Device("cpu", warning=f"stages run on the CPU: this machine has {found}")


def torch_obstacle() -> str:
    """Why PyTorch cannot compute on the first visible GPU, as it is tried; empty where it can."""
    import torch

    try:
        torch.ones(8, device="cuda").cumsum(0).sum().item()
    except (RuntimeError, AssertionError) as error:  # the latter from a build without CUDA
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


def _build_obstacle(gpu: Gpu, build: TorchBuild) -> str:
    """Why a GPU with this driver is of no use to this build; empty where nothing is known against it."""
    if build.cuda is None:
        return "it was built without CUDA"
    if int(build.cuda.partition(".")[0]) > gpu.cuda[0]:
        serves = ".".join(map(str, gpu.cuda))
        return f"it was built for CUDA {build.cuda}, and the driver {gpu.driver} serves CUDA up to {serves}"
    return ""


def _no_gpu(place: str, installed: Sequence[Gpu], setting: str | None) -> ConfigurationError:
    if installed:
        found = f"cuda, and {VISIBLE}={setting!r}, which hides the {len(installed)} NVIDIA GPUs of this machine"
        named = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in installed)
        return ConfigurationError(place, found, "auto, cpu", f"Unset {VISIBLE}, or name one of {named}")
    told = f" ({VISIBLE}={setting})" if setting else ""
    return ConfigurationError(place, f"cuda, and no NVIDIA GPU on this machine{told}", "auto, cpu")
