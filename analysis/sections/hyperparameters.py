"""What the search tells about hyper-parameters: which matter, and which values the trials near the ideal point have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis import naming
from analysis.importances import FEWEST, FEWEST_WITHIN, QUARTER, importances
from analysis.plots import Plot
from analysis.searched import Choices, Domain, Searched, searches
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.style import INK, LINE, TEXT
from analysis.tables import Table, number
from analysis.trials import OBJECTIVES, columns

HEADINGS = {"front": "Pareto front", "distance": "distance", "within": "within the best quarter"}
NARROW = 5
"""Hyper-parameters up to which two methods share a row of the figure."""
COLORS = "viridis"
"""Of the distance: dark is near. Its lightness rises evenly, so that it reads in black and white, too."""
ROW, FOOT = 1.6, 0.55
"""Inches of a row of panels with its title and the names of its axes, and of the colours below all."""


def parts(study: StudyResults) -> Iterator[Part]:
    """The importances, or how many trials they take, then all trials."""
    found = searches(study)
    most = max((len(one.scored) for one in found), default=0)
    if 0 < most < FEWEST:
        yield (
            f"To tell how much each hyper-parameter matters takes {FEWEST} trials with a result of a method at a "
            f"ratio; here there are at most {most}. More come with --trials."
        )
    yield importances_table(study)
    for ratio in study.ratios:
        mine = [one for one in found if one.ratio == ratio]
        yield Plot(
            f"parallel_{ratio}",
            f"Every trial at {ratio} % with a result as a line through the values of its hyper-parameters; an axis "
            "reaches from one end of what is searched to the other. The darker a line, the nearer the trial came to "
            "the ideal point among those of its method, on the validation half. Hyper-parameters that not every trial "
            "uses are on the right, where lines have gaps.",
            parallel_data(mine),
            draw_parallel,
        )


# ---- importances ---------------------------------------------------------------------------------------------------
def importances_table(study: StudyResults) -> Table:
    """Each hyper-parameter of each method with enough trials."""
    asked = [name for name in columns(study, OBJECTIVES) if name != "distance"]
    frames = [importances(one, asked).assign(method=one.method, ratio=one.ratio) for one in searches(study)]
    known = [frame for frame in frames if len(frame)]
    raw = pd.concat(known, ignore_index=True) if known else pd.DataFrame(columns=["method", "ratio", "name"])
    for name in (*asked, "front", "distance", "within", "beyond_chance"):
        raw[name] = raw.get(name, pd.Series(dtype=float))
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(naming.method),
        "hyper-parameter": raw["name"].map(naming.words),
        **{naming.words(name): raw[name].map(lambda v: number(v, 2)) for name in asked},
        **{heading: raw[name].map(lambda v: number(v, 2)) for name, heading in HEADINGS.items()},
        "beyond chance": ["yes" if one else "" for one in raw["beyond_chance"]],
    })  # fmt: skip
    return Table(
        "importances", "Importance of the hyper-parameters",
        "PED-ANOVA: how differently the values of a hyper-parameter are distributed among the best "
        f"{QUARTER:.0%} of the trials and among all of them, as a share of the total. The best are those by each "
        "objective, those nearest to the Pareto front, or those by the distance to the ideal point. Within the best "
        f"quarter: the same for the best tenth within it by distance, from {FEWEST_WITHIN} trials on. Beyond chance: "
        "for the distance it is larger than that of any hyper-parameter if distances are dealt to the trials at random "
        "(19 times; so 1 in 20 searches without any effect would show it). Importance tells where good trials lie, not "
        "what changing a value would do.", raw, shown,
    )  # fmt: skip


# ---- all trials ----------------------------------------------------------------------------------------------------
def parallel_data(found: Sequence[Searched]) -> pd.DataFrame:
    """One line for each trial with a result and hyper-parameter: where its value lies on its axis, and the trial's rank
    by distance in its search, from 0 for the nearest to 1.

    What only some trials use comes last, so that few lines end before the last axis.
    """
    lines = []
    for one in found:
        ranks = one.scored["distance"].rank(method="first") - 1
        used = [frozenset(one.params[at]) for at in one.scored.index]
        names = sorted(one.space, key=lambda name: any(name not in params for params in used))
        lines += [
            {"method": one.method, "ratio": one.ratio, "key": one.trials.loc[at, "key"], "hyperparameter": name,
             "value": one.params[at].get(name), "place": _place(one.space[name], one.params[at].get(name)),
             "ends": _ends(one.space[name]), "rank": ranks[at] / max(1, len(ranks) - 1)}
            for at in one.scored.index for name in names if any(name in params for params in used)
        ]  # fmt: skip
    return pd.DataFrame(lines)


def _place(domain: Domain, value: object) -> float:
    return float("nan") if value is None else domain.place(value)  # type: ignore[arg-type]


def _ends(domain: Domain) -> str:
    """What is written beside an axis, from the lower end to the upper."""
    ends = domain.choices if isinstance(domain, Choices) else (domain.low, domain.high)
    return "|".join(naming.words(naming.plain(value)) for value in ends)


def draw_parallel(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A panel for each method: two in a row where both have few axes."""
    cases = {m: data[data["method"] == m] for m in methods if (data["method"] == m).any()}
    wide = {method: mine["hyperparameter"].nunique() > NARROW for method, mine in cases.items()}
    narrow = [method for method in cases if not wide[method]]
    rows = [narrow[at : at + 2] for at in range(0, len(narrow), 2)] + [[method] for method in cases if wide[method]]
    width, height = TEXT, ROW * len(rows) + FOOT
    figure = Figure(figsize=(width, height))
    for level, row in enumerate(rows, 1):
        for column, method in enumerate(row):
            across = 1.0 if wide[method] else 0.5
            bottom = (height - ROW * level + 0.42) / height  # above the names of the axes
            place = (column / 2 + 0.3 / width, bottom, across - 0.45 / width, (ROW - 0.72) / height)
            _panel(figure.add_axes(place), cases[method], method)
    below = figure.add_axes((0.35, 0.3 / height, 0.3, 0.06 / height))
    bar = figure.colorbar(ScalarMappable(Normalize(), COLORS), below, orientation="horizontal", ticks=[0, 1])
    bar.outline.set_linewidth(0)
    bar.ax.set_xticklabels(["nearest trial of the method (black)", "farthest"])
    return figure


