"""The numbers of CLEAR's tables from rows of its official protocol (mm/calculate_metrics.py of its code, bb14c96)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from study.metrics.formulas import (
    average,
    harmonic,
    jensen_shannon_of_profiles,
    kolmogorov_smirnov,
    truth_ratio_forget,
    truth_ratio_utility,
)

SETS = {
    "Real Faces": ("real", "real_faces"), "Real World": ("real", "real_world"), "Retain": ("retain", "caption"),
    "Retain FaceRec": ("retain", "name"), "Forget": ("forget", "caption"), "Forget FaceRec": ("forget", "name"),
}  # fmt: skip
"""CLEAR's six sets of questions: the role of each and what it asks for."""
KINDS = ("ROUGE", "Prob.", "Truth Ratio")
COLUMNS = {"Real": ("Real Faces", "Real World"), "Retain": ("Retain", "Retain FaceRec"),
           "Forget": ("Forget", "Forget FaceRec")}  # fmt: skip
"""The columns of the paper's table, each the harmonic mean of probability and truth ratio over two sets."""


def clear_scores(rows: pd.DataFrame) -> dict[str, float]:
    """The three numbers of every set, and `Model Utility`, their harmonic mean over all sets but those to forget.

    Then `Real`, `Retain` and `Forget`, as in the paper's table. NaN where a set was not asked.
    """
    parts = {f"{kind} {name}": value for name in SETS for kind, value in _of_set(rows, name).items()}
    kept = [value for name, value in parts.items() if "Forget" not in name]
    columns = {
        column: harmonic([parts[f"{kind} {name}"] for name in names for kind in KINDS[1:]])
        for column, names in COLUMNS.items()
    }
    return {**parts, "Model Utility": harmonic(kept), **columns}


def forget_quality(rows: pd.DataFrame, reference: pd.DataFrame) -> dict[str, float]:
    """The p-value of a Kolmogorov-Smirnov test on the truth ratios of captions, and 1 less their JS distance.

    That distance compares question by question (`jensen_shannon_of_profiles`), of ratios of right over wrong.
    """
    mine, its = (_ratios(part, "Forget").set_axis(_asked(part, "Forget")["question"]) for part in (rows, reference))
    both = pd.concat([mine, its], axis=1, join="inner").dropna()
    with np.errstate(divide="ignore"):
        distance = jensen_shannon_of_profiles(*(1.0 / both.iloc[:, i].to_numpy() for i in (0, 1)))
    return {"KS p-value": kolmogorov_smirnov(mine.dropna(), its.dropna()).p, "1 - JS": 1.0 - distance}


def _of_set(rows: pd.DataFrame, name: str) -> dict[str, float]:
    asked, ratios = _asked(rows, name), _ratios(rows, name)
    chances = asked["likelihood"] if SETS[name][1] == "caption" else asked["probability"]
    told: NDArray[np.float64] = (truth_ratio_forget if "Forget" in name else truth_ratio_utility)(ratios)
    values: Sequence[pd.Series[float]] = (asked["rouge_l_recall"], chances, pd.Series(told, dtype=float))
    return {kind: average(value.astype(float).dropna()) for kind, value in zip(KINDS, values, strict=True)}


def _ratios(rows: pd.DataFrame, name: str) -> pd.Series[float]:
    """The truth ratios of a set, wrong over right."""
    return _asked(rows, name)["truth_ratio"].astype(float)


def _asked(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The questions of a set: its last word, before a number, says what is asked for, or of whom."""
    role, kind = SETS[name]
    last = rows["question"].str.rpartition("/")[2].str.rpartition("-")[0]
    who = rows["person"].str.rpartition("-")[0]
    return rows[(rows["role"] == role) & (rows["modality"] == "image_text") & (last.where(last != "real", who) == kind)]
