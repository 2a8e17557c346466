"""The look of every figure: sizes for a paper column, one colour, marker and dash pattern per method.

Readable in black and white: markers and dashes differ beside the colours (seaborn's colour-blind palette, then the same
colours darkened): 16 methods have 16 markers, 18 have 18 colours. Only `Figure`
objects are used, so there is no display and no global state, and equal data give equal files, whatever a user's
matplotlibrc says. Seaborn, which takes a second to import, is there once something is drawn: figures of the same data
by the same code are not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import naming

COLUMN = 3.3
"""Width of one column of a paper in inches."""
TEXT = 2 * COLUMN + 0.2
"""Width of its text: two columns and what is between them."""

INK, GREY, LINE = "#222222", "#858585", "#e4e4e4"
BLIND = (0, (2, 1.5))
MARKERS: tuple[Any, ...] = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "d", "8", (4, 1, 0), (3, 1, 0), (6, 1, 0),
                            (4, 1, 45))  # fmt: skip
BRIGHT = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9", "#fbafe4", "#ece133")
"""Seaborn's colour-blind palette without grey, the palest last."""
DARKER = 0.55
COLORS = (*BRIGHT, *("#" + "".join(f"{round(DARKER * int(c[i : i + 2], 16)):02x}" for i in (1, 3, 5)) for c in BRIGHT))
ORDER = ("vkd", "gradient_ascent", "gradient_difference", "kl_minimization", "npo", "prompting", "mmunlearner", "manu",
         "preference_optimization", "rmu", "simnpo", "wga", "undial", "satimp", "visual_anchor")  # fmt: skip
"""Methods whose colour and marker are the same in every study: a new one comes last."""
LEGEND_WIDTH = 26
"""Characters in a line of the legend: a method with its settings takes several."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)))
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.linewidth": 0.6, "lines.linewidth": 1.2, "axes.grid": True,
    "grid.linewidth": 0.4, "grid.color": LINE, "axes.axisbelow": True, "axes.edgecolor": "#555555",
    "axes.spines.top": False, "axes.spines.right": False, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.bottom": True, "ytick.left": True, "legend.frameon": False, "pdf.fonttype": 42,
}  # fmt: skip


DPI = 300


class Look(NamedTuple):
    """How one model is drawn in every figure."""

    color: Any
    marker: Any
    dashes: Any
    size: float = 4.0


YARDSTICKS = {"vanilla": Look(INK, "*", ":", 6.5), "reference": Look(GREY, "h", "-", 5.5)}


def look(method: str, methods: Sequence[str]) -> Look:
    """The look of a method, the same in all figures; vanilla and reference have their own.

    That of a method in `ORDER` is the same in every study. Others, and further forms of one, take what is left.
    """
    if method in YARDSTICKS:
        return YARDSTICKS[method]
    place = _places(tuple(methods))[method]
    marker = MARKERS[place % len(MARKERS)]
    size = 4.0 if isinstance(marker, str) else 6.0  # stars are thin
    return Look(COLORS[place % len(COLORS)], marker, DASHES[place % len(DASHES)], size)


@lru_cache(maxsize=64)
def _places(methods: tuple[str, ...]) -> dict[str, int]:
    """A place among the looks for each method of a study."""
    found: dict[str, int] = {}
    for method in sorted(methods, key=lambda method: ":" in method):  # of several forms the plain one
        base = method.partition(":")[0]
        if base in ORDER and ORDER.index(base) not in found.values():
            found[method] = ORDER.index(base)
    free = (place for place in itertools.count() if place not in set(found.values()))
    return {method: found[method] if method in found else next(free) for method in methods}


@contextmanager
def styled() -> Iterator[None]:
    """The settings of all figures, for the time of a block."""
    import seaborn as sns

    base: dict[Any, Any] = sns.axes_style("whitegrid")
    with mpl.style.context(["default", base, RC]):
        yield


def panels(ratios: pd.Series[int], rows: int, height: float) -> tuple[Figure, Any]:
    """A figure with a column of panels for each ratio: one paper column wide for one ratio, two for more.

    Panels of a row have the same horizontal axis.
    """
    columns = ratios.nunique()
    figure = Figure(figsize=(COLUMN if columns == 1 else TEXT, height * rows + 0.5), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex="row", sharey=True)


def grid(count: int, height: float, xlabel: str, ylabel: str, columns: int = 4) -> tuple[Figure, list[Axes]]:
    """A figure two paper columns wide with `count` small panels of one vertical axis; the last row may be short."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    width = TEXT if columns > 2 else COLUMN * columns
    figure = Figure(figsize=(width, height * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).ravel())
    for unused in axes[count:]:
        unused.remove()
    for number, axis in enumerate(axes[:count]):
        axis.set_ylabel("" if number % columns else ylabel)
        axis.set_xlabel(xlabel if number + columns >= count else "")
    return figure, axes[:count]


def line(axis: Axes, x: pd.Series[Any], y: pd.Series[Any], how: Look, **more: Any) -> None:
    """A line with the markers of a method."""
    axis.plot(x, y, color=how.color, linestyle=how.dashes, marker=how.marker, markersize=how.size,
              markeredgecolor="white", markeredgewidth=0.4, **more)  # fmt: skip


def band(axis: Axes, mine: pd.DataFrame) -> None:
    """What the control does: its interval as a grey band around its mean."""
    axis.fill_between(mine["step"], mine["low"], mine["high"], color=GREY, alpha=0.3, linewidth=0)
    axis.plot(mine["step"], mine["mean"], color=GREY, linewidth=1.6)


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
    """One legend under all panels: the methods that are there, in the order of the study, then the special marks.

    The figure grows by what the legend takes, so that the panels keep their size.
    """
    there = [method for method in methods if method in set(present)]
    names = [naming.wrapped(naming.method(method), LEGEND_WIDTH) for method in there]
    entries = [mark(name, look(method, methods), line=lines) for method, name in zip(there, names, strict=True)]
    handles = [*entries, *marks]
    texts = [str(handle.get_label()).splitlines() for handle in handles]
    longest = max((len(text) for lines_of_one in texts for text in lines_of_one), default=1)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / (0.6 + 0.052 * longest))))
    per_column = math.ceil(len(handles) / columns) if handles else 0
    tallest = max(
        (sum(map(len, texts[n : n + per_column])) for n in range(0, len(texts), max(1, per_column))), default=0
    )
    figure.set_figheight(figure.get_figheight() + 0.125 * max(0, tallest - 2) + 0.04 * per_column)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.8)
