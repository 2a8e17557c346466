"""Every number of a report says which trial it is of."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from analysis.study_folder import StudyResults, read
from tests.helpers.page import page_of
from tests.helpers.planted import plant


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """A planted study with its report."""
    root = plant(tmp_path_factory.mktemp("keys"), ratios=(15,))
    page_of(root)
    return read(root)


def tables(study: StudyResults) -> dict[str, pd.DataFrame]:
    found = {path.stem: pd.read_csv(path) for path in (study.folder.report / "tables").glob("*.csv")}
    return {name: table for name, table in found.items() if {"method", "ratio"} <= set(table)}


@pytest.mark.slow
def test_every_line_about_a_model_has_its_key(study: StudyResults) -> None:
    found = tables(study)
    assert {"winners", "classification_score", "metrics_kept", "figure_people", "tuning", "counts"} <= set(found)
    for name, table in found.items():
        known = table[table["method"] != "failing"]  # it has no winner
        assert set(known["key"]) <= set(study.trials), name


@pytest.mark.slow
def test_keys_are_those_of_the_method_and_of_its_winner(study: StudyResults) -> None:
    for name, table in tables(study).items():
        lines = table[~table["method"].isin(["failing", "vanilla", "reference"])]
        assert all(
            study.trials[key].method == method for method, key in zip(lines["method"], lines["key"], strict=True)
        )
        if name not in ("figure_trade_off", "problems"):  # these are about every trial
            wanted = [study.winners[method, 15][0] for method in lines["method"]]
            assert lines["key"].to_list() == wanted, name
    gate = pd.read_csv(study.folder.report / "tables" / "gate.csv")
    for kind in ("vanilla", "reference"):
        assert {study.trials[key].kind for key in gate[f"{kind}_key"]} == {kind}


@pytest.mark.slow
def test_keys_on_the_page_lead_to_trials_and_these_to_their_records(study: StudyResults) -> None:
    page = study.folder.page.read_text(encoding="utf-8")
    links = re.findall(r'<a href="#trial-(\w+)">(\w+)</a>', page)
    assert {keys[0] for keys in study.winners.values()} <= {key for _, key in links}
    assert all(anchor == key for anchor, key in links)
    folds = re.findall(r'<details class="trial" id="trial-(\w+)">.*?<a href="([^"]+)">record</a>', page, re.DOTALL)
    assert {key for _, key in links} <= {key for key, _ in folds}
    for key, link in folds:
        assert (study.folder.report / link).resolve() == Path(study.folder.record(key)).resolve()
