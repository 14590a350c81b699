"""The fingerprint of the code behind a recipe: the AST of its modules, without comments and docstrings."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

from resources.store.keys import encode

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("assets", "resources")

# What every recipe stands on but none is made by: reading specs, keys, storing, reporting, starting processes.
# Their values reach a key as ingredients; their code decides how an artifact is kept and shown, not what is in it.
NEUTRAL = (
    "assets.experiment",
    "assets.stage",
    "assets.fingerprint",
    "resources.azure",
    "resources.errors",
    "resources.plots",
    "resources.progress",
    "resources.store",
    "resources.olive.progress_channel",
)


@cache
def code_fingerprint(module: str) -> str:
    """sha256 over `module` and every first-party module it imports, anywhere in it, however deep."""
    return hashlib.sha256(encode(module_fingerprints(module))).hexdigest()


@cache
def module_fingerprints(module: str) -> dict[str, str]:
    """Name → sha256 of its AST, for `module` and every first-party module it imports."""
    return {name: module_fingerprint(name) for name in sorted(implementing_modules(module))}


@cache
def module_fingerprint(module: str) -> str:
    """sha256 of the AST of `module` alone."""
    return hashlib.sha256(ast.dump(_tree(module)).encode()).hexdigest()


@cache
def implementing_modules(module: str) -> frozenset[str]:
    """`module` and the first-party modules it reaches by imports or names as a string (Olive's package config)."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        waiting.extend(_packages(name))
        if not _neutral(name):
            found.add(name)
            waiting.extend(_mentions(name))
    return frozenset(found)


def _neutral(module: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in NEUTRAL)


def _mentions(module: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, module)
            names.add(source)
            names.update(f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return {name for name in names if name.partition(".")[0] in PACKAGES and _is_module(name)}


def _absolute(node: ast.ImportFrom, module: str) -> str:
    """What `module` imports from, a relative import made absolute."""
    package = module if _file(module).name == "__init__.py" else module.rpartition(".")[0]
    return resolve_name("." * node.level + (node.module or ""), package)


def _packages(module: str) -> list[str]:
    """The packages around `module`: importing it runs their code first."""
    parts = module.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split(".")) and _file(name).is_file()


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _tree(module: str) -> ast.Module:
    return _without_docstrings(ast.parse(_file(module).read_bytes()))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
    return tree
