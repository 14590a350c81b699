"""The LoRA benchmark on a GPU, as far as a machine without one shows: its trainings, its resuming, its counts."""

from __future__ import annotations

import pytest

from benchmarks.gpu.lora import check_loss, reference_loss, resumed, table, train, training
from benchmarks.gpu.lora_work import operations
from benchmarks.gpu.models import PHI35_SHAPE, SMALL, save_awq_model, save_random_phi3

TINY = SMALL | {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 4}
FEW = ("--device", "cpu", "--steps", "12")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    save_random_phi3(folder / "base", "cpu", 0, **TINY)
    save_awq_model(folder / "base", folder / "awq", "cpu")
    return folder


def test_both_tools_train_on_the_same_rows_and_a_killed_training_ends_like_a_whole_one(folder, capsys):
    press, peft = train(folder, "press", "awq", *FEW), train(folder, "peft", "base", *FEW)
    check_loss(press["losses"][0], reference_loss(folder / "awq", "cpu"))
    assert peft["losses"][0] == pytest.approx(press["losses"][0], rel=0.01)
    again = resumed(folder, "awq", press["losses"][-1], *FEW, killed_at=11)
    assert "going on after step 10 of 12" in capsys.readouterr().out
    must, tokens = training(folder / "awq", PHI35_SHAPE | TINY)
    printed = table({"press": press, "again": again}, must, tokens, 1e12).splitlines()
    assert len(printed) == 4 and printed[0].count("|") == printed[2].count("|")


def test_a_loss_far_from_the_reference_ends_the_benchmark():
    with pytest.raises(AssertionError, match=r"first loss 10\.2000, in float32 10\.0000"):
        check_loss(10.2, 10.0)


def test_a_token_takes_two_products_with_every_frozen_weight():
    weights = 32 * (3072 * 9216 + 3072 * 3072 + 3072 * 16384 + 8192 * 3072)
    one = operations(PHI35_SHAPE, 0, [(1, 0)])
    assert one == 4 * weights + 6 * 32 * 3072
    assert operations(PHI35_SHAPE, 0, [(1, 1)]) == one + 4 * 32064 * 3072
