"""What a search gained from an earlier study, on the validation half.

Within the study this is the earlier winner beside the default. What a search without it would have needed, only such a
search can tell: `StudyResults.cold`, the same study started cold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import naming
from analysis.plots import Plot
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.style import GREY, INK, Look, grid, legend, line, mark
from analysis.tables import NOTHING, Table, number
from analysis.trials import NAN, proposals

NEAR = 0.01
"""A distance to the ideal point within this of the winner's is as good: seeds of one trial differ by more."""
COLUMNS = ["method", "ratio", "begins", "observed", "told", "default_distance", "warm_distance", "gain",
           "winner_distance", "reached", "trials"]  # fmt: skip
COLD_COLUMNS = ["cold_winner_distance", "cold_reached", "cold_trials"]
LOOKS = {"warm start": Look(INK, "o", "-", 3.5), "cold start": Look(GREY, "s", ":", 3.5)}


def parts(study: StudyResults) -> Iterator[Part]:
    """A figure and a table of a study with a warm start; nothing of any other."""
    raw = table(study)
    if raw.empty:
        return
    yield Plot(
        "warm_start",
        "The best distance to the ideal point after each trial, on the validation half, of a search whose second trial "
        "is the winner of an earlier study and, where one was run, of the same search started cold.",
        data(study),
        draw,
    )
    yield warm_start_table(study, raw)


def best(study: StudyResults) -> pd.DataFrame:
    """The best distance to the ideal point after each trial of each method and ratio, in the order of the search.

    Columns method, ratio, trials (1, 2, ...), distance; it is NaN until a first trial is complete.
    """
    found = proposals(study).sort_values(["method", "ratio", "number"]).astype({"distance": float})
    groups = found.groupby(["method", "ratio"])
    least = groups["distance"].cummin()
    distance = least.groupby([found["method"], found["ratio"]]).ffill()
    return found[["method", "ratio"]].assign(trials=groups.cumcount() + 1, distance=distance).reset_index(drop=True)


def table(study: StudyResults) -> pd.DataFrame:
    """One line for each method and ratio of a study with a warm start; none of any other.

    `reached` is the number of trials at that ratio after which the best distance was within `NEAR` of the winner's;
    `cold_reached` the same of `StudyResults.cold`, for the same distance: NaN if it never was.
    """
    start = study.record.get("warm_start") or {"found": {}}
    after, after_cold = best(study), best(study.cold) if study.cold else None
    lines = []
    for method in (name for name in study.methods if name in start["found"]):
        for ratio, warm in sorted(start["found"][method].items(), key=lambda item: int(item[0])):
            mine = _of(after, method, int(ratio))
            line = {"method": method, "ratio": int(ratio), "begins": _begins(start["study"], warm),
                    **_told(study, method, int(ratio), warm),
                    **_guesses(study, method, int(ratio)), **_reached(mine, _last(mine))}  # fmt: skip
            if after_cold is not None:
                theirs = _reached(_of(after_cold, method, int(ratio)), _last(mine))
                line |= {f"cold_{name}": value for name, value in theirs.items()}
            lines.append(line)
    return pd.DataFrame(lines, columns=[*COLUMNS, *(COLD_COLUMNS if study.cold else [])])


def warm_start_table(study: StudyResults, raw: pd.DataFrame) -> Table:
    """The table of the report."""
    names = [name for name in raw.columns if name.endswith(("distance", "gain"))]
    counts = [name for name in raw.columns if name.endswith("reached")]
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(naming.method), "second trial": raw["begins"],
        "earlier trials told": [f"{told} of {there}" for told, there in zip(raw["told"], raw["observed"], strict=True)],
        **{name.replace("_", " "): raw[name].map(number) for name in names},
        **{name.replace("_", " "): _counted(raw, name) for name in counts},
    })  # fmt: skip
    note = (
        "Distances to the ideal point on the validation half, one seed. Gain: how much closer the earlier winner is "
        "than the default, before any search. Earlier trials told: those that the sampler had in the end beside its "
        "own, as many as predicted these. Reached: the trial by which the search was within "
        f"{NEAR} of its winner. "
    )
    note += (
        f"Cold: the same search without the earlier winners, {study.cold.name}; its reached is for the same distance."
        if study.cold
        else "This study cannot tell what a search without the earlier winners would have needed; run one and compare "
        "with mus report STUDY --cold THAT_ONE."
    )
    return Table("warm_start", "Gain from the warm start", note, raw, shown)


