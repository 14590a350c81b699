"""The `gpu` resource: what the stages of this machine compute on, a GPU for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.gpu import VISIBLE, Device, Gpus, NvidiaGpus, TorchBuild, choose_device
from resources.gpu_lease import GpuLeases


class Accelerators:
    """What stages may compute on here, and which of them computes on what.

    gpus, torch_build: those of this machine where they are not told.
    """

    def __init__(
        self, gpus: Gpus | None = None, torch_build: TorchBuild | None = None, folder: Path | None = None
    ) -> None:
        self._gpus = gpus or NvidiaGpus()
        self._torch_build = torch_build
        self._leases = GpuLeases(self._gpus, folder)

    def choose(self, asked: str, place: str = "compute.device") -> Device:
        """The device for `asked`, "auto", "cpu" or "cuda"; a ConfigurationError for cuda that cannot be had."""
        return choose_device(asked, self._gpus, self._torch_build, place=place)

    def slots(self) -> int:
        """How many stages can compute on GPUs at once, one on each; 0 where none can."""
        return len(self.choose("auto").gpus)

    @contextmanager
    def lease(self, device: Device, on_wait: Callable[[str], None]) -> Iterator[dict[str, str]]:
        """The environment in which a worker sees the GPU that it has alone inside the block; empty on the CPU."""
        if device.name == "cpu":
            yield {}
            return
        with self._leases.take(device.gpus, on_wait) as gpu:
            yield {VISIBLE: gpu.uuid}
