"""Every metric of the field, from rows: `METRICS` defines them, and `python -m study.write_docs` documents them.

The caller chooses the rows: one (role, modality, task) group, a set with all its tasks, a whole model. A metric uses
those rows that have a value; it is NaN if none has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from study.core.terms import TASKS, Modality, Task
from study.metrics.formulas import (
    BINS,
    NAN,
    Values,
    average,
    bounded,
    complement,
    contraharmonic,
    harmonic,
    jensen_shannon,
    jensen_shannon_of_profiles,
    kolmogorov_smirnov,
    truth_ratio_forget,
    truth_ratio_utility,
)

Where = Literal["forget", "kept", "both"]
Better = Literal["lower", "higher", "nearer to the reference"]


@dataclass(frozen=True)
class Metric:
    """The definition of one metric. `better` is its direction on what is to be forgotten, or, for a metric of what is
    to be kept, there."""

    name: str
    formula: str
    range: str
    better: Better
    source: str
    where: Where = "both"


@dataclass(frozen=True)
class Mean(Metric):
    """The mean over the questions of some tasks of a column, or of a function of it."""

    column: str = ""
    tasks: tuple[Task, ...] = TASKS
    of: Callable[[ArrayLike], Values] = np.asarray

    def values(self, rows: pd.DataFrame) -> pd.Series[float]:
        """The value of each question that has one, by the index of its row."""
        given = rows.loc[rows["task"].isin(self.tasks), self.column].astype(float)
        return pd.Series(self.of(given), index=given.index, dtype=float).dropna()

    def value(self, rows: pd.DataFrame) -> float:
        """The mean, NaN without any value."""
        return average(self.values(rows))


@dataclass(frozen=True)
class Comparison(Metric):
    """A metric of the truth ratios of a model and of the reference."""

    of: Callable[[pd.Series[float], pd.Series[float]], float] = lambda mine, its: NAN

    def value(self, rows: pd.DataFrame, reference: pd.DataFrame) -> float:
        """From rows of both; each is one run's, so that a question's name is there once."""
        mine, its = (part.set_index("question")["truth_ratio"].astype(float).dropna() for part in (rows, reference))
        return self.of(mine, its)


@dataclass(frozen=True)
class Whole(Metric):
    """A metric that needs the rows of both modalities, or of several sets."""

    of: Callable[[pd.DataFrame], float] = lambda rows: NAN

    def value(self, rows: pd.DataFrame) -> float:
        """From all rows that matter."""
        return self.of(rows)


# ---- numbers of more than one group --------------------------------------------------------------------------------
def paired(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each pair of questions about one fact, with picture (`score_x`) and without (`score_y`).

    They agree in person, role, task and `fact`; a question without `fact` has no pair.
    """
    asked = rows[rows["fact"] != ""]
    pictured, text = (asked[asked["modality"] == name] for name in ("image_text", "text"))
    return pictured.merge(text, on=["person", "role", "task", "fact"])


def utility_parts(rows: pd.DataFrame) -> dict[str, float]:
    """The parts of the model utility, each in [0, 1]: three numbers for each modality of the retain and real sets.

    The probability (retain: likelihood of the answers of generation; real: normalized over the options), the recall of
    ROUGE-L and max(0, 1 - R). A group without questions that have a number lacks it.
    """
    found: dict[str, float] = {}
    for (role, modality), group in rows[rows["role"].isin(("retain", "real"))].groupby(["role", "modality"]):
        probability = (_of_generation, "likelihood") if role == "retain" else (PROBABILITY.values, "probability")
        for values, name in (probability, (ROUGE_L_RECALL.values, "rouge_l_recall"), (TRUTH.values, "truth_ratio")):
            if len(there := values(group)):
                found[f"{role} {modality} {name}"] = average(there)
    return found


def _of_generation(rows: pd.DataFrame) -> pd.Series[float]:
    return rows.loc[rows["task"] == "generation", "likelihood"].astype(float).dropna()


