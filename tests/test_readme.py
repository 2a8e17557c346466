"""README ranks methods only as a pool of at least five worlds does: its table is docs/pool.csv."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from analysis.naming import METHODS
from analysis.pool.tables import readme
from tests import ROOT

FEWEST = 5
"""Worlds that a ranking in README needs."""
MEASURED = re.compile(r"forget gap|utility|distance|accuracy", re.IGNORECASE)
SHARE = re.compile(r"(?<![\d.])[01]\.\d")


def rankings(text: str) -> list[str]:
    """The tables whose heads name a measure, and other lines that give a method a number between 0 and 2."""
    tables = [
        found for found in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE) if MEASURED.search(found.split("\n")[0])
    ]
    results = text.partition("\n## Results\n")[2].partition("\n## ")[0]
    lines = [line for line in results.splitlines() if not line.startswith("|")]
    return tables + [line for line in lines if SHARE.search(line) and any(name in line for name in METHODS.values())]


def problems(text: str, pool: Path) -> list[str]:
    """What README says that the pool does not."""
    found = rankings(text)
    if not pool.exists():
        return [f"ranks methods without {pool.name} (make pool): {part}" for part in found]
    table = pd.read_csv(pool, dtype={"revision": str})
    wrong = []
    if table["worlds"].max() < FEWEST:
        wrong.append(f"{table['worlds'].max()} worlds are too few to rank")
    if not re.fullmatch("[0-9a-f]{40}", table["revision"].iloc[0]):
        wrong.append(f"made at {table['revision'].iloc[0]}, which is not one commit")
    if readme(table) not in text:
        wrong.append(f"does not hold the table of {pool.name}:\n{readme(table)}")
    own = readme(table).split("\n")
    return wrong + [f"ranks otherwise: {part}" for part in found if part.strip().split("\n")[0] not in own]


def test_readme_ranks_what_the_pool_says_and_nothing_without_one() -> None:
    assert problems((ROOT / "README.md").read_text(encoding="utf-8"), ROOT / "docs" / "pool.csv") == []


def test_what_is_said_below_the_table_is_counted() -> None:
    """The sentences of README and docs/attacks.md about the pool, against its tables."""
    docs = ROOT / "docs"
    studies, pairs = pd.read_csv(docs / "pool_studies.csv"), pd.read_csv(docs / "pool_differences.csv")
    worlds, weak = pd.read_csv(docs / "pool_worlds.csv"), ["gradient_ascent", "prompting"]
    five = studies[~studies["method"].isin(weak)]
    assert five["method"].nunique() == 5
    assert set(map(tuple, pairs.loc[pairs["survives"], ["near", "far"]].to_numpy())) == {
        (near, far) for near in five["method"] for far in weak
    }
    back, put_back = studies["verdict"] == "came back", studies["attack"].str.startswith("swap back")
    relearned, quantized = (studies["attack"].str.startswith(name) for name in ("relearning", "quantization"))
    composed = studies["attack"] == "swap back then relearning"
    of_all = len(studies)
    told = [
        f"these {pairs['survives'].sum()} of the {len(pairs)} differences survive",
        f"of all {back[five.index].sum()} of their winners, and of {back.sum()} of the {of_all} of all methods. "
        f"For {put_back.sum()} of the {of_all} it puts the *public* vision tower back",
        f"Of their {worlds['statements'].sum()} statements about two methods the other worlds contradict "
        f"{worlds['contradicted'].sum():.0f} and confirm {worlds['agreed'].sum():.0f}",
    ]
    assert back[five.index].all()
    readme_text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for sentence in told:
        assert sentence in readme_text
    assert (
        f"relearns for {composed.sum()} of the {of_all} winners, puts it back and no more for "
        f"{(put_back & ~composed).sum()}, relearns for {relearned.sum()}, and quantizes for {quantized.sum()}."
    ) in " ".join((docs / "attacks.md").read_text(encoding="utf-8").split())


def pool(path: Path, worlds: int = 5, revision: str = "0123456789" * 4) -> Path:
    """The CSV of a pool of two methods."""
    measures = {
        f"{name}{end}": [0.1, 0.2]
        for name in ("forget_gap", "utility", "distance", "recovery")
        for end in ("", "_low", "_high")
    }
    place = {"revision": revision, "ratio": 20, "method": ["vkd", "npo"], "worlds": worlds}
    pd.DataFrame({**place, **measures, "attacked": 5, "came_back": 4, "rank_1": [0.75, 0.25]}).to_csv(path, index=False)
    return path


def page(results: str) -> str:
    return f"# Study\n\n## Results\n\n{results}\n\n## Layout\n"


def test_the_table_of_the_pool_passes(tmp_path: Path) -> None:
    csv = pool(tmp_path / "pool.csv")
    shown = readme(pd.read_csv(csv, dtype={"revision": str}))
    assert "| 20 | VKD | 0.10 [0.10, 0.10] |" in shown
    assert problems(page(f"Pooled:\n\n{shown}\n"), csv) == []


@pytest.mark.parametrize(
    "results",
    [
        "| method | forget gap |\n|---|---|\n| VKD | 0.05 |",
        "- At 15 % VKD (0.05) leads before NPO.",
        "| x | Utility |\n|---|---|",
    ],
)
def test_a_ranking_without_a_pool_is_found(results: str, tmp_path: Path) -> None:
    assert len(problems(page(results), tmp_path / "pool.csv")) == 1


@pytest.mark.parametrize(
    "results", ["VKD freezes the LLM.", "Guessing gives 0.25.", "| method | what it does |\n|---|---|"]
)
def test_what_ranks_nothing_passes(results: str, tmp_path: Path) -> None:
    assert problems(page(results), tmp_path / "pool.csv") == []


def test_a_table_that_is_not_that_of_the_pool_is_found(tmp_path: Path) -> None:
    csv = pool(tmp_path / "pool.csv")
    shown = readme(pd.read_csv(csv, dtype={"revision": str}))
    assert len(problems(page(shown.replace("0.75", "0.85")), csv)) == 1
    assert len(problems(page(f"{shown}\n\n| method | distance |\n|---|---|\n| NPO | 0.1 |"), csv)) == 1
    assert len(problems(page(""), csv)) == 1


def test_a_pool_of_few_worlds_or_of_changed_files_is_found(tmp_path: Path) -> None:
    for csv in (pool(tmp_path / "few.csv", worlds=4), pool(tmp_path / "dirty.csv", revision="0123456789" * 4 + "+")):
        assert len(problems(page(readme(pd.read_csv(csv, dtype={"revision": str}))), csv)) == 1
