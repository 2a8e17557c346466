"""What models still know of every single person to be forgotten: a mean hides whom it kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.figure import Figure

from analysis import comparison, naming
from analysis.plots import Plot
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.style import COLUMN, LINE, YARDSTICKS, look
from analysis.tables import Table, number
from study.metrics.forget_gap import smallest_leak

COLUMNS = ["method", "ratio", "person", "score"]
ROOM = 0.3
"""How far points of one model are spread along its line so that equal scores do not hide each other, in lines."""


def parts(study: StudyResults) -> Iterator[Part]:
    """The figure of all people, and the table of the one each model knows most of."""
    found = people(study)
    yield Plot(
        "people",
        "What each model still knows of every person to be forgotten: the mean over all their questions of the test "
        "half, seeds and tasks, one point a person. Unlearning that works looks like the references; a point far to "
        "the right is a person who was kept.",
        found,
        draw,
    )
    yield worst_table(found)


def people(study: StudyResults) -> pd.DataFrame:
    """The score of each person to be forgotten in vanilla, the references and the winners, on the test half."""
    lines = [
        {"method": label, "ratio": ratio, "person": who, "score": score}
        for ratio in study.ratios
        for label, members in study.labelled(ratio)
        for who, score in comparison.known_of(study, tuple(t.key for t in members), ratio).items()
    ]
    return pd.DataFrame(lines, columns=COLUMNS)


def worst_table(raw: pd.DataFrame) -> Table:
    """Of whom each model knows most, and the smallest leak that so many people could have shown."""
    groups = raw.groupby(["ratio", "method"], sort=False)["score"]
    worst = raw.loc[groups.idxmax()].assign(smallest_leak=[smallest_leak(size) for size in groups.size()])
    shown = pd.DataFrame({
        "forget %": worst["ratio"], "model": worst["method"].map(naming.method), "person": worst["person"],
        "knows": worst["score"].map(number), "smallest leak": worst["smallest_leak"].map(lambda v: number(v, 2)),
    })  # fmt: skip
    return Table(
        "most_known", "Of whom each model still knows most",
        "Mean over the questions of the test half about the person, seeds and tasks. Smallest leak: even if nothing "
        "were known of anybody here, this share of such people might still be known (3 / n at 95 %).",
        worst, shown,
    )  # fmt: skip


def draw(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A panel for each ratio, a line for each model, a point for each person."""
    ratios = sorted(data["ratio"].unique())
    models = [label for label in (*YARDSTICKS, *methods) if (data["method"] == label).any()]
    figure = Figure(figsize=(COLUMN * min(2, len(ratios)) + 0.6, 0.24 * len(models) + 0.6), layout="constrained")
    axes = figure.subplots(1, len(ratios), squeeze=False, sharey=True)[0]
    for axis, ratio in zip(axes, ratios, strict=True):
        for at, label in enumerate(models):
            mine = data[(data["ratio"] == ratio) & (data["method"] == label)].sort_values("score")
            how = look(label, methods)
            height = [at + ROOM * (place % 3 - 1) for place in range(len(mine))]
            axis.axhline(at, color=LINE, linewidth=0.6, zorder=0)
            axis.plot(mine["score"], height, how.marker, color=how.color, ms=3.5, mew=0.3, mec="white", alpha=0.85)
        axis.set(title=f"forget {ratio} %", xlim=(-0.03, 1.03), xlabel="what is known of a person")
        axis.set_yticks(range(len(models)), [naming.method(label) for label in models])
        axis.set_ylim(len(models) - 0.4, -0.6)
    return figure


SECTION = Section("Person by person", 15, parts)
