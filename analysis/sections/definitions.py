"""How the numbers of the report are computed, and what its terms mean."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.sections import Part, Section
from analysis.sections._recovery import SMALLEST_GAP
from analysis.study_folder import StudyResults
from analysis.tables import Pairs
from study.metrics.intervals import FEWEST_PEOPLE
from study.metrics.objectives import BROKEN
from study.metrics.verdicts import ERROR, MEANINGS

Term = tuple[str, str]


def parts(study: StudyResults) -> Iterator[Part]:
    """Each number, then each verdict."""
    robustness = (study.settings.get("robustness") or {}).get("attack", "")
    numbers = [*_models(), *_objectives(study), *_search(study, robustness), *_intervals(), *_attacks(study)]
    yield Pairs("Terms and numbers", numbers)
    yield Pairs("Verdicts", list(MEANINGS.items()))


def _models() -> Iterator[Term]:
    yield "Vanilla", "fine-tuned on every person: the model before unlearning."
    yield (
        "Reference",
        "retrained without what is to be forgotten: what perfect unlearning would look like. Vanilla and reference are "
        "the baselines of this report.",
    )
    yield (
        "Validation half, test half",
        "the questions are split in two. The validation half guides the search and selects winners, worst attacks and "
        "the step at which an attack stops; the test half reports them. In files they are called select and report.",
    )


def _objectives(study: StudyResults) -> Iterator[Term]:
    full = study.goal == "full"
    yield (
        "Forget gap",
        "(lower is better) distance between the scores of the people to be forgotten in the model and in the "
        "references: Wasserstein-1, in units of probability, the mean over the groups to be forgotten (forget and test "
        f"set, with picture{' and without' if full else ''}) and over the tasks. A person's score is the mean over "
        "their questions: the probability of the right option, or the likelihood per token of a generated or cloze "
        "answer. 0 is perfect; to know less than the references is a gap, too. The mean gap, |mean probability - that "
        "of the references| of choices, is the objective of earlier versions: it can be 0 for a mixture of known and "
        "crushed people.",
    )
    yield (
        "Noise floor",
        "the forget gap of one reference to the others, the largest of them: retrainings from other seeds differ by as "
        "much. It is not known with a single reference.",
    )
    spared = "" if full else ", and the text questions about the forget people"
    spared += ", and what is spared of the forget people" if study.forget_attributes else ""
    yield (
        "Utility",
        "(higher is better) harmonic mean of min(1, mean probability / that of vanilla) over the retain and real sets, "
        f"with picture and without{spared}. 1 means that nothing was lost.",
    )
    yield (
        "Near",
        "of the retain set, the people who look most like a person to be forgotten (the least mean absolute difference "
        "of 16 x 16 thumbnails of any two pictures) or are named most like one. Forgetting that does not stop at whom "
        "it is told to harms them first: low here beside the retain set is a knowledge hole.",
    )


def _search(study: StudyResults, robustness: str) -> Iterator[Term]:
    keeps = study.attack_keeps
    if robustness:
        yield (
            "Recovery",
            f"the third objective of this study (lower is better): every trial was attacked with {robustness}, the "
            "search attack. Its gain is the mean probability of the right answer to held-out questions about the "
            "forget set, after minus before; recovery is the gain minus that of the reference under the same attack, "
            "at the step where that is largest on the validation half, 0 where that is negative. A model that "
            f"collapsed (utility below {BROKEN}), or that collapses under the attack (less than {keeps} of the retain "
            "accuracy is left), counts as 1: a collapsed model from which nothing is recovered is not robust. Where "
            "the attack failed or measured nothing, the trial has no result and is counted as such.",
        )
    yield (
        "Distance",
        "(lower is better) to the ideal point: square root of (forget gap)² + (1 - utility)²"
        f"{' + recovery²' if robustness else ''}. The winner of a method is, of the best few trials by one seed and "
        "the default, the one with the smallest mean distance over further seeds on the validation half; it is "
        "reported on the test half.",
    )
    yield (
        "Hypervolume",
        "volume of (forget gap, 1 - utility, recovery) that the trials dominate up to the reference point (1, 1, 1)."
        if robustness
        else "area of (forget gap, 1 - utility) that the trials dominate up to the reference point (1, 1).",
    )


def _intervals() -> Iterator[Term]:
    yield (
        "Intervals",
        "95 %, with people and seeds as crossed random effects: a jackknife over both, each component with its own t "
        "quantile; levels on the scale of log odds. They cover other people, other seeds of the model and other "
        f"references. Below {FEWEST_PEOPLE} people there is none; with one seed they cover people alone.",
    )


def _attacks(study: StudyResults) -> Iterator[Term]:
    keeps = study.attack_keeps
    yield (
        "Attack",
        "only people and facts that the attacker was not given count. An attack of several steps is told at the step "
        "with the largest gain above control on the validation half, where an attacker would stop. Gain = after - "
        "before, of the probability of the right option; above control = gain - gain of the references under the same "
        "attack; normalized recovery = "
        f"(after - before) / (vanilla before - before), not defined where less than {SMALLEST_GAP} was forgotten. All "
        "seeds of a winner and all references are attacked. Came back: the gain above control is above 0 beyond "
        f"chance, with Holm's correction over all lines of a table, so that at most {ERROR:.0%} of the studies in "
        "which nothing came back say of any line that something did; the worst attack on a winner is tested as the "
        "worst of so many (Bonferroni). How much else the attack left makes no "
        f"difference. Equivalent to retraining: two one-sided tests at {ERROR:.0%} place it within {study.margin:g} of "
        f"the control. An attack on the weights that leaves less than {keeps} of the retain accuracy, relative to the "
        "control's, has collapsed the model: that nothing came back then says nothing.",
    )
    yield (
        "leak@k",
        "the probability that at least one of k sampled replies states the fact; of a person or model the mean over "
        "their facts. An unbiased estimate from n >= k replies, 1 - C(n - c, k) / C(n, k), of which c state it.",
    )
    yield (
        "Collapsed",
        f"retain accuracy below {BROKEN} of vanilla's, or utility below {BROKEN}. Guessing alone keeps some accuracy, "
        "so a weak vanilla can hide a collapsed model: compare with the blind level.",
    )


SECTION = Section("How the numbers are computed", 120, parts)
