"""Keys: ingredients that differ in anything have different ids, and nothing else makes a difference."""

from __future__ import annotations

import itertools
import math

import pytest

from resources.store.keys import Key, encode

DISTINCT = [
    None, True, False, 0, 1, -1, 10, 1.0, 0.1, -0.0, 0.0, 2**70, math.inf,
    "", "1", "True", "None", "v1", "v10", "é", "e\u0301", "\ud800", "a\0b",
    [], [None], [[]], [""], ["v1", "0abc"], ["v10", "abc"], ["a", ["b"]], [["a"], "b"], ["a", "b"], ["ab"], ["a,b"],
    [["a", "bc"], ["d", "e"]], [["a", "e"], ["d", "bc"]], [["a", "b"], ["cd", "e"]], [["ab", "c"], ["d", "e"]],
    {}, {"a": "b"}, {"a": ["b"]}, {"ab": ""}, {"a": None}, [{"a": 1}, {"b": 2}], [{"a": 1, "b": 2}],
]  # fmt: skip


def test_no_two_different_values_share_an_encoding():
    for one, other in itertools.combinations(DISTINCT, 2):
        assert encode(one) != encode(other), (one, other)


def test_order_of_names_makes_no_difference():
    assert Key({"spec.r": 16, "input.dataset": "ab"}).id == Key({"input.dataset": "ab", "spec.r": 16}).id


def test_order_of_a_list_makes_a_difference():
    assert Key({"targets": ["q_proj", "v_proj"]}).id != Key({"targets": ["v_proj", "q_proj"]}).id


def test_a_name_never_runs_into_its_value():
    assert Key({"a": "bc"}).id != Key({"ab": "c"}).id


def test_a_tuple_is_the_list_that_json_makes_of_it():
    assert Key({"targets": ("q", "v")}).id == Key({"targets": ["q", "v"]}).id


def test_the_id_stays_what_it_was_in_stores_already_written():
    ingredients = {"recipe": "awq_model", "spec.bits": 4, "spec.lr": 5e-4, "spec.names": ["q", None, True]}
    assert Key(ingredients).id == "6937d9cd5c1dae9117a48d0d9fba92cc183348d2019683860924c12124ff2a8a"


def test_what_32_bits_take_for_one_are_two():
    """Olive's cache files results under eight hexadecimal digits of a digest, which these two keys share."""
    one, other = Key({"spec.seed": 7907}), Key({"spec.seed": 46232})
    assert one.id[:8] == other.id[:8] == "7ba75636"
    assert one.id != other.id
    assert len(one.id) == len(other.id) == 64


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="set"):
        _ = Key({"targets": {"q_proj"}}).id
