"""The external inputs of an experiment; a module each, so that a change to one leaves the others' keys alone."""

from assets.sources.base_model import BaseModel
from assets.sources.calibration_text import CalibrationText
from assets.sources.source_data import SourceData

__all__ = ["BaseModel", "CalibrationText", "SourceData"]
