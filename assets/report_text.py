"""An eval report as a page to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def report_text(report: Mapping[str, Any]) -> str:
    """report.md: figures with and without the adapter, parity, sample answers side by side."""
    quality, speed, size = report["quality"], report["speed"], report["size"]
    figures = [
        ("held-out response perplexity", quality["perplexity_base"], quality["perplexity_adapter"]),
        ("chrF of answers", quality["chrf_base"], quality["chrf_adapter"]),
        ("tokens per second", speed["tokens_per_second_base"], speed["tokens_per_second"]),
        ("seconds to the first token", speed["first_token_seconds_base"], speed["first_token_seconds"]),
    ]
    parity = [
        (name.replace("_", " "), f"{one['agreement']:.2%}", f"{one['kl_nats']:.2g}", one["tokens"])
        for name, one in report["parity"].items()
    ]
    samples = [(row["prompt"], row["reference"], row["base"], row["adapter"]) for row in report["samples"]]
    return "\n".join(
        [
            "# Evaluation",
            "",
            f"The adapter lowers held-out perplexity by {quality['perplexity_drop']:.1%} "
            f"({report['rows']['evaluated']} rows).",
            "",
            *_table(("figure", "base", "with adapter"), [(name, f"{a:.4g}", f"{b:.4g}") for name, a, b in figures]),
            "",
            f"Folder {size['folder_bytes'] / 1e6:.1f} MB, adapter {size['adapter_bytes'] / 1e6:.1f} MB, "
            f"peak memory {speed['peak_memory_bytes'] / 1e6:.0f} MB.",
            "",
            "## Parity with PyTorch",
            "",
            *_table(("graph", "same greedy token", "KL, nats", "tokens"), parity),
            "",
            "## Answers",
            "",
            *_table(("prompt", "reference", "base", "with adapter"), samples),
            "",
        ]
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    names = list(head)
    lines = [_row(names), "|" + "---|" * len(names)]
    return lines + [_row(row) for row in rows]


def _row(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
