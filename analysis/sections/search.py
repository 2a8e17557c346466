"""The search: its gain from tuning over the defaults, the outcomes of its trials, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import comparison, naming, pareto
from analysis.plots import Plot
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.style import legend, line, look, panels
from analysis.tables import Table, number, parameters, with_interval
from analysis.trials import (
    OBJECTIVES,
    columns,
    counts,
    objectives_of,
    proposals,
    same_settings,
    search_attack,
    trials,
)

TUNING_COLUMNS = ["method", "ratio", "key", "default_key", "default_state",
                  *(f"{which}_{name}" for which in ("default", "winner") for name in OBJECTIVES), "gain",
                  *(f"test_gain{end}" for end in ("", "_low", "_high")), "default_seeds", "winner_seeds"]  # fmt: skip


def parts(study: StudyResults) -> Iterator[Part]:
    """How the fronts grew, the gain from tuning, the outcomes of the trials, their cost, and what went wrong."""
    yield Plot(
        "search",
        "Progress of the search: the hypervolume that the trials so far dominate, with forget gap 1, utility 0 and, "
        "where it is an objective, recovery 1 as the reference point, after so many trials (above) and after so much "
        "counted work (below): that of unlearning, of scoring on the way and at the end, and of the search attack, of "
        "all trials so far, those that failed or ended early included. Failed, diverged and repeated trials add "
        "nothing. A line is one search, run once: how much another one would differ is not known.",
        search_data(study),
        draw_search,
    )
    yield tuning_table(study)
    raw = counts(study)
    yield Table("counts", "Trials by outcome",
                "Outcomes add up to the trials. Duplicate: it repeats an earlier trial, which is not run again.",
                raw, _plain(raw.rename(columns={"proposals": "trials"})))  # fmt: skip
    yield costs_table(study)
    yield _overhead(study)
    yield problems_table(study)


@lru_cache(maxsize=4)
def tuning(study: StudyResults) -> pd.DataFrame:
    """The winner beside the preset's default: `gain` is the distance saved on the validation half, `test_gain` on the
    test half, with its interval, over the seeds of each that were scored on it."""
    found = trials(study)
    lines = []
    for (method, ratio), keys in study.winners.items():
        mine = found[(found["method"] == method) & (found["ratio"] == ratio)]
        best = mine[mine["key"] == keys[0]]
        default = mine[mine["default"]].sort_values("number").head(1)
        if best.empty or default.empty:
            continue
        keys_of = {"key": keys[0], "default_key": default["key"].item()}
        line = {"method": method, "ratio": ratio, **keys_of, "default_state": default["state"].item()}
        for which, part in (("default", default), ("winner", best)):
            line |= {f"{which}_{name}": part[name].item() for name in columns(study, OBJECTIVES)}
        lines.append({**line, "gain": line["default_distance"] - line["winner_distance"]})
    return _on_test_half(study, pd.DataFrame(lines, columns=columns(study, TUNING_COLUMNS)))


def _on_test_half(study: StudyResults, table: pd.DataFrame) -> pd.DataFrame:
    """The table with the gain on the test half. A default that won has gained nothing, without any doubt."""
    for ratio, mine in table.groupby("ratio"):
        tuned = mine[mine["key"] != mine["default_key"]]
        pairs = [
            (_contender(study, method, study.winners[method, int(str(ratio))]),
             _contender(study, f"default of {method}", same_settings(study, default)))
            for method, default in zip(tuned["method"], tuned["default_key"], strict=True)
        ]  # fmt: skip
        for at, found, pair in zip(tuned.index, comparison.farther(study, int(str(ratio)), pairs), pairs, strict=True):
            table.loc[at, ["test_gain", "test_gain_low", "test_gain_high"]] = tuple(found.interval())
            table.loc[at, ["winner_seeds", "default_seeds"]] = [len(_scored(study, keys)) for _, keys, _ in pair]
        table.loc[mine.index.difference(tuned.index), "test_gain"] = 0.0
    return table


def _contender(study: StudyResults, name: str, keys: Sequence[str]) -> comparison.Contender:
    """A model by the seeds that were scored on the test half, with their mean recovery."""
    scored = _scored(study, keys)
    recovered = [objectives_of(study, key, "report")[0].get("recovery", 0.0) for key in scored]
    return name, scored, math.fsum(recovered) / max(1, len(scored))


def _scored(study: StudyResults, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(key for key in keys if key in study.trials and study.rows(key, "report") is not None)


def costs(study: StudyResults) -> pd.DataFrame:
    """Median seconds and counted operations of the trials of each method; `overhead` is the rest of the time."""
    found = trials(study)
    spent = ["unlearn_seconds", "score_seconds", "overhead_seconds", "unlearn_flops", "score_flops"]
    mine = found[(found["kind"] == "method") & (found["state"] == "complete")]  # one that ended early costs a part
    return mine.astype(dict.fromkeys(spent, float)).groupby("method")[spent].median().reset_index()


def tuning_table(study: StudyResults) -> Table:
    """The gain from tuning over the preset's default."""
    raw = tuning(study)
    values = [f"{which}_{name}" for which in ("default", "winner") for name in columns(study, OBJECTIVES)]
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(naming.method), "default": raw["default_state"],
        **{_heading(name): raw[name].map(number) for name in (*values, "gain")},
        "gain on the test half": with_interval(raw, "test_gain"), "seeds": _seeds(raw),
    })  # fmt: skip
    return Table(
        "tuning", "Gain from tuning",
        "The winner beside the preset's default. Gain: by how much its distance to the ideal point is smaller. The "
        "columns before it are of the validation half and one seed: optimistic for the winner, which was selected "
        "there. On the test half, which selected nobody, the gain is paired by person, with its 95 % interval; seeds: "
        "of the default and of the winner. A default that was not scored on the test half leaves n/a; running the "
        "study again scores it.", raw, shown,
    )  # fmt: skip


