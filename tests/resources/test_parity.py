"""Figures of distributions that are known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from resources.parity import POSITIONS, Parity, response_loss, seen_prefix


def parity_of(reference, candidate):
    parity = Parity()
    parity.add(np.asarray(reference, np.float32), np.asarray(candidate, np.float32))
    return parity.as_json()


def test_equal_logits_agree_and_have_no_divergence():
    logits = np.random.default_rng(0).normal(size=(2 * POSITIONS + 3, 50)) * 5
    assert parity_of(logits, logits) == {"agreement": 1.0, "kl_nats": 0.0, "tokens": 2 * POSITIONS + 3}


def test_divergence_of_known_distributions():
    p, q = [0.5, 0.25, 0.25], [0.25, 0.5, 0.25]
    found = parity_of(np.log([p, p]), np.log([q, p]))
    assert found["agreement"] == 0.5
    assert found["kl_nats"] == pytest.approx(0.25 * math.log(2) / 2)


def test_the_first_is_the_reference():
    p, q = np.log([[0.9, 0.1]]), np.log([[0.5, 0.5]])
    assert parity_of(p, q)["kl_nats"] == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))
    assert parity_of(q, p)["kl_nats"] == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(5))


def test_logits_count_up_to_a_constant_however_large():
    p, q = np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.5, 0.25]])
    assert parity_of(p + 3e4, q - 3e4)["kl_nats"] == pytest.approx(0.25 * math.log(2), rel=1e-2)


def test_sequences_add_up_token_by_token():
    rng = np.random.default_rng(1)
    reference, candidate = (rng.normal(size=(70, 20)).astype(np.float32) for _ in range(2))
    together, apart = Parity(), Parity()
    together.add(reference, candidate)
    for part in (slice(0, 5), slice(5, 60), slice(60, 70), slice(70, 70)):
        apart.add(reference[part], candidate[part])
    assert apart.tokens == together.tokens == 70
    assert apart.agreeing == together.agreeing == int((reference.argmax(1) == candidate.argmax(1)).sum())
    assert apart.kl_sum == pytest.approx(together.kl_sum)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_is_not_hidden(bad):
    logits = np.zeros((3, 4))
    broken = logits.copy()
    broken[1, 2] = bad
    assert math.isnan(parity_of(logits, broken)["kl_nats"])


def test_nothing_compared_is_not_a_perfect_score():
    found = Parity().as_json()
    assert math.isnan(found["agreement"]) and math.isnan(found["kl_nats"]) and found["tokens"] == 0


def test_another_vocabulary_is_an_error():
    with pytest.raises(ValueError, match=r"\(2, 5\)"):
        parity_of(np.zeros((2, 4)), np.zeros((2, 5)))


def test_seen_prefix_is_the_longest_start_that_came_before():
    assert seen_prefix([1, 2, 3, 4], []) == 0
    assert seen_prefix([1, 2, 3, 4], [[1, 9], [1, 2, 3, 7, 8], [2, 3, 4]]) == 3
    assert seen_prefix([1, 2], [[1, 2, 3]]) == 2


def test_response_loss_is_the_cross_entropy_of_the_response():
    import torch

    ids, start = [3, 1, 4, 1, 5, 9, 2, 6], 3
    logits = np.random.default_rng(2).normal(size=(len(ids), 10)).astype(np.float32) * 4
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits[start - 1 : -1]), torch.tensor(ids[start:]), reduction="sum"
    )
    assert response_loss(logits, ids, start) == pytest.approx(expected.item(), rel=1e-5)
