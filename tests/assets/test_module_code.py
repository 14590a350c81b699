"""What is kept of a source: found again for the same source only, and never needed."""

from __future__ import annotations

import json

import pytest

from assets.module_code import KnownCode

SOURCE = '"""Doc."""\nfrom .other import one\nimport resources.rows\n\nNAME = "assets.dataset"\n'


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    return path


def known_code(tmp_path):
    return KnownCode(tmp_path / "home" / "modules.json", ("assets", "resources"))


def read(tmp_path, module, name="assets.part.module"):
    known = known_code(tmp_path)
    found = known.of(name, module)
    known.keep()
    return found


def test_a_process_after_this_one_reads_what_was_kept(tmp_path, module):
    found = read(tmp_path, module)
    assert set(found.mentions) == {"assets.dataset", "assets.part.other", "assets.part.other.one", "resources.rows"}
    kept = tmp_path / "home" / "modules.json"
    [[key, values]] = json.loads(kept.read_text()).items()
    kept.write_text(json.dumps({key: ["told", *values[1:]]}))
    assert known_code(tmp_path).of("assets.part.module", module).ast == "told"


def test_another_source_name_or_place_is_another_code(tmp_path, module):
    found = read(tmp_path, module)
    assert read(tmp_path, module, "assets.module").mentions != found.mentions
    module.write_text(SOURCE.replace("assets.dataset", "assets.report"))
    assert read(tmp_path, module).ast != found.ast
    module.write_text(SOURCE.replace("Doc.", "Another text."))
    assert read(tmp_path, module).ast == found.ast


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a": []}', '{"a": [1]}', '{"a": "b"}'])
def test_a_damaged_file_costs_time_only(tmp_path, module, damage):
    found = read(tmp_path, module)
    (tmp_path / "home" / "modules.json").write_text(damage)
    assert read(tmp_path, module) == found


def test_a_place_that_cannot_be_written_costs_time_only(tmp_path, module):
    (tmp_path / "home").write_text("a file where the folder should be")
    assert read(tmp_path, module).mentions
