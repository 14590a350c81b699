"""The process of a heavy recipe: reads one request from Dagster Pipes, produces, reports back.

Started as `python -m assets.worker`, as a child of the orchestrator or as a job on a compute cluster. A failure that
the user can act on is left for the orchestrator (error.json beside the artifact folder, the outcome of a job), so that
it raises the same error; anything else ends with a traceback.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster_pipes import PipesContext, open_dagster_pipes

from assets.experiment import Experiment
from assets.memory_check import check_memory
from assets.progress import PipesProgress
from assets.recipes import open_recipe
from assets.stage import Attempt, tool_version
from resources.azure.job_names import ACCOUNT
from resources.errors import ConfigurationError, PressError
from resources.gpu import Device, choose_device, installed_torch, torch_obstacle, without_torch
from resources.ran_on import MESSAGE, ran_on

ORPHAN_CHECK_SECONDS = 1.0


def main() -> int:
    """Serve the request that Dagster Pipes handed over; the exit code is 0, or that of the user's error."""
    os.dup2(2, 1)  # libraries print to standard output, which belongs to the orchestrator's answer
    return _serve_job() if ACCOUNT in os.environ else _serve_child()


def _serve_child() -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches this process, too: end at once, without a traceback
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    with open_dagster_pipes() as pipes:
        request = pipes.extras
        inputs = {name: Path(folder) for name, folder in request["inputs"].items()}
        try:
            produce(request, pipes, Path(request["folder"]), Path(request["scratch"]), inputs)
        except PressError as error:
            Path(request["error"]).write_text(json.dumps(error.to_json()))
            return error.exit_code
    return 0


def _serve_job() -> int:
    """The same with an empty store, which gets its inputs from the shared one and leaves there what it made."""
    from resources.azure.job_worker import JobSide

    with tempfile.TemporaryDirectory(prefix="press-") as work:
        folder, scratch, home = (Path(work) / name for name in ("artifact", "scratch", "home"))
        for made in (folder, scratch, home):
            made.mkdir()
        os.environ["PRESS_HOME"] = str(home)
        job = JobSide(home)
        with job.open_pipes() as pipes:
            try:
                produce(pipes.extras, pipes, folder, scratch, job.fetch_inputs(pipes.extras))
                job.leave(pipes.extras, folder)
            except PressError as error:
                job.tell(error.to_json())
                return error.exit_code
    return 0


def produce(
    request: Mapping[str, Any], pipes: PipesContext, folder: Path, scratch: Path, inputs: Mapping[str, Path]
) -> None:
    """Produce the recipe of `request` in `folder`: experiment, recipe, device, tools, bar (see Request)."""
    experiment = Experiment.model_validate(request["experiment"], strict=False)
    recipe = open_recipe(experiment, request["recipe"])
    _check_tools(request["recipe"], request["tools"])
    device = _device(request["device"], pipes)
    check_memory(request["recipe"], experiment, inputs, device)
    with PipesProgress(pipes, bar=request.get("bar", False)) as progress:
        recipe.produce(Attempt(folder, scratch, inputs, progress, device.name))
    pipes.report_custom_message({MESSAGE: ran_on(device)})


def _device(asked: str, pipes: PipesContext) -> Device:
    """What this process computes on: a GPU where the driver tells of one and PyTorch, as it is tried, can use it."""
    device = choose_device(asked)
    if device.name == "cuda" and (obstacle := torch_obstacle()):
        device = without_torch(asked, device.gpus[0], installed_torch().version, obstacle)
    if device.warning:
        pipes.log.warning(device.warning)
    return device


def _check_tools(recipe: str, tools: Mapping[str, str]) -> None:
    """The key says which tools make the artifact: others may not, or it would not be what its key says."""
    for tool, wanted in tools.items():
        if (found := tool_version(tool)) != wanted:
            remedy = "Build the environment from constraints.txt"
            raise ConfigurationError(f"{recipe}: the package {tool} where it runs", found, wanted, remedy)


def _end_with_parent(parent: int) -> None:
    """End this process when the orchestrator is gone, however it went: nobody would take the result."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
