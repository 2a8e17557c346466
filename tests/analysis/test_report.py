"""The report: its files, its page, and what it says of studies that went wrong."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis import report, sections, tables
from analysis.__main__ import main
from analysis.live import Drawing
from analysis.plots import Plot
from analysis.sections import Fold, _recovery, scores, trial_by_trial
from analysis.study_folder import read
from study.core.files import write_json
from tests.helpers import browser
from tests.helpers.planted import MODELS, Model, Planter, plant, plant_attacks, plant_pool

FIGURES = {"trade_off", "people", "robustness", "attack_heatmap", "worst_attack", "attack_budget", "relearning",
           "sequence", "scores", "metric_check", "search"}  # fmt: skip
"""All figures but that of a warm start, which the planted study did not have."""


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


@pytest.mark.slow
def test_files_exist_and_are_repeatable(root: Path) -> None:
    """Every figure and table is there, and building again gives the same bytes."""
    folder = root / "report"
    files = {path.name for path in (folder / "figures").iterdir()}
    assert files == {f"{name}.{end}" for name in FIGURES for end in ("pdf", "png")}
    assert {"winners", "recovery", "gate", "tuning", "counts", "classification_score"} <= {
        path.stem for path in (folder / "tables").glob("*.tex")
    }
    raw = pd.read_csv(folder / "tables" / "winners.csv")
    assert set(raw["method"]) == set(MODELS)
    assert "\\toprule" in (folder / "tables" / "winners.tex").read_text()
    assert "forget \\%" in (folder / "tables" / "winners.tex").read_text()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in (folder / "figures").iterdir():
        path.unlink()  # what is there is not drawn again
    report.build(root)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_page_is_self_contained_and_escaped(root: Path, page: str) -> None:
    """No asset from elsewhere, one script, every picture embedded, text from the study escaped."""
    assert not re.search(r"https?://|<link|@import|url\(|<script [^>]*src", page)
    assert page.count("<script") == 1
    assert len(re.findall(r'src="data:image/png;base64,', page)) == len(FIGURES) - 1
    assert page.count('<svg class="live"') == 2
    assert page.count('<svg class="live small"') == len(list(root.glob("trials/*/curve.json"))) > 0
    assert "toy &lt;&amp;&gt; co" in page
    assert "toy <&> co" not in page
    assert "loss is NaN" in page


@pytest.mark.slow
def test_every_link_within_the_page_leads_somewhere(page: str) -> None:
    """Keys in tables and points of the trade-off lead to their trials, the contents to their sections."""
    anchors = re.findall(r' id="([^"]+)"', page)
    assert len(anchors) == len(set(anchors))
    links = set(re.findall(r'href="#([^"]*)"', page))
    assert {f"trial-{key}" for key in read_keys(page)} <= links <= set(anchors)


def read_keys(page: str) -> list[str]:
    """The keys of the trials on the figure of the trade-off."""
    return re.findall(r"<title>[^<]*utility [^<]*\((\w+)\)</title>", page)


@pytest.mark.slow
def test_a_trial_has_its_settings_scores_attacks_and_cost(page: str) -> None:
    fold = next(
        text for text in page.split('<details class="trial"') if re.search("<summary>hiding at 10 %.*winner", text)
    )
    fold = fold.partition("</details>")[0]
    for text in ("--methods hiding", "validation half", "test half", "classification accuracy", "came back", "GFLOP",
                 "Loss of every step.", "trial.json"):  # fmt: skip
        assert text in fold, text


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["[1.0, ", '{"loss": 1}', '["high"]'])
def test_a_damaged_loss_curve_is_told_and_stops_nothing(damage: str, tmp_path: Path) -> None:
    folder = plant(tmp_path)
    study = read(folder)
    path = next(folder.glob("trials/*/curve.json"))
    path.write_text(damage)
    fold = [part for part in trial_by_trial.parts(study) if isinstance(part, Fold) and path.parent.name in part.anchor]
    assert len(fold) == 1
    assert "curve.json, which held the loss of every step, is damaged." in fold[0].parts
    assert not any(isinstance(part, Drawing) for part in fold[0].parts)


@pytest.mark.slow
@pytest.mark.skipif(browser.BROWSER is None, reason="no Chromium: `make tools` installs one")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(page: str, scheme: Literal["light", "dark"], tmp_path: Path) -> None:
    """At three widths: no scrolling sideways, all text readable (WCAG AA), a script that runs and does not complain."""
    told = browser.measured(page, (1400, 800, 420), scheme, tmp_path)
    assert told["complaints"] == []
    for width, found in told["found"].items():
        assert found["wide"] <= found["room"], width
        assert found["pale"] == [], width
        assert (max(found["background"]) < 60) == (scheme == "dark")
        assert (found["sorted"], found["unfolded"]) == ("ascending", True)


@pytest.mark.slow
def test_summary_is_ready_to_print(built: report.Outcome) -> None:
    """Both tables as text, one line for each winner and yardstick."""
    winners, recovered = built.winners, built.recovery
    assert len(winners) == 2 * (len(MODELS) + 2)
    assert all(isinstance(cell, str) for frame in (winners, recovered) for cell in frame.to_numpy().ravel())
    assert "came back" in set(recovered["verdict"])


def test_a_folder_that_is_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A clear message and exit status 2; the same for a damaged file."""
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "is not a study" in capsys.readouterr().err
    (tmp_path / "study.json").write_text("{}")
    assert main([str(tmp_path)]) == 2
    assert "study.json is not what a study writes" in capsys.readouterr().err
    (tmp_path / "study.json").write_text("{")
    assert main([str(tmp_path)]) == 2
    assert "damaged" in capsys.readouterr().err


