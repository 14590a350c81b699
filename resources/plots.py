"""Small plots as PNG bytes: the same figures give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#4C72B0", "#DD8452", "#55A868", "#C44E52")


def bar_plot(title: str, unit: str, bars: Mapping[str, float], digits: int = 2) -> bytes:
    """A PNG with one labelled bar a name, each with its value; `unit` names the axis."""
    figure, axes = _open_figure(title, "", unit)
    drawn = axes.bar(
        list(bars), list(bars.values()), color=[COLOURS[i % len(COLOURS)] for i in range(len(bars))], width=0.6
    )
    axes.bar_label(drawn, labels=[f"{value:.{digits}f}" for value in bars.values()], padding=2)
    axes.margins(y=0.15)
    return _png(figure)


def line_plot(title: str, x_label: str, y_label: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> bytes:
    """A PNG with one line a name, through its (x, y) points."""
    figure, axes = _open_figure(title, x_label, y_label)
    for index, (name, points) in enumerate(lines.items()):
        x, y = [point[0] for point in points], [point[1] for point in points]
        axes.plot(
            x,
            y,
            label=name,
            color=COLOURS[index % len(COLOURS)],
            marker="o" if len(points) < 15 else None,
            markersize=3,
        )
    if len(lines) > 1:
        axes.legend(frameon=False)
    return _png(figure)


def histogram_plot(title: str, x_label: str, y_label: str, values: Sequence[float], bins: int = 30) -> bytes:
    """A PNG with how many of `values` fall into each of `bins` equal intervals."""
    figure, axes = _open_figure(title, x_label, y_label)
    axes.hist(values, bins=bins, color=COLOURS[0])
    return _png(figure)


def _open_figure(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # No pyplot: nothing global to leak, no display to look for.
    figure = Figure(figsize=(5.6, 3.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
