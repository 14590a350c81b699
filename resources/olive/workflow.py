"""Runs one Olive workflow: a run config in, the model folder that its last pass made out.

Olive's cache tells data files apart by path, not by content, so every run gets a cache of its own that is thrown
away afterwards. Olive's engine logs most failures and returns without a model; here they become a StageError.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

from resources.errors import PressError, StageError
from resources.olive.progress_channel import current_progress, reporting_to
from resources.progress import Progress
from resources.telemetry import TELEMETRY_OFF

# Files of Olive's engine beside the model: they hold paths and times.
ENGINE_FILES = ("model_config.json", "footprint.json", "output_footprint.json", "run_history.txt")


def package_config(passes: Mapping[str, str]) -> dict[str, Any]:
    """Olive's package config with `passes` of ours added to its own: class name → module that defines it."""
    from olive.package_config import OlivePackageConfig

    document = json.loads(Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8"))
    document["passes"] |= {name: {"module_path": f"{module}.{name}"} for name, module in passes.items()}
    return document


def run_workflow(
    run_config: Mapping[str, Any],
    folder: Path,
    progress: Progress | None = None,
    passes: Mapping[str, str] | None = None,
) -> None:
    """Leave in `folder` what the last pass of `run_config` made: the adapter where there is one, else the model.

    passes: our own passes that the run config names, class name → module, e.g.
    {"OlivePressAwq": "resources.olive.passes.awq"}. They are given here and not kept in one table, so that a stage's
    code fingerprint holds its own passes only. They report to `progress` (resources/olive/progress_channel.py).
    `workflow_id` in the run config names the stage in a StageError, which carries Olive's message.
    """
    os.environ.update(TELEMETRY_OFF)  # read by Olive when it is imported
    stage = run_config.get("workflow_id", "olive")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".olive-", dir=folder) as private:
        config = deepcopy(dict(run_config)) | {  # Olive changes what it is given
            "output_dir": f"{private}/output",
            "cache_dir": f"{private}/cache",
            "log_severity_level": 2,
        }
        with reporting_to(progress), _olive_log() as failures:
            made = _run(stage, config, passes or {}, failures)
        _move(made, folder)


def _run(stage: str, config: dict[str, Any], passes: Mapping[str, str], failures: list[BaseException]) -> Path:
    """Run the workflow; the path of the model or adapter it made."""
    from olive.exception import EXCEPTIONS_TO_RAISE
    from olive.workflows import run

    for module in passes.values():  # beside passes they register data components that the run config may name
        import_module(module)

    try:
        output = run(config, package_config=package_config(passes))
    except (*EXCEPTIONS_TO_RAISE, OSError) as error:
        raise StageError(stage, _message(error)) from error
    best = output.get_best_candidate() if output is not None and output.has_output_model() else None
    if best is None:
        cause = failures[-1] if failures else None
        if isinstance(cause, PressError):
            raise cause
        raise StageError(stage, _message(cause) if cause else "Olive made no model and named no reason") from cause
    made = best.olive_model_config["config"]
    return Path(made.get("adapter_path") or made["model_path"])


def _message(error: BaseException) -> str:
    return f"Olive failed with {type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"


def _move(made: Path, folder: Path) -> None:
    source = made if made.is_dir() else made.parent
    if not source.is_relative_to(folder.resolve()):  # Olive leaves a model where it is that has only a name
        raise FileNotFoundError(f"Olive made no files in {folder}; its model is {made}")
    for item in sorted(source.iterdir()):
        if item.name not in ENGINE_FILES:
            shutil.move(item, folder / item.name)


class _Relay(logging.Handler):
    """Keeps the exceptions that Olive logs, and passes its other warnings on."""

    def __init__(self, failures: list[BaseException]) -> None:
        super().__init__(logging.WARNING)
        self.failures = failures

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.failures.append(record.exc_info[1])
        else:
            current_progress().log(f"{record.name}: {record.getMessage()}")


@contextmanager
def _olive_log() -> Iterator[list[BaseException]]:
    """Olive's log goes to the running progress instead of standard output; yields the exceptions logged."""
    import olive  # noqa: F401  # its import sets up the handlers that are put aside here

    logger = logging.getLogger("olive")
    failures: list[BaseException] = []
    kept = logger.handlers
    logger.handlers = [_Relay(failures)]  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield failures
    finally:
        logger.handlers = kept
