"""The eval report on a tiny model: true figures, the contract of report.json, and no figure where there is none."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest

from assets.eval_report import EvalReport, choose
from resources.errors import StageError
from resources.progress import RecordedProgress
from tests.onnx_folders import save_random_adapter, torch_logits
from tests.pressed import ROWS, TARGETS, open_experiment, press_inputs, produce, save_eval_rows

CONTRACT = {
    "quality": {"perplexity_base", "perplexity_adapter", "perplexity_drop", "chrf_base", "chrf_adapter"},
    "parity": {"exact", "exact_base", "shipped", "shipped_base"},
    "speed": {
        "tokens_per_second",
        "tokens_per_second_base",
        "first_token_seconds",
        "first_token_seconds_base",
        "peak_memory_bytes",
    },
    "size": {"folder_bytes", "adapter_bytes"},
    "rows": {"evaluated", "generated", "parity"},
}
FILES = {"report.json", "report.md"}


@pytest.fixture(scope="module")
def inputs(tiny_llama, tmp_path_factory):
    return press_inputs(tiny_llama, tmp_path_factory.mktemp("pressed"))


@pytest.fixture(scope="module")
def progress():
    return RecordedProgress()


@pytest.fixture(scope="module")
def folder(inputs, progress, tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    return produce(EvalReport(open_experiment(root)), root / "eval_report", inputs, progress)


@pytest.fixture(scope="module")
def report(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def make(inputs, tmp_path, **spec):
    made = produce(EvalReport(open_experiment(tmp_path, **spec)), tmp_path / "eval_report", inputs)
    return json.loads((made / "report.json").read_text(encoding="utf-8"))


def perplexity_in_pytorch(inputs, adapter):
    """Of the responses of all rows, the token that ends the turn among their tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(inputs["awq_model"])
    losses = []
    for row in ROWS:
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]
        asked = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True)["input_ids"]
        ids = list(tokenizer.apply_chat_template(turns)["input_ids"])
        end = len(asked) + ids[len(asked) :].index(tokenizer.eos_token_id) + 1
        logits = torch_logits(inputs["awq_model"], [ids[:end]], adapter)[0].astype(np.float64)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses += [-log_p[position - 1, ids[position]] for position in range(len(asked), end)]
    return math.exp(np.mean(losses))


def test_report_keeps_its_contract(report):
    assert report.keys() >= CONTRACT.keys() | {"samples"}
    for section, names in CONTRACT.items():
        assert report[section].keys() >= names
    for figures in report["parity"].values():
        assert figures.keys() >= {"agreement", "kl_nats", "tokens"}
    assert report["rows"] == {"evaluated": len(ROWS), "generated": 2, "parity": 4}


def test_perplexity_is_that_of_pytorch(report, inputs):
    quality = report["quality"]
    base = perplexity_in_pytorch(inputs, None)
    adapted = perplexity_in_pytorch(inputs, inputs["lora_adapter"])
    assert abs(math.log(adapted / base)) > 0.15  # else the next two lines would not tell them apart
    assert quality["perplexity_base"] == pytest.approx(base, rel=0.05)
    assert quality["perplexity_adapter"] == pytest.approx(adapted, rel=0.05)
    assert quality["perplexity_drop"] == pytest.approx(1 - quality["perplexity_adapter"] / quality["perplexity_base"])


def test_exact_graph_computes_what_pytorch_does(report):
    for name in ("exact", "exact_base"):
        figures = report["parity"][name]
        assert figures["agreement"] >= 0.999
        assert figures["kl_nats"] < 1e-6
        assert figures["tokens"] > 100


def test_shipped_graph_is_near_but_not_exact(report):
    for name in ("shipped", "shipped_base"):
        assert 0.8 <= report["parity"][name]["agreement"] <= 1
        assert 1e-6 < report["parity"][name]["kl_nats"] < 0.1


def test_contexts_that_rows_share_count_once(report, inputs):
    from resources.forced_rows import tokenise_rows

    compared = [ROWS[number] for number in choose(len(ROWS), 4, 0)]
    rows = tokenise_rows(compared, inputs["awq_model"])
    contexts = {(*row.prompt, *row.response)[: end + 1] for row in rows for end in range(len(row))}
    assert report["parity"]["exact"]["tokens"] == len(contexts) < sum(len(row) for row in rows)


def test_a_model_with_another_adapter_is_found_out(inputs, tmp_path):
    other = save_random_adapter(inputs["awq_model"], tmp_path / "other", TARGETS, seed=7)
    parity = make(inputs | {"lora_adapter": other}, tmp_path)["parity"]
    assert parity["shipped"]["agreement"] < 0.8 and parity["shipped"]["kl_nats"] > 0.1
    assert parity["shipped_base"]["agreement"] >= 0.8
    assert parity["exact"]["agreement"] == 1


def test_sizes_are_those_of_the_files(report, inputs):
    files = [path for path in inputs["onnx_model"].rglob("*") if path.is_file()]
    assert report["size"] == {
        "folder_bytes": sum(path.stat().st_size for path in files),
        "adapter_bytes": (inputs["onnx_model"] / "adapters" / "travel.onnx_adapter").stat().st_size,
    }
    assert report["speed"]["peak_memory_bytes"] > report["size"]["folder_bytes"]


