"""UMU-Bench's own numbers: who is in the table, over which seeds, and which studies have none."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from analysis import study_folder
from analysis.sections import umu_scores
from analysis.tables import NOTHING, Table
from study.core.files import write_json
from study.core.layout import StudyFolder
from study.core.rows import write_rows
from tests.helpers.planted import Model, Planter
from tests.helpers.rows import row

MARKS = {"classification": ((1.0, 1.0), (0.0, 0.0), (0.0, 1.0), (0.0, 0.0)), "cloze": ((1.0, 1.0),) * 2}
"""Of pairs of questions, with picture and without."""


def official(told: float) -> pd.DataFrame:
    """Pairs about two sets; what is told without a picture has this score, and half of it with one."""
    lines = []
    for role in ("forget", "retain"):
        for task, pairs in {**MARKS, "generation": ((told / 2, told), (0.0, told))}.items():
            for fact, marks in enumerate(pairs):
                for modality, score in zip(("image_text", "text"), marks, strict=True):
                    lines.append(row(
                        question=f"{role}/1/{modality}/{task}/{fact}", person="1", role=role, modality=modality,
                        task=task, half="report", protocol="released", fact=str(fact), answer="x", reply="x",
                        score=score,
                    ))  # fmt: skip
    return pd.DataFrame(lines)


def planted(root: Path, benchmark: str = "Umu") -> study_folder.StudyResults:
    """Vanilla, a reference and a winner with two seeds."""
    planter = Planter(root)
    planter.study(["m"], [10], benchmark={"type": benchmark})
    keys = [planter.trial("m", 10, Model(), report=True, seed=seed) for seed in (0, 1)]
    for key, told in zip((*planter.yardsticks(10), *keys), (0.8, 0.6, 0.4, 0.2), strict=True):
        write_rows(StudyFolder(root).rows(key, "released"), official(told))
    write_json(root / "winners.json", {"m": {"10": {"trials": keys}}})
    return study_folder.read(root)


def test_every_model_and_set_has_a_line_with_means_over_its_seeds(tmp_path: Path) -> None:
    (table,) = umu_scores.parts(planted(tmp_path))
    assert isinstance(table, Table)
    lines = {(line["method"], line["set"]): line for line in table.raw.to_dict("records")}
    assert list(lines) == [(m, s) for m in ("vanilla", "reference", "m") for s in ("forget", "retain", "real")]
    assert table.raw["seeds"].tolist() == [1] * 6 + [2] * 3
    vanilla, none = lines["vanilla", "forget"], lines["m", "real"]
    assert [vanilla[f"{name} right"] for name in ("Choices both", "Clozes both")] == [0.25, 1.0]
    assert [vanilla[f"{name} wrong"] for name in ("Choices both", "Clozes both")] == [0.5, 0.0]
    assert vanilla["ROUGE-L"] == pytest.approx(((0.4**2 + 0.8**2) / 1.2 + 0.8) / 2)
    assert lines["m", "retain"]["ROUGE-L"] == pytest.approx((0.2 * 0.4 / 0.6 + 0.1 * 0.2 / 0.3) / 2)
    assert all(math.isnan(none[name]) for name in none if "both" in str(name) or name == "ROUGE-L")
    assert table.shown["Choices both right %"].tolist()[:3] == ["25.0", "25.0", NOTHING]


def test_other_benchmarks_have_none(tmp_path: Path) -> None:
    assert list(umu_scores.parts(planted(tmp_path, "Mllmu"))) == []