def test_nothing_finished(tmp_path: Path) -> None:
    """A study that has only begun still has a report, which says so."""
    Planter(tmp_path).study(["vkd"], [15])
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "report" / "report.html").read_text()
    assert "there is no result yet" in text
    assert "0 of 0 trials" in text


def test_all_failed_and_stale_figures(tmp_path: Path) -> None:
    """When every trial failed there is no best, and figures of an earlier report do not stay."""
    planter = Planter(tmp_path)
    planter.study(["vkd"], [15])
    planter.proposal("vkd", 0, 15, planter.trial("vkd", 15, None, state="diverged"), default=True)
    stale = tmp_path / "report" / "figures" / "scores.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    text = report.build(tmp_path).page.read_text()
    assert "0 of 1 trials complete, 1 diverged" in text
    assert "comes closest" not in text
    assert not stale.exists()


@pytest.mark.slow
def test_one_ratio_one_point_no_attack(tmp_path: Path) -> None:
    """A front of a single point, one ratio and no attacks work, and the answer says that robustness is open."""
    planter = Planter(tmp_path)
    planter.study(["vkd"], [15])
    planter.yardsticks(15, attacked=False)
    key = planter.trial("vkd", 15, Model(forget=0.4), report=True)
    planter.proposal("vkd", 0, 15, key)
    write_json(tmp_path / "winners.json", {"vkd": {"15": {"trials": [key, "never-ran"]}}})
    text = report.build(tmp_path).page.read_text()
    assert "VKD comes closest" in text
    assert "It has not been attacked yet" in text
    assert "1 of 2" in text
    assert not (tmp_path / "report" / "figures" / "relearning.png").exists()


@pytest.mark.slow
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
    assert "the trial, vanilla or a reference has not been scored on the validation half" in text
    assert set(_recovery.recovery(read(tmp_path))["verdict"]) == {"no control", "given to the attacker"}


PLANTED = """
import pandas as pd
from matplotlib.figure import Figure
from analysis.plots import Plot
from analysis.sections import Section
from analysis.tables import Pairs, Table

def draw(data, methods):
    figure = Figure()
    figure.subplots().plot(data["x"])
    return figure

def parts(study):
    frame = pd.DataFrame({"x": [1, 2]})
    yield f"A sentence about {study.name}."
    yield Table("mine", "A table of my own", "What it says.", frame, frame)
    yield Table("empty", "A table without a line", "", frame.head(0), frame.head(0))
    yield Plot("mine", "A figure of my own.", frame, draw)
    yield Pairs("Words of my own", [("a word", "its <meaning>")])

SECTION = Section("A section of my own", 15, parts)
"""


