"""The process that workers are forked from: imports what heavy recipes need, then forks once for each request.

Started as `python -m assets.worker_server`. Each line of standard input is a worker's environment as JSON; answered are
the worker's process id and then its exit code, a line each. It ends with its standard input.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
from importlib import import_module
from typing import BinaryIO, NoReturn

from assets import worker

PRELOADED = ("torch", "transformers", "olive.workflows", "peft", "onnx_ir")
CHECK_SECONDS = 1.0


def main() -> int:
    """Serve until standard input ends; in a worker, serve its request."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # libraries print to standard output, which belongs to the answers
    for module in PRELOADED:
        import_module(module)
    gc.freeze()  # or each worker's collector would copy what it shares with this process
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    while line := requests.readline():
        environment = json.loads(line)
        ended, end = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for file in (requests, answers):
                file.close()
            os.close(ended)  # its other end stays open as long as the worker lives
            os.environ.update(environment)
            _end(worker.main())
        os.close(end)
        answers.write(f"{child}\n".encode())
        code = _wait(child, ended, requests)
        os.close(ended)
        if code is None:
            return 1
        answers.write(f"{code}\n".encode())
    return 0


def _end(code: int) -> NoReturn:
    """End this worker at once: taking apart all that was imported takes a second and gives nothing."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait(child: int, ended: int, requests: BinaryIO) -> int | None:
    """The exit code of `child`; None, with the child killed, when the one who asked is gone."""
    while True:
        ready, _, _ = select.select([ended, requests], [], [], CHECK_SECONDS)
        found, status = os.waitpid(child, 0 if ended in ready else os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if requests in ready:  # nothing is asked while a worker runs: it is the end of the file
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None


if __name__ == "__main__":
    sys.exit(main())
