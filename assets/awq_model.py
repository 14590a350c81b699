"""awq_model: the base model in int4 (or int8), rounded so that it loses little on real activations.

AWQ, Lin et al., arXiv 2306.00978. Formula: find s that minimises ‖Q(W · diag(s)) · (diag(s)⁻¹ · X) − W · X‖, with
s = s_X^α · s_W^(α−1), and fold diag(s)⁻¹ into the operation before. Recipe: calibrate on samples of prose layer by
layer, search α for attention and MLP inputs and outputs, search the bounds of each group of weights, round to nearest
and pack as Olive does. The passes are in resources/olive/passes; here they are run and what they made is measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assets.stage import Attempt, Facts, Stage
from resources.calibration_text import calibration_part, measuring_part, token_samples
from resources.context import check_fits
from resources.errors import ConfigurationError, StageError
from resources.olive.awq_folder import load_dequantized
from resources.olive.awq_model import PASSES, awq_run_config, batch_size, check_group_size, is_ours
from resources.olive.pass_list import check_list, check_parameters, pass_tools
from resources.olive.unhashed import unhashed
from resources.olive.workflow import run_workflow
from resources.perplexity import perplexity
from resources.placement import placed

METRICS = "awq_metrics.json"
LAYERS = "awq_layers.json"  # what the pass leaves beside the weights
Samples = Sequence[Sequence[int]]


class AwqModel(Stage):
    """AWQ int4 weights in Olive's Hugging Face format, with tokenizer, and awq_metrics.json."""

    name = "awq_model"
    made_from = ("base_model", "calibration_text")
    tools = ("olive-ai", "torch", "transformers")

    def check(self) -> None:
        """A base model in a local folder shows its layer sizes before anything runs; Olive's passes have names."""
        check_list(self.experiment.awq_model.olive_passes, "awq_model", self._place())
        folder = self.experiment.base_model.folder
        file = self.experiment.path(folder) / "config.json" if folder else None
        if file is not None and file.is_file():
            self._check_sizes(_config(file.parent))

    def check_run(self, here: bool) -> None:
        """Olive says whether it takes the passes that are named, with their parameters."""
        if passes := self.experiment.awq_model.olive_passes:
            check_parameters(passes, "awq_model", self._place(), "cpu", "CPUExecutionProvider")

    def own_ingredients(self) -> dict[str, Any]:
        """Its own and the packages that the named passes need."""
        tools = pass_tools(self.experiment.awq_model.olive_passes)
        return super().own_ingredients() | {f"tool.{name}": told for name, told in tools.items()}

    def _place(self) -> str:
        return f"{self.experiment.name}.yaml: awq_model.olive_passes"

    def produce(self, attempt: Attempt) -> None:
        spec = self.experiment.awq_model
        base = attempt.inputs["base_model"]
        config = _config(base)
        self._check_sizes(config)
        calibrating, measuring = self._samples(base, attempt.inputs["calibration_text"])
        samples_file = attempt.scratch / "samples.json"
        samples_file.write_text(json.dumps(calibrating), encoding="utf-8")
        run_config = awq_run_config(
            base,
            samples_file,
            bits=spec.bits,
            group_size=spec.group_size,
            symmetric=spec.symmetric,
            ratios=spec.ratios,
            clip=spec.clip,
            device=attempt.device,
            batch_size=batch_size(attempt.device, spec.tokens),
            trust_remote_code=self.experiment.base_model.trust_remote_code,
            olive_passes=spec.olive_passes,
        )
        # a pass may open its input model anew, by the name that Olive has for such a model
        run_config = run_config if spec.olive_passes else unhashed(run_config)
        run_workflow(run_config, attempt.folder, attempt.progress, PASSES)
        self._check_quantized(attempt.folder)
        layers_file = attempt.folder / LAYERS
        metrics = {
            "base_bytes": _weight_bytes(base),
            "bytes": _weight_bytes(attempt.folder),
            **(self._perplexities(attempt, config, measuring) if measuring else {}),
            **({"layers": json.loads(layers_file.read_text(encoding="utf-8"))} if layers_file.is_file() else {}),
        }
        layers_file.unlink(missing_ok=True)
        (attempt.folder / METRICS).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")

    def _check_sizes(self, config: Mapping[str, Any]) -> None:
        spec = self.experiment.awq_model
        if not spec.olive_passes or any(is_ours(one) for one in spec.olive_passes):
            check_group_size(config, spec.group_size)
        check_fits(config, spec.tokens, "awq_model.tokens")

    def _check_quantized(self, folder: Path) -> None:
        """The stages after this one read Olive's format, whichever pass wrote it."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = (config.get("quantization_config") or {}).get("quant_method")
        if found != "olive":
            named = ", ".join(one["type"] for one in self.experiment.awq_model.olive_passes)
            raise StageError(
                "awq_model",
                f"after olive_passes ({named}) the model has {found or 'no'} quantization; accepted: olive",
                "Name a pass that quantizes last: OlivePressAwq, Rtn, Gptq or KQuant",
            )

    def facts(self, folder: Path) -> Facts:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        numbers["compression_ratio"] = round(metrics["base_bytes"] / metrics["bytes"], 3)
        tables = {"layers": metrics["layers"]} if "layers" in metrics else {}
        return Facts(numbers, tables, texts={"summary": self._summary(numbers)})

    def _samples(self, base: Path, text_folder: Path) -> tuple[Samples, Samples]:
        """Samples to calibrate on, and samples of other text to measure on."""
        spec = self.experiment.awq_model
        tokenizer = _tokenizer(base, self.experiment.base_model.trust_remote_code)
        text = (text_folder / "text.txt").read_text(encoding="utf-8")
        calibrating = token_samples(tokenizer, calibration_part(text), spec.samples, spec.tokens, spec.seed)
        measuring = token_samples(tokenizer, measuring_part(text), spec.measure_samples, spec.tokens, spec.seed)
        return calibrating, measuring

    def _perplexities(self, attempt: Attempt, config: Mapping[str, Any], measuring: Samples) -> dict[str, float]:
        """Perplexity of the base model and of the AWQ model on `measuring`, in the type the base model comes in."""
        import torch
        from transformers import AutoModelForCausalLM

        dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
        trusted = self.experiment.base_model.trust_remote_code
        attempt.progress.step("perplexity", 0, 2)
        base: Any = AutoModelForCausalLM.from_pretrained(
            attempt.inputs["base_model"],
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=trusted,
        )
        before = perplexity(placed(base.eval(), attempt.device), measuring)
        del base  # two models need not fit side by side
        attempt.progress.step("perplexity", 1, 2, f"float {before:.2f}")
        quantized = load_dequantized(attempt.folder, dtype, attempt.device, trusted, whole=False)
        after = perplexity(placed(quantized, attempt.device), measuring)
        attempt.progress.step("perplexity", 2, 2, f"float {before:.2f}, awq {after:.2f}")
        return {"float_perplexity": before, "awq_perplexity": after}

    def _summary(self, numbers: Mapping[str, float]) -> str:
        spec = self.experiment.awq_model
        kind = "symmetric" if spec.symmetric else "asymmetric"
        how = f"int{spec.bits}, {kind}, groups of {spec.group_size}"
        if spec.olive_passes:
            how = "Olive passes " + ", ".join(one["type"] for one in spec.olive_passes)
        lines = [
            f"{how}, calibrated on {spec.samples} × {spec.tokens} tokens",
            f"Weights: {numbers['base_bytes'] / 1e6:.1f} MB → {numbers['bytes'] / 1e6:.1f} MB",
        ]
        if "awq_perplexity" in numbers:
            before, after = numbers["float_perplexity"], numbers["awq_perplexity"]
            measured = f"{spec.measure_samples} × {spec.tokens} tokens of text it was not calibrated on"
            lines.append(f"Perplexity on {measured}: {before:.2f} → {after:.2f} ({100 * (after / before - 1):+.1f} %)")
        return "\n\n".join(lines)


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    accepted = "a folder in Hugging Face format that holds a causal language model"
    if not file.is_file():
        raise ConfigurationError("base_model", f"no config.json in {folder}", accepted)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError("base_model", f"a broken config.json in {folder} ({error})", accepted) from error
    architectures = config.get("architectures") or ["no architecture"]
    if not any("CausalLM" in name or "LMHead" in name for name in architectures):
        raise ConfigurationError("base_model", f"{', '.join(architectures)} in {folder}", accepted)
    return config


def _tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError(
            "base_model", f"no usable tokenizer in {folder} ({reason})", "tokenizer.json"
        ) from error


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
