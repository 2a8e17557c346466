"""CLEAR's own table: who is in it, over which seeds, and which studies have none."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis import study_folder
from analysis.paper.latex import Number
from analysis.paper.tables import clear
from analysis.sections import clear_scores
from analysis.tables import Table
from study.core.files import write_json
from study.core.layout import StudyFolder
from study.core.rows import write_rows
from study.metrics.clear_table import SETS, forget_quality
from study.metrics.clear_table import clear_scores as scores_of
from tests.helpers.planted import Model, Planter
from tests.helpers.rows import row


def official(shift: float) -> pd.DataFrame:
    """Three questions of each set; what a model knows falls with `shift`."""
    lines = []
    for role, kind in SETS.values():
        for i in range(3):
            person = f"{kind}-{i}" if role == "real" else "Ann"
            name = f"{role}/{person}/image_text/generation/{'real' if role == 'real' else kind}-{i}"
            lines.append(row(
                question=name, person=person, role=role, modality="image_text", task="generation", half="report",
                protocol="released", answer="x", reply="x", rouge_l_recall=0.9 - shift, likelihood=0.8 - shift,
                probability=float("nan") if kind == "caption" else 0.7 - shift, truth_ratio=0.1 * (i + 1) + shift,
            ))  # fmt: skip
    return pd.DataFrame(lines)


def planted(root: Path, benchmark: str = "Clear") -> study_folder.StudyResults:
    """Vanilla, a reference and a winner with two seeds, of which each has its own numbers."""
    planter = Planter(root)
    planter.study(["m"], [10], benchmark={"type": benchmark})
    vanilla, reference = planter.yardsticks(10)
    keys = [planter.trial("m", 10, Model(), report=True, seed=seed) for seed in (0, 1)]
    for key, shift in zip((vanilla, reference, *keys), (0.0, 0.3, 0.1, 0.2), strict=True):
        write_rows(StudyFolder(root).rows(key, "released"), official(shift))
    write_json(root / "winners.json", {"m": {"10": {"trials": keys}}})
    return study_folder.read(root)


def test_every_model_has_a_line_with_means_over_its_seeds(tmp_path: Path) -> None:
    (table,) = clear_scores.parts(planted(tmp_path))
    assert isinstance(table, Table)
    assert table.raw["method"].tolist() == ["vanilla", "reference", "m"]
    assert table.raw["seeds"].tolist() == [1, 1, 2]
    winner = table.raw.set_index("method").loc["m"]
    each = [scores_of(official(shift)) for shift in (0.1, 0.2)]
    assert winner["Model Utility"] == pytest.approx(sum(one["Model Utility"] for one in each) / 2)
    apart = [forget_quality(official(shift), official(0.3))["1 - JS"] for shift in (0.1, 0.2)]
    assert winner["1 - JS"] == pytest.approx(sum(apart) / 2)
    assert table.raw.set_index("method").loc["reference", "KS p-value"] == 1.0
    assert table.shown["Model Utility"].tolist()[2] == f"{winner['Model Utility']:.3f}"


def test_a_paper_has_it_as_a_table(tmp_path: Path) -> None:
    study = planted(tmp_path)
    found = clear(study, 10)
    assert found is not None
    assert [column.heading for column in found.columns] == ["Method", *clear_scores.SHOWN]
    (table,) = clear_scores.parts(study)
    assert isinstance(table, Table)
    for column in found.columns[1:]:
        shown = [cell.value for cell in column.cells if isinstance(cell, Number)]
        assert shown == table.raw[column.heading].tolist()
    assert clear(study, 15) is None


def test_other_benchmarks_and_protocols_have_none(tmp_path: Path) -> None:
    assert list(clear_scores.parts(planted(tmp_path / "other", "Mllmu"))) == []
    study = planted(tmp_path / "replies")
    for path in (tmp_path / "replies").glob("trials/*/rows/released.parquet"):
        write_rows(path, pd.read_parquet(path).assign(truth_ratio=float("nan")))
    assert list(clear_scores.parts(study_folder.read(study.root))) == []
