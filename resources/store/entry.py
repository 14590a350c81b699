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
        """One text for one entry, with a checksum of the rest."""
        fields = asdict(self)
        check = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
        return (json.dumps(fields | {"sha256": check}, indent=1, sort_keys=True) + "\n").encode()

    @staticmethod
    def from_json(data: bytes, key_id: str) -> Entry:
        """The entry of `key_id` in `data`; a ConfigurationError when it is another key's or was altered."""
        try:
            fields = json.loads(data)
            del fields["sha256"]
            entry = Entry(**fields)
            if entry.to_json() != data:
                raise ValueError("its checksum does not match")
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
