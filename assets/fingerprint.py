"""The fingerprint of the code behind a recipe: the AST of its modules, without comments and docstrings."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from assets.module_code import KnownCode, ModuleCode
from resources.home import press_home
from resources.store.keys import encode

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("assets", "resources")

# What every recipe stands on but none is made by: reading specs, keys, storing, reporting, starting processes.
# Their values reach a key as ingredients; their code decides how an artifact is kept and shown, not what is in it.
NEUTRAL = (
    "assets.experiment",
    "assets.stage",
    "assets.fingerprint",
    "assets.module_code",
    "resources.azure",
    "resources.errors",
    "resources.plots",
    "resources.progress",
    "resources.store",
    "resources.olive.progress_channel",
    # they refuse what would not run
    "resources.olive.pass_check",
    "resources.olive.pass_list",
)


@cache
def code_fingerprint(module: str) -> str:
    """sha256 over `module` and every first-party module it imports, anywhere in it, however deep."""
    return hashlib.sha256(encode(module_fingerprints(module))).hexdigest()


@cache
def module_fingerprints(module: str) -> dict[str, str]:
    """Name → sha256 of its AST, for `module` and every first-party module it imports."""
    found = {name: module_fingerprint(name) for name in sorted(implementing_modules(module))}
    _known().keep()
    return found


def module_fingerprint(module: str) -> str:
    """sha256 of the AST of `module` alone."""
    return _code(module).ast


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
    return {name for name in _code(module).mentions if _is_module(name)}


def _packages(module: str) -> list[str]:
    """The packages around `module`: importing it runs their code first."""
    parts = module.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


@cache
def _is_module(name: str) -> bool:
    return _file(name).is_file()


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _code(module: str) -> ModuleCode:
    return _known().of(module, _file(module))


@cache
def _known() -> KnownCode:
    return KnownCode(press_home() / "modules.json", PACKAGES)
