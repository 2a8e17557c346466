"""The tables of a paper: the winners, the worst attacks, and the tables of the benchmarks' and VKD's authors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import pandas as pd

from analysis import comparison, intervals, naming
from analysis.paper.figures import sample
from analysis.paper.latex import Column, Floating, Number, best, escaped
from analysis.paper.published import MLLMU, Published
from analysis.sections import _worst_attack, clear_scores, metrics
from analysis.study_folder import StudyResults, benchmark_kind
from analysis.style import YARDSTICKS
from analysis.trials import report_rows, winners
from study.core.records import TrialRecord
from study.metrics.intervals import MISSING, Block, Values, estimate

Better = Literal["up", "down", ""]
MARKED = "Best in bold, what cannot be told from it underlined (95 % interval of the difference, paired by person)."


FIT = 5
"""Columns of percentages that fit beside the names of methods into one column of the text."""


class Cell(NamedTuple):
    """A column of a template: what is asked of whom, and how."""

    group: str
    heading: str
    role: str
    modality: str
    task: str


SETS = {"forget": "Forget", "test": "Test", "retain": "Retain", "real": "Real"}
TASKS = {"classification": "Cls.", "generation": "Gen.", "cloze": "Cloze"}
TEMPLATES: dict[str, tuple[str, Sequence[Cell]]] = {
    **{f"mllmu_{name}": (f"As the main table of MLLMU-Bench, {what}", [
        Cell(SETS[role], TASKS[task], role, modality, task) for role in SETS for task in TASKS])
       for name, modality, what in (("image", "image_text", "questions with a picture"),
                                    ("text", "text", "questions in text alone"))},
    "clear": ("As the main table of CLEAR", [
        *(Cell(SETS[role], heading, role, modality, task) for role in ("forget", "retain")
          for heading, modality, task in (("VQA", "image_text", "classification"),
                                          ("Caption", "image_text", "generation"), ("QA", "text", "generation"))),
        Cell("Real", "VQA", "real", "image_text", "classification")]),
    "vkd": ("As the main table of VKD", [
        *(Cell(SETS[role], heading, role, modality, "classification") for role in ("forget", "retain")
          for heading, modality in (("VQA", "image_text"), ("QA", "text"))),
        Cell("Real", "VQA", "real", "image_text", "classification")]),
}  # fmt: skip
"""By name, what is said of a table, and its columns."""


def tables(study: StudyResults) -> list[Floating]:
    """All tables that have something to show."""
    found = [main(study), worst(study)] if len(winners(study)) else []
    for ratio in study.ratios:
        for name, (said, cells) in TEMPLATES.items():
            found += filter(None, [template(study, ratio, name, said, cells)])
        found += filter(None, [clear(study, ratio)])
    return found


def main(study: StudyResults) -> Floating:
    """The winners: how far from retraining, how useful, how far from the ideal point, and what came back."""
    won = winners(study).dropna(subset=["distance"])
    beside = _worst_attack.table(study)[["method", "ratio", "above_control", "above_control_low", "above_control_high",
                                         "verdict"]]  # fmt: skip
    found = won.merge(beside, on=["method", "ratio"], how="left")
    columns = [
        *_models(found),
        Column("Forget gap", _told_apart(study, found, "forget_gap", "down"), "down"),
        Column("Utility", _told_apart(study, found, "utility", "up"), "up"),
        Column("Distance", _told_apart(study, found, "distance", "down"), "down"),
        Column("Recovery", _bounded(found, "above_control"), "down"),
        Column("Verdict", [str(verdict) for verdict in found["verdict"].fillna("not attacked")]),
    ]
    rules = [at for at in range(1, len(found)) if found["ratio"].iloc[at] != found["ratio"].iloc[at - 1]]
    text = (
        f"Winners on the test half. Recovery: above control, under the worst attack, in probability, with its 95 % "
        f"interval. {MARKED} A collapsed model is never the best. {sample(study)}"
    )
    return Floating("winners", escaped(text), columns, rules, wide=True)


def _models(found: pd.DataFrame) -> list[Column]:
    """The columns that say which winner a line is of: the ratio, if there are several, and the method."""
    ratios = [Column("Forget %", list(map(str, found["ratio"])))] if found["ratio"].nunique() > 1 else []
    return [*ratios, Column("Method", [naming.method(method) for method in found["method"]])]


def _told_apart(study: StudyResults, found: pd.DataFrame, name: comparison.Objective, better: Better) -> list[Number]:
    """A column of the winners: in each ratio the best are marked, and what cannot be told from it."""
    cells: dict[int, Number] = {}
    for ratio, mine in found.groupby("ratio"):
        usable = mine[~mine["broken"].astype(bool)]
        at = best(usable[name].tolist(), better)
        models = {place: _model(study, line["method"], int(str(ratio))) for place, line in usable.iterrows()}
        first = None if at is None else usable.index[at]
        for place, line in mine.iterrows():
            same = first is not None and place in models and line[name] == usable[name][first]
            tied = first is not None and place in models and not same and _is_tied(
                study, int(str(ratio)), models[first], models[place], name)  # fmt: skip
            low, high = (line.get(f"{name}_{end}", math.nan) for end in ("low", "high"))
            cells[int(str(place))] = Number(line[name], low, high, best=bool(same), tied=bool(tied))
    return [cells[place] for place in range(len(found))]


def _model(study: StudyResults, method: str, ratio: int) -> comparison.Model | None:
    return comparison.model(study, method, study.winners[method, ratio], ratio)


def _is_tied(
    study: StudyResults, ratio: int, one: comparison.Model | None, other: comparison.Model | None,
    name: comparison.Objective,
) -> bool:  # fmt: skip
    against = comparison.bench(study, ratio)
    if one is None or other is None or against is None:
        return True
    return includes_0(comparison.difference(one, other, against, name).interval())


def includes_0(found: Sequence[float]) -> bool:
    """Whether an interval leaves it open that there is no difference; so does one that is not known."""
    return not (found[1] > 0 or found[2] < 0)


def worst(study: StudyResults) -> Floating:
    """The worst attack on each winner."""
    found = _worst_attack.table(study)
    numbers = {"before": "Before", "after": "After", "control_after": "Control"}
    columns = [
        *_models(found),
        Column("Worst attack", [naming.in_lines(text or "none", 1) for text in found["settings"]]),
        *(Column(head, [Number(float(value)) for value in found[name]]) for name, head in numbers.items()),
        Column("Above control", _bounded(found, "above_control"), "down"),
        Column("Verdict", list(map(str, found["verdict"]))),
    ]
    text = (
        "The worst attack on each winner, chosen on the validation half, on the test half: accuracy on what the "
        "attacker was not given before and after, that of the references after it, and the gain above theirs in "
        f"probability, with an interval that allows for the choice of the attack. {sample(study)}"
    )
    return Floating("worst_attack", escaped(text), columns, wide=True)


def _bounded(found: pd.DataFrame, name: str) -> list[Number]:
    """A column of numbers with their bounds."""
    ends = found[[name, f"{name}_low", f"{name}_high"]].astype(float).to_numpy()
    return [Number(value, low, high) for value, low, high in ends]


# ---- tables of other papers ----------------------------------------------------------------------------------------
def template(study: StudyResults, ratio: int, name: str, said: str, cells: Sequence[Cell]) -> Floating | None:
    """A table of another paper, filled with official scores where the study has them, else with strict ones."""
    models = {label: members for label, members in study.labelled(ratio) if members}
    official = any(study.rows(trial.key, "released") is not None for ms in models.values() for trial in ms)
    runs = {label: _runs(study, members, official=official) for label, members in models.items()}
    columns = [column for cell in cells if (column := _column(study, ratio, runs, cell, official=official))]
    if not columns or not set(runs) - set(YARDSTICKS):
        return None
    if name == "vkd":
        columns.append(_attack_gain(study, ratio, list(runs)))
    published = _published(study, ratio, name) if official else []
    shown = [Column("Method", [*(naming.method(label) for label in runs), *(p.method for p in published)])]
    shown += [_with(column, published, cells) for column in columns]
    protocol = "official protocol" if official else "strict protocol, not comparable with published numbers"
    source = "".join(
        f" Last lines: copied from {one}." for one in sorted({f"{p.source}, {p.model}" for p in published})
    )
    text = (
        f"{said}: accuracy in %, ROUGE-L times 100; {protocol}, forget ratio {ratio} %. {MARKED} {_gain(name)}{source}"
    )
    rules = [len(YARDSTICKS & runs.keys()), *([len(runs)] if published else [])]
    return Floating(f"{name}_{ratio}", escaped(text.strip()), shown, rules, wide=len(columns) > FIT)


def clear(study: StudyResults, ratio: int) -> Floating | None:
    """CLEAR's table of likelihoods, of a study that was scored by its official protocol."""
    found = clear_scores.scores(study)
    if found.empty or (mine := found[found["ratio"] == ratio]).empty:
        return None
    columns = [Column(name, [Number(float(value)) for value in mine[name]], better)
               for name, better in clear_scores.SHOWN.items() if name in mine]  # fmt: skip
    methods = Column("Method", [naming.method(method) for method in mine["method"]])
    text = (
        f"As CLEAR reports it: official protocol, forget ratio {ratio} %, mean over seeds. Real, Retain and Forget: "
        "harmonic mean of probability and truth ratio over two sets each; KS and JS of truth ratios beside those of "
        "the first reference."
    )
    rules = [int(mine["method"].isin(list(YARDSTICKS)).sum())]
    return Floating(f"clear_likelihoods_{ratio}", escaped(text), [methods, *columns], rules, wide=True)


