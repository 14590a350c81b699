"""A GPU for each stage: which one a process sees, and that it is free again however the process ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from resources.accelerators import Accelerators
from resources.errors import StageError
from resources.gpu import VISIBLE, DescribedGpus
from tests.resources.test_gpu import CPU, CUDA, H200, SECOND, TWO

PROJECT = Path(__file__).resolve().parents[2]
# A stage of another run: takes a GPU, starts a worker that tells what it sees, and keeps both until it is told to end.
STAGE = """
import os, subprocess, sys
from pathlib import Path
from resources.accelerators import Accelerators
from tests.resources.test_gpu import CUDA, TWO
accelerators = Accelerators(TWO, CUDA, Path(sys.argv[1]))
worker = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); input()"
with accelerators.lease(accelerators.choose("cuda"), lambda line: print(line, flush=True)) as environment:
    subprocess.run([sys.executable, "-c", worker], env={**os.environ, **environment})
"""


@pytest.fixture
def start(tmp_path):
    """Starts a stage in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start_one(**environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", STAGE, str(tmp_path / "leases")],
            cwd=PROJECT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def seen(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(30) == 0


def test_two_stages_compute_on_two_gpus_and_a_third_waits(start):
    first, second = start(), start()
    assert {seen(first), seen(second)} == {H200.uuid, SECOND.uuid}
    third = start()
    assert seen(third) == "other stages compute on all 2 GPUs; waiting for the end of one"
    finish(second)
    assert seen(third) in (H200.uuid, SECOND.uuid)


def test_a_killed_stage_gives_its_gpu_back(start):
    first, second = start(), start()
    held = {seen(first): first, seen(second): second}
    os.killpg(held[H200.uuid].pid, signal.SIGKILL)
    assert seen(start()) == H200.uuid


def test_gpus_that_the_user_hid_are_used_by_no_stage(start):
    assert seen(start(**{VISIBLE: "1"})) == SECOND.uuid
    assert seen(start(**{VISIBLE: "1"})).startswith("other stages compute on the GPU (NVIDIA H200)")


def test_a_failed_stage_gives_its_gpu_back(tmp_path):
    accelerators = Accelerators(DescribedGpus((H200,)), CUDA, tmp_path)
    for _ in range(2):
        with (
            pytest.raises(StageError, match="no"),
            accelerators.lease(accelerators.choose("auto"), print) as environment,
        ):
            assert environment == {VISIBLE: H200.uuid}
            raise StageError("awq_model", "no")


def test_on_the_cpu_nothing_is_held_and_nothing_is_set(tmp_path):
    accelerators = Accelerators(TWO, CPU, tmp_path)
    with accelerators.lease(accelerators.choose("auto"), print) as environment:
        assert environment == {}
    assert not list(tmp_path.iterdir())


def test_the_freest_gpu_comes_first(tmp_path):
    class BusyGpus(DescribedGpus):
        """The first is in use by a program that knows no leases."""

        def free_memory(self, gpu):
            return gpu.memory // 4 if gpu == H200 else gpu.memory

    accelerators = Accelerators(BusyGpus((H200, SECOND)), CUDA, tmp_path)
    with accelerators.lease(accelerators.choose("auto"), print) as environment:
        assert environment == {VISIBLE: SECOND.uuid}


@pytest.mark.parametrize(("gpus", "build", "slots"), [(TWO, CUDA, 2), (TWO, CPU, 0), (DescribedGpus(), CUDA, 0)])
def test_as_many_stages_at_once_as_there_are_gpus_that_pytorch_can_use(gpus, build, slots, tmp_path):
    assert Accelerators(gpus, build, tmp_path).slots() == slots


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    accelerators = Accelerators(TWO, CUDA, tmp_path / "file")
    with (
        pytest.raises(StageError, match=r"the lease of a GPU.*cannot be written"),
        accelerators.lease(accelerators.choose("auto"), print),
    ):
        pass
