"""How the numbers of the report are computed, and what its terms mean."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.sections import Part, Section
from analysis.sections._recovery import SMALLEST_GAP, VERDICTS
from analysis.study_folder import StudyResults
from analysis.tables import Pairs
from study.metrics.objectives import BROKEN


def parts(study: StudyResults) -> Iterator[Part]:
    """Each number, then each verdict."""
    yield Pairs("Terms and numbers", list(_numbers(study)))
    yield Pairs("Verdicts", list(VERDICTS.items()))


def _numbers(study: StudyResults) -> Iterator[tuple[str, str]]:
    full, keeps = study.goal == "full", study.attack_keeps
    robustness = (study.settings.get("robustness") or {}).get("attack", "")
    yield "Vanilla", "fine-tuned on every person: the model before unlearning."
    yield (
        "Reference",
        "retrained without what is to be forgotten: what perfect unlearning would look like. Vanilla and reference are "
        "the baselines of this report.",
    )
    yield (
        "Validation half, test half",
        "the questions are split in two. The validation half guides the search and selects winners and worst attacks; "
        "the test half reports them. In files they are called select and report.",
    )
    yield (
        "Forget gap",
        "(lower is better) mean over the groups to be forgotten of |mean probability of the right option - that of "
        f"the reference|, on multiple-choice questions (forget and test set, with picture"
        f"{' and without' if full else ''}). 0 is perfect; falling below the reference (overshoot) counts as a gap, "
        "too. In files its name is forgetting.",
    )
    spared = "" if full else ", and the text questions about the forget people"
    spared += ", and what is spared of the forget people" if study.forget_attributes else ""
    yield (
        "Utility",
        "(higher is better) harmonic mean of min(1, mean probability / that of vanilla) over the retain and real sets, "
        f"with picture and without{spared}. 1 means that nothing was lost.",
    )
    if robustness:
        yield (
            "Recovery",
            f"the third objective of this study (lower is better): every trial was attacked with {robustness}, the "
            "search attack. Its gain is the mean probability of the right answer to held-out questions about the "
            "forget set, after minus before; recovery is the gain minus that of the reference under the same attack, "
            f"0 where that is negative. A model that collapsed (utility below {BROKEN}), or that collapses under the "
            f"attack (less than {keeps} of the retain accuracy is left), counts as 1: a collapsed model from which "
            "nothing is recovered is not robust. Where the attack failed or measured nothing, the trial has no result "
            "and is counted as such.",
        )
    yield (
        "Distance",
        "(lower is better) to the ideal point: square root of (forget gap)² + (1 - utility)²"
        f"{' + recovery²' if robustness else ''}. The winner of a method is the trial on its Pareto front with the "
        "smallest distance on the validation half; it is run on further seeds and reported on the test half.",
    )
    yield (
        "Hypervolume",
        "volume of (forget gap, 1 - utility, recovery) that the trials dominate up to the reference point (1, 1, 1)."
        if robustness
        else "area of (forget gap, 1 - utility) that the trials dominate up to the reference point (1, 1).",
    )
    yield (
        "Intervals",
        "95 % percentile cluster bootstrap with 2000 resamples of people; questions and seeds are averaged within a "
        "person first. They cover the choice of people, not that of seeds, and are somewhat too narrow below about "
        "ten people.",
    )
    yield (
        "Attack",
        "accuracy counts only on people and facts that the attacker was not given. Gain (AG) = after - before; above "
        "control = AG - AG of the reference; normalized recovery = (after - before) / (vanilla before - before), not "
        f"defined where less than {SMALLEST_GAP} was forgotten. The attacked trials of a winner are averaged. Where an "
        f"attack leaves less than {keeps} of the retain accuracy, the model has collapsed under it, and the result "
        "says nothing about robustness.",
    )
    yield (
        "Collapsed",
        f"retain accuracy below {BROKEN} of vanilla's, or utility below {BROKEN}. Guessing alone keeps some accuracy, "
        "so a weak vanilla can hide a collapsed model: compare with the blind level.",
    )


SECTION = Section("How the numbers are computed", 120, parts)
