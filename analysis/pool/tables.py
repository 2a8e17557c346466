"""The tables of a pool: methods, their differences, parts of the variance, worlds, single studies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis import naming
from analysis.pool import reading
from analysis.pool.reading import MEASURES, RECOVERY
from analysis.study_folder import StudyResults
from analysis.tables import NOTHING, Table, interval, number, two, with_interval
from study.metrics.verdicts import Verdict
from study.metrics.worlds import FEWEST_WORLDS, SAID, Difference, by_world, differences, mean, parts, rank_chances, said

TOP = {"forget_gap": 1.0, "utility": 1.0, "distance": math.sqrt(3.0)}
"""What each measure is at most: the distance has up to three objectives."""
SHOWN = {"forget_gap": "forget gap \u2193", "utility": "utility \u2191", "distance": "distance \u2193",
         RECOVERY: "recovery \u2193"}  # fmt: skip
CAME_BACK: Verdict = "came back"
SEPARATOR = "; "
"""Between methods in one cell: their settings may have spaces and commas."""
DIFFERENCE_COLUMNS = ["ratio", "near", "far", "farther", "farther_low", "farther_high", "p", "survives"]


def pooled(
    table: pd.DataFrame, revisions: Sequence[str], found: Sequence[Difference], distances: Mapping[int, pd.DataFrame]
) -> pd.DataFrame:
    """One line for each ratio and method, the nearest first: means over worlds with intervals, chances of ranks, whom
    it is nearer than, and what came back of it. A method without a winner in some world has numbers but no rank, and
    comes last."""
    chances = {ratio: rank_chances(mine) for ratio, mine in distances.items()}
    lines = []
    for ratio, method, mine in reading.by_method(table):
        nearer = [one.far for one in found if (one.ratio, one.near) == (ratio, method) and one.survives]
        lines.append({
            "revision": " ".join(revisions), "ratio": ratio, "method": method, "worlds": mine["world"].nunique(),
            "studies": len(mine), "collapsed": int(mine["collapsed"].sum()), **_means(mine), **_recovered(mine),
            "ranked": method in distances[ratio], "nearer_than": SEPARATOR.join(nearer),
            **_ranks(chances[ratio], method),
        })  # fmt: skip
    frame = pd.DataFrame(lines).assign(last=lambda found: ~found["ranked"])
    return frame.sort_values(["ratio", "last", "distance", "method"], ignore_index=True).drop(columns="last")


def _means(mine: pd.DataFrame) -> dict[str, float]:
    """The mean over worlds of each measure of one method, with its bounds."""
    found: dict[str, float] = {}
    for name in MEASURES:
        value = mean(by_world(mine[name], mine["world"]).tolist(), TOP[name])
        found |= {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
    return found


def _recovered(mine: pd.DataFrame) -> dict[str, float]:
    """The mean over worlds of what came back of one method under the worst attack of each study, and in how many of
    the studies that attacked it something did."""
    attacked = mine.dropna(subset=[RECOVERY])
    value = mean(by_world(attacked[RECOVERY], attacked["world"]).tolist())
    return {
        RECOVERY: value.mean, f"{RECOVERY}_low": value.low, f"{RECOVERY}_high": value.high,
        "attacked": len(attacked), "came_back": int((attacked["verdict"] == CAME_BACK).sum()),
    }  # fmt: skip


def _ranks(chances: pd.DataFrame, method: str) -> dict[str, float]:
    """The chances of a method's ranks by column name; none if it has no rank."""
    if method not in chances.index:
        return {}
    shares = chances.loc[[method]].to_numpy(dtype=float)[0]
    return {f"rank_{rank}": float(share) for rank, share in enumerate(shares, 1)}


def with_bounds(line: pd.Series, name: str) -> str:
    """A measure of one method with its interval, as text."""
    return interval(line[name], line[f"{name}_low"], line[f"{name}_high"])


