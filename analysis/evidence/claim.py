"""What the evidence claims in one sentence, why, and what it does not claim."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd

from analysis import naming
from analysis.sections.conclusion import HELD
from analysis.study_folder import StudyResults
from analysis.tables import interval
from study.metrics.forget_gap import smallest_leak

Standing = Literal["supported", "contradicted", "undecided"]
NO_PROOF = "No test proves absence: a fact that nobody asked for in the right way is not shown to be gone."


class Claim(NamedTuple):
    """Whether the evidence supports a claim of deletion, the claim in one sentence, and the reasons."""

    standing: Standing
    sentence: str
    because: Sequence[str]


def claim(
    study: StudyResults,
    quality: pd.Series[Any],
    worst: pd.Series[Any] | None,
    attacks: pd.DataFrame,
    people: pd.DataFrame,
) -> Claim:
    """The claim for a winner: its line among the winners, its worst attack, every attack of the suite on it, and the
    people.

    It is supported if the worst attack leaves it equivalent to retraining, nothing came back under any other, nobody
    stands out, and without an attack it lies as near to the references as they lie to each other, or within the margin.
    """
    near = bool(quality["forget_gap"] <= quality["noise_floor"] or quality["forget_gap_high"] <= study.margin)
    far = bool(quality["forget_gap"] > study.margin)
    against = list(_against(worst, attacks, ("came back", "not unlearned") if far else ("came back",)))
    open_questions = [*_undecided(quality, worst, near=near), *_standing_out(people)]
    who = f"what {naming.method(quality['method'])} was to forget at {quality['ratio']} %"
    if against:
        return Claim("contradicted", f"This evidence contradicts a claim that {who} is gone.", against)
    if open_questions:
        return Claim("undecided", f"This evidence does not decide whether {who} is gone.", open_questions)
    others = "the base model, which was never taught it" if study.by_base_model else "models retrained without it"
    return Claim(
        "supported",
        f"Of {who}, this model gives away no more than {others}, within {study.margin:g} in probability, "
        f"under every attack of the suite ({len(attacks)}) and under the worst that was found.",
        [_gap(quality), _told(worst)],
    )


def not_claimed(study: StudyResults, ratio: int, people: int, attacks: int) -> list[str]:
    """What nobody may read into the claim."""
    found = [
        NO_PROOF,
        f"With {people} people, a leak of up to {smallest_leak(people):.0%} of such people may have been missed even "
        "where nothing was found (3 / n at 95 %). The table says the same of the facts about each person.",
        f"Nothing is said of other attacks than those that were run ({attacks}), nor of attackers who know more.",
        "Nothing is said of copies elsewhere: back-ups, exports, copies of the study at a storage address, the folders "
        "that data and models were read from, and the caches of libraries.",
        "Verdicts are about the weights whose digests are in the statement, in the precision that is given; other "
        "weights, or the same in another format, are another model.",
    ]
    if study.goal == "visual":
        found.append(
            "Only pictures were to be forgotten: what text says of the same people stays, in this model and in the "
            "references, by the goal of the study."
        )
    if study.forget_attributes:
        kept = naming.listed([naming.words(name) for name in study.forget_attributes])
        found.append(f"Only the {kept} of these people had to go; their other attributes stay.")
    if counted := study.known.get(ratio):
        found.append(
            f"Only what vanilla knew counts: {counted.questions} of {counted.of_questions} questions, about "
            f"{counted.people} of {counted.of_people} people. Nothing is said of the others."
        )
    if study.by_base_model:
        found.append("Nothing was retrained: the base model stands for the references.")
    return found


def _against(worst: pd.Series[Any] | None, attacks: pd.DataFrame, known: Sequence[str]) -> Iterator[str]:
    """What was still there, by verdicts that say so; each attack once."""
    if worst is not None and worst["verdict"] in known:
        yield _told(worst)
    for _, line in attacks[attacks["verdict"].isin(known)].iterrows():
        if worst is None or line["attack"] != worst["attack"]:
            yield _told(line)


def _undecided(quality: pd.Series[Any], worst: pd.Series[Any] | None, *, near: bool) -> Iterator[str]:
    """What a claim of deletion lacks; `near` says whether the model lies as near to the references as it should."""
    if worst is None or worst["verdict"] not in HELD:
        yield _told(worst)
    if quality["broken"]:
        yield "The model has collapsed: that it does not tell says nothing."
    if not near:
        yield f"{_gap(quality)} That is not shown to be as near as retrainings are to each other."


def _standing_out(people: pd.DataFrame) -> Iterator[str]:
    for _, one in people[people["stands_out"]].iterrows():
        yield (
            f"{one['person']} stands out: under {one['worst_attack']} the model scores {one['worst_score']:.2f}, the "
            f"references {one['control']:.2f}."
        )


def _gap(quality: pd.Series[Any]) -> str:
    gap, low, high = (quality[f"forget_gap{end}"] for end in ("", "_low", "_high"))
    floor = quality["noise_floor"]
    bounds = "" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]"
    known = "" if math.isnan(floor) else f"; retrainings differ from each other by up to {floor:.3f}"
    return f"Without an attack its forget gap to the references is {gap:.3f}{bounds}{known}."


def _told(line: pd.Series[Any] | None) -> str:
    if line is None or not line["attack"]:
        return "No attack on it could be compared with the same attack on the references."
    above = interval(line["above_control"], line["above_control_low"], line["above_control_high"])
    return f"Under {line['settings']}: {line['verdict']}, {above} above the references under the same attack."
