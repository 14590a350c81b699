"""Plots are PNG images that show the figures, and come out the same each time."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO

import pytest
from PIL import Image

from resources.plots import bar_plot, histogram_plot, line_plot

DRAWINGS = {
    "bars": lambda scale: bar_plot("Perplexity", "perplexity", {"base": 35.3, "adapter": 35.3 * scale}),
    "lines": lambda scale: line_plot(
        "Loss", "step", "loss", {"train": [(0, 2.0), (1, scale)], "held-out": [(0, 2.0), (1, 1.9)]}
    ),
    "histogram": lambda scale: histogram_plot("Length", "words", "rows", [1, 2, 2, 3, 3, 3, 10 * scale], bins=5),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_plot_is_a_readable_image(name):
    image = Image.open(BytesIO(DRAWINGS[name](0.5)))
    assert image.format == "PNG"
    assert image.width > 400 and image.height > 250
    assert len(image.convert("RGB").getcolors(1 << 24)) > 10  # something is drawn on it


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_same_figures_give_the_same_bytes_and_others_do_not(name):
    assert DRAWINGS[name](0.5) == DRAWINGS[name](0.5)
    assert DRAWINGS[name](0.5) != DRAWINGS[name](0.9)


def test_bytes_do_not_depend_on_the_process():
    program = (
        "import sys; from resources.plots import bar_plot;"
        "sys.stdout.buffer.write(bar_plot('Speed', 'tokens/s', {'base': 98.0, 'adapter': 85.0}, digits=0))"
    )
    other = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout
    assert other == bar_plot("Speed", "tokens/s", {"base": 98.0, "adapter": 85.0}, digits=0)


def test_importing_the_module_does_not_import_matplotlib():
    program = "import sys, resources.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
