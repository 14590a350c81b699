"""Where heavy recipes run, spoken to through Dagster Pipes: a child process of this machine, or what is like it."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError
from dagster._core.pipes.subprocess import PipesSubprocessClient  # dg's lazy attribute hides it from type checkers
from dagster._core.pipes.utils import PipesEnvContextInjector, PipesTempFileMessageReader, open_pipes_session

from resources.errors import PressError, StageError, told_error
from resources.preloaded import PROJECT, QUIET, PreloadedWorkers, can_preload


@dataclass(frozen=True)
class Request:
    """What a worker is told: one recipe of one experiment, where to leave it and what it reads.

    key_id: of the artifact that is made. tools: package → version that the key says; a worker with others refuses.
    """

    experiment: Mapping[str, Any]
    recipe: str
    folder: Path
    scratch: Path
    inputs: Mapping[str, Path]
    key_id: str
    tools: Mapping[str, str]


class Compute(Protocol):
    """A place where a worker can run."""

    def check(self) -> None:
        """Return when a worker can run here now, as far as is seen before; a ConfigurationError says why it cannot."""
        ...

    def run(self, context: dg.AssetExecutionContext, request: Request) -> None:
        """Return when the worker has left the artifact in `request.folder`; raise the PressError it ended with."""
        ...


class LocalCompute:
    """Runs the worker as a process of its own: a crash or a kill ends the stage, not the orchestrator."""

    def __init__(self, show_bars: bool = False, workers: PreloadedWorkers | None = None) -> None:
        self._show_bars = show_bars
        self._workers = workers or PreloadedWorkers()
        self._client = PipesSubprocessClient(cwd=str(PROJECT), env=QUIET)

    def check(self) -> None:
        """Nothing is in the way of a child process."""

    def run(self, context: dg.AssetExecutionContext, request: Request) -> None:
        with tempfile.TemporaryDirectory(prefix="press-") as answer:
            error_file = Path(answer) / "error.json"
            extras: dict[str, Any] = {
                "experiment": dict(request.experiment),
                "recipe": request.recipe,
                "folder": str(request.folder),
                "scratch": str(request.scratch),
                "inputs": {name: str(folder) for name, folder in request.inputs.items()},
                "tools": dict(request.tools),
                "error": str(error_file),
                "bar": self._show_bars,
            }
            try:
                self._work(context, extras)
            except DagsterPipesExecutionError as error:
                raise _failure(request.recipe, error_file, error) from error

    def _work(self, context: dg.AssetExecutionContext, extras: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # Dagster's own, about its own method
            if not can_preload():
                self._client.run(context=context, command=[sys.executable, "-m", "assets.worker"], extras=extras)
                return
            with open_pipes_session(
                context, PipesEnvContextInjector(), PipesTempFileMessageReader(), extras=extras
            ) as session:
                code = self._workers.serve(session.get_bootstrap_env_vars())
        if code != 0:
            raise DagsterPipesExecutionError(f"External execution process failed with code {code}")


def _failure(recipe: str, error_file: Path, error: DagsterPipesExecutionError) -> PressError:
    """What the worker said of its failure, or what is known of a worker that could say nothing."""
    if not error_file.exists():
        return StageError(
            recipe,
            f"its process ended without an answer ({error})",
            "Its output above tells why; code -9 is a kill, most often for lack of memory",
        )
    return told_error(json.loads(error_file.read_text()))
