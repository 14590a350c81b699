"""Worker processes that begin with their imports done: forked from one process that imported them once.

Importing torch, Transformers, PEFT and Olive takes seconds; the work that a small change leaves may take less. A fork
shares what was imported and nothing else: a crash or a kill still ends one worker only.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError, DagsterPipesExecutionError
from dagster._core.pipes.utils import PipesEnvContextInjector, PipesTempFileMessageReader, open_pipes_session

# Their drivers do not survive a fork, and whether a library woke them while it was imported cannot be known.
ACCELERATORS = (Path("/proc/driver/nvidia"), Path("/dev/kfd"), Path("/dev/dxg"))


def can_preload() -> bool:
    """Whether this machine forks a process that has imported torch without harm."""
    return sys.platform == "linux" and not any(device.exists() for device in ACCELERATORS)


class PreloadedWorkers:
    """Runs workers one at a time, each a fork of `command`, which imports and then serves (see worker_server.py).

    It ends with this process, however that ends.
    """

    def __init__(self, command: Sequence[str], cwd: str, env: Mapping[str, str]) -> None:
        self._command, self._cwd, self._env = list(command), cwd, dict(env)
        self._server: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        atexit.register(self.stop)

    def start(self) -> None:
        """Begin to import, in the background."""
        if self._server is None:
            self._server = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env={**os.environ, **self._env},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )

    def stop(self) -> None:
        """End the server, which by now has no worker that anybody waits for."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def run(self, context: dg.AssetExecutionContext, extras: dict[str, Any]) -> None:
        """Return when a worker has served `extras`; a DagsterPipesExecutionError when it ends otherwise."""
        with (
            self._turn,
            open_pipes_session(
                context=context,
                context_injector=PipesEnvContextInjector(),
                message_reader=PipesTempFileMessageReader(),
                extras=extras,
            ) as session,
        ):
            code = self._serve(context, session.get_bootstrap_env_vars())
        if code != 0:
            raise DagsterPipesExecutionError(f"External execution process failed with code {code}")

    def _serve(self, context: dg.AssetExecutionContext, environment: Mapping[str, str]) -> int:
        """The exit code of the worker; its signal, negative, when one ended it."""
        self.start()
        server = self._server
        assert server is not None
        assert server.stdin is not None
        worker = 0
        try:
            try:
                server.stdin.write(json.dumps(dict(environment)).encode() + b"\n")
                server.stdin.flush()
                worker = self._answer(server)
                return self._answer(server)
            except (BrokenPipeError, EOFError):  # it was killed, or could not import
                self._server = None
                return server.wait()
        except DagsterExecutionInterruptedError:
            context.log.info("The run was interrupted: ending its worker")
            if worker:
                os.kill(worker, signal.SIGINT)
            self.stop()
            raise

    @staticmethod
    def _answer(server: subprocess.Popen[bytes]) -> int:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return int(line)
