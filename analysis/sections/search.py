"""The search: what it gained over the defaults, what became of its proposals, and what they took."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import naming, pareto
from analysis.plots import Plot
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.style import legend, line, look, panels
from analysis.tables import Table, number, parameters
from analysis.trials import OBJECTIVES, columns, counts, proposals, trials

TUNING_COLUMNS = ["method", "ratio", "default_state",
                  *(f"{which}_{name}" for which in ("default", "winner") for name in OBJECTIVES), "gain"]  # fmt: skip


def parts(study: StudyResults) -> Iterator[Part]:
    """How the fronts grew, what that gained, what became of the proposals, their cost, and what went wrong."""
    yield Plot(
        "search",
        "What the search bought: the area, with three objectives the volume, that the trials so far dominate, with "
        "forgetting 1, utility 0 and recovery 1 as the worst point. Failed, diverged and repeated proposals add "
        "nothing.",
        search_data(study),
        draw_search,
    )
    yield tuning_table(study)
    raw = counts(study)
    yield Table("counts", "Proposals", "The columns after proposals add up to it.", raw, _plain(raw))
    yield costs_table(study)
    yield _overhead(study)
    yield problems_table(study)


def tuning(study: StudyResults) -> pd.DataFrame:
    """What the search bought over the preset's default: both on the select half; `gain` is the distance saved."""
    found = trials(study)
    lines = []
    for (method, ratio), keys in study.winners.items():
        mine = found[(found["method"] == method) & (found["ratio"] == ratio)]
        best = mine[mine["key"] == keys[0]]
        default = mine[mine["default"]].sort_values("number").head(1)
        if best.empty or default.empty:
            continue
        line = {"method": method, "ratio": ratio, "default_state": default["state"].item()}
        for which, part in (("default", default), ("winner", best)):
            line |= {f"{which}_{name}": part[name].item() for name in columns(study, OBJECTIVES)}
        lines.append({**line, "gain": line["default_distance"] - line["winner_distance"]})
    return pd.DataFrame(lines, columns=columns(study, TUNING_COLUMNS))


def costs(study: StudyResults) -> pd.DataFrame:
    """Median seconds and counted operations of the trials of each method; `overhead` is the rest of the time."""
    found = trials(study)
    spent = ["unlearn_seconds", "score_seconds", "overhead_seconds", "unlearn_flops", "score_flops"]
    mine = found[found["kind"] == "method"]
    return mine.astype(dict.fromkeys(spent, float)).groupby("method")[spent].median().reset_index()


def tuning_table(study: StudyResults) -> Table:
    """What the search bought over the preset's default."""
    raw = tuning(study)
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(naming.method), "default": raw["default_state"],
        **{name.replace("_", " "): raw[name].map(number) for name in columns(study, TUNING_COLUMNS)[3:]},
    })  # fmt: skip
    return Table(
        "tuning", "What tuning bought",
        "The winner beside the preset's default, both on the select half with one seed: a little flattering for "
        "the winner, because it was chosen on these questions. Gain: distance to the ideal saved.", raw, shown,
    )  # fmt: skip


def costs_table(study: StudyResults) -> Table:
    """What a trial of each method takes."""
    raw, work = costs(study), ("unlearn", "score")
    shown = pd.DataFrame({
        "method": raw["method"],
        **{f"{name} (s)": raw[f"{name}_seconds"].map(lambda v: number(v, 2)) for name in (*work, "overhead")},
        **{f"{name} (GFLOP)": raw[f"{name}_flops"].map(_giga) for name in work},
    })  # fmt: skip
    return Table(
        "costs", "Median cost of a trial",
        "Overhead: all the time of a trial beyond unlearning and scoring. GFLOP: billions of floating-point operations "
        "of forward and backward passes, counted, not timed; unknown where the records do not have them.",
        raw, _plain(shown),
    )  # fmt: skip


def _giga(flops: float) -> str:
    return "unknown" if math.isnan(flops) else number(flops / 1e9, 2)


def problems_table(study: StudyResults) -> Table:
    """Why some trials have no result."""
    found = trials(study)
    raw = found.loc[found["reason"] != "", ["key", "method", "ratio", "seed", "state", "reason", "parameters"]]
    shown = _plain(raw.assign(parameters=raw["parameters"].map(parameters)))
    return Table(
        "problems", "Trials without a result", "Failed, diverged or not scorable, with the reason.", raw, shown
    )


def _overhead(study: StudyResults) -> str:
    found = trials(study)
    spent = found.loc[found["kind"] == "method", "overhead_seconds"].astype(float).dropna()
    median = number(float(spent.median()), 2)
    return f"Median overhead of a trial beyond unlearning and scoring: {median} s ({len(spent)} trials)."


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(method=frame["method"].map(naming.method)).rename(columns={"ratio": "forget %"})


def search_data(study: StudyResults) -> pd.DataFrame:
    """The running hypervolume of each method and ratio."""
    return pareto.running_hypervolume(proposals(study))


def draw_search(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Hypervolume after each proposal: a step where a proposal improved the front."""
    figure, axes = panels(data["ratio"], rows=1, height=2.1)
    for axis, (ratio, group) in zip(axes[0], data.groupby("ratio"), strict=True):
        for method, mine in group.groupby("method"):
            every = max(1, math.ceil(len(mine) / 8))
            how = look(str(method), methods)
            line(axis, mine["trials"], mine["hypervolume"], how, drawstyle="steps-post", markevery=every)
        axis.set(title=f"forget {ratio} %", xlabel="proposals", ylim=(-0.03, 1.03))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].set_ylabel("hypervolume \u2191")
    legend(figure, data["method"], methods, [])
    return figure


SECTION = Section("The search", 100, parts)
