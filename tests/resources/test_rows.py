"""Reading rows: what is accepted, and what is said about what is not."""

from __future__ import annotations

import json

import pytest

from resources.errors import ConfigurationError
from resources.rows import SHOWN, canonical_lines, read_rows

GOOD = b'{"prompt": "Where?", "response": "Here."}'


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        GOOD + b"\n",
        GOOD + b"\r\n",
        b"\r\n  \n" + GOOD + b"\r\n\t\r\n",
        b"\xef\xbb\xbf" + GOOD,
        b'{ "response":"\\u0048ere." ,"prompt" :"Where?"}\r',
    ],
)
def test_formatting_does_not_matter(data):
    assert [(row.prompt, row.response) for row in read_rows(data, "rows")] == [("Where?", "Here.")]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_lines_are_counted_with_any_line_end(line_end):
    assert [row.line for row in read_rows(line_end.join([GOOD, b"", GOOD]), "rows")] == [1, 3]


def test_line_separators_inside_text_do_not_end_a_row():
    rows = read_rows('{"prompt": "a\u2028b\u0085c", "response": "One.\\r\\nTwo."}\n'.encode(), "rows")
    assert rows[0].prompt == "a\u2028b\u0085c"
    assert rows[0].response == "One.\nTwo."


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "not JSON"),
        (b"NaN", "a number instead of an object"),
        (b'["a"]', "a list instead of an object"),
        (b"null", "null instead of an object"),
        (b'{"prompt": "a"}', "response is missing"),
        (b'{"prompt": "a", "response": ""}', "response is empty"),
        (b'{"prompt": " \\n", "response": "b"}', "prompt is empty"),
        (b'{"prompt": "a", "response": null}', "response is null instead of text"),
        (b'{"prompt": true, "response": "b"}', "prompt is a truth value instead of text"),
        (b'{"prompt": {"text": "a"}, "response": "b"}', "prompt is an object instead of text"),
        (b'{"prompt": "a", "response": "b", "id": 1}', "unknown field 'id', accepted are prompt and response"),
        (b'{"prompt": "a", "prompt": "b", "response": "c"}', "prompt is there twice"),
        (b'{"prompt": "a", "response": "\\ud800"}', "half of a surrogate pair"),
        (b'{"prompt": "caf\xe9", "response": "b"}', "not UTF-8 (byte 16 is 0xe9)"),
        (b"[" * 100_000, "not JSON"),
        (b"1" * 5000, "not JSON"),
    ],
)
def test_each_mistake_is_named_with_its_line(line, said):
    with pytest.raises(ConfigurationError) as caught:
        read_rows(GOOD + b"\n\n" + line + b"\n" + GOOD, "rows.jsonl")
    assert "rows.jsonl: found 1 bad line\n" in str(caught.value)
    assert "line 3: " in str(caught.value)
    assert said in str(caught.value)


def test_many_mistakes_are_counted_and_the_first_shown():
    with pytest.raises(ConfigurationError) as caught:
        read_rows(b"x\n" * (SHOWN + 5), "rows")
    assert f"{SHOWN + 5} bad lines" in str(caught.value)
    assert f"line {SHOWN}: " in str(caught.value)
    assert f"line {SHOWN + 1}: " not in str(caught.value)
    assert "and 5 more" in str(caught.value)


def test_a_json_array_is_recognised():
    array = json.dumps([{"prompt": "a", "response": "b"}], indent=1).encode()
    with pytest.raises(ConfigurationError, match="one JSON array"):
        read_rows(array, "rows")


@pytest.mark.parametrize(("data", "said"), [(b"", "no rows"), (b"\n\n", "no rows"), ("x".encode("utf-16"), "UTF-16")])
def test_empty_and_utf16_files(data, said):
    with pytest.raises(ConfigurationError, match=said):
        read_rows(data, "rows")


def test_canonical_lines_read_back_as_they_are():
    pairs = [("Où?", "Ici.\u2028Là."), ('"q"', "line\nline")]
    assert [(row.prompt, row.response) for row in read_rows(canonical_lines(pairs).encode(), "rows")] == pairs
