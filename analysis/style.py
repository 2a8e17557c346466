"""The look of every figure: sizes for a paper column, one colour, marker and dash pattern per method.

Readable in black and white: markers and dashes differ beside the colours (seaborn's colour-blind palette). Only
`Figure` objects are used, so there is no display and no global state, and equal data give equal files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd
import seaborn as sns  # type: ignore[import-untyped, unused-ignore]
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

COLUMN = 3.4
"""Width of one column of a paper in inches."""

INK, GREY, LINE = "#222222", "#858585", "#e4e4e4"
BLIND = (0, (2, 1.5))
MARKERS = "osD^vPX<>p"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)))
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.linewidth": 0.6, "lines.linewidth": 1.2, "axes.grid": True,
    "grid.linewidth": 0.4, "grid.color": LINE, "axes.axisbelow": True, "axes.edgecolor": "#555555",
    "axes.spines.top": False, "axes.spines.right": False, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.bottom": True, "ytick.left": True, "legend.frameon": False, "pdf.fonttype": 42,
}  # fmt: skip


class Look(NamedTuple):
    """How one model is drawn in every figure."""

    color: Any
    marker: str
    dashes: Any
    size: float = 4.0


YARDSTICKS = {"vanilla": Look(INK, "*", ":", 6.5), "reference": Look(GREY, "h", "-", 5.5)}


def look(method: str, methods: Sequence[str]) -> Look:
    """The look of a method by its place in the study, the same in all figures; vanilla and reference have their own."""
    if method in YARDSTICKS:
        return YARDSTICKS[method]
    place = list(methods).index(method)
    palette = sns.color_palette("colorblind")
    colors = [palette[number] for number in (0, 1, 2, 3, 4, 5, 9, 6, 8)]  # without grey, the palest last
    return Look(colors[place % len(colors)], MARKERS[place % len(MARKERS)], DASHES[place % len(DASHES)])


@contextmanager
def styled() -> Iterator[None]:
    """The settings of all figures, for the time of a block."""
    base: dict[Any, Any] = sns.axes_style("whitegrid")
    with mpl.rc_context({**base, **RC}):
        yield


def panels(ratios: pd.Series[int], rows: int, height: float) -> tuple[Figure, Any]:
    """A figure with a column of panels for each ratio: one paper column wide for one ratio, two for more."""
    columns = ratios.nunique()
    figure = Figure(figsize=(COLUMN if columns == 1 else 2 * COLUMN + 0.2, height * rows + 0.5), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)


def line(axis: Axes, x: pd.Series[Any], y: pd.Series[Any], how: Look, **more: Any) -> None:
    """A line with the markers of a method."""
    axis.plot(x, y, color=how.color, linestyle=how.dashes, marker=how.marker, markersize=how.size,
              markeredgecolor="white", markeredgewidth=0.4, **more)  # fmt: skip


def mark(label: str, how: Look, *, hollow: bool = False, line: bool = False) -> Line2D:
    """An entry of a legend."""
    return Line2D(
        [], [], label=label, color=how.color, linestyle=how.dashes if line else "", marker=how.marker,
        markersize=how.size, markerfacecolor="none" if hollow else how.color,
        markeredgecolor=how.color if hollow else "white", markeredgewidth=0.9 if hollow else 0.4,
    )  # fmt: skip


def legend(
    figure: Figure, present: pd.Series[str], methods: Sequence[str], marks: Sequence[Line2D], *, lines: bool = True
) -> None:
    """One legend under all panels: the methods that are there, in the order of the study, then the special marks."""
    there = [method for method in methods if method in set(present)]
    entries = [mark(method.replace("_", " "), look(method, methods), line=lines) for method in there]
    columns = max(2, int(figure.get_figwidth() / 1.4))
    figure.legend(handles=[*entries, *marks], loc="outside lower center", ncols=columns, handlelength=2.8)
