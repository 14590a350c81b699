"""Which device a stage gets: the driver and PyTorch must agree on a GPU."""

from __future__ import annotations

import pytest

from resources.errors import ConfigurationError
from resources.gpu import agreed_device, choose_device, nvidia_gpus

LISTED = ["GPU 0: NVIDIA H200 (UUID: GPU-4a2b)"]


def test_the_cpu_is_always_there():
    assert choose_device("cpu") == "cpu"


def test_this_machine():
    import torch

    usable = bool(nvidia_gpus()) and torch.cuda.is_available()
    assert choose_device("auto") == ("cuda" if usable else "cpu")
    if usable:
        assert choose_device("cuda") == "cuda"
    else:
        with pytest.raises(ConfigurationError, match=r"compute\.device: found cuda, and .*; accepted: auto, cpu"):
            choose_device("cuda")


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_gpu_that_both_see_is_used(asked):
    assert agreed_device(asked, LISTED, lambda: ("2.11.0+cu130", True)) == "cuda"


def test_a_gpu_that_pytorch_cannot_use_is_left_alone():
    assert agreed_device("auto", LISTED, lambda: ("2.13.0+cpu", False)) == "cpu"


def test_asking_for_a_gpu_that_pytorch_cannot_use_says_which_and_what_to_do():
    with pytest.raises(ConfigurationError) as caught:
        agreed_device("cuda", LISTED, lambda: ("2.13.0+cpu", False))
    assert "a GPU (GPU 0: NVIDIA H200) that PyTorch 2.13.0+cpu cannot use" in str(caught.value)
    assert "Install a PyTorch" in str(caught.value)
