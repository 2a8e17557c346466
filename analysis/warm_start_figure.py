"""The figure of a search that began at the winners of an earlier study."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import warm_start, words
from analysis.folder import Study
from analysis.style import GREY, INK, Look, Plot, grid, legend, line, mark

LOOKS = {"warm start": Look(INK, "o", "-", 3.5), "cold start": Look(GREY, "s", ":", 3.5)}


def data(study: Study) -> pd.DataFrame:
    """The best distance after each proposal of every method that began warm, and of the same search begun cold."""
    raw = warm_start.table(study)
    begun = raw.loc[raw["begins"].str.startswith("as it won"), ["method", "ratio"]]
    searches = [study, study.cold] if study.cold else [study]
    found = [warm_start.best(one).assign(search=name) for one, name in zip(searches, LOOKS, strict=False)]
    return pd.concat(found).merge(begun, on=["method", "ratio"]) if len(begun) else pd.DataFrame()


def draw(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A small panel for each method and ratio."""
    order = {method: place for place, method in enumerate(methods)}
    cases = sorted(set(zip(data["ratio"], data["method"], strict=True)), key=lambda c: (c[0], order[c[1]]))
    figure, axes = grid(len(cases), 1.5, "proposals", "best distance \u2193")
    for axis, (ratio, method) in zip(axes, cases, strict=True):
        mine = data[(data["ratio"] == ratio) & (data["method"] == method)]
        for name, own in mine.groupby("search", sort=False):
            line(axis, own["trials"], own["distance"], LOOKS[str(name)], drawstyle="steps-post")
        axis.set_title(words.wrapped(f"{words.method(method)}, {ratio} %", 26), fontsize=7)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    marks = [mark(name, LOOKS[name], line=True) for name in LOOKS if (data["search"] == name).any()]
    legend(figure, pd.Series(dtype=str), methods, marks)
    return figure


PLOTS = (
    Plot("warm_start",
         "The least distance to the ideal after each proposal, on the select half, of a search whose second proposal "
         "is what won in an earlier study and, where one was run, of the same search begun cold.", data, draw),
)  # fmt: skip
