"""Whether rankings repeat: on the half of the questions that selected nobody, and at another forget ratio."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pandas as pd

from analysis import naming
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.tables import Table, number
from analysis.trials import objectives_of, trials, winners

FEWEST = 5
"""Models whose order can be told from chance: of four even the same order has a p-value of 0.08."""
CHANCE = 0.05
COLUMNS = ["ratio", "compared", "among", "models", "tau", "p"]
ALL, BEST = "all that were scored on both", "the better half of these"
REMEDY = "add people (larger --forget-ratios, or a --benchmark with more of them) or seeds (--confirm-seeds)"


def parts(study: StudyResults) -> Iterator[Part]:
    """What the correlations mean, then all of them."""
    raw = rankings(study)
    yield from sentences(raw)
    yield rankings_table(raw)


def rankings(study: StudyResults) -> pd.DataFrame:
    """Kendall's tau of the distances to the ideal point, with its two-sided p-value, one line for each comparison.

    Between the halves of the questions: of all settings that were scored on both, each once, and of the better half of
    them on the validation half; also for each method with enough of its own. Between ratios: of the winners of the
    methods, on the test half.
    """
    lines = [line for ratio in study.ratios for line in _halves(study, ratio)]
    won = winners(study).pivot_table(index="method", columns="ratio", values="distance", sort=False)
    for one, other in itertools.combinations(sorted(won.columns), 2):
        both = won[[one, other]].dropna()
        lines.append(_line(f"{one} and {other}", "ratios", "winners of the methods", both[one], both[other]))
    found = pd.DataFrame(lines, columns=COLUMNS)
    return found[found["models"] >= FEWEST].reset_index(drop=True)


def _halves(study: StudyResults, ratio: int) -> Iterator[dict[str, object]]:
    found = trials(study)
    mine = found[(found["kind"] == "method") & (found["ratio"] == ratio) & found["number"].notna()]
    told = mine.assign(test=[objectives_of(study, key, "report")[0]["distance"] for key in mine["key"]])
    both = told.dropna(subset=["distance", "test"]).astype({"distance": float, "test": float})
    better = both.nsmallest(math.ceil(len(both) / 2), "distance")
    for among, part in ((ALL, both), (BEST, better), *both.groupby("method")):
        name = among if among in (ALL, BEST) else naming.method(among)
        yield _line(str(ratio), "halves", name, part["distance"], part["test"])


def _line(ratio: str, compared: str, among: str, one: pd.Series[float], other: pd.Series[float]) -> dict[str, object]:
    from scipy.stats import kendalltau  # takes most of a second to import

    tau, p = kendalltau(one, other) if len(one) >= FEWEST else (math.nan, math.nan)
    found = {"models": len(one), "tau": float(tau), "p": float(p)}
    return {"ratio": ratio, "compared": compared, "among": among, **found}


def sentences(raw: pd.DataFrame) -> list[str]:
    """What the correlations between halves mean where it matters most, among the better half; then between ratios."""
    halves, ratios = (raw[raw["compared"] == name] for name in ("halves", "ratios"))
    said = [_of_halves(str(line["ratio"]), line) for _, line in _most_telling(halves).iterrows()]
    return [*said, *(_of_ratios(str(line["ratio"]), line) for _, line in ratios.iterrows())]


def _most_telling(halves: pd.DataFrame) -> pd.DataFrame:
    """Of each ratio the line of the better half, or of all where that is too small."""
    known = halves[halves["among"].isin([ALL, BEST])]
    return known.groupby("ratio", sort=False).tail(1)


def _of_halves(ratio: str, line: pd.Series) -> str:
    region = "in the good region" if line["among"] == BEST else "as a whole"
    numbers = f"Kendall's tau {line['tau']:.2f}, {line['models']} models, p = {line['p']:.2f}"
    if _repeats(line):
        return f"At {ratio} %, the ranking {region} repeats from the validation to the test half ({numbers})."
    told = "rank the models the other way round" if line["tau"] < 0 else "are not shown to rank the models alike"
    return (
        f"At {ratio} %, the validation and the test half {told} {region} ({numbers}): that ranking is noise as far as "
        f"can be told; {REMEDY}."
    )


def _of_ratios(ratio: str, line: pd.Series) -> str:
    numbers = f"Kendall's tau {line['tau']:.2f}, {line['models']} methods, p = {line['p']:.2f}"
    if _repeats(line):
        return f"Methods rank alike at {ratio} % ({numbers})."
    return f"Methods are not shown to rank alike at {ratio} % ({numbers}): a winner at one is no winner at the other."


def _repeats(line: pd.Series) -> bool:
    return bool(line["tau"] > 0 and line["p"] < CHANCE)


def rankings_table(raw: pd.DataFrame) -> Table:
    """All comparisons."""
    shown = raw.assign(
        compared=raw["compared"].map({"halves": "validation and test half", "ratios": "both ratios, test half"}),
        tau=raw["tau"].map(lambda v: number(v, 2)), p=raw["p"].map(number),
    ).rename(columns={"ratio": "forget %", "tau": "Kendall's tau"})  # fmt: skip
    return Table(
        "rankings", "Rank correlations of the distance to the ideal point",
        "Kendall's tau: 1 for the same order, 0 for none in common, -1 for the reverse; p: of no correlation. Settings "
        f"count once, with the study's own seed; fewer than {FEWEST} cannot be told from chance and are left out. On "
        "the test half only winners, defaults and attacked fronts are scored.", raw, shown, folded=True,
    )  # fmt: skip


SECTION = Section("Whether rankings repeat", 102, parts)