def _gain(name: str) -> str:
    return "AG: accuracy after the worst attack minus before, in points." if name == "vkd" else ""


def _runs(study: StudyResults, members: Sequence[TrialRecord], *, official: bool) -> pd.DataFrame:
    """The rows of all seeds of a model, with the seed of each."""
    rows = report_rows(study, members, "released" if official else "report")
    return rows[rows["protocol"] == "released"] if official else rows


def _column(
    study: StudyResults, ratio: int, runs: dict[str, pd.DataFrame], cell: Cell, *, official: bool
) -> Column | None:
    """A column of percentages; none where nothing of the kind was asked."""
    scored = {label: _scores(rows, cell, official=official) for label, rows in runs.items()}
    if all(one.empty for one in scored.values()):
        return None
    better: Better = "down" if _must_go(study, cell) else "up"
    broken = winners(study).query("ratio == @ratio and broken")["method"].tolist()
    own = _official(study, ratio, cell) if official else {}
    means = {label: own.get(label, math.nan) if official else _percent(one) for label, one in scored.items()}
    rivals = [label for label in runs if label not in (*YARDSTICKS, *broken) and not math.isnan(means[label])]
    at = best([means[label] for label in rivals], better)
    first = None if at is None else rivals[at]
    firsts = [label for label in rivals if first is not None and means[label] == means[first]]
    numbers = [
        Number(means[label], best=label in firsts, tied=first is not None and label in rivals and label not in firsts
               and includes_0(_difference(scored[first], scored[label])))
        for label in runs
    ]  # fmt: skip
    return Column(cell.heading, numbers, better, 1, cell.group)


