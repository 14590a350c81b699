"""Where heavy recipes run, spoken to through Dagster Pipes: a child process of this machine, or what is like it."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError
from dagster._core.pipes.subprocess import PipesSubprocessClient  # dg's lazy attribute hides it from type checkers
from dagster._core.pipes.utils import PipesEnvContextInjector, PipesTempFileMessageReader, open_pipes_session

from resources.accelerators import Accelerators
from resources.errors import PressError, StageError, told_error
from resources.preloaded import PROJECT, PreloadedWorkers, can_preload, worker_environment
from resources.ran_on import told_ran_on


@dataclass(frozen=True)
class Request:
    """What a worker is told: one recipe of one experiment, where to leave it and what it reads.

    key_id: of the artifact that is made. tools: package → version that the key says; a worker with others refuses.
    device: what it may compute on, "auto", "cpu" or "cuda"; "cpu" also for a recipe that has no use for a GPU.
    """

    experiment: Mapping[str, Any]
    recipe: str
    folder: Path
    scratch: Path
    inputs: Mapping[str, Path]
    key_id: str
    tools: Mapping[str, str]
    device: str = "cpu"


class Compute(Protocol):
    """A place where a worker can run."""

    def check(self) -> None:
        """Return when a worker can run here now, as far as is seen before; a ConfigurationError says why it cannot."""
        ...

    def run(self, context: dg.AssetExecutionContext, request: Request) -> Mapping[str, Any]:
        """What the worker ran on, when it has left the artifact in `request.folder`; the PressError it ended with."""
        ...


class LocalCompute:
    """Runs the worker as a process of its own: a crash or a kill ends the stage, not the orchestrator.

    A worker that computes on a GPU sees no other one, and has it alone.
    """

    def __init__(
        self, show_bars: bool = False, workers: PreloadedWorkers | None = None, accelerators: Accelerators | None = None
    ) -> None:
        self._show_bars = show_bars
        self._workers = workers or PreloadedWorkers()
        self._accelerators = accelerators or Accelerators()
        self._told: set[str] = set()

    def check(self) -> None:
        """Nothing is in the way of a child process."""

    def run(self, context: dg.AssetExecutionContext, request: Request) -> Mapping[str, Any]:
        device = self._accelerators.choose(request.device)
        if device.warning and device.warning not in self._told:
            self._told.add(device.warning)
            context.log.warning(device.warning)
        with self._accelerators.lease(device, context.log.info) as environment:
            return self._run(context, replace(request, device=request.device if environment else "cpu"), environment)

    def _run(
        self, context: dg.AssetExecutionContext, request: Request, environment: Mapping[str, str]
    ) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory(prefix="press-") as answer:
            error_file = Path(answer) / "error.json"
            extras: dict[str, Any] = {
                "experiment": dict(request.experiment),
                "recipe": request.recipe,
                "device": request.device,
                "folder": str(request.folder),
                "scratch": str(request.scratch),
                "inputs": {name: str(folder) for name, folder in request.inputs.items()},
                "tools": dict(request.tools),
                "error": str(error_file),
                "bar": self._show_bars,
            }
            try:
                return told_ran_on(self._work(context, extras, environment))
            except DagsterPipesExecutionError as error:
                raise _failure(request.recipe, error_file, error) from error

    def _work(
        self, context: dg.AssetExecutionContext, extras: dict[str, Any], environment: Mapping[str, str]
    ) -> Sequence[Any]:
        """The messages that the worker left beside its log."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # Dagster's own, about its own method
            if not can_preload():
                client = PipesSubprocessClient(cwd=str(PROJECT), env={**worker_environment(), **environment})
                command = [sys.executable, "-m", "assets.worker"]
                return client.run(context=context, command=command, extras=extras).get_custom_messages()
            with open_pipes_session(
                context, PipesEnvContextInjector(), PipesTempFileMessageReader(), extras=extras
            ) as session:
                code = self._workers.serve({**session.get_bootstrap_env_vars(), **environment})
        if code != 0:
            raise DagsterPipesExecutionError(f"External execution process failed with code {code}")
        return session.get_custom_messages()


def _failure(recipe: str, error_file: Path, error: DagsterPipesExecutionError) -> PressError:
    """What the worker said of its failure, or what is known of a worker that could say nothing."""
    if not error_file.exists():
        return StageError(
            recipe,
            f"its process ended without an answer ({error})",
            "Its output above tells why; code -9 is a kill, most often for lack of memory",
        )
    return told_error(json.loads(error_file.read_text()))