def test_samples_set_both_answers_beside_the_reference(report, inputs):
    from resources.genai import GenaiModel

    model = GenaiModel(inputs["onnx_model"])
    references = {row["prompt"]: row["response"] for row in ROWS}
    for sample in report["samples"]:
        assert sample["reference"] == references[sample["prompt"]]
        for answer, adapter in (("base", None), ("adapter", "travel")):
            model.use_adapter(adapter)
            assert sample[answer] == model.generate(sample["prompt"], 8).text


def test_chrf_is_that_of_the_samples(report):
    from sacrebleu import corpus_chrf

    references = [[sample["reference"] for sample in report["samples"]]]
    scores = {
        name: corpus_chrf([one[name] for one in report["samples"]], references).score for name in ("base", "adapter")
    }
    assert scores["base"] != scores["adapter"]
    assert report["quality"]["chrf_base"] == pytest.approx(scores["base"])
    assert report["quality"]["chrf_adapter"] == pytest.approx(scores["adapter"])


def test_report_is_a_page_to_read(folder, report):
    text = (folder / "report.md").read_text(encoding="utf-8")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert f"{report['quality']['perplexity_adapter']:.4g}" in text
    for sample in report["samples"]:
        assert any(sample["prompt"] in line and sample["adapter"][:3] in line for line in tables)
    assert all(f"| {name.replace('_', ' ')} |" in text for name in report["parity"])


def test_facts_show_numbers_tables_plots_and_the_page_without_heavy_imports(folder, report, tmp_path):
    facts = EvalReport(open_experiment(tmp_path)).facts(folder)
    assert facts.numbers["perplexity_drop"] == report["quality"]["perplexity_drop"]
    assert facts.numbers["rows parity"] == 4
    assert [row["graph"] for row in facts.tables["parity"]] == ["exact", "exact_base", "shipped", "shipped_base"]
    assert facts.tables["answers"] == report["samples"]
    assert all(png.startswith(b"\x89PNG") for png in facts.plots.values()) and len(facts.plots) == 2
    assert facts.texts["report"] == (folder / "report.md").read_text(encoding="utf-8")
    kinds = [facts.numbers, facts.tables, facts.plots, facts.texts]
    assert len({name for kind in kinds for name in kind}) == sum(map(len, kinds))  # shown side by side
    program = (
        "import sys; from pathlib import Path; from assets.eval_report import EvalReport;"
        "from tests.pressed import open_experiment;"
        f"EvalReport(open_experiment(Path('.'))).facts(Path({str(folder)!r}));"
        "sys.exit(bool({'torch', 'transformers', 'onnxruntime', 'onnxruntime_genai', 'olive'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_folder_holds_the_report_and_names_no_place(folder, inputs):
    assert {path.name for path in folder.rglob("*")} == FILES
    for path in folder.iterdir():
        assert not [place for place in inputs.values() if str(place.parent).encode() in path.read_bytes()]


def test_progress_is_told_row_by_row(progress, report):
    assert ("answers", 2, 2) in progress.steps
    assert [done for what, done, _ in progress.steps if what == "held-out rows"] == list(range(1, len(ROWS) + 1))


def test_rows_and_seed_of_the_spec_decide_what_is_measured(inputs, tmp_path):
    report = make(inputs, tmp_path, rows=3, generated_rows=9, parity_rows=9)
    assert report["rows"] == {"evaluated": 3, "generated": 3, "parity": 3}
    assert [sample["prompt"] for sample in report["samples"]] == [row["prompt"] for row in ROWS[:3]]
    assert choose(100, 8, seed=0) == choose(100, 8, seed=0) != choose(100, 8, seed=1)
    assert choose(100, 8, seed=0) == sorted(set(choose(100, 8, seed=0)))


def test_a_dataset_without_eval_rows_is_an_error(inputs, tmp_path):
    with pytest.raises(StageError, match="the dataset has no eval rows"):
        make(inputs | {"dataset": save_eval_rows(tmp_path / "dataset", [])}, tmp_path)


def test_a_figure_that_is_not_finite_ends_the_stage(inputs, tmp_path):
    from safetensors.numpy import load_file, save_file

    from resources.olive.graft import graft_adapter

    broken = shutil.copytree(inputs["lora_adapter"], tmp_path / "lora_adapter")
    weights = load_file(broken / "adapter_model.safetensors")
    save_file(
        {name: np.full_like(value, 1e30) for name, value in weights.items()}, broken / "adapter_model.safetensors"
    )
    graft_adapter(inputs["onnx_graph_exact"], broken, tmp_path / "onnx_model", "travel")
    with pytest.raises(StageError, match=r"eval_report: .* is (nan|inf)"):
        make(inputs | {"lora_adapter": broken, "onnx_model": tmp_path / "onnx_model"}, tmp_path)
    assert not list((tmp_path / "eval_report").iterdir())
