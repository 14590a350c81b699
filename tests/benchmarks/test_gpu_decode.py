"""The decode benchmark on a GPU, as far as a machine without one shows: its folders on a CPU, its checks, its table."""

from __future__ import annotations

import pytest

from benchmarks.gpu import decode
from benchmarks.gpu.models import PHI35_SHAPE, SMALL

TINY = PHI35_SHAPE | SMALL | {"num_hidden_layers": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decode")
    decode.save_folders(folder, TINY, 0, "cpu", "cpu")
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    sequences = decode.save_tokens(folder / "tokens.json", 0)
    return {name: decode.reference(folder, sequences, name, "cpu") for name in (None, decode.ADAPTER)}


def test_press_and_stock_give_the_logits_of_pytorch_with_and_without_the_adapter(folder, expected):
    results = {
        "stock": decode.ask(folder, "stock", None, expected, decode.HEAD_LIMIT),
        "stock, adapter": decode.ask(folder, "stock-adapter", decode.ADAPTER, expected, decode.LIMIT),
        "press": decode.ask(folder, "press", None, expected, decode.LIMIT),
        "press, adapter": decode.ask(folder, "press", decode.ADAPTER, expected, decode.LIMIT),
    }
    assert len(decode.table(results).splitlines()) == 6


def test_logits_of_something_else_end_the_benchmark(folder, expected):
    with pytest.raises(AssertionError, match=r"press: logits .* of their norm from PyTorch's, accepted: 0\.05"):
        decode.ask(folder, "press", None, {None: expected[decode.ADAPTER]}, decode.LIMIT)


def test_the_int4_products_are_held_against_the_bandwidth():
    told = decode.kernels({"MatMulFloat4BitsKernelM1<half>": 500.0, "other": 100.0}, 10**9, 4e12)
    assert told == "kernels take 600 µs a token, int4 products 500 of them: 2.00 TB/s, 50 % of a copy's 4.00"
