"""How the numbers of the report are made, and what its words mean."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.sections import Part, Section
from analysis.sections._recovery import SMALLEST_GAP, VERDICTS
from analysis.study_folder import StudyResults
from analysis.tables import Pairs
from study.metrics.objectives import BROKEN


def parts(study: StudyResults) -> Iterator[Part]:
    """Each number, then each verdict."""
    yield Pairs("Numbers", list(_numbers(study)))
    yield Pairs("Verdicts", list(VERDICTS.items()))


def _numbers(study: StudyResults) -> Iterator[tuple[str, str]]:
    full, keeps = study.goal == "full", study.attack_keeps
    robustness = (study.settings.get("robustness") or {}).get("attack", "")
    yield "Vanilla", "was taught everything."
    yield "Reference", "was never taught what is to be forgotten and is what perfect forgetting would look like."
    yield (
        "Forgetting",
        "mean over the groups that must go of |mean probability of the right option - that of the reference|, on "
        f"multiple-choice questions (forget and test set, with picture{' and without' if full else ''}). 0 is perfect; "
        "falling below the reference counts as distance, too.",
    )
    spared = "" if full else ", and the text questions about the forget people"
    spared += ", and what is spared of the forget people" if study.forget_attributes else ""
    yield (
        "Utility",
        "harmonic mean of min(1, mean probability / that of vanilla) over the retain and real sets, with picture and "
        f"without{spared}. 1 keeps everything.",
    )
    if robustness:
        yield (
            "Recovery",
            f"the third objective of this study: every trial was attacked with {robustness}. The gain is the mean "
            "probability of the right answer to held-out questions about the forget set, after less before; recovery "
            "is the gain less that of the reference under the same attack, 0 where that is negative. A model that is "
            f"destroyed (utility below {BROKEN}), or that the attack destroys (it leaves less than {keeps} of the "
            "retain accuracy), counts as 1: that nothing comes back of a ruin is no robustness. Where the attack "
            "failed or measured nothing, the trial has no result and is counted as such.",
        )
    yield (
        "Distance",
        f"to the ideal: square root of forgetting² + (1 - utility)²{' + recovery²' if robustness else ''}. The winner "
        "of a method is the trial on its Pareto front with the smallest distance. Half of the questions (select) "
        "choose it, the other half (report) report it, on more seeds.",
    )
    yield (
        "Hypervolume",
        "volume of (forgetting, 1 - utility, recovery) that the trials dominate up to the worst point (1, 1, 1)."
        if robustness
        else "area of (forgetting, 1 - utility) that the trials dominate up to the worst point (1, 1).",
    )
    yield (
        "Intervals",
        "95 % percentile cluster bootstrap, 2000 resamples of people; questions and seeds are averaged within a person "
        "first. They cover the choice of people, not that of seeds, and are somewhat narrow below about ten people.",
    )
    yield (
        "Attack",
        "accuracy counts only on people and facts that the attacker was not given. Gain (AG) = after - before; above "
        "control = AG - AG of the reference; normalised recovery = (after - before) / (vanilla before - before), not "
        f"defined where less than {SMALLEST_GAP} was forgotten. The trials of a winner that were attacked are "
        f"averaged. An attack that leaves less than {keeps} of the retain accuracy has broken the model: nothing that "
        "it shows counts as robustness.",
    )
    yield (
        "Broken",
        f"retain accuracy below {BROKEN} of vanilla's, or utility below {BROKEN}. Guessing keeps some accuracy, so a "
        "weak vanilla can hide a broken model: compare with the blind level.",
    )


SECTION = Section("How the numbers are made", 120, parts)
