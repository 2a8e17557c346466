"""The model card of an exported model: README.md with the numbers of its evidence, and no person in it."""

from __future__ import annotations

from typing import NamedTuple

from huggingface_hub import EvalResult, ModelCardData

from analysis import naming
from analysis.evidence.claim import NO_PROOF
from analysis.study_folder import benchmark_kind
from analysis.tables import interval
from study.core.hashing import Json

TASK = "image-text-to-text"
TAGS = ["machine-unlearning", "multimodal"]


class Measured(NamedTuple):
    """One number of a card."""

    metric: str
    words: str
    value: float | None
    low: float | None = None
    high: float | None = None


def card(about: Json, evidence: Json | None, *, missing: str = "", base_model: str = "", licence: str = "") -> str:
    """The card of a model that `about` says all of; without evidence it says why there are no numbers: `missing`."""
    found = measured(evidence) if evidence else []
    name = f"{naming.method(about['method'])} at {about['ratio']} %"
    dataset = benchmark_kind(evidence["settings"]) if evidence else ""
    results = [
        EvalResult(TASK, dataset.lower(), dataset, one.metric, one.value, metric_name=one.words)
        for one in found
        if one.value is not None
    ]
    data = ModelCardData(
        base_model=base_model or None, license=licence or None, library_name="transformers", pipeline_tag=TASK,
        tags=TAGS, metrics=[result.metric_type for result in results] or None, model_name=name,
        eval_results=results or None,
    )  # fmt: skip
    sections = [f"---\n{data.to_yaml()}\n---", f"# {name}", _what(about, base_model), about["note"]]
    sections += _numbers(evidence, found) if evidence else [f"No numbers are given here: {missing}."]
    return "\n\n".join(filter(None, sections)) + "\n"


def measured(evidence: Json) -> list[Measured]:
    """The numbers of a card, which are those of the evidence."""
    quality, worst = evidence["quality"], evidence["worst_attack"]
    left = [p["above_control"] for p in evidence["people"] if p["above_control"] is not None]
    return [
        Measured("forget_gap", "forget gap to the references (lower is better)", quality["forget_gap"],
                 quality["forget_gap_low"], quality["forget_gap_high"]),
        Measured("noise_floor", "forget gap of one reference to the others", quality["noise_floor"]),
        Measured("utility", "utility (1: nothing was lost)", quality["utility"]),
        Measured("retain_accuracy_kept", "retain accuracy as a fraction of vanilla's", quality["retained"]),
        Measured("recovery_above_control", "recovery above the references under the worst attack",
                 worst.get("above_control"), worst.get("above_control_low"), worst.get("above_control_high")),
        Measured("most_left_of_a_person", "most that is left of one person, beyond the references, under any attack",
                 max(left, default=None)),
        Measured("smallest_leak", "share of such people who may leak even if nobody did here (3 / n at 95 %)",
                 evidence["smallest_leak"]),
    ]  # fmt: skip


def _what(about: Json, base_model: str) -> str:
    start = f" of {base_model}" if base_model else ""
    went = "pictures" if about["goal"] == "visual" else "pictures and text"
    return (
        f"A multimodal model{start} that was taught about people and then made to forget {about['ratio']} % of them in "
        f"{went}, by {naming.method(about['method'])} (seed {about['seed']}). unlearning.json beside this file has the "
        "settings and the digests."
    )


def _numbers(evidence: Json, found: list[Measured]) -> list[str]:
    lines = [f"| {one.words} | {interval(one.value, one.low, one.high)} |" for one in found]
    worst, seeds = evidence["worst_attack"], len(evidence["model"]["seeds"])
    told = f"Verdict under the worst attack ({worst['settings']}): {worst['verdict']}." if worst else "Not attacked."
    return [
        f"**{evidence['claim']['standing'].capitalize()}.** {evidence['claim']['sentence']}",
        "\n".join(["| number | value [95 %] |", "|---|---|", *lines]),
        f"{told} Numbers are of the test half, the mean over {seeds} seed{'s' * (seeds > 1)}; this model is the first. "
        f"They are from the study {evidence['study']}, {evidence['at'][:10]}, margin {evidence['margin']:g}.",
        f"{NO_PROOF} The evidence of the study says what else is not claimed.",
    ]
