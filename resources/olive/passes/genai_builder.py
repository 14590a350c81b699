"""An Olive pass behind which the model builder of ONNX Runtime GenAI runs on an olive-quantized model.

Olive 0.13's own ModelBuilder pass needs a builder of 0.14.1 or older. This one hands the folder to the builder of the
installed release, which reads Olive's format and copies the codes, scales and zero points as they are.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from olive.hardware.accelerator import AcceleratorSpec
from olive.model import OliveModelHandler, ONNXModelHandler
from olive.passes import Pass
from olive.passes.olive_pass import PassConfigParam
from olive.passes.pass_config import BasePassConfig

from resources.olive.phases import phase
from resources.olive.targets import FLOAT_PRECISIONS
from resources.olive.unfused import has_fused_projections, write_unfused

logger = logging.getLogger(__name__)
GRAPH_FILE = "model.onnx"
# They warn about the tied head, which has its name in the graph before the builder has quantized it.
CHATTY = ("onnx_ir", "onnxruntime.quantization")


class OlivePressGenaiBuilder(Pass):
    """An ONNX Runtime GenAI folder from a Hugging Face folder, olive-quantized where the precision is not a float."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {
            "precision": PassConfigParam(type_=str, default_value="int4", description="the builder's -p"),
            "provider": PassConfigParam(
                type_=str, required=True, description="the builder's -e: the provider the graph is for, not built on"
            ),
            "options": PassConfigParam(
                type_=dict[str, str], required=True, description="the builder's --extra_options, in its own words"
            ),
        }

    def _run_for_config(
        self, model: OliveModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        settings: dict[str, Any] = config.model_dump()  # pyright: ignore[reportCallIssue]
        source, out = Path(model.get_resource("model_path")), Path(output_model_path)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unfused-", dir=out.parent) as scratch:  # as large as the model
            if settings["precision"] not in FLOAT_PRECISIONS and has_fused_projections(source):
                with phase("cut fused projections"):
                    write_unfused(source, Path(scratch) / "model")
                source = Path(scratch) / "model"
            with phase("model builder"):
                build(source, out, settings["precision"], settings["provider"], settings["options"])
        others = sorted(str(file) for file in out.iterdir() if not file.name.startswith(GRAPH_FILE))
        return ONNXModelHandler(out, onnx_file_name=GRAPH_FILE, model_attributes={"additional_files": others})


def build(source: Path, out: Path, precision: str, provider: str, options: dict[str, str]) -> None:
    """Leave in `out` what the builder makes of the folder `source`: graph, data, genai_config.json, tokenizer."""
    from onnxruntime_genai.models.builder import create_model, parse_extra_options

    with tempfile.TemporaryDirectory(prefix="builder-", dir=out.parent) as cache, _builder_log():
        place = (None, str(source), str(out), precision, provider, f"{cache}/builder")
        given = parse_extra_options(*place, [f"{name}={value}" for name, value in options.items()])
        create_model(*place, **given)
        gc.collect()  # the builder's model and the weights it read refer to each other


@contextlib.contextmanager
def _builder_log() -> Iterator[None]:
    """What the builder prints and draws goes to the log at level debug, so that standard output stays the caller's."""
    printed = io.StringIO()
    levels = {name: logging.getLogger(name).level for name in CHATTY}
    try:
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for line in printed.getvalue().splitlines():
            logger.debug("%s", line.rpartition("\r")[2])
