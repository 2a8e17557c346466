"""The conclusion of a study: which method is best, how close it comes to the reference, and whether it is robust."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from analysis import comparison, naming
from analysis.sections import Part, Section, _attack_suite, _recovery, _worst_attack, fronts, other_attacks, scores
from analysis.sections._recovery import HELD_OUT, SMALLEST_GAP
from analysis.sections.winners import mark_of, trade_off
from analysis.study_folder import StudyResults
from analysis.tables import Table, interval, two, with_interval
from analysis.trials import counts, objectives_of, winners
from study.metrics.intervals import FEWEST_PEOPLE

HELD = {"equivalent to retraining", "no more than retraining"}
"""Verdicts on a method of which nothing came back."""
BY_BASE_MODEL = (
    "No reference was given: the base model stands for the references, so the forget gap is measured to a model that "
    "was never taught anybody, and what retraining would give is not known."
)
UNKNOWN_FLOOR = " How far retrainings differ among themselves is not known: there is one reference."


CAVEAT = (
    "This is one study: one set of people on one machine. Another may put methods in another order, so it ranks "
    "nothing beyond itself; mus report --pool sums up studies of several worlds."
)


def parts(study: StudyResults) -> Iterator[Part]:
    """The box on top of the page: the answer as a table, how far it reaches, the trade-off, and the same in words."""
    won, worst = winners(study), _worst_attack.table(study)
    if len(won):
        yield answer_table(won, worst)
        yield CAVEAT
    yield trade_off(study)
    yield from answer(study, won, _recovery.recovery(study), worst)


def answer_table(won: pd.DataFrame, worst: pd.DataFrame) -> Table:
    """One line for each winner: how far from retraining, what is left, and what came back."""
    columns = ["attack", "settings", "above_control", "above_control_low", "above_control_high", "verdict"]
    raw = won.merge(worst[["method", "ratio", *columns]], on=["method", "ratio"], how="left")
    raw["verdict"] = raw["verdict"].fillna("not attacked")
    attacked = raw.astype({name: float for name in columns if name.startswith("above")})
    ratio = {"forget %": raw["ratio"]} if raw["ratio"].nunique() > 1 else {}
    shown = pd.DataFrame({
        **ratio, "method": raw["method"].map(naming.method), "verdict": raw["verdict"],
        "forget gap \u2193": with_interval(raw, "forget_gap"), "utility \u2191": raw["utility"].map(two),
        "recovery under the worst attack \u2193": with_interval(attacked, "above_control"),
        "mark": [mark_of(line) for _, line in raw.iterrows()],
    })  # fmt: skip
    return Table(
        "answer", "The answer",
        "Winners on the test half, the nearest to the ideal point first, with 95 % intervals over people and seeds. "
        "Verdict: on the worst attack. Tied: not told apart from the nearest. Like retraining: within the noise floor.",
        raw[["method", "ratio", "key", *[c for c in won if c not in ("method", "ratio", "key")], *columns]], shown,
    )  # fmt: skip


def answer(study: StudyResults, winners: pd.DataFrame, recovery: pd.DataFrame, worst: pd.DataFrame) -> list[str]:
    """A few paragraphs for each forget ratio. Only a usable winner that improves on vanilla is called the best."""
    asked = _asked(study)
    if not study.ratios:
        return [*asked, "No trial has finished yet, so there is nothing to compare."]
    for ratio in study.ratios:
        first, *rest = _one(study, winners, recovery, worst, ratio)
        asked += [f"At forget ratio {ratio} %, {first}", *rest]
    return asked


def _asked(study: StudyResults) -> list[str]:
    """What the references are, where they are not retrained, and which attributes had to be forgotten, if not all."""
    return [*[BY_BASE_MODEL] * study.by_base_model, *_known(study), *_attributes(study)]


def _known(study: StudyResults) -> list[str]:
    """How much of what was to be forgotten counts, if only what vanilla knows does."""
    return [
        f"At forget ratio {ratio} % only what vanilla knows and the references do not counts: {found.questions} of "
        f"{found.of_questions} questions about what must go, {found.people} of {found.of_people} people."
        for ratio, found in sorted(study.known.items())
    ]


def _attributes(study: StudyResults) -> list[str]:
    names = [naming.words(attribute) for attribute in study.forget_attributes]
    if not names:
        return []
    listed = naming.listed(names)
    return [f"Only the {listed} of the forget people had to be forgotten; their other attributes had to stay (spared)."]


def _one(
    study: StudyResults, winners: pd.DataFrame, recovery: pd.DataFrame, worst: pd.DataFrame, ratio: int
) -> list[str]:
    mine = winners[winners["ratio"] == ratio]
    scored = mine.dropna(subset=["distance"]).sort_values(["distance", "method"])
    usable = scored[~scored["broken"].astype(bool)]
    broken = _names(scored.loc[scored["broken"].astype(bool), "method"])
    if scored.empty:
        return [_unfinished(study, mine, ratio)]
    idle = [objectives_of(study, t.key, "report")[0] for t in study.yardsticks("vanilla", ratio)[:1]]
    before = idle[0]["distance"] if idle else math.nan
    gate = _gate(study, ratio)
    if usable.empty:
        return [f"{gate}no method can be recommended: every winner has collapsed ({broken})."]
    best, tied = usable.iloc[0], usable[usable["tied"]]
    named = tied if len(tied) > 1 else usable[:1]
    if best["distance"] >= before:
        said = [
            f"{gate}no method improves on vanilla: the best winner, {naming.method(best['method'])}, has a distance of "
            f"{best['distance']:.2f} to the ideal point, vanilla {before:.2f}."
        ]
    else:
        vanilla = idle[0]["forget_gap"]
        said = [gate + (_tied(tied, vanilla) if len(named) > 1 else _best(best, vanilla, len(usable) - 1))]
        said += [_worst(study, worst, method, ratio, len(named)) for method in named["method"]]
        said.append(_recovery.in_precision(worst[(worst["ratio"] == ratio) & worst["method"].isin(named["method"])]))
        said += [_kept_person(study, line, ratio) for _, line in named.iterrows()]
        said += [_front(study, best["method"], ratio), other_attacks.alone(study)]
        if len(named) < 2:
            said.append(_alternative(usable.iloc[1:], recovery, worst, best["method"], ratio, before))
    if broken:
        said.append(f"Collapsed rather than unlearned: {broken}.")
    return [text for text in said if text]


def _best(best: pd.Series, before: float, others: int) -> str:
    """The one method that is nearest, beside the number of others that are farther."""
    seeds = int(best["seeds"])
    apart = f" and is told apart from {'all others' if others > 1 else 'the other'}" if others else ""
    recovered = f", a recovery of {best['recovery']:.2f} under the search attack" if "recovery" in best else ""
    return (
        f"{naming.method(best['method'])} comes closest to the ideal point{apart}: a forget gap of {_gap(best)} to the "
        f"references, which never saw the forget set (vanilla: {before:.2f}){recovered} and a utility of "
        f"{best['utility']:.2f} (vanilla: 1), on the test half of the questions "
        f"({seeds} seed{'s' if seeds > 1 else ''}).{_within(best)}"
    )


def _tied(tied: pd.DataFrame, before: float) -> str:
    each = [
        f"{naming.method(line['method'])} (gap {_gap(line)}, utility {line['utility']:.2f})"
        for _, line in tied.iterrows()
    ]
    why = (
        "Their order may be chance: 95 % intervals of their differences, paired by person, include 0."
        if tied["farther_low"][1:].notna().all()
        else f"Their differences have no interval: it takes at least {FEWEST_PEOPLE} people of each set."
    )
    return (
        f"the methods closest to the ideal point cannot be told apart: {naming.listed(each)}; vanilla's gap is "
        f"{before:.2f}. {why}{_tied_within(tied)}"
    )


def _tied_within(tied: pd.DataFrame) -> str:
    """Which of several methods lie within the noise floor."""
    floor = tied["noise_floor"].iloc[0]
    if math.isnan(floor):
        return UNKNOWN_FLOOR
    within = [naming.method(name) for name in tied.loc[tied["forget_gap"] <= floor, "method"]]
    who = f"; {naming.listed(within)} {'lie' if len(within) > 1 else 'lies'} within it" if within else ""
    return f" The noise floor of retraining is {floor:.2f}{who}."


def _gap(line: pd.Series) -> str:
    return interval(line["forget_gap"], line["forget_gap_low"], line["forget_gap_high"])


def _within(best: pd.Series) -> str:
    if math.isnan(best["noise_floor"]):
        return UNKNOWN_FLOOR
    near = "within" if best["forget_gap"] <= best["noise_floor"] else "above"
    return f" That is {near} the noise floor of retraining ({best['noise_floor']:.2f})."


def _kept_person(study: StudyResults, line: pd.Series, ratio: int) -> str:
    """Whom a method kept, if it knows more of one person than the references of any."""
    _, most = comparison.most_known(study, [t.key for t in study.yardsticks("reference", ratio)], ratio)
    if not line["known"] > most + SMALLEST_GAP:
        return ""
    return (
        f"Caution: of {line['known_person']} {naming.method(line['method'])} still knows {line['known']:.2f}, of "
        f"nobody do the references know more than {most:.2f}."
    )


def _worst(study: StudyResults, worst: pd.DataFrame, method: str, ratio: int, tied: int) -> str:
    """The worst attack on a winner: the one of the table, the terminal and the figure."""
    mine, name = _mine(worst, method, ratio), naming.method(method) if tied > 1 else "it"
    if mine.empty:
        return f"{name[0].upper()}{name[1:]} has not been attacked yet, so its robustness is unknown."
    line = mine.iloc[0]
    if not line["attack"] or math.isnan(line["above_control"]):
        return f"No attack on {name} could be compared with the same on the references, so its robustness is unknown."
    searched = f"; with an attack search of {line['proposals']} trials" if line["proposals"] else ""
    number = interval(line["above_control"], line["above_control_low"], line["above_control_high"])
    control = "" if math.isnan(line["control_after"]) else f" (control {line['control_after']:.2f})"
    more = f" ({line['would_tell']} would tell)" if line["verdict"] == "cannot tell" and line["would_tell"] else ""
    sampled = line["attack"] in _attack_suite.samplers(study)
    what = "the share of facts that replies state" if sampled else "accuracy"
    return (
        f"The worst attack on {name} ({line['settings']}{searched}) took {what} on what the attacker was not given "
        f"from {line['before']:.2f} to {line['after']:.2f}{control}, {number} above control in probability: "
        f"{line['verdict']}{more}."
    )


def _front(study: StudyResults, method: str, ratio: int) -> str:
    """How many trials of a front held, where whole fronts were attacked."""
    mine = _mine(fronts.table(study), method, ratio)
    if mine.empty:
        return ""
    held = int(mine["verdict"].isin(HELD).sum())
    plural = "s" if len(mine) > 1 else ""
    return f"Of the {len(mine)} trial{plural} on its front, {held} held under the worst attack of the suite."


def _alternative(
    others: pd.DataFrame, recovery: pd.DataFrame, worst: pd.DataFrame, best: str, ratio: int, before: float
) -> str:
    """The best method that held, where the best method of all did not."""
    if "came back" not in set(_mine(worst, best, ratio)["verdict"]):
        return ""
    for _, other in others[others["distance"] < before].iterrows():
        told = set(_mine(worst, other["method"], ratio)["verdict"])
        lines = set(_held_out(recovery, other["method"], ratio)["verdict"])
        if told and told <= HELD and "came back" not in lines:
            name = naming.method(other["method"])
            return (
                f"Its unlearning is superficial; the best method that held is {name} (distance "
                f"{other['distance']:.2f})."
            )
    return "Its unlearning is superficial, and no other usable method is shown to have held."


def _mine(frame: pd.DataFrame, method: str, ratio: int) -> pd.DataFrame:
    return frame[(frame["method"] == method) & (frame["ratio"] == ratio)]


def _held_out(recovery: pd.DataFrame, method: str, ratio: int) -> pd.DataFrame:
    mine = _mine(recovery, method, ratio)
    return mine[mine["held_out"].isin(HELD_OUT)]


def _gate(study: StudyResults, ratio: int) -> str:
    gate = scores.gate(study)
    mine = gate[(gate["ratio"] == ratio) & (gate["role"] == "forget") & (gate["modality"] == "image_text")]
    if mine.empty or mine["gap"].item() >= SMALLEST_GAP:
        return ""
    return (
        "where vanilla knows hardly more about the forget set than the reference (an accuracy of "
        f"{mine['vanilla'].item():.2f} against {mine['reference'].item():.2f}), so that there was little to forget, "
    )


ENDED = ("complete", "stopped", "collapsed", "diverged", "failed")


def _unfinished(study: StudyResults, winners: pd.DataFrame, ratio: int) -> str:
    found = counts(study)
    mine = found.loc[found["ratio"] == ratio, ["proposals", *ENDED]].sum()
    why = "no winner has been selected" if winners.empty else "no winner has been scored on the test half"
    others = "".join(f", {mine[state]:.0f} {state}" for state in ENDED[1:] if mine[state])
    return f"there is no result yet: {why} ({mine['complete']:.0f} of {mine['proposals']:.0f} trials complete{others})."


def _names(methods: pd.Series[str]) -> str:
    return ", ".join(map(naming.method, methods))


SECTION = Section("", 0, parts)
