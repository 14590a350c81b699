"""press run: what is computed, reused, restored and left alone after each kind of change."""

from __future__ import annotations

import json

from assets.experiment import read_experiment
from assets.recipes import open_stages
from orchestration.recorded import SqliteRecords
from resources.store.store import Store
from tests.project import tiny_rows


def artifact(project, stage):
    """The folder of the artifact that the stage was last materialized with."""
    recorded = SqliteRecords(project.home).histories(["tiny"])["tiny"].stages[stage]
    return Store(project.home).open(recorded.data_version)


STAGES = ["dataset", "awq_model", "lora_adapter", "onnx_model", "eval_report", "registered_model"]


def test_second_run_does_nothing(project):
    assert project.run() == dict.fromkeys(STAGES, "fresh")


def test_appended_row_leaves_awq_model_alone(project):
    project.write_rows(
        [*tiny_rows(), {"prompt": "What should I eat in Ghent?", "response": "In Ghent, eat waterzooi."}]
    )
    outcomes = project.run()
    assert outcomes.pop("awq_model") == "fresh"
    assert set(outcomes.values()) == {"computed"}


def test_reformatted_json_recomputes_the_dataset_only(project):
    rows = [json.dumps(dict(reversed(row.items())), indent=None, separators=(" , ", " : ")) for row in tiny_rows()]
    project.data.write_bytes("\r\n".join(rows).encode() + b"\r\n\r\n")
    outcomes = project.run()
    assert outcomes.pop("dataset") == "computed"
    assert set(outcomes.values()) <= {"fresh", "restored", "reused"}
    assert project.run() == dict.fromkeys(STAGES, "fresh")


def test_repeated_row_stops_at_the_dataset(project):
    project.write_rows([*tiny_rows(), tiny_rows()[0]])
    outcomes = project.run()
    assert outcomes.pop("dataset") == "computed"
    assert set(outcomes.values()) <= {"reused", "fresh"}
    assert project.run() == dict.fromkeys(STAGES, "fresh")


def test_changed_row_of_the_eval_side_trains_nothing(project):
    held_out = json.loads((artifact(project, "dataset") / "eval.jsonl").read_text().splitlines()[0])
    rows = [row | {"response": row["response"] + " Go early."} if row == held_out else row for row in tiny_rows()]
    project.write_rows(rows)
    outcomes = project.run()
    assert [outcomes[name] for name in STAGES] == ["computed", "fresh", "reused", "reused", "computed", "computed"]
    assert project.run() == dict.fromkeys(STAGES, "fresh")


def test_what_is_measured_of_the_awq_model_retrains_nothing(project):
    project.edit("awq_model", measure_samples=0)
    outcomes = project.run()
    assert outcomes.pop("awq_model") == "computed"
    assert set(outcomes.values()) <= {"reused", "fresh"}


def test_every_ignored_file_is_one_that_its_input_has(project):
    for name, stage in open_stages(read_experiment(project.root / "experiments" / "tiny.yaml")).items():
        for recipe in (stage, *(part(stage.experiment) for part in stage.parts)):
            for input_name, files in recipe.ignores.items():
                assert input_name in recipe.made_from, name
                assert all((artifact(project, input_name) / file).is_file() for file in files), (name, files)


def test_parameter_changed_and_changed_back_restores(project):
    project.edit("lora_adapter", r=2)
    changed = project.run()
    assert [changed[name] for name in STAGES] == ["fresh", "fresh", *["computed"] * 4]
    project.edit("lora_adapter", r=4)
    restored = project.run()
    assert [restored[name] for name in STAGES] == ["fresh", "fresh", *["restored"] * 4]


def test_moved_gate_does_not_repeat_the_evaluation(project):
    project.edit("registered_model", gates={"min_perplexity_drop": -9.0, "min_agreement": 0.0,
                                            "min_exact_agreement": 0.5, "max_kl_nats": 100.0})  # fmt: skip
    outcomes = project.run()
    assert outcomes.pop("registered_model") == "computed"
    assert set(outcomes.values()) == {"fresh"}


def test_failing_gate_blocks_the_registration(project):
    project.edit("registered_model", gates={"min_perplexity_drop": 0.99})
    done = project.press("run", "tiny", "--json")
    assert done.returncode == 1
    assert {s["stage"]: s["outcome"] for s in json.loads(done.stdout)["stages"]}["registered_model"] == "blocked"
    assert "min_perplexity_drop" in done.stderr
    assert project.plan()["registered_model"]["status"] == "blocked"


def test_selected_stage_and_its_inputs_only(project):
    project.edit("dataset", eval_fraction=0.3)
    outcomes = project.run("--select", "lora_adapter")
    assert [outcomes[name] for name in STAGES] == ["computed", "fresh", "computed", *["not_selected"] * 3]


def test_forced_stage_is_computed_again(project):
    outcomes = project.run("--force", "dataset")
    assert outcomes["dataset"] == "computed"
    assert outcomes["awq_model"] == "fresh"
    assert "computed" not in {outcomes[name] for name in STAGES[2:]}


def test_wrong_stage_name_is_a_request_error(project):
    done = project.press("run", "tiny", "--select", "lora")
    assert done.returncode == 2
    assert "'lora'" in done.stderr and "lora_adapter" in done.stderr


def test_bad_rows_are_told_with_their_lines_and_nothing_is_lost(project):
    good = project.data.read_text()
    project.data.write_text(good + '{"prompt": "x"}\nnot json\n')
    done = project.press("run", "tiny", "--json")
    assert done.returncode in (1, 2)
    assert "37" in done.stderr and "38" in done.stderr
    project.data.write_text(good)
    assert set(project.run().values()) <= {"fresh", "restored"}


def test_error_of_a_stage_in_its_own_process_is_one_message(project):
    project.edit("lora_adapter", target_modules=["qkv_proj"])
    done = project.press("run", "tiny", "--json")
    assert done.returncode == 2
    assert "lora_adapter.target_modules" in done.stderr and "qkv_proj" in done.stderr and "q_proj" in done.stderr
    assert done.stderr.count("press: ") == 1 and "Traceback" not in done.stderr and "Stack Trace" not in done.stderr


def test_wrong_base_model_is_told_before_anything_runs(project, tmp_path):
    project.edit("base_model", folder=str(tmp_path))
    done = project.press("run", "tiny", "--json")
    assert done.returncode == 2
    assert "base_model" in done.stderr and str(tmp_path) in done.stderr and "Traceback" not in done.stderr
