"""dataset: the rows of the source data file, checked, normalised and split into train and eval.

Recipe: read strictly; drop exact duplicates; drop damaged rows, or stop where they are more than max_damaged; split by
prompt. A prompt's side is u < eval_fraction with u = sha256(seed, prompt) / 2^256, so it stays where it is when rows
are added, and both sides never share a prompt.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.experiment import DatasetSpec
from assets.stage import Attempt, Facts, Stage
from resources.damage import find_damage
from resources.errors import ConfigurationError
from resources.plots import histogram_plot
from resources.rows import canonical_lines, list_lines, read_rows
from resources.store.keys import encode

if TYPE_CHECKING:
    import pandas as pd

PREVIEW_ROWS = 8
SIDES = ("train", "eval")


class Dataset(Stage):
    """The source data's rows, checked, normalised and split by prompt: train.jsonl and eval.jsonl."""

    name = "dataset"
    made_from = ("source_data",)
    tools = ("pandas",)
    heavy = False

    def spec(self) -> DatasetSpec:
        return self.experiment.dataset

    def produce(self, attempt: Attempt) -> None:
        """train.jsonl and eval.jsonl, rows in the source's order, and counts.json; nothing in them knows a line."""
        import pandas as pd

        place = f"{self.experiment.name}.yaml: dataset.path {self.spec().path}"
        source = (attempt.inputs["source_data"] / "source.jsonl").read_bytes()
        rows = pd.DataFrame(read_rows(source, place))
        distinct = rows.drop_duplicates(["prompt", "response"], ignore_index=True)
        whole, damaged = _drop_damaged(distinct, self.spec().max_damaged, place)
        sides = split_sides(whole["prompt"].tolist(), self.spec().eval_fraction, self.spec().seed, place)
        counts = {"rows": len(rows), "duplicates": len(rows) - len(distinct), "damaged": damaged}
        counts |= {"prompts": len(set(whole["prompt"]))}
        for side in SIDES:
            part = whole.loc[[one == side for one in sides]]
            counts[f"{side}_rows"] = len(part)
            lines = canonical_lines(zip(part["prompt"], part["response"], strict=True))
            (attempt.folder / f"{side}.jsonl").write_text(lines, encoding="utf-8", newline="\n")
        (attempt.folder / "counts.json").write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
        attempt.progress.log(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items()))

    def facts(self, folder: Path) -> Facts:
        rows = [{"side": side, **row} for side in SIDES for row in read_split(folder, side)]
        words = [len(row["response"].split()) for row in rows]
        preview = [row for side in SIDES for row in [row for row in rows if row["side"] == side][: PREVIEW_ROWS // 2]]
        return Facts(
            numbers=json.loads((folder / "counts.json").read_text(encoding="utf-8")),
            tables={"rows (preview)": preview, "words a response": _histogram(words)},
            plots={"length of responses": histogram_plot("Length of responses", "words", "rows", words)},
        )


def read_split(folder: Path, side: str) -> list[dict[str, str]]:
    """The rows {"prompt", "response"} of one side, "train" or "eval", of the dataset in `folder`."""
    lines = (folder / f"{side}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def split_sides(prompts: list[str], eval_fraction: float, seed: int, place: str) -> list[str]:
    """For each prompt its side, "train" or "eval"; prompts that differ in case or spacing only share one.

    When chance leaves a side empty, which few prompts make likely, the prompt nearest to it goes there.
    """
    draws = [_draw(seed, prompt) for prompt in prompts]
    if len(set(draws)) < 2:
        raise ConfigurationError(place, "one distinct prompt", "at least two, one for each side of the split")
    limit = eval_fraction
    if min(draws) >= limit:
        limit = sorted(set(draws))[1]
    elif max(draws) < limit:
        limit = max(draws)
    return ["eval" if draw < limit else "train" for draw in draws]


def _draw(seed: int, prompt: str) -> float:
    digest = hashlib.sha256(encode([seed, " ".join(prompt.casefold().split())])).digest()
    return int.from_bytes(digest) / 2**256


def _drop_damaged(rows: pd.DataFrame, most: int, place: str) -> tuple[pd.DataFrame, int]:
    """The rows without damage and how many had some; over `most` of them is a ConfigurationError with examples."""
    found = find_damage(rows["prompt"].tolist(), rows["response"].tolist())
    notes = [(line, f"{damage[0]}: {damage[1]}") for line, damage in zip(rows["line"], found, strict=True) if damage]
    if len(notes) > most:
        raise ConfigurationError(
            place,
            f"{len(notes)} damaged row{'s' * (len(notes) > 1)}{list_lines(notes)}",
            f"at most {most} (dataset.max_damaged)",
            "Mend the rows, or raise max_damaged to leave them out",
        )
    whole = rows.loc[[damage is None for damage in found]]
    if whole.empty:
        raise ConfigurationError(place, "damaged rows only", "some rows without damage", "Mend the rows")
    return whole, len(notes)


def _histogram(words: list[int], width: int = 10) -> list[dict[str, Any]]:
    """Rows of {"words", "rows"}: how many responses fall into each interval of `width` words."""
    counts = {low: 0 for low in range(min(words) // width * width, max(words) + 1, width)}
    for count in words:
        counts[count // width * width] += 1
    return [{"words": f"{low} to {low + width - 1}", "rows": rows} for low, rows in counts.items()]
