"""The parts of the staleness benchmark that run nothing: its mutations, its verdicts, its table, the dvc.yaml."""

from __future__ import annotations

import pytest

from assets.experiment import Experiment
from assets.recipes import STAGE_NAMES
from benchmarks.staleness.dvc import dvc_yaml
from benchmarks.staleness.judge import Score, applies, judge, score
from benchmarks.staleness.many import variant
from benchmarks.staleness.mutations import MUTATIONS, Mutation
from benchmarks.staleness.plain_dagster import PlainDagster
from benchmarks.staleness.table import Timing, table
from benchmarks.staleness.workspace import DOCUMENT, Workspace, create_workspace

LORA = Mutation("lora", lambda workspace, tool: None, frozenset({"lora_adapter", "onnx_model"}))


@pytest.fixture(scope="module")
def base_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base_model")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_mutation_still_finds_what_it_changes(mutation, base_model, tmp_path):
    workspace = create_workspace(tmp_path / "work", base_model, "All the words of the text.\n")
    tool = PlainDagster()
    tool.prepare(workspace)
    before = _state(workspace)
    if mutation.before:
        mutation.before(workspace, tool)
        assert _state(workspace) != before
        before = _state(workspace)
    mutation.change(workspace, tool)
    assert _state(workspace) != before


def test_mutations_reach_every_stage_and_none():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    assert set().union(*(mutation.stale for mutation in MUTATIONS)) == set(STAGE_NAMES)
    for quick in (True, False):
        assert any(not mutation.stale for mutation in MUTATIONS if mutation.quick or not quick)


def test_a_stage_that_had_to_run_and_did_not_is_served_stale_and_the_other_way_round_is_needless():
    assert judge(LORA, frozenset({"lora_adapter", "onnx_model"}), STAGE_NAMES).is_right
    wrong = judge(LORA, frozenset({"onnx_model", "dataset"}), STAGE_NAMES)
    assert (wrong.served_stale, wrong.needless) == ({"lora_adapter"}, {"dataset"})
    assert str(wrong) == "stale served as fresh: lora_adapter; needless: dataset"
    assert judge(LORA, frozenset({"lora_adapter"}), ("awq_model", "lora_adapter")).is_right
    assert score([wrong, judge(LORA, LORA.stale, STAGE_NAMES)]) == Score(asked=2, served_stale=1, needless=1)


def test_a_tool_is_asked_about_what_it_has():
    assert applies(LORA, ("awq_model", "lora_adapter"))
    assert not applies(LORA, ("dataset",))


def test_the_table_shows_seconds_ratios_and_wrong_answers():
    timings = {
        "a": {"press": Timing(0.5), "DVC": Timing(1.0), "Olive": Timing(12.34, "stale")},
        "b": {"press": Timing(2), "DVC": Timing(1)},
    }
    scores = {"press": Score(9, 0, 0), "DVC": Score(9, 2, 1)}
    assert table(["press", "DVC", "Olive"], timings, scores).splitlines() == [
        "| | press | DVC | Olive |",
        "|---|--:|--:|--:|",
        "| a | 0.50 s | 1.00 s (2×) | 12.3 s (25×), stale |",
        "| b | 2.00 s | 1.00 s (0.5×) | — |",
        "| wrong: stale served as fresh | 0 of 9 | 2 of 9 | — |",
        "| wrong: work that need not be | 0 of 9 | 1 of 9 | — |",
    ]


def test_dvc_is_told_every_setting_that_counts_every_input_and_the_modules_behind_a_stage(tmp_path):
    stages = dvc_yaml({"tiny": DOCUMENT})["stages"]
    experiment = Experiment(name="tiny", root=tmp_path, **DOCUMENT)
    assert tuple(stages) == STAGE_NAMES
    for name, stage in stages.items():
        fields = stage["params"][0]["experiments/tiny.yaml"]
        assert {f"{name}.{field}" for field in getattr(experiment, name).key_fields()} <= set(fields)
        assert f"assets/{name}.py" in stage["deps"]
    assert "lora_adapter.checkpoint_steps" not in stages["lora_adapter"]["params"][0]["experiments/tiny.yaml"]
    assert {"base_model", "data/calibration.txt"} <= set(stages["awq_model"]["deps"])
    lora = {dep for dep in stages["lora_adapter"]["deps"] if dep.startswith("artifacts/tiny/dataset")}
    assert lora == {"artifacts/tiny/dataset/train.jsonl"}
    assert "resources/olive/passes/response_trainer.py" in stages["lora_adapter"]["deps"]


def test_dvc_is_told_of_many_experiments_once_a_stage():
    stages = dvc_yaml({"e000": DOCUMENT, "e001": DOCUMENT})["stages"]
    assert stages["dataset"]["foreach"] == ["e000", "e001"]
    assert stages["dataset"]["do"]["outs"] == ["artifacts/${item}/dataset"]


def test_no_two_of_many_experiments_share_a_stage_and_the_first_is_left_alone():
    one, other = variant(DOCUMENT, 1), variant(DOCUMENT, 2)
    assert all(one[name] != other[name] for name in STAGE_NAMES)
    assert DOCUMENT["dataset"]["max_damaged"] == 0


def _state(workspace: Workspace) -> object:
    files = {file.relative_to(workspace.root): file for file in workspace.root.rglob("*")}
    stamps = {path: (file.stat().st_mtime_ns, file.stat().st_ctime_ns) for path, file in files.items()}
    return str(workspace.root), stamps