@pytest.fixture
def own_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A further section: one file in the folder."""
    folder = tmp_path / "sections"
    folder.mkdir()
    (folder / "mine.py").write_text(PLANTED)
    (folder / "_shared.py").write_text("raise AssertionError('a file with an underscore is no section')")
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, "analysis.sections.mine", raising=False)


@pytest.mark.usefixtures("own_section")
def test_a_section_is_one_file(tmp_path: Path) -> None:
    """It is on the page at its place with all its parts, and its files lie beside the others."""
    Planter(tmp_path).study(["vkd"], [15])
    page = report.build(tmp_path).page.read_text(encoding="utf-8")
    places = [
        page.index(text)
        for text in ("there is no result yet", ">A section of my own</h2>", ">How the numbers are computed</h2>")
    ]
    assert places == sorted(places)
    for text in ("A sentence about planted.", "A table of my own", "tables/mine.csv", "A figure of my own.",
                 "its &lt;meaning&gt;"):  # fmt: skip
        assert text in page
    assert "A table without a line" not in page
    written = {str(path.relative_to(tmp_path / "report")) for path in (tmp_path / "report").rglob("*mine.*")}
    assert written == {"tables/mine.csv", "tables/mine.tex", "tables/figure_mine.csv", "figures/mine.png",
                       "figures/mine.pdf"}  # fmt: skip
    assert (tmp_path / "report" / "tables" / "empty.csv").exists()


def test_files_of_a_section_that_is_gone_are_deleted(tmp_path: Path) -> None:
    Planter(tmp_path).study(["vkd"], [15])
    old = [tmp_path / "report" / name for name in ("tables/gone.csv", "figures/gone.pdf")]
    for path in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    report.build(tmp_path)
    assert not [path for path in old if path.exists()]


def test_a_figure_is_drawn_again_only_if_its_data_changed(tmp_path: Path) -> None:
    """Or where a file is damaged or missing."""
    drawn = []

    def draw(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
        drawn.append(list(data["x"]))
        return Figure(figsize=(1, 1))

    def write(*values: int) -> None:
        Plot("mine", "", pd.DataFrame({"x": values}), draw).write(tmp_path, ["vkd"])

    write(1, 2)
    write(1, 2)
    assert drawn == [[1, 2]]
    write(1, 3)
    assert drawn == [[1, 2], [1, 3]]
    (tmp_path / "figures" / "mine.pdf").unlink()
    write(1, 3)
    (tmp_path / "figures" / "mine.png").write_bytes(b"\x89PNG")
    write(1, 3)
    assert len(drawn) == 4
    write(1, 3)
    assert len(drawn) == 4


def test_cells() -> None:
    """Numbers, intervals and nested hyper-parameters as people read them."""
    assert tables.number(float("nan")) == "n/a"
    assert tables.interval(0.5, float("nan"), float("nan")) == "0.50"
    assert tables.interval(0.5, 0.25, 0.75) == "0.50 [0.25, 0.75]"
    assert tables.parameters('{"a_b": 0.12345678, "c": {"type": "X", "d": [1, 2]}}') == "a b 0.1235, d 1 + 2"


@pytest.mark.slow
def test_spared_columns_only_where_something_was_spared(tmp_path: Path, root: Path, page: str) -> None:
    """The planted study with and without spared questions, through tables, figures and page."""
    report.build(plant(tmp_path, {"careless": Model(spared=0.3)}, [15], ["residence", "occupation"]))
    narrowed = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Only the residence and occupation of the forget people had to be forgotten" in narrowed
    assert "and what is spared of the forget people" in narrowed
    assert "spared" not in page
    for folder, there in ((tmp_path, True), (root, False)):
        written = folder / "report" / "tables"
        assert ("spared image" in (written / "classification_score.tex").read_text()) == there
        for name in ("gate", "classification_score", "figure_scores"):
            assert ("spared" in set(pd.read_csv(written / f"{name}.csv")["role"])) == there, name
    raw = pd.read_csv(tmp_path / "report" / "tables" / "classification_score.csv")
    shown = scores.score_table(raw, "classification", "score").shown
    assert shown.set_index("method").loc["careless", "spared text"] == "0.30 [0.30, 0.30]"
