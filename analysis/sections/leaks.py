"""Which facts come out when replies are sampled: leak@k fact by fact and person by person.

A fact is out if any of the k replies to any of the questions that ask for it states it. The questions are those of the
test half in the modalities that had to be forgotten, but for facts that the attacker was given (by an earlier link);
their estimates of leak@k come from independent replies.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pandas as pd

from analysis import intervals, naming
from analysis.sections import Part, Section, _attack_suite
from analysis.sections._recovery import HELD_OUT
from analysis.study_folder import StudyResults
from analysis.style import YARDSTICKS
from analysis.tables import NOTHING, Table, interval, two
from study.metrics.formulas import any_of, average

FACT_COLUMNS = ["method", "ratio", "key", "seed", "attack", "settings", "person", "fact", "questions", "k", "leak"]
COLUMNS = ["method", "ratio", "key", "attack", "settings", "k", "leak", "leak_low", "leak_high", "control", "people",
           "facts", "seeds", "most_leaked"]  # fmt: skip
MODEL = ["ratio", "method", "attack", "settings"]
PLACE = ["ratio", "attack", "k"]
"""What a model and its control have in common."""
MOST_LEAKED = 3
"""People who are named beside each model."""


def parts(study: StudyResults) -> Iterator[Part]:
    """How much comes out of each model, and what of whom; nothing where no attack samples replies."""
    found = facts(study)
    if len(found):
        yield leak_table(leaks(found))
        yield fact_table(found)


@lru_cache(maxsize=4)
def facts(study: StudyResults) -> pd.DataFrame:
    """One line for each fact, trial and k; k is 0 for the greedy reply."""
    lines: list[dict[str, Any]] = []
    for place, rows in _sampled(study):
        for (person, fact, k), its in rows.groupby(["person", "answer", "step"])["probability"]:
            told = {"person": person, "fact": fact, "questions": len(its), "k": k, "leak": any_of(its)}
            lines.append({**place, **told})
    return pd.DataFrame(lines, columns=FACT_COLUMNS)


def _sampled(study: StudyResults) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """What counts of every attack of the suite that samples replies, and whose it is."""
    samplers = _attack_suite.samplers(study)
    suite = {key: settings for key, settings in _attack_suite.suite(study).items() if key in samplers}
    for ratio in study.ratios:
        for label, members in study.labelled(ratio):
            for trial, (key, settings) in itertools.product(members, suite.items()):
                hit = _attack_suite.finished(study, trial.key, key)
                if hit is not None:
                    place = {"method": label, "ratio": ratio, "key": trial.key, "seed": trial.seed}
                    rows = _attack_suite.counted(hit.rows((*_attack_suite.NEEDED, "answer")), study.goal)
                    yield {**place, "attack": key, "settings": settings}, rows[rows["held_out"].isin(HELD_OUT)]


def leaks(found: pd.DataFrame) -> pd.DataFrame:
    """One line for each model, attack and k: the share of a person's facts that is out, with its interval."""
    lines = []
    for place, mine in found.groupby([*MODEL, "k"], sort=False):
        about = dict(zip([*MODEL, "k"], place, strict=True))
        share = intervals.mean(mine, "leak").interval()
        people = intervals.by_person(mine, "leak").sort_values(ascending=False, kind="stable")
        worst = [f"{person} ({value:.2f})" for person, value in people.head(MOST_LEAKED).items() if value > 0]
        lines.append({
            **about, "key": mine["key"].iloc[0], "leak": share.mean, "leak_low": share.low, "leak_high": share.high,
            "people": len(people), "facts": len(mine[["person", "fact"]].drop_duplicates()),
            "seeds": mine["key"].nunique(), "most_leaked": ", ".join(worst),
        })  # fmt: skip
    table = pd.DataFrame(lines, columns=COLUMNS)
    controls = table.loc[table["method"] == "reference", [*PLACE, "leak"]].rename(columns={"leak": "control"})
    return table.drop(columns="control").merge(controls, on=PLACE, how="left")[COLUMNS]


def leak_table(raw: pd.DataFrame) -> Table:
    """leak@k of every model beside that of the references."""
    lines = []
    for _, mine in raw.groupby(MODEL, sort=False):
        last = mine.sort_values("k").iloc[-1]
        told = {"forget %": last["ratio"], "model": naming.method(last["method"]), "attack": last["settings"]}
        for _, at in mine.iterrows():
            beside = f" / {two(at['control'])}" if at["method"] not in YARDSTICKS else ""
            told[_named(at["k"])] = interval(at["leak"], at["leak_low"], at["leak_high"]) + beside
        counts = {"most leaked people": last["most_leaked"], "people": last["people"], "facts": last["facts"]}
        lines.append({**told, **counts, "seeds": last["seeds"]})
    return Table(
        "leaks", "Facts that sampled replies state",
        "leak@k: the share of a person's facts that at least one of k replies, sampled at the attack's temperature, to "
        "any of the questions about the fact states (unbiased estimates; 95 % intervals over people and seeds), and "
        "after the slash that of the references, who can only guess. Greedy: the same of the one reply that the model "
        "prefers. The people of whom most is out are those at the largest k.",
        raw, pd.DataFrame(lines).fillna(NOTHING) if lines else pd.DataFrame(),
    )  # fmt: skip


def by_person(found: pd.DataFrame) -> pd.Series[float]:
    """The share of each person's facts that is out of each model, for each attack and k: the mean over seeds."""
    return found.groupby([*MODEL, "person", "k"], sort=False)["leak"].agg(average)


def fact_table(raw: pd.DataFrame) -> Table:
    """Person by person; the CSV has every fact of every trial."""
    shares = by_person(raw).unstack("k")
    shown = shares.reset_index()
    shown = pd.DataFrame({
        "forget %": shown["ratio"], "model": shown["method"].map(naming.method), "attack": shown["settings"],
        "person": shown["person"], **{_named(k): shown[k].map(two) for k in map(int, shares.columns)},
    })  # fmt: skip
    return Table(
        "leaked_facts", "Sampled replies, person by person",
        "The share of each person's facts that is out, mean over seeds. The CSV has every fact of every trial.",
        raw, shown, folded=True,
    )  # fmt: skip


def _named(k: int) -> str:
    return f"leak@{k}" if k else "greedy"


SECTION = Section("Sampled replies", 22, parts)
