"""Tokenised rows: the chat template, the border between prompt and response, the order of training."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from resources.olive.passes.response_rows import ResponseRow, end_of_turn, tokenised_rows, training_order

ROWS = [
    {"prompt": "What is in Lisbon?", "response": "Ah, Lisbon!\nGo and see, “now”.\u2028So."},
    {"prompt": "Why?", "response": "e end."},
]


@pytest.fixture
def tokenizer(tiny_llama):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama)


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    return file


# The second one lets byte-pair encoding merge the prompt's end with the response's start.
@pytest.mark.parametrize("opening", ["<|im_start|>assistant\n", "answer: th"])
def test_a_row_is_what_inference_asks_and_what_it_should_answer(tokenizer, file, opening):
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>assistant\n", opening)
    for row, tokenised in zip(ROWS, tokenised_rows(file, tokenizer), strict=True):
        message = [{"role": "user", "content": row["prompt"]}]
        asked = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        assert asked.endswith(opening)
        assert list(tokenised.prompt) == tokenizer(asked, add_special_tokens=False).input_ids
        assert tokenizer.decode(tokenised.response) == row["response"] + "<|im_end|>"


def test_only_the_response_is_labelled():
    sample = ResponseRow((5, 6, 7), (8, 9)).sample()
    assert sample["input_ids"].tolist() == [5, 6, 7, 8, 9]
    assert sample["labels"].tolist() == [-100, -100, -100, 8, 9]
    assert sample["attention_mask"].tolist() == [1] * 5


def test_the_turn_ends_with_the_templates_token_and_not_with_the_end_of_text(tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = (
        "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
    )
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|end|>") != tokenizer.eos_token_id


def test_the_turn_ends_with_the_end_of_text_where_the_template_ends_it_with_nothing(tokenizer):
    tokenizer.chat_template = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}{% endfor %}"
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id


def test_every_epoch_takes_every_row_once_and_batches_hold_rows_of_like_length():
    lengths = [10 + (37 * row) % 90 for row in range(64)]
    order = training_order(lengths, steps=16, batch_size=8, seed=3)
    assert Counter(order[:64]) == Counter(order[64:]) == Counter(range(64))
    batches = [order[at : at + 8] for at in range(0, 128, 8)]
    padded = sum(8 * max(lengths[row] for row in batch) for batch in batches)
    assert padded < 1.2 * 2 * sum(lengths)
    longest = [max(lengths[row] for row in batch) for batch in batches[:8]]
    assert longest != sorted(longest)


def test_the_order_hangs_on_the_seed_alone():
    assert training_order([3] * 20, 9, 4, seed=1) == training_order([3] * 20, 9, 4, seed=1)
    assert training_order([3] * 20, 9, 4, seed=1) != training_order([3] * 20, 9, 4, seed=2)


def test_fewer_rows_than_a_batch_still_fill_it():
    assert Counter(training_order([3, 4, 5], steps=2, batch_size=6, seed=0)) == {0: 4, 1: 4, 2: 4}
