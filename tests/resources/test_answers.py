"""Figures about answers: chrF and speed."""

from __future__ import annotations

import math

import pytest

from resources.answers import chrf
from resources.genai import Generation, decode_speed


def test_chrf_is_100_for_the_reference_and_falls_with_the_distance():
    references = ["Ah, Lisbon, the city of seven hills!", "Tip: wear good shoes."]
    near = ["Ah, Lisbon, the town of seven hills!", "Tip: wear shoes."]
    far = ["I cannot help with that.", "Sorry, no."]
    assert chrf(references, references) == pytest.approx(100)
    assert 100 > chrf(near, references) > 50 > chrf(far, references) >= 0


def test_decode_speed_leaves_the_first_token_out():
    answers = [Generation("", 11, 3.0, 1.0), Generation("", 31, 4.0, 2.0), Generation("", 1, 9.0, 9.0)]
    assert decode_speed(answers) == pytest.approx(40 / 4)


def test_speed_is_not_made_up_when_no_answer_has_a_second_token():
    assert math.isnan(decode_speed([Generation("", 1, 2.0, 2.0)]))
