"""Damaged text: what is noticed and, as important, what is left alone."""

from __future__ import annotations

import pytest

from resources.damage import LOST, MOJIBAKE, TRUNCATED, find_damage

SOUND = "This reply is whole, and it ends as it should."


def damage_of(response, others=(SOUND, SOUND)):
    found = find_damage(["Where should I go?"] * (1 + len(others)), [response, *others])
    assert found[1:] == [None] * len(others)
    return found[0][0] if found[0] else None


@pytest.mark.parametrize(
    "text",
    [
        "Paris,e City of Love, is in France.",
        "Built in 1889,e tower is tall.",
        "Rome (Italy,a country) is old.",
        "Привет,мир.",
    ],
)
def test_letters_straight_after_a_comma(text):
    assert damage_of(text) == LOST


@pytest.mark.parametrize(
    "text",
    [
        "Sit at the CafÃ© de Flore.",
        "Itâ€™s a short walk.",
        "Donâ\x80\x99t miss it.",
        "Ã–sterreich has lakes.",
        "It costs â‚¬5 or Â£4.",
        "Ð¿Ñ€Ð¸Ð²ÐµÑ‚ is hello.",
        "æ—¥æœ¬ is Japan.",
        "Å‚adne miasto.",
        "Caf\ufffd de Flore.",
        "A smile ðŸ˜€ helps.",
    ],
)
def test_mojibake(text):
    assert damage_of(text) == MOJIBAKE


@pytest.mark.parametrize(
    "text",
    ["Visit the Louvre and", "Take the tram to the", "It is good,", "Rome is famous for the Colos", "See these:"],
)
def test_replies_that_stop(text):
    assert damage_of(text) == TRUNCATED


@pytest.mark.parametrize(
    "text",
    [
        "It costs 1,000 euros, e.g. in May.",
        "She said, “Go to Nice,” and left.",
        "C'est l'été…»",
        "“CAFÉ” is written on NESTLÉ® bags.",
        "A volume of 3 Å³ is small.",
        "In Portuguese, manhã is morning: MANHÃ”",
        "São Paulo, Ångström, Ärger, œuvre, MAÑANA, 20°C, 5 €.",
        "東京,大阪は日本の都市です。",
        "Привет, мир. Ναι, βεβαίως!",
        "See https://example.org/a,b?c=d&e=f?g for the map.",
        "The map is at https://example.org/paris",
        "Call f(x,y) or `a,b` there.",
        "Lisbon",
        "Bring these:\n- a hat\n- a bottle of water for the climb",
        "Enjoy the sunset over the old town 😀",
        "He called it “the best view in town.”",
    ],
)
def test_sound_text_is_left_alone(text):
    assert damage_of(text) is None


def test_a_set_of_bare_answers_is_a_style():
    bare = ["The second one on the left", "A small museum near the port", "Four or five days in May"]
    assert find_damage(["Which one?"] * 3, bare) == [None] * 3
    assert damage_of(bare[0]) == TRUNCATED


def test_prompts_are_checked_too():
    assert find_damage(["Is Paris,e City of Love, big?"], [SOUND]) == [(LOST, "Is Paris,e City of Love, b…")]
