"""Entries: what the store knows about a key, in one file that notices when it was altered."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from resources.errors import ConfigurationError
from resources.store.keys import Key
from resources.store.manifest import DIGEST

CHECK = re.compile(rb', "sha256": "([0-9a-f]{64})"}')
CHECK_SIZE = len(', "sha256": ""}') + 64


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
        check = hashlib.sha256(json.dumps(vars(self), sort_keys=True).encode()).hexdigest()
        return (json.dumps(vars(self) | {"sha256": check}, indent=1, sort_keys=True) + "\n").encode()

    @staticmethod
    def from_json(data: bytes, key_id: str) -> Entry:
        """The entry of `key_id` in `data`; a ConfigurationError when it is another key's or was altered."""
        try:
            fields = json.loads(data)
            del fields["sha256"]
            entry = Entry(**fields)
            if not _is_unaltered(data):
                raise ValueError("its checksum does not match")
            if entry.key_id != key_id or not DIGEST.fullmatch(entry.digest):
                raise ValueError("it belongs to another key")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _altered(key_id, error) from error
        return entry

    def check_key(self) -> None:
        """Raise a ConfigurationError when the ingredients do not give the key."""
        if Key(self.ingredients).id != self.key_id:
            raise _altered(self.key_id, "its ingredients give another key")


def _is_unaltered(data: bytes) -> bool:
    """Whether the checksum at the end is that of the bytes before it, put on one line as they were when it was made."""
    lines = [line.lstrip(b" ") for line in data.split(b"\n")]  # a text inside JSON holds no line break
    line = b"\n".join(lines).replace(b",\n", b", ").replace(b"\n", b"")
    check = CHECK.fullmatch(line, len(line) - CHECK_SIZE)
    return check is not None and hashlib.sha256(line[:-CHECK_SIZE] + b"}").hexdigest() == check[1].decode()


def _altered(key_id: str, how: object) -> ConfigurationError:
    return ConfigurationError(f"key {key_id}", f"an altered file ({how})", "what the store wrote")


@dataclass(frozen=True)
class Built:
    """An entry and how it came: computed now, reused, or restored from a remote.

    seconds: what this call took, waiting included. moved: the bytes that came from the remote.
    """

    entry: Entry
    outcome: Literal["computed", "reused", "restored"]
    seconds: float
    moved: int = 0
