"""The facts of artifacts, kept once they were drawn, so that a restore plots nothing."""

from __future__ import annotations

import base64
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from assets.fingerprint import module_fingerprint
from assets.stage import Facts, Stage
from resources.store.durable import make_folder
from resources.store.keys import Key
from resources.store.store import Store


class KeptFacts:
    """Facts under `home`/facts, by artifact, spec and the code that makes them; the folder is safe to delete."""

    def __init__(self, home: Path, store: Store) -> None:
        self._folder = home / "facts"
        self._store = store

    def facts(self, stage: Stage, digest: str) -> Facts:
        """What people see of the artifact; the same whether it is drawn now or was before."""
        file = self._folder / f"{digest}-{_maker(stage)}.json"
        try:
            return _from_json(json.loads(file.read_bytes()))
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):  # cut short by a crash: drawn anew
            file.unlink()
        facts = stage.facts(self._store.open(digest))
        self._keep(file, json.dumps(_as_json(facts)).encode())
        return facts

    def bytes(self, digest: str) -> int:
        """The size of the artifact."""
        return self._store.manifest(digest).bytes

    def _keep(self, file: Path, document: bytes) -> None:
        make_folder(self._folder)
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as staged:
            staged.write(document)
        Path(staged.name).replace(file)


def _maker(stage: Stage) -> str:
    """What decides the facts of an artifact besides its bytes: spec and code of the stage, and how plots are drawn."""
    return Key({"stage": stage.code_version(), "plots": module_fingerprint("resources.plots")}).id[:16]


def _as_json(facts: Facts) -> dict[str, Any]:
    return asdict(facts) | {"plots": {name: base64.b64encode(png).decode() for name, png in facts.plots.items()}}


def _from_json(document: dict[str, Any]) -> Facts:
    plots = {name: base64.b64decode(png) for name, png in document["plots"].items()}
    return Facts(document["numbers"], document["tables"], plots, document["texts"])