def _seeds(raw: pd.DataFrame) -> list[str]:
    """`1 and 3`, or that the default won."""
    both = raw[["default_seeds", "winner_seeds", "key", "default_key"]].itertuples(index=False)
    return ["the default won" if key == own else f"{one:.0f} and {more:.0f}" for one, more, key, own in both]


def _heading(name: str) -> str:
    return naming.words(name)


def costs_table(study: StudyResults) -> Table:
    """The time and the operations that a trial of each method takes."""
    raw, work = costs(study), ("unlearn", "score")
    shown = pd.DataFrame({
        "method": raw["method"],
        **{f"{name} (s)": raw[f"{name}_seconds"].map(lambda v: number(v, 2)) for name in (*work, "overhead")},
        **{f"{name} (GFLOP)": raw[f"{name}_flops"].map(_giga) for name in work},
    })  # fmt: skip
    return Table(
        "costs", "Median cost of a trial",
        "Of complete trials. Overhead: all the time of a trial except unlearning and scoring, on the way and at the "
        "end. GFLOP: billions of floating-point operations of forward and backward passes, counted, not timed; unknown "
        "where the records do not have them.",
        raw, _plain(shown),
    )  # fmt: skip


def _giga(flops: float) -> str:
    return "unknown" if math.isnan(flops) else number(flops / 1e9, 2)


def problems_table(study: StudyResults) -> Table:
    """Why some trials have no result."""
    found = trials(study)
    raw = found.loc[
        (found["reason"] != "") & (found["state"] != "stopped"),
        ["key", "method", "ratio", "seed", "state", "reason", "parameters"],
    ]
    shown = _plain(raw.assign(parameters=raw["parameters"].map(parameters)))
    return Table(
        "problems",
        "Trials without a result",
        "Trials that failed, diverged or could not be scored, with the reason.",
        raw,
        shown,
    )


def _overhead(study: StudyResults) -> str:
    found = trials(study)
    spent = found.loc[found["kind"] == "method", "overhead_seconds"].astype(float).dropna()
    median = number(float(spent.median()), 2)
    return f"Median overhead of a trial, besides unlearning and scoring: {median} s ({len(spent)} trials)."


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(method=frame["method"].map(naming.method)).rename(columns={"ratio": "forget %"})


def search_data(study: StudyResults) -> pd.DataFrame:
    """The hypervolume after each trial of each method and ratio, with what these trials computed."""
    found = proposals(study)
    work = [0.0 if again else _work(study, key) for key, again in zip(found["key"], found["duplicate"], strict=True)]
    return pareto.running_hypervolume(found.assign(work=work))


def _work(study: StudyResults, key: str) -> float:
    """The operations of a trial that has ended, and of the search attack on it; NaN if they were not counted."""
    record = study.trials.get(key)
    if record is None or not record.cost:  # what could not be run at all has computed nothing
        return 0.0
    if record.work is None:
        return math.nan
    met = study.attacks(key).get(search_attack(study))
    return record.work + (met.record.work if met else 0.0)


def draw_search(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Hypervolume after each trial and over counted work: a step where a trial improved the front."""
    figure, axes = panels(data["ratio"], rows=2, height=2.1)
    for column, (ratio, group) in enumerate(data.groupby("ratio")):
        for method, mine in group.groupby("method"):
            every = max(1, math.ceil(len(mine) / 8))
            how = look(str(method), methods)
            for row, name in enumerate(("trials", "pflop")):
                line(axes[row][column], mine[name], mine["hypervolume"], how, drawstyle="steps-post", markevery=every)
        axes[0][column].set(title=f"forget {ratio} %", xlabel="trials", ylim=(-0.03, 1.03))
        axes[0][column].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[1][column].set_xlabel("counted work (PFLOP)")
    for row in axes:
        row[0].set_ylabel("hypervolume \u2191")
    legend(figure, data["method"], methods, [])
    return figure


SECTION = Section("The search", 100, parts)
