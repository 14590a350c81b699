"""Code fingerprints: which modules they cover, and that comments and docstrings do not count."""

from __future__ import annotations

import ast

from assets.fingerprint import _without_docstrings, implementing_modules
from assets.recipes import SOURCES, STAGES


def dump(source: str) -> str:
    return ast.dump(_without_docstrings(ast.parse(source)))


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
