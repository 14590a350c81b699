"""What the source of a module says to the fingerprint: its AST without docstrings, and the modules it mentions.

Parsing is slow, so what was found is kept under the digest of the source: an edit, a rename or another interpreter
never finds what another source said.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

MOST = 2000  # sources that are kept, the latest


@dataclass(frozen=True)
class ModuleCode:
    """ast: sha256 of the AST without comments and docstrings; mentions: names imported, and texts like `mentioned`."""

    ast: str
    mentions: tuple[str, ...]


class KnownCode:
    """The ModuleCode of sources, kept in the JSON file `file`; one that cannot be read or written costs time only."""

    def __init__(self, file: Path, packages: tuple[str, ...]) -> None:
        self._file, self._packages = file, packages
        self._known: dict[str, Any] | None = None
        self._is_new = False

    def of(self, module: str, path: Path) -> ModuleCode:
        """What the source of `module` at `path` says now."""
        source = path.read_bytes()
        is_package = path.name == "__init__.py"
        named = f"{module} {is_package} {self._packages} {sys.implementation.cache_tag} {_own_digest()}".encode()
        known, key = self._load(), hashlib.sha256(named + b"\0" + source).hexdigest()
        if key not in known:
            code = _read(source, module, is_package, self._packages)
            known[key] = [code.ast, *code.mentions]
            self._is_new = True
        found = known[key]
        return ModuleCode(found[0], tuple(found[1:]))

    def keep(self) -> None:
        """Write what was read since, for the next process."""
        if not self._is_new:
            return
        latest = dict(list(self._load().items())[-MOST:])
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._file.parent, prefix=self._file.name, delete=False) as file:
                json.dump(latest, file)
            Path(file.name).replace(self._file)
            self._is_new = False

    def _load(self) -> dict[str, Any]:
        if self._known is None:
            self._known = _sound(self._file)
        return self._known


def _sound(file: Path) -> dict[str, Any]:
    """What `file` holds; nothing where it is not there or damaged."""
    try:
        known = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if _is_sound(known) else {}


def _is_sound(known: object) -> bool:
    return isinstance(known, dict) and all(
        isinstance(found, list) and found and all(isinstance(text, str) for text in found) for found in known.values()
    )


@cache
def _own_digest() -> str:
    """Another version of this module may say other things of the same source."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _read(source: bytes, module: str, is_package: bool, packages: tuple[str, ...]) -> ModuleCode:
    tree = without_docstrings(ast.parse(source))
    return ModuleCode(
        hashlib.sha256(ast.dump(tree).encode()).hexdigest(),
        tuple(sorted(_mentions(tree, module, is_package, packages))),
    )


def without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _mentions(tree: ast.Module, module: str, is_package: bool, packages: tuple[str, ...]) -> set[str]:
    """What may be a module of `packages`: imported names, and texts such as those in Olive's package config."""
    package = module if is_package else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            names.add(source)
            names.update(f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return {
        name
        for name in names
        if name.partition(".")[0] in packages and all(part.isidentifier() for part in name.split("."))
    }