def methods(pool: pd.DataFrame) -> Table:
    """The methods over all worlds."""
    ranks = [name for name in map(str, pool) if name.startswith("rank_")]
    shown = pd.DataFrame({
        "forget %": pool["ratio"], "method": pool["method"].map(naming.method), "worlds": pool["worlds"],
        **{naming.words(name): with_interval(pool, name) for name in MEASURES},
        "recovery above control": with_interval(pool, RECOVERY), "came back": _came_back(pool),
        **{f"P(rank {name.removeprefix('rank_')})": pool[name].map(two) for name in ranks},
        "nearer than": pool["nearer_than"].map(_named),
        "collapsed": [f"{n} of {m}" for n, m in zip(pool["collapsed"], pool["studies"], strict=True)],
    })  # fmt: skip
    return Table(
        "pool", "Winners on the test half, mean over worlds",
        "Mean over the seeds of a study, then over the studies of a world, then over worlds, with a 95 % t interval "
        f"over worlds (on the scale of log odds; from {FEWEST_WORLDS} worlds on). P(rank): the probability of each "
        "rank by mean distance, if the worlds' deviations are drawn anew with random weights, so that each difference "
        "of two methods has the t distribution of its paired test. Nearer than: the methods that are told apart from "
        "this one and lie farther from the ideal point. Recovery above control: what the worst attack on the winner of "
        "each study brings back, beyond what it teaches the references; came back: the studies with this verdict on "
        "it. Collapsed: the studies in which the winner collapsed.",
        pool, shown,
    )  # fmt: skip


def _came_back(pool: pd.DataFrame) -> list[str]:
    """In how many of the studies that attacked a method something came back."""
    pairs = zip(pool["came_back"], pool["attacked"], strict=True)
    return [f"{back} of {attacked}" if attacked else NOTHING for back, attacked in pairs]


def _named(methods: str) -> str:
    return ", ".join(map(naming.method, filter(None, methods.split(SEPARATOR))))


def pairs(found: Sequence[Difference]) -> Table:
    """Every pair of methods."""
    raw = pd.DataFrame(
        [(d.ratio, d.near, d.far, *d.farther, d.p, d.survives) for d in found], columns=DIFFERENCE_COLUMNS
    )
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "nearer": raw["near"].map(naming.method), "farther": raw["far"].map(naming.method),
        "by": with_interval(raw, "farther"), "adjusted p": raw["p"].map(number),
        "survives": raw["survives"].map({True: "yes", False: "no"}),
    })  # fmt: skip
    return Table(
        "pool_differences", "Differences of the distance, paired by world",
        "The 95 % interval is that of the pair alone. A difference survives if its p-value (paired t test), adjusted "
        "over all pairs of all ratios (Holm), is below 0.05: in at most 5 % of pools any equal methods are told apart.",
        raw, shown, folded=True,
    )  # fmt: skip


def variance(table: pd.DataFrame) -> Table:
    """What the variance of the distance between studies is made of."""
    lines = []
    for ratio, method, mine in reading.by_method(table):
        found = parts(*(mine[name].tolist() for name in ("distance", "people_variance", "seeds_variance", "world")))
        lines.append({"ratio": ratio, "method": method, **found._asdict(), "total": found.total})
    raw = pd.DataFrame(lines)
    names = ["people", "seeds", "search", "world"]
    searched = bool(raw["search"].notna().any())
    last = "world" if searched else "world and search"
    shares = {last if name == "world" else name: (raw[name] / raw["total"]).map(_percent) for name in names}
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(naming.method),
        "standard deviation": np.sqrt(raw["total"]).map(number), **shares,
    })  # fmt: skip
    if not searched:
        shown = shown.drop(columns="search")
    told = (
        "Search: another study of the same world, which searches and teaches anew, on other machines too."
        if searched
        else "Each world was searched once, so what the choice of the trial adds cannot be separated from what the "
        "world adds: `world and search` holds both, and what the single vanilla model adds as well."
    )
    return Table(
        "pool_variance", "What the distance varies with from study to study",
        "Standard deviation of one study's distance, and the parts of its variance. People and seeds (of the model and "
        "of the references, as many as a study averages) are what each study's own intervals have for them. "
        f"{told} With few worlds these parts are rough; n/a: too few worlds or people.", raw, shown, folded=True,
    )  # fmt: skip


