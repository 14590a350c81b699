"""Sizes: as people write them, exactly."""

from __future__ import annotations

import pytest

from resources.errors import ConfigurationError
from resources.store.sizes import format_size, parse_size

SIZES = {
    "0": 0, "500000": 500_000, "12B": 12, "1kB": 1000, "500 MB": 500_000_000, "20GB": 20 * 10**9, "20gb": 20 * 10**9,
    "1.5TiB": 3 * 2**39, " 2 KiB ": 2048, "0.1GB": 10**8, "9007199254740993": 9007199254740993, "1PB": 10**15,
}  # fmt: skip


@pytest.mark.parametrize("text", SIZES)
def test_sizes(text):
    assert parse_size(text) == SIZES[text]


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "20 Gb/s", "1e9", "20 XB", "1,5 GB", "٢GB", "1.GB", "nan", "inf"])
def test_what_is_no_size_is_refused_with_what_is(text):
    with pytest.raises(ConfigurationError, match=r"--max-size: found .*accepted: a number and one of B, kB.*TiB"):
        parse_size(text, "--max-size")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (999_700, "1 MB"), (541_600_000, "542 MB"), (2 * 10**12, "2 TB")],
)
def test_sizes_are_shown_in_three_digits(count, text):
    assert format_size(count) == text
