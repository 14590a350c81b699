"""The process that workers are forked from: one worker after another, whatever became of the last, until its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from resources.preloaded import can_preload
from resources.telemetry import TELEMETRY_OFF

pytestmark = pytest.mark.skipif(not can_preload(), reason="workers are not forked on this machine")
PROJECT = Path(__file__).resolve().parents[2]
Server = subprocess.Popen[bytes]


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "assets.worker_server"],
            cwd=PROJECT,
            env={**os.environ, **TELEMETRY_OFF},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        yield process
        process.kill()
        process.wait()


def ask(server: Server, environment: dict[str, str]) -> int:
    """Ask for a worker; its process id."""
    assert server.stdin is not None
    server.stdin.write(json.dumps(environment).encode() + b"\n")
    server.stdin.flush()
    return answer(server)


def answer(server: Server) -> int:
    assert server.stdout is not None
    return int(server.stdout.readline())


def waiting_worker(tmp_path: Path) -> dict[str, str]:
    """What makes a worker wait for ever: its context is a pipe that nobody writes to."""
    from dagster_pipes import encode_param

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    context, messages = encode_param({"path": str(pipe)}), encode_param({"path": str(tmp_path / "messages")})
    return {"DAGSTER_PIPES_CONTEXT": context, "DAGSTER_PIPES_MESSAGES": messages}


def test_a_worker_that_fails_or_is_killed_is_told_and_the_next_one_works(server, tmp_path):
    ask(server, {"DAGSTER_PIPES_CONTEXT": "nonsense", "DAGSTER_PIPES_MESSAGES": "nonsense"})
    assert answer(server) == 1
    assert "Traceback" in (tmp_path / "errors").read_text()
    os.kill(ask(server, waiting_worker(tmp_path)), signal.SIGKILL)
    assert answer(server) == -signal.SIGKILL
    assert server.stdin is not None
    server.stdin.close()
    assert server.wait(30) == 0


@pytest.mark.parametrize("way", ["the asker", "the server"])
def test_no_worker_outlives_who_asked(server, tmp_path, way):
    worker = psutil.Process(ask(server, waiting_worker(tmp_path)))
    time.sleep(0.5)
    assert worker.is_running()
    if way == "the asker":
        assert server.stdin is not None
        server.stdin.close()
    else:
        server.kill()
    server.wait(30)
    psutil.wait_procs([worker], timeout=30)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
