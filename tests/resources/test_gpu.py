"""Which device a stage gets: NVIDIA's driver and PyTorch must agree on a GPU."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from resources.errors import ConfigurationError
from resources.gpu import (
    VISIBLE,
    DescribedGpus,
    Gpu,
    NvidiaGpus,
    TorchBuild,
    choose_device,
    installed_torch,
    torch_obstacle,
    visible_gpus,
    without_torch,
)

PROJECT = Path(__file__).resolve().parents[2]
H200 = Gpu(0, "GPU-4a2b0000-1", "NVIDIA H200", 150_000_000_000, "9.0", "580.65.06", (13, 0))
SECOND = replace(H200, index=1, uuid="GPU-77ff0000-2")
TWO = DescribedGpus((H200, SECOND))
CUDA = TorchBuild("2.13.0+cu130", "13.0")
CPU = TorchBuild("2.13.0+cpu", None)


def test_the_cpu_is_always_there():
    assert choose_device("cpu", TWO, CUDA).name == "cpu"


def test_this_machine():
    """Whatever it is: what is chosen is what PyTorch can compute on."""
    device = choose_device("auto")
    assert (device.name == "cuda") == (bool(NvidiaGpus().installed()) and torch_obstacle() == "")
    if device.name == "cpu" and not device.warning:
        with pytest.raises(ConfigurationError, match=r"^compute\.device: found cuda, and .*; accepted: auto, cpu"):
            choose_device("cuda")


def test_what_nvml_and_pytorch_tell_of_a_gpu_is_the_same():
    gpus = visible_gpus(NvidiaGpus().installed(), None)
    if not gpus or torch_obstacle():
        pytest.skip("needs a GPU that PyTorch can use")
    import torch

    told = torch.cuda.get_device_properties(0)
    assert gpus[0].name == told.name
    assert gpus[0].capability == f"{told.major}.{told.minor}"
    assert gpus[0].memory == pytest.approx(told.total_memory, rel=0.05)
    assert 0 < (NvidiaGpus().free_memory(gpus[0]) or 0) <= gpus[0].memory


def test_the_build_of_pytorch_is_read_without_importing_it():
    import torch

    assert installed_torch() == (torch.__version__, torch.version.cuda)
    code = "import sys; from resources.gpu import choose_device, installed_torch; installed_torch(); "
    code += "choose_device('auto'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0


def test_planning_does_not_ask_for_gpus():
    code = "import sys, orchestration.planning, orchestration.cli, assets.recipes; sys.exit('pynvml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_gpus_that_both_see_are_used(asked):
    device = choose_device(asked, TWO, CUDA, {})
    assert (device.name, device.gpus, device.warning) == ("cuda", (H200, SECOND), "")


def test_without_a_gpu_auto_is_the_cpu_and_nothing_is_said():
    device = choose_device("auto", DescribedGpus(), CUDA, {})
    assert (device.name, device.warning) == ("cpu", "")
    with pytest.raises(ConfigurationError, match=r"found cuda, and no NVIDIA GPU on this machine; accepted: auto, cpu"):
        choose_device("cuda", DescribedGpus(), CUDA, {})


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (CPU, r"PyTorch 2\.13\.0\+cpu cannot use: it was built without CUDA"),
        (TorchBuild("2.15.0", "14.1"), r"cannot use: it was built for CUDA 14\.1, and the driver .* up to 13\.0"),
    ],
)
def test_a_gpu_that_pytorch_cannot_use_is_left_alone_and_said(build, why):
    device = choose_device("auto", TWO, build, {})
    assert device.name == "cpu"
    assert device.warning.startswith("stages run on the CPU: this machine has a GPU (NVIDIA H200) that PyTorch")
    assert re.search(why, device.warning)
    with pytest.raises(ConfigurationError, match=why) as caught:
        choose_device("cuda", TWO, build, {}, "tiny.yaml: compute.device")
    assert str(caught.value).startswith("tiny.yaml: compute.device: found cuda")
    assert "Install a PyTorch whose CUDA the driver 580.65.06 serves" in str(caught.value)


def test_an_older_minor_version_of_the_driver_serves_the_same_cuda():
    assert choose_device("cuda", TWO, TorchBuild("2.14.0", "13.2"), {}).name == "cuda"


def test_a_gpu_that_fails_when_it_is_tried_is_told_the_same_way():
    assert (
        "a GPU (NVIDIA H200) that PyTorch 2.13.0 cannot use: no kernel"
        in without_torch("auto", H200, "2.13.0", "no kernel image").warning
    )
    with pytest.raises(ConfigurationError, match="cannot use: no kernel image"):
        without_torch("cuda", H200, "2.13.0", "no kernel image")


@pytest.mark.parametrize(
    ("setting", "visible"),
    [
        (None, ["GPU-4a2b0000-1", "GPU-77ff0000-2"]),
        ("1,0", ["GPU-77ff0000-2", "GPU-4a2b0000-1"]),
        ("GPU-77ff", ["GPU-77ff0000-2"]),
        ("1, 7, 0", ["GPU-77ff0000-2"]),
        ("", []),
        ("-1", []),
        ("MIG-12", ["MIG-12"]),
    ],
)
def test_what_the_user_set_decides_which_gpus_there_are(setting, visible):
    assert [gpu.uuid for gpu in visible_gpus(TWO.installed(), setting)] == visible


def test_hidden_gpus_are_told_as_hidden():
    assert choose_device("auto", TWO, CUDA, {VISIBLE: ""}).warning == ""
    with pytest.raises(ConfigurationError, match=r"CUDA_VISIBLE_DEVICES='', which hides the 2 NVIDIA GPUs.* 0 \("):
        choose_device("cuda", TWO, CUDA, {VISIBLE: ""})
