"""Ancestry: what artifacts were made from, as the entries of the store tell."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from resources.store.entry import Entry


def ancestors(entries: Iterable[Entry], digests: Iterable[str], present: Collection[str]) -> set[str]:
    """`digests` and the digests of everything that they were made from, however far back; one pass over `entries`.

    `present` are the digests of artifacts that have no entry but are there. An artifact that several keys name was
    made from the inputs of all of them. What neither an entry nor `present` knows is left out.
    """
    by_key = {entry.key_id: entry for entry in entries}
    by_digest: dict[str, list[Entry]] = {}
    for entry in by_key.values():
        by_digest.setdefault(entry.digest, []).append(entry)

    def resolved(value: str) -> str | None:
        """The digest for a data version, which for a source is the id of its key."""
        if value in by_key:
            return by_key[value].digest
        return value if value in by_digest or value in present else None

    found: set[str] = set()
    waiting = [resolved(digest) or digest for digest in digests]
    while waiting:
        digest = waiting.pop()
        if digest not in found:
            found.add(digest)
            made_from = (value for entry in by_digest.get(digest, ()) for value in _inputs_of(entry))
            waiting.extend(version for value in made_from if (version := resolved(value)))
    return found


def _inputs_of(entry: Entry) -> Iterator[str]:
    """The data versions of its inputs; where a stage sees only part of one, the ingredient is the digest of that."""
    given = entry.provenance.get("inputs")
    for inputs in (entry.ingredients, given if isinstance(given, dict) else {}):
        for name, value in inputs.items():
            if isinstance(value, str) and (inputs is given or name.startswith("input.")):
                yield value
