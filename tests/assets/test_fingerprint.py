"""Code fingerprints: which modules they cover, and that comments and docstrings do not count."""

from __future__ import annotations

import ast

from assets.fingerprint import NEUTRAL, ROOT, implementing_modules
from assets.module_code import without_docstrings
from assets.recipes import SOURCES, STAGES

RECIPES = (*STAGES, *SOURCES, *(part for stage in STAGES for part in stage.parts))
# Modules that start, place and publish what recipes make, and decide nothing that is in it.
DRIVING = (
    "assets.build",
    "assets.checks",
    "assets.memory_check",
    "assets.progress",
    "assets.recipes",
    "assets.worker",
    "assets.worker_server",
    "resources.accelerators",
    "resources.azure",
    "resources.compute",
    "resources.gpu",
    "resources.gpu_lease",
    "resources.home",
    "resources.machine_limits",
    "resources.memory_need",
    "resources.preloaded",
    "resources.ran_on",
    "resources.registry.azureml",
    "resources.registry.local",
    "resources.registry.version_files",
)


def dump(source: str) -> str:
    return ast.dump(without_docstrings(ast.parse(source)))


def test_comments_docstrings_and_layout_do_not_count():
    plain = "def f(x):\n    return x + 1\n"
    assert dump(plain) == dump('"""Doc."""\n# why\ndef f(x):\n    """Doc."""\n\n    return (x + 1)  # sum\n')


def test_code_counts():
    assert dump("def f(x):\n    return x + 1\n") != dump("def f(x):\n    return x + 2\n")


def test_a_function_of_only_a_docstring_is_still_a_function():
    assert dump('def f():\n    """Doc."""\n') == dump("def f():\n    pass\n")


def test_passes_named_in_the_package_config_are_covered():
    by_name = {recipe.name: implementing_modules(recipe.__module__) for recipe in (*STAGES, *SOURCES)}
    assert "resources.olive.passes.awq" in by_name["awq_model"]
    assert "resources.olive.passes.lora" in by_name["lora_adapter"]


def test_stages_are_not_tied_to_each_other():
    by_name = {stage.name: implementing_modules(stage.__module__) for stage in STAGES}
    assert "resources.olive.passes.awq" not in by_name["dataset"] | by_name["registered_model"]
    assert "resources.olive.passes.lora" not in by_name["awq_model"] | by_name["eval_report"] | by_name["onnx_model"]
    assert not any("resources.store.store" in modules for modules in by_name.values())


def test_the_packages_around_a_module_are_covered():
    for recipe in RECIPES:
        modules = implementing_modules(recipe.__module__)
        assert {module.rpartition(".")[0] for module in modules if "." in module} <= modules


def test_every_module_counts_or_is_known_to_decide_nothing():
    """A module that no recipe reaches is missed by every key: it must be one that may be."""
    covered = {module for recipe in RECIPES for module in implementing_modules(recipe.__module__)}
    files = [file.relative_to(ROOT) for name in ("assets", "resources") for file in (ROOT / name).rglob("*.py")]
    modules = {".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files}
    known = (*NEUTRAL, *DRIVING)
    assert not [
        module
        for module in sorted(modules - covered)
        if not any(module == one or module.startswith(f"{one}.") for one in known)
    ]
    assert not [one for one in known if (ROOT / one.replace(".", "/")).with_suffix(".py").is_file() and one in covered]
