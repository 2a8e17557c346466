"""CLEAR's tables, from rows, against its formulas on losses written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import hmean, ks_2samp

from study.metrics.clear_table import SETS, clear_scores, forget_quality

ASKED = 7
"""Questions of a set."""


def drawn(seed: int) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Losses of right, reworded and three wrong answers, and ROUGE, of every set."""
    draw = np.random.default_rng(seed)
    return {
        name: {"right": draw.uniform(0.1, 3, ASKED), "reworded": draw.uniform(0.1, 3, ASKED),
               "wrong": draw.uniform(0.1, 3, (ASKED, 3)), "rouge": draw.uniform(0.1, 1, ASKED)}
        for name in SETS
    }  # fmt: skip


def rows_of(losses: dict[str, dict[str, NDArray[np.float64]]]) -> pd.DataFrame:
    lines: list[dict[str, Any]] = []
    for name, its in losses.items():
        role, kind = SETS[name]
        ratio = np.exp(its["reworded"] - its["wrong"].mean())  # wrong over right, as in all rows
        for i in range(ASKED):
            person = f"{kind}-{i}" if role == "real" else "Ann Lee-Smith"
            said = {"likelihood": math.exp(-its["right"][i]), "probability": math.nan, "truth_ratio": ratio[i]}
            if kind != "caption":
                chances = np.exp(-np.array([its["right"][i], *its["wrong"][i]]))
                said["probability"] = chances[0] / chances.sum()
            lines.append({
                "question": f"{role}/{person}/image_text/generation/{'real' if role == 'real' else kind}-{i}",
                "person": person, "role": role, "modality": "image_text", "rouge_l_recall": its["rouge"][i], **said,
            })  # fmt: skip
    return pd.DataFrame(lines)


def test_every_number_is_that_of_the_authors_formulas() -> None:
    losses = drawn(0)
    wanted: dict[str, float] = {}
    for name, its in losses.items():
        right, wrong = np.exp(-its["right"]), np.exp(-its["wrong"])
        ratio = np.exp(its["wrong"].mean() - its["reworded"])  # right over wrong, as they write it
        wanted[f"ROUGE {name}"] = its["rouge"].mean()
        wanted[f"Prob. {name}"] = (right if name in ("Retain", "Forget") else right / (right + wrong.sum(1))).mean()
        wanted[f"Truth Ratio {name}"] = (
            np.minimum(ratio, 1 / ratio) if "Forget" in name else np.maximum(0, 1 - 1 / ratio)
        ).mean()
    found = clear_scores(rows_of(losses))
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert found["Model Utility"] == pytest.approx(hmean([v for name, v in wanted.items() if "Forget" not in name]))
    for column, names in (("Real", ("Real Faces", "Real World")), ("Retain", ("Retain", "Retain FaceRec")),
                          ("Forget", ("Forget", "Forget FaceRec"))):  # fmt: skip
        assert found[column] == pytest.approx(hmean([wanted[f"{kind} {name}"] for name in names
                                                     for kind in ("Prob.", "Truth Ratio")]))  # fmt: skip


def test_forget_quality_is_that_of_the_authors_formulas() -> None:
    """On truth ratios of right over wrong; the test on ranks says the same of both orientations."""
    mine, its = drawn(1), drawn(2)
    ratios = [np.exp(one["Forget"]["wrong"].mean() - one["Forget"]["reworded"]) for one in (mine, its)]
    found = forget_quality(rows_of(mine), rows_of(its))
    assert found["KS p-value"] == pytest.approx(ks_2samp(*ratios).pvalue)
    assert found["1 - JS"] == pytest.approx(1 - jensenshannon(*ratios))
    shuffled = rows_of(its).sample(frac=1.0, random_state=0)
    assert forget_quality(rows_of(mine), shuffled) == pytest.approx(found)  # questions are paired by name


def test_a_set_that_was_not_asked_has_no_number() -> None:
    rows = rows_of(drawn(3))
    found = clear_scores(rows[rows["role"] != "real"])
    assert math.isnan(found["Model Utility"])
    assert math.isnan(found["Real"])
    assert found["Retain"] == clear_scores(rows)["Retain"]
