"""One GenAI folder asked in a process of its own: logits of given tokens, tokens a second, what its kernels take.

python -m benchmarks.gpu.decode_run --folder FOLDER --tokens FILE --made FOLDER [--adapter NAME] [--kernels]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

PROMPTS = (16, 1024)
MEASURED = 200
WARM = 20
MAX_LENGTH = 2048


def main() -> None:
    options = _options()
    result = _kernels(options) if options.kernels else _answers(options)
    (options.made / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _answers(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds to open the folder and tokens a second; the logits go to a file."""
    import numpy as np

    from resources.genai import GenaiModel

    started = time.perf_counter()
    model = GenaiModel(options.folder, options.adapter)
    loaded = time.perf_counter() - started
    sequences = json.loads(options.tokens.read_text(encoding="utf-8"))
    logits = [_logits(model, sequence["prompt"], sequence["then"]) for sequence in sequences]
    np.savez(options.made / "logits.npz", *logits)
    return {"load": loaded, "speed": {str(length): _speed(model, length) for length in PROMPTS}}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("folder", "tokens", "made"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--adapter")
    parser.add_argument("--kernels", action="store_true", help="tell how long each kernel takes")
    return parser.parse_args()


def _logits(model: Any, prompt: list[int], then: list[int]) -> Any:
    """[1 + len(then), vocabulary]: after the prompt at once, and after each further token by itself, as in decoding."""
    import numpy as np

    generator = model.open_generator(len(prompt) + len(then) + 1)
    generator.append_tokens(prompt)
    rows = [np.asarray(generator.get_output("logits"))[0, -1].astype(np.float32)]
    for token in then:
        generator.append_tokens([token])
        rows.append(np.asarray(generator.get_output("logits"))[0, -1].astype(np.float32))
    return np.stack(rows)


def _speed(model: Any, length: int) -> float:
    """Tokens a second after a prompt of `length` tokens, WARM tokens left out; the better of two runs."""
    return max(_decode(model, length) for _ in range(2))


def _decode(model: Any, length: int) -> float:
    generator = model.open_generator(MAX_LENGTH)
    generator.append_tokens([3 + index % 900 for index in range(length)])
    for _ in range(WARM):
        generator.generate_next_token()
    started = time.perf_counter()
    for _ in range(MEASURED):
        generator.generate_next_token()
    generator.get_next_tokens()  # waits for the GPU
    return MEASURED / (time.perf_counter() - started)


def _kernels(options: argparse.Namespace) -> dict[str, float]:
    """Kernel → microseconds a token."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from resources.genai import GenaiModel

    torch.ones(1, device="cuda")  # its profiler is to see all that follows
    generator = GenaiModel(options.folder, options.adapter).open_generator(MAX_LENGTH)
    generator.append_tokens(list(range(3, 19)))
    for _ in range(WARM):
        generator.generate_next_token()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(WARM):
            generator.generate_next_token()
        torch.cuda.synchronize()
    return {event.key: event.self_device_time_total / WARM for event in profiled.key_averages()}


if __name__ == "__main__":
    main()
