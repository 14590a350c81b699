"""A process that answers prompts with an onnx_model, its base and its adapter in turn, and tells its peak memory.

Started as `python -m resources.answering`, with one request on standard input; a JSON document a line comes back:
{"step": [done, total, note]} after each prompt, at last the answers or the error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from resources.errors import PressError
from resources.genai import GenaiModel, Generation, decode_speed
from resources.peak_memory import peak_memory_bytes

WARM_UP_TOKENS = 4  # the first run of a graph also plans its memory


def main() -> int:
    """Serve one request; the exit code is 0, or that of the user's error."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints is no answer
    requests = os.fdopen(os.dup(0), "rb", buffering=0)  # a buffer's lock would be held at the end of the process
    request = json.loads(requests.readline())
    threading.Thread(target=_end_with, args=(requests,), daemon=True).start()
    try:
        _tell(answers, _answer(request, answers))
    except PressError as error:
        _tell(answers, {"error": error.to_json()})
        return error.exit_code
    return 0


def _answer(request: dict[str, Any], answers: BinaryIO) -> dict[str, Any]:
    adapter, tokens = request["adapter"], request["max_new_tokens"]
    model = GenaiModel(Path(request["folder"]), adapter)
    for name in (None, adapter):
        model.use_adapter(name)
        model.generate(request["prompts"][0], WARM_UP_TOKENS)
    base: list[Generation] = []
    adapted: list[Generation] = []
    for number, prompt in enumerate(request["prompts"]):
        # in turn for each prompt, so that a machine that slows down slows both
        for name, given in ((None, base), (adapter, adapted)):
            model.use_adapter(name)
            given.append(model.generate(prompt, tokens))
        note = f"{decode_speed(adapted):.0f} tokens/s" if adapted[-1].tokens > 1 else ""
        _tell(answers, {"step": [number + 1, len(request["prompts"]), note]})
    return {
        "base": [asdict(answer) for answer in base],
        "adapter": [asdict(answer) for answer in adapted],
        "peak_memory_bytes": peak_memory_bytes(),
    }


def _tell(answers: BinaryIO, document: dict[str, Any]) -> None:
    answers.write(json.dumps(document).encode() + b"\n")


def _end_with(requests: BinaryIO) -> None:
    """End when the one who asked is gone, however that went: nobody would read the answers."""
    requests.read()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
