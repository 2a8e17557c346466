"""The page of a pool: one answer, one table, one figure, and what stands behind them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from os.path import relpath
from pathlib import Path

import pandas as pd

from analysis import naming, page
from analysis.pool import figure, reading, tables
from analysis.sections import Part
from analysis.study_folder import StudyResults
from analysis.tables import keep
from study.metrics.worlds import FEWEST_WORLDS, Difference, differences

PAGE = "pool.html"


def default_folder(roots: Sequence[Path]) -> Path:
    """`pool` beside the studies, in the folder they have in common."""
    return Path(os.path.commonpath([root.resolve().parent for root in roots])) / "pool"


def build(roots: Sequence[Path], to: Path) -> Path:
    """Write the page of a pool with its tables and figure into a folder; the path of the page.

    Raises `FileNotFoundError` and `ValueError` as `reading.studies` does, and `ValueError` for a folder of a study.
    """
    studies = reading.studies(roots)
    if any(to.resolve() == study.root.resolve() for study in studies):
        raise ValueError(f"{to} is a study itself: name another folder with --to")
    table = reading.lines(studies)
    if table.empty:
        raise ValueError("no study has a winner that was scored: there is nothing to pool")
    distances = reading.distances(table)
    found = differences(distances)
    pool = tables.pooled(table, reading.revisions(studies), found, distances)
    links = _links(studies, table, to)
    sections: list[tuple[str, list[Part]]] = [
        ("", list(answer(pool, found, reading.vanilla(studies)))),
        ("Methods over worlds", [tables.methods(pool), figure.plot(table, pool, studies)]),
        ("What the pool can tell", [tables.pairs(found), tables.variance(table), tables.worlds(studies, table)]),
        ("Single studies", [tables.winners(table)]),
    ]
    page.write(
        "pool.html.jinja", to / PAGE, sections, studies[0].methods, links, name="Pooled studies", studies=studies,
        worlds=table["world"].nunique(), goal=studies[0].goal, revisions=reading.revisions(studies),
    )  # fmt: skip
    keep(to / "tables" / "pool.md", tables.readme(pool))
    return to / PAGE


def _links(studies: Sequence[StudyResults], table: pd.DataFrame, to: Path) -> dict[str, str]:
    """Where the cells of tables lead: studies to their reports, keys to their trials if one study alone has them."""
    folders = {str(study.root): study.folder for study in studies}
    alone = table.drop_duplicates("key", keep=False)
    found = {name: folder.page for name, folder in folders.items()}
    found |= {key: folders[name].record(key) for name, key in zip(alone["study"], alone["key"], strict=True)}
    return {cell: Path(relpath(path, to)).as_posix() for cell, path in found.items()}


def answer(pool: pd.DataFrame, found: Sequence[Difference], vanilla: Mapping[int, float]) -> Iterator[str]:
    """What the pool says, a paragraph for each ratio."""
    worlds = int(pool["worlds"].max())
    for ratio, mine in pool[pool["ranked"]].groupby("ratio"):
        start = f"At forget ratio {ratio} %, over {worlds} world{'s' * (worlds > 1)},"
        yield f"{start} {_nearest(mine, found, vanilla[int(str(ratio))], worlds)}"
    if worlds >= FEWEST_WORLDS:
        yield (
            f"{sum(one.survives for one in found)} of {len(found)} differences between two methods survive, paired by "
            "world, at 5 % over all of them together (Holm)."
        )
    for ratio, mine in pool[pool["attacked"] > 0].groupby("ratio"):
        yield f"Under attack at {ratio} %, {_came_back(mine)}."
    for _, line in pool[~pool["ranked"]].iterrows():
        yield (
            f"{naming.method(line['method'])} has no winner in every world at {line['ratio']} % ({line['worlds']} of "
            f"{worlds}), so it is not ranked."
        )


def _nearest(mine: pd.DataFrame, found: Sequence[Difference], vanilla: float, worlds: int) -> str:
    """Which of the ranked methods of one ratio come closest to the ideal point."""
    best = mine.iloc[0]
    name, distance = naming.method(best["method"]), tables.with_bounds(best, "distance")
    pairs = [one for one in found if one.ratio == best["ratio"] and best["method"] in (one.near, one.far)]
    beaten = {one.far for one in pairs if one.survives and one.near == best["method"]}
    tied = [method for method in mine["method"].iloc[1:] if method not in beaten]
    if best["distance"] >= vanilla:
        return f"no method improves on vanilla: {name} has a mean distance of {distance}, vanilla {vanilla:.2f}."
    collapsed = (
        f" Its winner collapsed in {best['collapsed']} of {best['studies']} studies." if best["collapsed"] else ""
    )
    if worlds < FEWEST_WORLDS:
        return (
            f"{name} has the smallest mean distance to the ideal point ({distance}; vanilla {vanilla:.2f}). That is no "
            f"ranking: fewer than {FEWEST_WORLDS} worlds have no interval.{collapsed}"
        )
    if tied:
        names = naming.listed([name, *map(naming.method, tied)])
        apart = f" {name} is told apart from {_names(beaten)}." if beaten else ""
        return (
            f"the methods closest to the ideal point cannot be told apart: {names}; {name} has a mean distance of "
            f"{distance}, vanilla {vanilla:.2f}.{apart}{collapsed}"
        )
    return (
        f"{name} comes closest to the ideal point and is told apart from all others: a mean distance of {distance} "
        f"(vanilla {vanilla:.2f}), forget gap {tables.with_bounds(best, 'forget_gap')}, utility "
        f"{tables.with_bounds(best, 'utility')}.{collapsed}"
    )


def _came_back(mine: pd.DataFrame) -> str:
    """Of which methods the worst attack brought something back, in the words of the verdict."""
    always, never = mine[mine["came_back"] == mine["attacked"]], mine[mine["came_back"] == 0]
    sometimes = mine[~mine.index.isin([*always.index, *never.index])]
    groups = {"in every study": always, "in some studies": sometimes, "in none": never}
    told = [f"of {_names(found['method'])} {where}" for where, found in groups.items() if len(found)]
    return f"by the worst attack on each winner, something came back {', '.join(told)}"


def _names(methods: Collection[str]) -> str:
    return naming.listed(sorted(map(naming.method, methods)))
