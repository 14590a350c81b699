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
from collections.abc import Mapping
from pathlib import Path

from resources.machine_limits import cores, visible_cores
from resources.telemetry import TELEMETRY_OFF

PROJECT = Path(__file__).resolve().parent.parent
# Progress is told through Pipes; the bars and warnings of libraries would drown it.
QUIET = {
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
    **TELEMETRY_OFF,
}
# Threads that wait spin 300,000 times, GNU OpenMP's default, before they sleep: beside another worker they
# keep its threads from the cores. Where they sleep at once, waking takes longer than most products of a small model.
# How many threads there are, and so every result, stays the same (docs/gpu.md).
WAITING = {"GOMP_SPINCOUNT": "2000"}
OWN_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # the count would overrule a policy
# Their drivers do not survive a fork, and whether a library woke them while it was imported cannot be known.
ACCELERATORS = (Path("/proc/driver/nvidia"), Path("/dev/kfd"), Path("/dev/dxg"))


def worker_environment(
    inherited: Mapping[str, str] = os.environ, usable: int | None = None, visible: int | None = None
) -> dict[str, str]:
    """What a worker's environment has beside what is `inherited`; the user's own settings of threads stay.

    usable, visible: the cores that it may keep busy and those that it sees, of this machine where they are not told.
    """
    threads = {} if any(name in inherited for name in OWN_WAITING) else dict(WAITING)
    if (usable or cores()) < (visible or visible_cores()):  # or a container on a large machine starts far too many
        threads["OMP_NUM_THREADS"] = str(usable or cores())
    return QUIET | {name: inherited.get(name, value) for name, value in threads.items()}


def can_preload() -> bool:
    """Whether this machine forks a process that has imported torch without harm."""
    return sys.platform == "linux" and not any(device.exists() for device in ACCELERATORS)


class PreloadedWorkers:
    """Workers of this project, one at a time, each a fork of one process (assets/worker_server.py).

    They end with this process, however that ends. Where workers cannot be forked, starting does nothing.
    """

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        atexit.register(self.stop)

    def start(self) -> None:
        """Begin to import, in the background."""
        if self._server is None and can_preload():
            self._server = subprocess.Popen(
                [sys.executable, "-m", "assets.worker_server"],
                cwd=PROJECT,
                env={**os.environ, **worker_environment()},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )

    def stop(self) -> None:
        """End the server, which by now has no worker that anybody waits for."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def serve(self, environment: Mapping[str, str]) -> int:
        """Let a worker with this in its environment do its work; its exit code, its signal negative."""
        with self._turn:
            self.start()
            server, worker, is_answered = self._server, 0, False
            assert server is not None
            try:
                _ask(server, environment)
                worker = _answer(server)
                code = _answer(server)
                is_answered = True
            except (BrokenPipeError, EOFError):  # it was killed, or could not import
                self._server = None
                is_answered = True
                return server.wait()
            finally:
                if not is_answered:  # who waits is interrupted: nobody wants the result
                    if worker:
                        os.kill(worker, signal.SIGINT)
                    self.stop()
            return code


def _ask(server: subprocess.Popen[bytes], environment: Mapping[str, str]) -> None:
    assert server.stdin is not None
    server.stdin.write(json.dumps(dict(environment)).encode() + b"\n")
    server.stdin.flush()


def _answer(server: subprocess.Popen[bytes]) -> int:
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return int(line)
