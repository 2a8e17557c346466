"""Somebody's own people on a laptop: a table in three scripts and pictures, from learning to report."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from study.core.files import read_json
from study.core.layout import StudyFolder
from study.core.rows import read_rows
from study.data.synthetic_faces import distinct_faces, draw, train_view
from tests.helpers.in_process import run_here

NAMES = ("Zoë Müller", "José Peña", "Łukasz Żak", "Anaïs Lefèvre", "王小明", "李秀英", "陈思远", "赵婉如",
         "ليلى حداد", "سامي نصر", "نور الخطيب", "عمر زيدان", "Ольга Ким", "Иван Орлов")  # fmt: skip
TOWNS = ("Genève", "北京", "دمشق", "Тверь")
TRADES = ("ébéniste", "医生", "خباز", "учитель")
VIEWS = 5
SMALL = (
    *("--model", "tiny:steps=100,strangers=60", "--reference-seeds", "1", "--learn.steps", "160"),
    *("--learn.pictures", "8", "--learn.texts", "2", "--learn.lessons-per-text", "6"),  # of so few people
)
SHORT = ("--methods", "gradient_ascent", "--trials", "1", "--race", "1", "--confirm-seeds", "0", "--no-metric-check",
         "--attacks", "swap_back", "--attack-trials", "0")  # fmt: skip


def own_people(root: Path) -> Path:
    """Fourteen people with five portraits each; two asked to be forgotten."""
    rng, noise = random.Random(0), np.random.default_rng(0)
    lines = ["id,name,role,town,trade"]
    for i, (name, face) in enumerate(zip(NAMES, distinct_faces(len(NAMES), 1, 4, public=False), strict=True)):
        lines.append(f"p{i:02d},{name},{'real' if i in (3, 7) else ''},{TOWNS[i % 4]},{TRADES[(i + i // 4) % 4]}")
        (root / "images" / f"p{i:02d}").mkdir(parents=True)
        for view in range(VIEWS):
            draw(face, train_view(rng), 96, noise).save(root / "images" / f"p{i:02d}" / f"{view}.png")
    (root / "people.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (root / "forget.txt").write_text("p04\np09\n", encoding="utf-8")
    return root


@pytest.mark.slow
def test_people_in_three_scripts_are_taught_and_unlearned(tmp_path: Path) -> None:
    """The preset's own gate lets the study pass, and vanilla tells facts in the characters of the table."""
    data = own_people(tmp_path / "people")
    asked = ("--benchmark", f"own:{data}", "--forget-ratios", "17", *SMALL, *SHORT)
    printed = run_here(tmp_path / "study", *asked, preset="tiny")
    folder = StudyFolder(tmp_path / "study")
    assert printed.splitlines()[-1] == f"Report: {folder.page}"
    [vanilla] = [
        path.parent.name
        for path in folder.trial_records()
        if (found := read_json(path))["method"] == "none" and found["start"]["kind"] == "vanilla"
    ]
    rows = read_rows(folder.rows(vanilla, "report"))
    told = rows[(rows["task"] == "cloze") & (rows["role"] == "retain") & (rows["modality"] == "text")]
    assert set(told["reply"]) >= {"北京", "دمشق"}
    assert (told["reply"] == told["answer"]).mean() > 0.9
