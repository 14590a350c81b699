"""The child process of a heavy recipe: reads one request from Dagster Pipes, produces, reports back.

Started as `python -m assets.worker`. A failure that the user can act on is left as error.json beside the
artifact folder, so that the orchestrator raises the same error; anything else ends with a traceback.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster_pipes import PipesContext, open_dagster_pipes

from assets.experiment import Experiment
from assets.progress import PipesProgress
from assets.recipes import open_recipe
from assets.stage import Attempt
from resources.errors import PressError
from resources.gpu import choose_device

ORPHAN_CHECK_SECONDS = 1.0


def main() -> int:
    """Serve the request that Dagster Pipes handed over; the exit code is 0, or that of the user's error."""
    os.dup2(2, 1)  # libraries print to standard output, which belongs to the orchestrator's answer
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches this process, too: end at once, without a traceback
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    with open_dagster_pipes() as pipes:
        request = pipes.extras
        try:
            produce(request, pipes)
        except PressError as error:
            Path(request["error"]).write_text(json.dumps(error.to_json()))
            return error.exit_code
    return 0


def produce(request: Mapping[str, Any], pipes: PipesContext) -> None:
    """Produce the recipe of `request`: experiment, recipe, folder, scratch, inputs (see compute.Request)."""
    experiment = Experiment.model_validate(request["experiment"], strict=False)
    recipe = open_recipe(experiment, request["recipe"])
    inputs = {name: Path(folder) for name, folder in request["inputs"].items()}
    progress = PipesProgress(pipes, bar=request["bar"])
    device = choose_device(experiment.compute.device)
    with progress:
        recipe.produce(Attempt(Path(request["folder"]), Path(request["scratch"]), inputs, progress, device))


def _end_with_parent(parent: int) -> None:
    """End this process when the orchestrator is gone, however it went: nobody would take the result."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
