"""Entries: what the store knows about a key, in one file that notices when it was altered."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from resources.errors import ConfigurationError
from resources.store.keys import Key
from resources.store.manifest import DIGEST


@dataclass(frozen=True)
class Entry:
    """A key and its artifact.

    ingredients: what went in, by name. digest: the artifact's digest, that is its data version. seconds: what
    computing it took. built_at: UTC, ISO 8601. provenance: run id, host, device and the like, which decide nothing.
    """

    key_id: str
    ingredients: dict[str, Any]
    digest: str
    seconds: float
    built_at: str
    provenance: dict[str, Any]

    def to_json(self) -> bytes:
        fields = asdict(self)
        return (json.dumps(fields | {"sha256": _check_sum(fields)}, indent=1, sort_keys=True) + "\n").encode()

    @staticmethod
    def from_json(data: bytes, key_id: str) -> Entry:
        """The entry of `key_id` in `data`; a ConfigurationError when it is another key's or was altered."""
        try:
            fields = json.loads(data)
            if fields.pop("sha256") != _check_sum(fields):
                raise ValueError("its checksum does not match")
            entry = Entry(**fields)
            if entry.key_id != key_id or Key(entry.ingredients).id != key_id or not DIGEST.fullmatch(entry.digest):
                raise ValueError("it belongs to another key")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigurationError(f"key {key_id}", f"an altered file ({error})", "what the store wrote") from error
        return entry


@dataclass(frozen=True)
class Built:
    """An entry and how it came: computed now, or reused; `seconds` is what this call took, waiting included."""

    entry: Entry
    outcome: Literal["computed", "reused"]
    seconds: float


def _check_sum(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