def data(study: StudyResults) -> pd.DataFrame:
    """The best distance after each trial of every method with a warm start, and of the same search started cold."""
    raw = table(study)
    begun = raw.loc[raw["begins"].str.startswith("winner of"), ["method", "ratio"]]
    searches = [study, study.cold] if study.cold else [study]
    found = [best(one).assign(search=name) for one, name in zip(searches, LOOKS, strict=False)]
    return pd.concat(found).merge(begun, on=["method", "ratio"]) if len(begun) else pd.DataFrame()


def draw(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A small panel for each method and ratio."""
    order = {method: place for place, method in enumerate(methods)}
    cases = sorted(set(zip(data["ratio"], data["method"], strict=True)), key=lambda c: (c[0], order[c[1]]))
    figure, axes = grid(len(cases), 1.5, "trials", "best distance \u2193")
    for axis, (ratio, method) in zip(axes, cases, strict=True):
        mine = data[(data["ratio"] == ratio) & (data["method"] == method)]
        for name, own in mine.groupby("search", sort=False):
            line(axis, own["trials"], own["distance"], LOOKS[str(name)], drawstyle="steps-post")
        axis.set_title(naming.wrapped(f"{naming.method(method)}, {ratio} %", 26), fontsize=7)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    marks = [mark(name, LOOKS[name], line=True) for name in LOOKS if (data["search"] == name).any()]
    legend(figure, pd.Series(dtype=str), methods, marks)
    return figure


def _of(after: pd.DataFrame, method: str, ratio: int) -> pd.DataFrame:
    return after[(after["method"] == method) & (after["ratio"] == ratio)]


def _last(after: pd.DataFrame) -> float:
    """The best distance of all."""
    return float(after["distance"].iloc[-1]) if len(after) else NAN


def _reached(after: pd.DataFrame, target: float) -> dict[str, float]:
    """The best distance of a search, after how many trials it was as good as `target`, and how many there were."""
    there = after.loc[after["distance"] <= target + NEAR, "trials"]
    reached = float(there.min()) if len(there) else NAN
    return {"winner_distance": _last(after), "reached": reached, "trials": len(after)}


def _guesses(study: StudyResults, method: str, ratio: int) -> dict[str, float]:
    """The distance of the default and of the earlier winner, NaN for one that is missing or not complete."""
    found = proposals(study).set_index(["method", "number"])["distance"]
    mine = [p for p in study.proposals if (p.method, p.ratio) == (method, ratio)]
    default = next((float(found[method, p.number]) for p in mine if p.default), NAN)
    warm = next((float(found[method, p.number]) for p in mine if p.warm), NAN)
    return {"default_distance": default, "warm_distance": warm, "gain": default - warm}


def _told(study: StudyResults, method: str, ratio: int, warm: dict[str, Any]) -> dict[str, int]:
    """The earlier trials that could be told to the sampler, and how many it was told in the end."""
    last = [p.priors for p in study.proposals if (p.method, p.ratio) == (method, ratio)][-1:]
    return {"observed": len(warm.get("trials", ())), "told": sum(last)}


def _begins(study: str, warm: dict[str, Any]) -> str:
    note = f" ({warm['note']})" if warm["note"] else ""
    return f"winner of {study} at {warm['ratio']} %{note}" if warm["params"] else f"cold{note}"


def _counted(raw: pd.DataFrame, name: str) -> list[str]:
    """`3 of 8`, or that it never was."""
    counts = raw[[name, name.replace("reached", "trials")]].itertuples(index=False)
    return [NOTHING if pd.isna(at) else f"{at:.0f} of {trials}" for at, trials in counts]


SECTION = Section("Warm start", 110, parts)
