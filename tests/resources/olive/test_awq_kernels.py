"""The Triton kernels find what the searches in PyTorch find; on a machine without CUDA, in Triton's interpreter."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

# not imported here: Triton decides when it is imported whether its own functions are interpreted
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with PyTorch for CUDA only")


@pytest.fixture(scope="module")
def kernels():
    import torch

    with pytest.MonkeyPatch.context() as environment:
        if not torch.cuda.is_available():
            environment.setenv("TRITON_INTERPRET", "1")
        from resources.olive.passes import awq_kernels

        yield awq_kernels


@pytest.fixture(params=[(4, 32, False), (4, 32, True), (8, 16, False), (4, 128, False)], ids=str)
def problem(request):
    """Weights with rows that fill no whole block and a group of zeros, Gram matrices of their inputs, and the grid."""
    import torch

    from resources.olive.passes.quantization_grid import GridShape

    shape = GridShape(*request.param)
    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(70, 256, generator=generator), torch.randn(300, 256, generator=generator)
    weight[3, :128] = 0.0
    inputs[:, ::16] *= 8
    grouped = shape.groups(inputs).transpose(0, 1)
    return weight, inputs, grouped.transpose(1, 2) @ grouped, shape


def on_device(*tensors):
    import torch

    return [tensor.to("cuda" if torch.cuda.is_available() else "cpu") for tensor in tensors]


def test_errors_of_scales(kernels, problem):
    import torch

    from resources.olive.passes.awq_scale import scale_errors

    weight, inputs, gram, shape = problem
    magnitude = inputs.abs().mean(0)
    candidates = torch.stack([magnitude.pow(step / 4) for step in range(5)])
    found = kernels.scale_errors(*on_device(weight, candidates, gram), shape).cpu()
    torch.testing.assert_close(found, scale_errors(weight, candidates, gram, shape), rtol=1e-3, atol=0)


def test_best_bounds(kernels, problem):
    from resources.olive.passes.awq_clip import SHRINKS, best_grid
    from resources.olive.passes.quantization_grid import grid

    weight, _, gram, shape = problem
    low, high = kernels.best_bounds(*on_device(weight, gram), SHRINKS, shape)
    scales, zeros = grid(low.cpu(), high.cpu(), shape)
    expected_scales, expected_zeros = best_grid(weight, gram, shape)
    same = (scales - expected_scales).abs() <= 1e-6 * expected_scales
    assert same.float().mean() > 0.98  # two bounds may be as good as each other
    assert (zeros == expected_zeros)[same].all()


def test_a_gpu_that_is_too_small_is_an_error_that_says_what_to_lower(tiny_llama, tmp_path):
    import torch

    from resources.errors import StageError
    from resources.olive.awq_model import PASSES, awq_run_config
    from resources.olive.workflow import run_workflow

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    samples = tmp_path / "samples.json"
    samples.write_text(json.dumps([[index % 400 + 2 for index in range(64)]] * 4))
    settings = {"bits": 4, "group_size": 32, "symmetric": False, "ratios": 4, "clip": True}
    run_config = awq_run_config(tiny_llama, samples, **settings, device="cuda", batch_size=4)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        with pytest.raises(StageError, match=r"the GPU's memory does not suffice.*Lower awq_model\.tokens"):
            run_workflow(run_config, tmp_path / "awq", passes=PASSES)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
