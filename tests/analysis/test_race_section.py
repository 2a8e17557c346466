"""The table of the race says who raced, how far each came, and who won."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis import study_folder
from analysis.sections.race import parts, race
from study.core.files import read_json, write_json
from study.core.layout import StudyFolder
from tests.helpers.planted import Planter


def raced(root: Path, *distances: list[float]) -> Any:
    """A study in which trials 0, 1, ... raced, of which trial 1 won."""
    planter = Planter(root)
    planter.study(["npo"], [20])
    runs = [{"trial": str(n), "distances": found} for n, found in enumerate(distances)]
    write_json(StudyFolder(root).race, {"npo 20": {"method": "npo", "ratio": 20, "runs": runs, "best": "1"}})
    return study_folder.read(root)


def test_who_raced_and_who_won(tmp_path: Path) -> None:
    study = raced(tmp_path / "study", [0.1, 0.4, 0.3], [0.2, 0.2, 0.2], [0.5, 0.6])
    found = race(study)
    assert list(found["outcome"]) == ["behind", "winner", "dropped"]
    assert list(found["first"]) == [0.1, 0.2, 0.5]
    assert list(found["distance"]) == pytest.approx([0.8 / 3, 0.2, 0.55])
    assert list(found["seeds"]) == [3, 3, 2]
    [table] = parts(study)
    assert len(table.shown) == 3  # type: ignore[union-attr]


def test_who_is_dropped_after_the_seed_that_ends_the_race(tmp_path: Path) -> None:
    """They have as many seeds as the winner; one that cannot be told from it is only behind."""
    found = race(raced(tmp_path / "study", [0.9, 0.8], [0.2, 0.1], [0.7, 0.6]))
    assert list(found["outcome"]) == ["dropped", "winner", "dropped"]
    found = race(raced(tmp_path / "close", [0.1, 0.4], [0.2, 0.2]))
    assert list(found["outcome"]) == ["behind", "winner"]


def test_who_is_left_is_what_the_race_wrote_down(tmp_path: Path) -> None:
    study = raced(tmp_path / "study", [0.9, 0.8], [0.2, 0.1], [0.7, 0.6])
    write_json(study.folder.race, {"npo 20": {**read_json(study.folder.race)["npo 20"], "racing": ["0", "1"]}})
    assert list(race(study)["outcome"]) == ["behind", "winner", "dropped"]


def test_nothing_is_shown_where_nobody_raced(tmp_path: Path) -> None:
    assert list(parts(raced(tmp_path / "study", [0.1], [0.2]))) == []
    planter = Planter(tmp_path / "other")
    planter.study(["npo"], [20])
    assert list(parts(study_folder.read(tmp_path / "other"))) == []
