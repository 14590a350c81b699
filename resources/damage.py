"""Damaged text: rows whose words were lost or garbled on their way into a file.

Three signs, each common in scraped or converted question-and-answer sets: letters straight after a comma ("Paris,e
City of Love": characters were cut out), mojibake (UTF-8 read in another encoding) and replies that stop mid-sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LOST = "letters straight after a comma"
MOJIBAKE = "mojibake"
TRUNCATED = "a reply that stops mid-sentence"

# Where a comma without a space is right: links, addresses, code, and brackets without any space, as in f(x,y).
_LINK = r"\b[A-Za-z][A-Za-z0-9+.-]{0,20}://\S+|\bwww\.\S+"
_NO_PROSE = re.compile(
    _LINK + r"|[\w.+,-]{1,64}@\S+|```.*?```|`[^`]*`|\([^\s()]*\)|\[[^\s\[\]]*\]|\{[^\s{}]*\}", re.DOTALL
)
# Latin, Greek and Cyrillic: scripts that put a space after a comma.
_LETTER = r"A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u03ff\u0400-\u052f\u1e00-\u1fff"
_LETTER_AFTER_COMMA = re.compile(rf",[{_LETTER}]+")

# What the bytes 80 to BF of UTF-8 look like in Windows-1252 or Latin-1. Those that typography puts after a letter
# count only inside a word, so that “CAFÉ” and NESTLÉ® are left alone.
_SURE = "\u0080-\u009f\u00a0-\u00ad\u00af-\u00ba\u00bc-\u00bf€‚ƒ„†‡ˆ‰Š‹ŒŽ•˜š›œžŸ"
_TYPOGRAPHY = "…“”‘’–—™®»"
_ANY = _SURE + _TYPOGRAPHY
_MOJIBAKE = re.compile(
    rf"\ufffd|[\u0080-\u009f]|[ÂÃ][{_SURE}]|[ÄÅÐÑ](?![²³])[{_SURE}]|[ÂÃÄÅÐÑ][{_TYPOGRAPHY}](?=\w)"
    rf"|(?:[Â-ß][{_ANY}]){{2}}|(?:[à-ï][{_ANY}]{{2}}){{2}}|â€|â[‚„†ˆ‰Š‹ŒŽ•˜™š›œž][{_ANY}]|ðŸ"
    r"|‚Ä[ôúùìîò¶]|√[©®°¢†]|(?<=[a-zà-ÿ])\?(?=[a-zà-ÿ])"
)

_CLOSERS = "\"'”’“‘»›)]}*_`~）」』】"
_TERMINALS = ".!?…。！？｡؟۔।॥"
_CONTINUES = ",;:-–—([{<&/\\，、；：（"
_NEVER_LAST = frozenset(["the", "a", "an", "and", "or", "but", "nor", "its", "their", "your", "our", "my", "into"])
_LIST_ITEM = re.compile(r"\s*(?:[-*•–+]|\d+[.)]|[a-z][.)]|\|)\s*\S")
_SENTENCE_WORDS = 5


def find_damage(prompts: Sequence[str], responses: Sequence[str]) -> list[tuple[str, str] | None]:
    """For each row None, or which damage it shows and the words around it; the sequences go in pairs.

    A reply without an end mark is truncated only where at least a quarter of the longer replies have one: a set of bare
    answers (“Lisbon”, “The second one on the left”) is a style and no damage.
    """
    long = [reply for reply in responses if len(reply.split()) >= _SENTENCE_WORDS]
    ended = sum(_ends(reply) for reply in long)
    marks_expected = 4 * ended >= len(long)
    return [
        _garbled(prompt) or _garbled(response) or _truncated(response, marks_expected)
        for prompt, response in zip(prompts, responses, strict=True)
    ]


def _garbled(text: str) -> tuple[str, str] | None:
    prose = _NO_PROSE.sub(lambda match: "\0" * len(match.group()), text)
    if found := _LETTER_AFTER_COMMA.search(prose):
        return LOST, _around(text, found.start(), found.end())
    without_links = re.sub(_LINK, "\0", text)
    if found := _MOJIBAKE.search(without_links):
        return MOJIBAKE, _around(without_links, found.start(), found.end())
    return None


def _truncated(reply: str, marks_expected: bool) -> tuple[str, str] | None:
    words = reply.split()
    last_line = reply.splitlines()[-1]
    bare = bool(_LIST_ITEM.match(last_line)) or "://" in words[-1] or "@" in words[-1] or last_line.endswith("```")
    if _ends(reply) or bare:
        return None
    stops = reply[-1] in _CONTINUES or (len(words) > 2 and words[-1] in _NEVER_LAST)
    if stops or (marks_expected and len(words) >= _SENTENCE_WORDS and reply[-1].isalnum()):
        return TRUNCATED, _around(reply, len(reply), len(reply))
    return None


def _ends(reply: str) -> bool:
    return reply.rstrip(_CLOSERS)[-1:] in tuple(_TERMINALS)


def _around(text: str, start: int, end: int) -> str:
    """The place in `text` with a few words on either side, on one line."""
    before, after = text[max(0, start - 24) : start], text[end : end + 16]
    cut_left, cut_right = "…" if start > 24 else "", "…" if len(text) > end + 16 else ""
    return " ".join(f"{cut_left}{before}{text[start:end]}{after}{cut_right}".split())
