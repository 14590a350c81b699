"""The calibration text: where it comes from, its two parts, the samples drawn from it."""

from __future__ import annotations

import pytest

from resources.calibration_text import calibration_part, measuring_part, read, token_samples
from resources.errors import ConfigurationError


class WordTokenizer:
    """Each word of the text is one token id, counted from 0."""

    def __call__(self, text, **_):
        return {"input_ids": list(range(len(text.split())))}


def test_python_docs_are_prose_that_the_interpreter_ships(tmp_path):
    text = read("python-docs", tmp_path)
    assert "statement" in text and len(text) > 200_000
    assert read("python-docs", tmp_path) == text


def test_a_file_is_found_from_the_root_or_by_its_whole_path(tmp_path):
    (tmp_path / "prose.txt").write_text("Straße und Café", encoding="utf-8")
    assert read("prose.txt", tmp_path) == "Straße und Café"
    assert read(str(tmp_path / "prose.txt"), tmp_path / "elsewhere") == "Straße und Café"


@pytest.mark.parametrize(("content", "found"), [(None, "No such file"), (b"caf\xe9", "byte 3"), (b" \n", "empty")])
def test_an_unusable_file_is_an_error_that_names_the_key(tmp_path, content, found):
    if content is not None:
        (tmp_path / "prose.txt").write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"awq_model\.calibration_text: .*{found}.*accepted: python-docs or"):
        read("prose.txt", tmp_path)


def test_no_paragraph_is_both_calibrated_and_measured_on(tmp_path):
    text = read("python-docs", tmp_path)
    calibrating, measuring = calibration_part(text).split("\n\n"), measuring_part(text).split("\n\n")
    assert not set(calibrating) & set(measuring)
    assert len("".join(measuring)) > 60_000
    assert len("".join(calibrating)) > len("".join(measuring))


def test_parts_do_not_depend_on_line_endings():
    text = "\n\n".join(f"paragraph {number}" for number in range(30))
    assert calibration_part(text.replace("\n", "\r\n")) == calibration_part(text)
    assert measuring_part(text.replace("\n", "\r\n")) == measuring_part(text)


def test_samples_do_not_overlap_and_follow_the_seed():
    text = "word " * 1000
    samples = token_samples(WordTokenizer(), text, 5, 100, seed=3)
    flat = [token for sample in samples for token in sample]
    assert [len(sample) for sample in samples] == [100] * 5
    assert len(set(flat)) == 500 and flat == sorted(flat)
    assert samples == token_samples(WordTokenizer(), text, 5, 100, seed=3)
    assert samples != token_samples(WordTokenizer(), text, 5, 100, seed=4)


def test_a_text_that_is_too_short_is_an_error():
    with pytest.raises(ConfigurationError, match="with 99 tokens; accepted: at least 100 for 2 samples of 50"):
        token_samples(WordTokenizer(), "word " * 99, 2, 50)