def _model_utility(rows: pd.DataFrame) -> float:
    return harmonic(list(utility_parts(rows).values()))


def all_right(rows: pd.DataFrame) -> float:
    """The share of pairs of questions that are right with picture and without."""
    marks = _marks(rows)
    return average((marks == 1.0).all(axis=1).astype(float))


def all_wrong(rows: pd.DataFrame) -> float:
    """The share of pairs of questions that are right in neither way."""
    return average((_marks(rows) < 1.0).all(axis=1).astype(float))


def _marks(rows: pd.DataFrame) -> pd.DataFrame:
    """The marks of both sides of each pair of questions that are right or wrong."""
    marked = rows.loc[rows["task"] != "generation", ["person", "role", "modality", "task", "fact", "score"]]
    return paired(marked)[["score_x", "score_y"]]


def _worse(rows: pd.DataFrame) -> float:
    return contraharmonic(_rouge(rows, "image_text"), _rouge(rows, "text"))


def _both(rows: pd.DataFrame) -> float:
    return harmonic([_rouge(rows, "image_text"), _rouge(rows, "text")])


def _rouge(rows: pd.DataFrame, modality: Modality) -> float:
    return ROUGE_L.value(rows[rows["modality"] == modality])


def _sound(mine: pd.Series[float], its: pd.Series[float]) -> float:
    return jensen_shannon(bounded(mine), bounded(its))


def _released(mine: pd.Series[float], its: pd.Series[float]) -> float:
    both = pd.concat([mine, its], axis=1, join="inner")
    return jensen_shannon_of_profiles(both.iloc[:, 0], both.iloc[:, 1])


# ---- the metrics ---------------------------------------------------------------------------------------------------
SHARE = "0 to 1"
NEARER: Better = "nearer to the reference"
MLLMU = "MLLMU-Bench, arXiv 2410.22108"
TOFU = "TOFU, arXiv 2401.06121"
CLEAR = "CLEAR, arXiv 2410.18057"
UMU = "UMU-Bench, NeurIPS 2025"
FREE: tuple[Task, ...] = ("generation", "cloze")
SAID: tuple[Task, ...] = ("generation",)
WITHIN = "share of the wrong answers of a question that look less like training data than the right one, by "

PROBABILITY = Mean("probability", "classification: probability of the right option, normalized over the options", SHARE,
                   "lower", TOFU, column="probability", tasks=("classification",))  # fmt: skip
TRUTH = Mean("truth_ratio_utility", "mean of max(0, 1 - R); with CLEAR's right over wrong, max(0, 1 - 1 / R)", SHARE,
             "higher", f"{TOFU}; {CLEAR}", "kept", column="truth_ratio", of=truth_ratio_utility)  # fmt: skip
ROUGE_L = Mean("rouge_l", "generation: ROUGE-L, F1, stemmed", SHARE, "lower", f"Lin 2004; {MLLMU}",
               column="rouge_l", tasks=SAID)  # fmt: skip
ROUGE_L_RECALL = Mean("rouge_l_recall", "generation: ROUGE-L, recall, stemmed", SHARE, "lower", f"{TOFU}; {CLEAR}",
                      column="rouge_l_recall", tasks=SAID)  # fmt: skip