def _panel(axis: Axes, mine: pd.DataFrame, method: str) -> None:
    """The trials of one method, the nearest drawn last."""
    names, colors = list(mine["hyperparameter"].unique()), colormaps[COLORS]
    for rank, line in sorted(mine.groupby("rank"), key=lambda group: -float(str(group[0]))):
        places = line.set_index("hyperparameter")["place"].reindex(names)
        nearest = rank == 0
        axis.plot(range(len(names)), places, color=INK if nearest else colors(float(str(rank))), marker="o", ms=2.5,
                  lw=1.5 if nearest else 0.8, clip_on=False, zorder=3)  # fmt: skip
    for at, name in enumerate(names):
        axis.axvline(at, color=LINE, linewidth=0.8, zorder=1)
        texts = str(mine.loc[mine["hyperparameter"] == name, "ends"].iloc[0]).split("|")
        for step, text in enumerate(texts):
            behind = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.4}
            place = step / max(1, len(texts) - 1)
            axis.text(at + 0.04, place, text, fontsize=4.8, va="center", color="#444444", zorder=4, bbox=behind)
    axis.set_xticks(range(len(names)), [naming.wrapped(naming.words(name), 11) for name in names], fontsize=5.8)
    axis.set(xlim=(-0.1, len(names) - 0.5), ylim=(-0.08, 1.08), yticks=[])
    axis.set_title(naming.wrapped(naming.method(method), 50 if len(names) <= NARROW else 100), loc="left")
    axis.grid(visible=False)
    for side in axis.spines.values():
        side.set_visible(False)


SECTION = Section("What the hyper-parameters do", 101, parts)
