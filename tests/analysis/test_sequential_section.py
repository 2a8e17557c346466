"""Requests one after another in the analysis: the table against plain means, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.sections import sequential
from analysis.study_folder import StudyResults, read
from study.core.files import write_json
from study.core.rows import read_rows
from tests.helpers.page import page_of
from tests.helpers.planted import PEOPLE, Model, Planter, plant

BACK = [(0.9, 0.9), (0.3, 0.9), (0.6, 0.3)]
STAYS = [(0.9, 0.9), (0.3, 0.9), (0.3, 0.3)]


def study_of(root: Path, *, goal: str = "visual", noise: float = 0.0, **turns: dict[str, object]) -> StudyResults:
    """A study at 10 % whose winners saw requests in turn; the arguments of `Planter.sequence` by method."""
    planter = Planter(root, noise=noise)
    planter.study([*turns], [10], goal=goal)
    planter.yardsticks(10)
    winners = {}
    for method, how in turns.items():
        key = planter.trial(method, 10, Model(), report=True)
        planter.sequence(key, **how)  # type: ignore[arg-type]
        winners[method] = {"10": {"trials": [key]}}
    write_json(root / "winners.json", winners)
    return read(root)


def test_the_table_is_that_of_plain_means(tmp_path: Path) -> None:
    study = study_of(tmp_path, noise=0.1, m={"levels": BACK})
    found = sequential.table(study).set_index(["state", "done", "group", "modality"])
    [path] = tmp_path.glob("trials/*/sequence/2.parquet")
    rows = read_rows(path).query("role == 'forget' and modality == 'image_text' and step == 2")
    first = rows[rows["person"].isin(PEOPLE["forget"][0::2])]
    line = found.xs(("in turn", 2, "request 1", "image_text"))
    assert line["mean"] == pytest.approx(first["score"].mean())
    assert line["people"] == 6
    assert line["low"] <= line["mean"] <= line["high"]
    assert len(found.loc["in turn"]) == 3 * 3  # three states of two requests and the retained
    assert set(found.index.get_level_values("modality")) == {"image_text"}


def test_the_same_people_at_once_and_the_reference_stand_beside(tmp_path: Path) -> None:
    found = sequential.table(study_of(tmp_path, m={"levels": BACK})).set_index(["state", "done", "group"])["mean"]
    assert found["at once", 2, "request 1"] == pytest.approx(0.3)
    assert found["reference", 0, "request 2"] == pytest.approx(0.3)
    assert found["at once", 2, "retain"] == pytest.approx(0.9)
    assert found["in turn", 2, "request 1"] == pytest.approx(0.6)


def test_text_counts_where_it_was_to_go(tmp_path: Path) -> None:
    found = sequential.table(study_of(tmp_path, goal="full", m={"levels": BACK}))
    assert set(found["modality"]) == {"image_text", "text"}


def test_what_is_back_is_a_part_of_what_was_removed(tmp_path: Path) -> None:
    """Half of .6 is back; of six people, who all answer alike, so the interval is a point."""
    [one] = sequential.winners(study_of(tmp_path, m={"levels": BACK}))
    removed, back = sequential.first(one, "visual")
    assert removed == pytest.approx(0.6)
    assert back == pytest.approx((0.5, 0.5, 0.5))


def test_it_is_said_plainly(tmp_path: Path) -> None:
    study = study_of(
        tmp_path, hides={"levels": BACK}, holds={"levels": STAYS}, idle={"levels": [(0.9, 0.9)] * 3},
        dies={"levels": STAYS, "retain": [0.9, 0.9, 0.1]},
        ends={"levels": STAYS[:2], "requests": 2, "diverged": "request 2: the loss is nan"},
    )  # fmt: skip
    assert sequential.said(study) == [
        "At forget ratio 10 %, part of what request 1 removed is back after the last request: "
        "hides 50 % [50, 50] (after request 2).",
        "At forget ratio 10 %, what request 1 removed is still forgotten after the last request: holds.",
        "At forget ratio 10 %, request 1 removed less than 0.1 accuracy, too little to say how much came back: idle.",
        "At forget ratio 10 %, the model collapsed (less than 0.5 of the retain accuracy is left), so what came back "
        "is not reported: dies (after request 2).",
        "At forget ratio 10 %, the sequence stopped early: ends (1 of 2 requests done; request 2: the loss is nan).",
    ]


def test_the_longest_sequence_is_drawn_and_all_are_in_the_table(tmp_path: Path) -> None:
    study = study_of(tmp_path, m={"levels": BACK})
    [one] = sequential.winners(study)
    Planter(tmp_path).sequence(one.trial.key, [(0.9,) * 4, (0.3, 0.9, 0.9, 0.9)], diverged="request 2: no")
    study = read(tmp_path)
    assert set(sequential.table(study)["requests"]) == {2, 4}
    drawn = sequential.longest(study)
    assert set(drawn["requests"]) == {4}
    assert set(drawn["group"]) == {"retain", *(f"request {n}" for n in range(1, 5))}


@pytest.mark.slow
def test_the_report_has_the_section_only_with_sequences(tmp_path: Path) -> None:
    """With its figure, its table and its sentence; a divergence is named in all of them."""
    study_of(
        tmp_path / "with", m={"levels": BACK}, ends={"levels": BACK[:2], "requests": 2, "diverged": "request 2: no"}
    )
    page = page_of(tmp_path / "with")
    assert "Sequential unlearning" in page
    assert "hides" not in page
    assert "m 50 % [50, 50] (after request 2)" in page
    assert "ends (1 of 2 requests done; request 2: no)" in page
    shown = pd.read_csv(tmp_path / "with" / "report" / "tables" / "sequence.csv")
    assert np.allclose(
        shown.query("method == 'm' and done == 2 and group == 'request 1' and state == 'in turn'")["mean"], 0.6
    )
    assert (tmp_path / "with" / "report" / "figures" / "sequence.png").exists()
    plant(tmp_path / "without", {"perfect": Model()}, [10])
    assert "Sequential unlearning" not in page_of(tmp_path / "without")
    assert not (tmp_path / "without" / "report" / "figures" / "sequence.png").exists()
