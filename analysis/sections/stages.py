"""Attacks that ask in several ways, one stage after another: what each way brought back."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis import intervals, naming
from analysis.sections import Part, Section
from analysis.sections._attack_suite import Attacked, attacked, last_link
from analysis.sections._recovery import HELD_OUT
from analysis.study_folder import StudyResults
from analysis.tables import Table, two, with_interval

LISTS = ("kind", "wording")
"""Settings of attacks that list their stages: changes of pictures, and wordings."""
COLUMNS = ["method", "ratio", "attack", "stage", "change", "after", "after_low", "after_high", "gain", "above_control",
           "people"]  # fmt: skip


def parts(study: StudyResults) -> Iterator[Part]:
    """The table, if there is such an attack."""
    yield stages_table(stages(study))


def stages(study: StudyResults) -> pd.DataFrame:
    """One line for each model, attack and stage, on the test half of what was held out."""
    found = [line for case in attacked(study) for line in _lines(study, case)]
    table = pd.DataFrame(found, columns=COLUMNS)
    place = ["ratio", "attack", "stage"]
    control = table[table["method"] == "reference"].set_index(place)["gain"].rename("control")
    table["above_control"] = table["gain"] - table.join(control, on=place)["control"]
    return table


def _lines(study: StudyResults, case: Attacked) -> Iterator[dict[str, object]]:
    if not (listed := changes(study, case)):
        return
    rows = case.rows[case.rows["held_out"].isin(HELD_OUT)]
    level = rows.groupby(["step", "person"])["probability"].mean().groupby("step").mean()
    for stage, change in enumerate(listed, 1):
        now = rows[rows["step"] == stage]
        after = intervals.mean(now).interval()
        yield {
            "method": case.label, "ratio": case.ratio, "attack": case.settings, "stage": stage, "change": change,
            "after": after.mean, "after_low": after.low, "after_high": after.high,
            "gain": level.get(stage, float("nan")) - level.get(0, float("nan")), "people": now["person"].nunique(),
        }  # fmt: skip


def changes(study: StudyResults, case: Attacked) -> tuple[str, ...]:
    """What each stage of an attack changes, in order; none if it does not say. Of composed attacks the last counts."""
    last = last_link(study.attacks(case.members[0].key)[case.attack])
    listed = [last[name] for name in LISTS if isinstance(last.get(name), list)]
    return tuple(map(str, listed[0])) if listed else ()


def stages_table(raw: pd.DataFrame) -> Table:
    """What is shown of it."""
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(naming.method), "attack": raw["attack"],
        "stage": raw["stage"], "change": raw["change"], "after": with_interval(raw, "after"),
        "above control": raw["above_control"].map(two), "people": raw["people"],
    })  # fmt: skip
    return Table(
        "stages", "Stage by stage",
        "What each change of the question or the picture brought back by itself, on the test half. After: accuracy on "
        "what was held out; above control: gain in probability of the right option minus that of the references, "
        "without an interval, for a verdict over so many stages would have to correct for all of them. The tables of "
        "attacks judge one stage of each attack.",
        raw, shown, folded=True,
    )  # fmt: skip


SECTION = Section("Other wordings and other pictures", 25, parts)
