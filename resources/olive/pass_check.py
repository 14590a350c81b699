"""A process that asks Olive whether it would run a list of passes, without running one.

Started as `python -m resources.olive.pass_check` with a request on standard input (pass_list.check_parameters); the
mistakes come back as one JSON list. A process, because the modules of passes import torch.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from resources.olive.pass_list import OURS, Kind, canonical

CALIBRATION = "calibration"
SYSTEM_KEYS = ("host", "evaluator")
SEARCH = ("SEARCHABLE_VALUES", "SearchParameter")
# Parameters, at any depth, that load code or read what no key would notice a change in.
CODE = ("user_script", "script_dir", "trust_remote_code", "model_script", "custom_op_lib")
Mistake = dict[str, str]


def main() -> int:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print, and standard output is the answer's
    request = json.loads(sys.stdin.read())
    json.dump(list(mistakes(**request)), answers)
    answers.close()
    return 0


def mistakes(passes: list[dict[str, Any]], kind: Kind, device: str, provider: str) -> Iterator[Mistake]:
    """What Olive, or the store, cannot accept in `passes`."""
    from olive.hardware.accelerator import AcceleratorSpec
    from olive.hardware.constants import ExecutionProvider
    from olive.package_config import OlivePackageConfig

    accelerator: Any = AcceleratorSpec(device, ExecutionProvider(provider))
    package = OlivePackageConfig.load_default_config()
    for index, one in enumerate(passes):
        if canonical(one["type"]) == OURS:
            continue
        try:
            olive_pass = package.import_pass_module(one["type"])
            known = olive_pass.default_config(accelerator)
        except ImportError as error:
            yield _mistake(f"[{index}].type", f"{one['type']}, which does not import ({error})", "an installed pass")
            continue
        own = list(_parameter_mistakes(one, known, kind))
        yield from ({**mistake, "at": f"[{index}]{mistake['at']}"} for mistake in own)
        if not own:
            yield from _refused(olive_pass, one, accelerator, f"[{index}]")


def _parameter_mistakes(one: Mapping[str, Any], known: Mapping[str, Any], kind: Kind) -> Iterator[Mistake]:
    for name, value in one.items():
        if name == "type":
            continue
        if name in SYSTEM_KEYS:
            yield _mistake(f".{name}", repr(value), "no word of it: the sections compute and eval_report decide that")
        elif name not in known:  # Olive warns and goes on without it
            accepted = sorted(parameter for parameter in known if not _takes_a_file(parameter, known[parameter]))
            yield _mistake(f".{name}", "an unknown parameter", ", ".join(accepted) or "no parameter")
        elif value is not None and _takes_a_file(name, known[name]):
            yield _mistake(
                f".{name}", repr(value), "nothing: it loads code or a file that no key would notice a change in"
            )
        elif name.endswith("data_config"):
            if kind != "awq_model" or value != CALIBRATION:
                accepted = "calibration, the samples of awq_model" if kind == "awq_model" else "nothing"
                yield _mistake(f".{name}", repr(value), accepted)
        else:
            yield from _hidden(value, f".{name}")
    for name, parameter in known.items():  # before Olive, whose validators stumble over what is missing
        if parameter.required and name not in one and not name.endswith("data_config"):
            yield _mistake(f".{name}", "nothing", "a value; this parameter is required")


def _takes_a_file(name: str, parameter: Any) -> bool:
    return str(parameter.category) in ("path", "object", "data") or name in CODE


def _hidden(value: Any, at: str) -> Iterator[Mistake]:
    """Code and searches inside a value."""
    if isinstance(value, Mapping):
        if SEARCH[1] in value.values():
            yield _mistake(at, "a search", "one value: a key names one artifact")
        for name, inner in value.items():
            if name in CODE and inner:
                yield _mistake(
                    f"{at}.{name}", repr(inner), "nothing: it loads code that no key would notice a change in"
                )
            else:
                yield from _hidden(inner, f"{at}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _hidden(inner, f"{at}[{index}]")
    elif value == SEARCH[0]:
        yield _mistake(at, repr(value), "one value: a key names one artifact")


def _refused(olive_pass: Any, one: Mapping[str, Any], accelerator: Any, at: str) -> Iterator[Mistake]:
    """What Olive's own validation of the configuration says."""
    from pydantic import ValidationError

    given = {name: value for name, value in one.items() if name != "type"}
    given |= {  # the run config has them; here only their being there counts
        name: {"name": CALIBRATION, "type": "DataContainer"}
        for name in olive_pass.default_config(accelerator)
        if name.endswith("data_config") and (name in given or olive_pass.default_config(accelerator)[name].required)
    }
    logged = _Lines()
    logging.getLogger("olive").addHandler(logged)
    try:
        config = olive_pass.generate_config(accelerator, given, disable_search=True)
        accepted = olive_pass.validate_config(config, accelerator)
    except ValidationError as error:
        for detail in _by_place(error):
            found = "nothing" if detail["type"] == "missing" else repr(detail["input"])
            yield _mistake(f"{at}.{detail['loc'][0]}" if detail["loc"] else at, found, detail["msg"])
        return
    except (
        ValueError,
        TypeError,
        AssertionError,
        KeyError,
        AttributeError,
    ) as error:  # whatever its checks stumble over
        yield _mistake(
            at, repr(given), f"parameters that Olive's own check of the pass takes ({' '.join(str(error).split())})"
        )
        return
    finally:
        logging.getLogger("olive").removeHandler(logged)
    yield from _surgery_mistakes(olive_pass, given.get("surgeries"), f"{at}.surgeries")
    if not accepted:
        yield _mistake(at, repr(given), " ".join(logged.lines) or f"what {one['type']} can do on {accelerator}")


def _surgery_mistakes(olive_pass: Any, surgeries: Any, at: str) -> Iterator[Mistake]:
    """What GraphSurgeries would say of its surgeries when it runs; Olive's validation does not look at them."""
    if not hasattr(olive_pass, "get_surgeon_parameters") or not isinstance(surgeries, list):
        return
    from olive.passes.onnx.graph_surgeries import Surgeon

    for index, surgery in enumerate(surgeries):
        name = str(surgery.get("surgeon", "")) if isinstance(surgery, Mapping) else ""
        surgeon = Surgeon.registry.get(name.lower())
        if surgeon is None:
            yield _mistake(f"{at}[{index}].surgeon", repr(name), ", ".join(sorted(Surgeon.registry)))
            continue
        required, optional = olive_pass.get_surgeon_parameters(surgeon)
        given = surgery.keys() - {"surgeon"}
        if missing := sorted(set(required) - given):
            yield _mistake(f"{at}[{index}].{missing[0]}", "nothing", "a value; this parameter is required")
        if extra := sorted(given - {*required, *optional}):
            accepted = ", ".join((*required, *optional)) or "no parameter"
            yield _mistake(f"{at}[{index}].{extra[0]}", "an unknown parameter", accepted)


def _by_place(error: Any) -> list[Any]:
    """The first detail of each parameter: a parameter of several types has a detail for each type."""
    details = {detail["loc"][:1]: detail for detail in reversed(error.errors(include_url=False))}
    return list(reversed(details.values()))


def _mistake(at: str, found: str, accepted: str) -> Mistake:
    return {"at": at, "found": found, "accepted": accepted}


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


if __name__ == "__main__":
    sys.exit(main())