METRICS: tuple[Mean | Comparison | Whole, ...] = (
    Mean("accuracy", "classification: share of questions whose right option is the likeliest", SHARE, "lower", MLLMU,
         column="score", tasks=("classification",)),
    Mean("cloze", "cloze: share of replies that contain the answer", SHARE, "lower", MLLMU, column="score",
         tasks=("cloze",)),
    PROBABILITY,
    Mean("likelihood", "all tasks: p(answer given question) ^ (1 / its tokens), not normalized", SHARE, "lower", TOFU,
         column="likelihood"),
    Mean("truth_ratio_forget", "mean of min(R, 1 / R), R the truth ratio, wrong over right", SHARE, "higher",
         f"{TOFU}; {CLEAR}", "forget", column="truth_ratio", of=truth_ratio_forget),
    TRUTH,
    Comparison("ks", "largest distance of the distribution functions of R, model and reference", SHARE, "lower",
               f"Kolmogorov-Smirnov; {TOFU}", "forget", of=lambda mine, its: kolmogorov_smirnov(mine, its).statistic),
    Comparison("forget_quality", "p-value of ks, exact, two-sided; TOFU's forget quality", SHARE, "higher", TOFU,
               "forget", of=lambda mine, its: kolmogorov_smirnov(mine, its).p),
    Comparison("js", f"Jensen-Shannon distance in bits, histograms of R / (1 + R) in {BINS} cells, model and reference",
               SHARE, "lower", "Endres & Schindelin 2003", "forget", of=_sound),
    Comparison("js_released", "Jensen-Shannon distance in nats, R of each question as share of their sum; defective",
               "0 to 0.833", "lower", CLEAR, "forget", of=_released),
    Mean("rouge_1", "generation: ROUGE-1, F1, stemmed", SHARE, "lower", f"Lin 2004; {MLLMU}", column="rouge_1",
         tasks=SAID),
    Mean("rouge_2", "generation: ROUGE-2, F1, stemmed", SHARE, "lower", f"Lin 2004; {MLLMU}", column="rouge_2",
         tasks=SAID),
    ROUGE_L,
    ROUGE_L_RECALL,
    Mean("bleu", "generation: BLEU-4, smoothing method 1", SHARE, "lower", MLLMU, column="bleu", tasks=SAID),
    Mean("exact_match", "share of the keywords that the reply contains", SHARE, "lower", "FIUBench, arXiv 2411.03554",
         column="exact_match", tasks=FREE),
    Mean("refused", "share of free replies that refuse", SHARE, NEARER, "SafeEraser, arXiv 2502.12520",
         column="refused", tasks=FREE),
    Mean("unparsable", "share of replies that cannot be read as an answer; they count as wrong", SHARE, NEARER,
         "this project", column="parsed", of=complement),
    Mean("member_loss", f"{WITHIN}log-probability", SHARE, NEARER, "LOSS, arXiv 1709.01604", column="member_loss"),
    Mean("member_zlib", f"{WITHIN}log-probability over compressed length", SHARE, NEARER, "ZLIB, arXiv 2012.07805",
         column="member_zlib"),
    Mean("member_min_k", f"{WITHIN}its least likely tokens", SHARE, NEARER, "Min-K, arXiv 2310.16789",
         column="member_min_k"),
    Mean("member_min_k_plus_plus", f"{WITHIN}its least likely tokens, standardized", SHARE, NEARER,
         "Min-K++, arXiv 2404.02936", column="member_min_k_plus_plus"),
    Mean("exposure", "log2(candidate answers) - log2(rank of the right one), bits", "0 to log2(candidates)", "lower",
         "Carlini et al., arXiv 1802.08232", column="exposure"),
    Whole("all_modal_accuracy", "share of pairs (one fact with picture and without) of which both are right", SHARE,
          "lower", UMU, of=all_right),
    Whole("all_modal_error", "share of pairs of which both are wrong", SHARE, "higher", UMU, of=all_wrong),
    Whole("rlf", "(a^2 + b^2) / (a + b), a and b ROUGE-L with picture and without", SHARE, "lower", UMU, "forget",
          of=_worse),
    Whole("rlr", "2 a b / (a + b), a and b ROUGE-L with picture and without", SHARE, "higher", UMU, "kept", of=_both),
    Whole("model_utility", "harmonic mean of a probability, ROUGE-L recall and max(0, 1 - R), each of every modality "
          "of the retain and real sets", SHARE, "higher", f"{TOFU}; {CLEAR}", "kept", of=_model_utility),
)  # fmt: skip
"""In the order of tables."""