def worlds(studies: Sequence[StudyResults], table: pd.DataFrame) -> Table:
    """Each study: its world, its noise floor, and what the other worlds say to its statements."""
    raw = reading.worlds(studies)
    raw = raw.merge(pd.concat([judged(study, table) for study in studies]), on=["study", "ratio"], how="left")
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "study": raw["study"], "world": raw["world"], "seed": raw["seed"],
        "noise floor": raw["noise_floor"].map(lambda v: "not known" if math.isnan(v) else number(v)),
        "vanilla's distance": raw["vanilla"].map(number), "statements": raw["statements"],
        **{str(name): raw[name].map(lambda n: NOTHING if math.isnan(n) else f"{n:.0f}") for name in SAID},
    })  # fmt: skip
    return Table(
        "pool_worlds", "Worlds, and what the others say to the statements of each study",
        "Noise floor: the largest forget gap of one reference to the others. Statements of a study: its nearest winner "
        "is told apart from, or tied with, each other usable one. They are held against the pool of the other worlds, "
        f"if there are {FEWEST_WORLDS}: contradicted if the difference survives there in the other direction, not "
        "confirmed if it does not survive. A tie claims no equality, so one that the others tell apart is counted by "
        f"itself.{_error_rate(raw)}", raw, shown,
    )  # fmt: skip


def _error_rate(raw: pd.DataFrame) -> str:
    """How many of all statements are contradicted."""
    judged = raw[list(SAID)].sum(axis=1).sum()
    return f" Contradicted: {raw['contradicted'].sum():.0f} of {judged:.0f} statements." if judged else ""


def judged(study: StudyResults, table: pd.DataFrame) -> pd.DataFrame:
    """The number of statements of one study at each ratio, and of those to which the pool of the other worlds says
    each of `SAID`; NaN with too few other worlds."""
    others = table[table["world"] != reading.world(study)]
    claims, found = reading.statements(study), differences(reading.distances(others))
    known = others["world"].nunique() >= FEWEST_WORLDS
    lines = []
    for ratio in study.ratios:
        told = [said(claim, found) for claim in claims if claim.ratio == ratio]
        counts = {str(name): float(told.count(name)) if known else math.nan for name in SAID}
        lines.append({"study": str(study.root), "ratio": ratio, "statements": len(told), **counts})
    return pd.DataFrame(lines)


def winners(table: pd.DataFrame) -> Table:
    """The winner of each study, with the key of its trial."""
    raw = table.sort_values(["ratio", "method", "world", "study"], ignore_index=True)
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(naming.method), "world": raw["world"],
        "study": raw["study"], **{naming.words(name): raw[name].map(number) for name in MEASURES},
        "recovery above control": raw[RECOVERY].map(number), "verdict": raw["verdict"], "worst attack": raw["attack"],
        "key": raw["key"],
    })  # fmt: skip
    return Table("pool_studies", "The winners of each study", "The key names the trial that was selected.", raw, shown,
                 folded=True)  # fmt: skip


def readme(pool: pd.DataFrame) -> str:
    """The ranking in README, from the CSV of a pool: a line of Markdown that says what it is of, and the table."""
    worlds, revision = int(pool["worlds"].max()), str(pool["revision"].iloc[0])
    head = ["forget %", "method", *SHOWN.values(), "came back", "P(first)"]
    lines = [
        [f"{line['ratio']}", naming.method(line["method"]), *(with_bounds(line, name) for name in SHOWN), back,
         two(line.get("rank_1", math.nan))]
        for (_, line), back in zip(pool.iterrows(), _came_back(pool), strict=True)
    ]  # fmt: skip
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(
        [
            f"Mean over {worlds} worlds with 95 % intervals over worlds, of studies that `make pool` ran at revision "
            f"`{revision}`:",
            "",
            *(f"| {' | '.join(cells)} |" for cells in rows),
        ]
    )


def _percent(share: float) -> str:
    return NOTHING if math.isnan(share) else f"{share:.0%}"
