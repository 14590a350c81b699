"""Keys: sha256 of what went in, in an encoding where no two different ingredients look the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Key:
    """What went into an artifact, named; `id` is the hexadecimal sha256 that the store files it under.

    ingredients: name → JSON value, e.g. {"recipe": "awq_model", "spec.bits": 4, "input.base_model": "…"}.
    """

    ingredients: Mapping[str, Any]

    @cached_property
    def id(self) -> str:
        return hashlib.sha256(encode(self.ingredients)).hexdigest()


def encode(value: Any) -> bytes:
    """Canonical bytes of a JSON value: type, length, content, so that ("v1", "0a") and ("v10", "a") differ."""
    match value:
        case None:
            return _piece(b"n", b"")
        case bool():
            return _piece(b"b", b"1" if value else b"0")
        case int():
            return _piece(b"i", str(value).encode())
        case float():
            return _piece(b"f", value.hex().encode())
        case str():
            return _piece(b"s", value.encode("utf-8", "surrogatepass"))
        case list() | tuple():
            return _piece(b"l", b"".join(encode(item) for item in value))
        case Mapping():
            pairs = sorted((encode(name), encode(item)) for name, item in value.items())
            return _piece(b"m", b"".join(name + item for name, item in pairs))
    raise TypeError(f"a key cannot hold {type(value).__name__}")


def _piece(kind: bytes, content: bytes) -> bytes:
    return kind + str(len(content)).encode() + b":" + content
