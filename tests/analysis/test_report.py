"""The report: its files, its page, and what it says of studies that went wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from analysis import cells, figures, present, report, robustness
from analysis.__main__ import main
from analysis.folder import read
from study.core.files import write_json
from tests.helpers.planted import MODELS, Model, Planter, plant, plant_attacks, plant_pool

OTHERS = {"warm_start"}
"""Figures of what the planted study did not do."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> report.Outcome:
    """The report of the planted study."""
    folder = plant_attacks(tmp_path_factory.mktemp("study"))
    plant_pool(folder)
    outcome = report.build(folder)
    assert outcome.page == folder / "report" / "report.html"
    return outcome


@pytest.fixture(scope="module")
def root(built: report.Outcome) -> Path:
    """The planted study with its report."""
    return built.page.parents[1]


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    """The HTML of the report."""
    return (root / "report" / "report.html").read_text(encoding="utf-8")


def test_files_exist_and_are_repeatable(root: Path) -> None:
    """Every figure and table is there, and building again gives the same bytes."""
    folder = root / "report"
    names = [plot.name for plot in figures.PLOTS if plot.name not in OTHERS]
    assert {path.name for path in (folder / "figures").iterdir()} == {f"{n}.{e}" for n in names for e in ("pdf", "png")}
    assert {"winners", "recovery", "gate", "tuning", "counts", "classification_score"} <= {
        path.stem for path in (folder / "tables").glob("*.tex")
    }
    raw = pd.read_csv(folder / "tables" / "winners.csv")
    assert set(raw["method"]) == set(MODELS)
    assert "\\toprule" in (folder / "tables" / "winners.tex").read_text()
    assert "forget \\%" in (folder / "tables" / "winners.tex").read_text()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report.build(root)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_page_is_self_contained_and_escaped(page: str) -> None:
    """No asset from elsewhere, no script, every picture embedded, text from the study escaped."""
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert len(re.findall(r'src="data:image/png;base64,', page)) == len(figures.PLOTS) - len(OTHERS)
    assert "toy &lt;&amp;&gt; co" in page
    assert "toy <&> co" not in page
    assert "loss is NaN" in page


def test_summary_is_ready_to_print(built: report.Outcome) -> None:
    """Both tables as text, one line for each winner and yardstick."""
    _, winners, recovered = built
    assert len(winners) == 2 * (len(MODELS) + 2)
    assert all(isinstance(cell, str) for frame in (winners, recovered) for cell in frame.to_numpy().ravel())
    assert "came back" in set(recovered["verdict"])


def test_a_folder_that_is_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A clear message and exit status 2; the same for a damaged file."""
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "is not a study" in capsys.readouterr().err
    (tmp_path / "study.json").write_text("{")
    assert main([str(tmp_path)]) == 2
    assert "damaged" in capsys.readouterr().err


def test_nothing_finished(tmp_path: Path) -> None:
    """A study that has only begun still has a report, which says so."""
    Planter(tmp_path).study(["vkd"], [15])
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "report" / "report.html").read_text()
    assert "there is no result yet" in text
    assert "0 of 0 proposals" in text


def test_all_failed_and_stale_figures(tmp_path: Path) -> None:
    """When every trial failed there is no best, and figures of an earlier report do not stay."""
    planter = Planter(tmp_path)
    planter.study(["vkd"], [15])
    planter.proposal("vkd", 0, 15, planter.trial("vkd", 15, None, state="diverged"), default=True)
    stale = tmp_path / "report" / "figures" / "scores.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    text = report.build(tmp_path).page.read_text()
    assert "0 of 1 proposals complete, 1 diverged" in text
    assert "comes nearest" not in text
    assert not stale.exists()


def test_one_ratio_one_point_no_attack(tmp_path: Path) -> None:
    """A front of a single point, one ratio and no attacks work, and the answer says that robustness is open."""
    planter = Planter(tmp_path)
    planter.study(["vkd"], [15])
    planter.yardsticks(15, attacked=False)
    key = planter.trial("vkd", 15, Model(forget=0.4), report=True)
    planter.proposal("vkd", 0, 15, key)
    write_json(tmp_path / "winners.json", {"vkd": {"15": {"trials": [key, "never-ran"]}}})
    text = report.build(tmp_path).page.read_text()
    assert "vkd comes nearest" in text
    assert "It has not been attacked yet" in text
    assert "1 of 2" in text
    assert not (tmp_path / "report" / "figures" / "relearning.png").exists()


def test_missing_yardsticks_and_rows(tmp_path: Path) -> None:
    """Without vanilla and the reference nothing is scored, and every complete trial says why."""
    planter = Planter(tmp_path)
    planter.study(["vkd"], [15])
    key = planter.trial("vkd", 15, Model(), report=True)
    planter.proposal("vkd", 0, 15, key)
    planter.attack(key, Model())
    write_json(tmp_path / "winners.json", {"vkd": {"15": {"trials": [key]}}})
    text = report.build(tmp_path).page.read_text()
    assert "there is no result yet" in text
    assert "no select rows of the trial, vanilla or the reference" in text
    assert set(robustness.recovery(read(tmp_path))["verdict"]) == {"no control", "given to the attacker"}


def test_cells() -> None:
    """Numbers, intervals and nested hyper-parameters as people read them."""
    assert cells.number(float("nan")) == "n/a"
    assert cells.interval(0.5, float("nan"), float("nan")) == "0.50"
    assert cells.interval(0.5, 0.25, 0.75) == "0.50 [0.25, 0.75]"
    assert cells.parameters('{"a_b": 0.12345678, "c": {"type": "X", "d": [1, 2]}}') == "a b 0.1235, d 1 + 2"


def test_spared_columns_only_where_something_was_spared(tmp_path: Path, root: Path, page: str) -> None:
    """The planted study with and without spared questions, through tables, figures and page."""
    report.build(plant(tmp_path, {"careless": Model(spared=0.3)}, [15], ["residence", "occupation"]))
    narrowed = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Asked to go was only the residence and occupation of the forget people" in narrowed
    assert "and what is spared of the forget people" in narrowed
    assert "spared" not in page
    for folder, there in ((tmp_path, True), (root, False)):
        tables = folder / "report" / "tables"
        assert ("spared image" in (tables / "classification_score.tex").read_text()) == there
        for name in ("gate", "classification_score", "figure_scores"):
            assert ("spared" in set(pd.read_csv(tables / f"{name}.csv")["role"])) == there, name
    shown = present.scores(pd.read_csv(tmp_path / "report" / "tables" / "classification_score.csv"), "classification",
                           "score").shown  # fmt: skip
    assert shown.set_index("method").loc["careless", "spared text"] == "0.30 [0.30, 0.30]"
