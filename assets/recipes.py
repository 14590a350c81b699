"""Every recipe of an experiment under its name: what comes from outside, the six stages in order, their parts."""

from __future__ import annotations

from functools import cache

from assets.awq_model import AwqModel
from assets.dataset import Dataset
from assets.eval_report import EvalReport
from assets.experiment import Experiment
from assets.lora_adapter import LoraAdapter
from assets.onnx_model import OnnxModel
from assets.registered_model import RegisteredModel
from assets.sources.base_model import BaseModel
from assets.sources.calibration_text import CalibrationText
from assets.sources.source_data import SourceData
from assets.stage import Recipe, Source, Stage

SOURCES: tuple[type[Source], ...] = (SourceData, BaseModel, CalibrationText)
STAGES: tuple[type[Stage], ...] = (Dataset, AwqModel, LoraAdapter, OnnxModel, EvalReport, RegisteredModel)
SOURCE_NAMES = tuple(source.name for source in SOURCES)
STAGE_NAMES = tuple(stage.name for stage in STAGES)
GPU_STAGES = ("awq_model", "lora_adapter", "eval_report")  # compute with PyTorch, on a GPU where there is one


def open_sources(experiment: Experiment) -> dict[str, Source]:
    """Source name → source, for the external inputs of `experiment`."""
    return {source.name: source(experiment) for source in SOURCES}


def open_stages(experiment: Experiment) -> dict[str, Stage]:
    """Stage name → stage, in an order where inputs come first."""
    return {stage.name: stage(experiment) for stage in STAGES}


def open_recipe(experiment: Experiment, name: str) -> Recipe:
    """The source, stage or part of `experiment` that is called `name`."""
    return _classes()[name](experiment)


@cache
def _classes() -> dict[str, type[Recipe]]:
    parts = [part for stage in STAGES for part in stage.parts]
    return {recipe.name: recipe for recipe in (*SOURCES, *STAGES, *parts)}