def _official(study: StudyResults, ratio: int, cell: Cell) -> dict[str, float]:
    """The percentages of the report's table of the official protocol, by model."""
    found = metrics.official_scores(study)
    asked = (found["role"] == cell.role) & (found["modality"] == cell.modality) & (found["task"] == cell.task)
    mine = found[asked & (found["ratio"] == ratio)]
    return dict(zip(mine["method"], 100 * mine["mean"], strict=True))


def _scores(rows: pd.DataFrame, cell: Cell, *, official: bool) -> pd.DataFrame:
    """The sums of scores and their numbers (columns, one for each seed) of people (lines).

    Questions count the same under the official protocol; under the strict one people do, so each has one score, the
    mean over questions.
    """
    if rows.empty:
        return rows
    asked = rows[(rows["role"] == cell.role) & (rows["modality"] == cell.modality) & (rows["task"] == cell.task)]
    if official:
        return asked.pivot_table("score", "person", "seed", ["sum", "count"], fill_value=0)
    means = intervals.table(asked)
    return pd.concat({"sum": means, "count": means.notna()}, axis=1)


def _percent(scored: pd.DataFrame) -> float:
    return 100 * _level(_values(scored)) if scored.size else math.nan


def _values(scored: pd.DataFrame) -> Values:
    """Sums and numbers as (people, 2, seeds)."""
    return scored.to_numpy(dtype=float).reshape(len(scored), 2, scored.shape[1] // 2)


def _level(values: Values) -> float:
    """The mean over seeds of the mean score."""
    return float((values[:, 0].sum(axis=0) / values[:, 1].sum(axis=0)).mean())


def _must_go(study: StudyResults, cell: Cell) -> bool:
    return cell.role in ("forget", "test") and (study.goal == "full" or cell.modality == "image_text")


def _difference(one: pd.DataFrame, other: pd.DataFrame) -> Sequence[float]:
    """The second model's mean less the first's, paired by person, with its interval."""
    common = one.index.intersection(other.index)
    if common.empty:
        return MISSING
    seeds = ("seed of one", "seed of the other")
    blocks = [Block(_values(scored.loc[common]), ("people", "", seed))
              for seed, scored in zip(seeds, (one, other), strict=True)]  # fmt: skip
    return estimate(lambda v: _level(v[1]) - _level(v[0]), blocks, ["people"], seeds).interval()


def _attack_gain(study: StudyResults, ratio: int, labels: Sequence[str]) -> Column:
    found = _worst_attack.table(study)
    mine = found[found["ratio"] == ratio]
    gains = dict(zip(mine["method"], 100 * mine["attack_gain"], strict=True))
    return Column("AG", [Number(gains.get(label, math.nan)) for label in labels], "down", 1)


def _published(study: StudyResults, ratio: int, name: str) -> list[Published]:
    """Published numbers of the same benchmark and ratio."""
    place = (name, benchmark_kind(study.settings).lower(), ratio)
    return [one for one in MLLMU if place == ("mllmu_image", "mllmu", one.ratio)]


def _with(column: Column, published: Sequence[Published], cells: Sequence[Cell]) -> Column:
    """The column with the published numbers below its own."""
    alike = [c for c in cells if (c.group, c.heading) == (column.group, column.heading)]
    place = (alike[0].role, alike[0].task, alike[0].modality) if alike else None
    more = [Number(one.values.get(place, math.nan) if place else math.nan) for one in published]
    return column._replace(cells=[*column.cells, *more])
