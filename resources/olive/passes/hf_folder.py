"""A Hugging Face folder as an input model of Olive that is not hashed.

Olive hashes every byte of an input model to name it in its cache: 6.5 s of the 18 that AWQ takes on a GPU for a model
of 7.6 GB. A run here has a cache of its own, and the store knows the folder by its digest already.
"""

from __future__ import annotations

from typing import Any

from olive.model import HfModelHandler
from olive.model.config.registry import model_handler_registry


@model_handler_registry("OlivePressHfFolder")
class HfFolder(HfModelHandler):
    """An HfModel whose path goes by another name: Olive hashes what its config calls `model_path`."""

    def __init__(self, folder: str, **settings: Any) -> None:
        super().__init__(model_path=folder, **settings)
