"""Paper mode: figures at their final size, captions that say what stands behind them, tables that compile and fit."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.text import Text

from analysis import style
from analysis.paper import document, figures, tables
from analysis.paper.latex import LONG, Column, Floating, Number, best, escaped
from analysis.sections import attacks, metrics
from analysis.study_folder import StudyResults, read
from analysis.trials import winners
from study.core.files import write_json
from study.core.rows import ROW_COLUMNS, write_rows
from tests.helpers.planted import Model, Planter, plant
from tests.helpers.rows import row

pytestmark = pytest.mark.slow

MODELS = {"vkd": Model(forget=0.3, keep=0.9), "npo": Model(forget=0.6, keep=0.7), "gradient_ascent": Model(keep=0.05)}
WIDTHS = {"column": 3.3, "text": 6.8}
PAGE = 7.5
"""Inches of nine that a figure may take, above its caption."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """A small study of three methods, one of which collapsed."""
    return read(plant(tmp_path_factory.mktemp("study"), MODELS, [15]))


@pytest.fixture(scope="module")
def folder(study: StudyResults) -> Path:
    """Where its paper lies."""
    return document.build(study).parent


def test_figures_have_their_final_width_and_fonts_that_printers_take(folder: Path) -> None:
    """As pages in points; fonts are embedded as TrueType (42), never as Type 3, which publishers reject."""
    found = {path.stem: path.read_bytes() for path in (folder / "figures").glob("*.pdf")}
    assert {"trade_off_column", "trade_off_text", "scores_text", "attacks_text"} <= set(found)
    for name, content in found.items():
        box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) ", content)
        assert box is not None
        assert float(box[2]) / 72 <= PAGE, name
        assert float(box[1]) / 72 == pytest.approx(WIDTHS[name.rpartition("_")[2]], abs=0.01), name
        assert b"/Type3" not in content
        assert b"/FontFile2" in content


def test_all_text_of_a_figure_has_the_size_of_the_page(study: StudyResults) -> None:
    with style.styled():
        for one in figures.figures(study):
            figure = one.plot.draw(one.plot.data, study.methods)
            figures.sized(figure, style.COLUMN)
            assert {text.get_fontsize() for text in figure.findobj(Text)} == {8.0}
            assert figure.get_figwidth() == style.COLUMN


def test_every_figure_has_a_caption_with_people_seeds_and_references(folder: Path) -> None:
    names = {path.stem.rpartition("_")[0] for path in (folder / "figures").iterdir()}
    assert {path.stem for path in (folder / "captions").iterdir()} == names
    for path in (folder / "captions").iterdir():
        text = path.read_text()
        assert re.search(r"n = 12 people to be forgotten, \d seeds? of each winner, \d references?", text), path
        assert "test half" in text or path.stem == "people"


def test_the_trade_off_is_of_the_test_half_with_intervals(study: StudyResults) -> None:
    """The same numbers as the table of winners, and each within its interval."""
    found = figures.trade_off_data(study).set_index("method")
    for _, line in winners(study).iterrows():
        mine = found.loc[line["method"]]
        assert (mine["forget_gap"], mine["utility"]) == (line["forget_gap"], line["utility"])
        assert mine["gap_low"] - 1e-9 <= mine["forget_gap"] <= mine["gap_high"] + 1e-9
        assert mine["utility_low"] - 1e-9 <= mine["utility"] <= mine["utility_high"] + 1e-9


def test_winners_that_crowd_have_an_inset() -> None:
    """Three near the ideal point beside one far away; two are none."""
    data = pd.DataFrame({
        "method": list("abcd"), "ratio": 15, "kind": "method", "forget_gap": [0.05, 0.06, 0.08, 0.7],
        "utility": [0.98, 0.97, 0.99, 0.5], "gap_low": 0.0, "gap_high": 0.9, "utility_low": 0.4, "utility_high": 1.0,
    })  # fmt: skip
    with style.styled():
        assert len(figures.draw_trade_off(data, list("abcd")).axes[0].child_axes) == 1
        assert len(figures.draw_trade_off(data[1:], list("abcd")).axes[0].child_axes) == 0


def test_a_method_looks_the_same_in_every_study() -> None:
    one, other = ["npo", "vkd", "mine"], ["mine", "gradient_ascent", "vkd", "vkd:variant=features", "npo"]
    for method in ("vkd", "npo"):
        assert style.look(method, one) == style.look(method, other)
    assert len({style.look(method, other) for method in other}) == len(other)


def test_best_is_bold_and_what_cannot_be_told_from_it_underlined(study: StudyResults) -> None:
    """A collapsed model is never the best, however little it knows."""
    columns = {column.heading: column for column in tables.main(study).columns}
    methods = columns["Method"].cells
    for name, right in (("Forget gap", "VKD"), ("Utility", "VKD"), ("Distance", "VKD")):
        marked = dict(zip(methods, columns[name].cells, strict=True))
        assert [method for method, cell in marked.items() if isinstance(cell, Number) and cell.best] == [right], name
        assert not any(isinstance(cell, Number) and cell.tied and method == "Gradient ascent"
                       for method, cell in marked.items())  # fmt: skip


def test_what_is_as_good_as_the_best_is_bold_as_well(study: StudyResults) -> None:
    several = 0
    for table in tables.tables(study):
        for column in table.columns:
            cells = [cell for cell in column.cells if isinstance(cell, Number)]
            bold = {cell.value for cell in cells if cell.best}
            assert len(bold) <= 1
            assert not any(cell.tied and cell.value in bold for cell in cells)
            several += sum(cell.best for cell in cells) > 1
    assert several


@pytest.mark.parametrize("ratios", [(15,), (5, 15), (5, 10, 15)])
def test_curves_of_many_attacks_fit_pages(study: StudyResults, ratios: tuple[int, ...]) -> None:
    """However many there are: each is drawn once, on a page that is not too high, in a panel with room for curves."""
    data = attacks.curve_data(study)
    long = "swap back, vision tower and projector, then relearning, 50 % of people, visual module"
    many = pd.concat([data.assign(settings=f"{long} {n}", ratio=ratio) for n in range(9) for ratio in ratios])
    drawn = figures.curves(many)
    assert sorted(group for one in drawn for group in attacks.curve_groups(one.plot.data)) == sorted(
        attacks.curve_groups(many)
    )
    assert len({one.plot.name for one in drawn}) == len(drawn) > 1
    with style.styled():
        for one in drawn:
            figure = one.plot.draw(one.plot.data, study.methods)
            figures.sized(figure, max(one.widths))
            figure.canvas.draw()
            assert figure.get_figheight() <= PAGE
            assert min(axis.get_window_extent().height for axis in figure.axes) / figure.dpi > 0.8


def test_a_table_as_latex() -> None:
    """By hand: numbers with equal digits, bounds beside them, arrows, groups, and text that LaTeX prints."""
    table = Floating("t", "What it shows.", [
        Column("Method", ["A & B", "C_1"]), Column("Gap", [Number(0.123, 0.1, 0.2, best=True), Number(-1.0)], "down"),
        Column("Cls.", [Number(12.34, tied=True), Number(float("nan"))], "up", 1, "Forget"),
    ])  # fmt: skip
    lines = table.tex().splitlines()
    assert r"\label{tab:t}" in lines
    assert r"\begin{tabular}{@{}lr@{\,}lr@{}}" in lines
    assert r"\multicolumn{3}{c}{} & \multicolumn{1}{c}{Forget} \\" in lines
    assert r"\cmidrule(lr){4-4}" in lines
    assert r"Method & \multicolumn{2}{c}{Gap $\downarrow$} & Cls. $\uparrow$ \\" in lines
    assert r"A \& B & \textbf{0.12} & {\scriptsize$[0.10, 0.20]$} & \underline{12.3} \\" in lines
    assert r"C\_1 & $-$1.00 &  & -- \\" in lines
    assert Number(-0.004, -0.004, 0.01).printed(2) == ("0.00", "$[0.00, 0.01]$")
    long = Floating("t", "", [Column("Attack", ["a" * LONG, "50 % of " + "b" * LONG])]).tex()
    assert f"{'a' * LONG} \\\\" in long
    assert rf"\parbox[t]{{2.8in}}{{\raggedright 50 \% of {'b' * LONG}\strut}} \\" in long
    assert escaped("50 % of {x} \x1b") == r"50 \% of \{x\}  "
    assert best([0.3, float("nan"), 0.2], "down") == 2
    assert best([0.3], "down") is None


def test_templates_have_the_columns_of_the_papers(study: StudyResults) -> None:
    """Filled with strict scores here, which the caption says; nothing published stands beside another benchmark."""
    found = {table.name: table for table in tables.tables(study)}
    assert {"winners", "worst_attack", "mllmu_image_15", "mllmu_text_15", "clear_15", "vkd_15"} == set(found)
    vkd = found["vkd_15"]
    assert [(c.group, c.heading, c.better) for c in vkd.columns[1:]] == [
        ("Forget", "VQA", "down"), ("Forget", "QA", "up"), ("Retain", "VQA", "up"), ("Retain", "QA", "up"),
        ("Real", "VQA", "up"), ("", "AG", "down"),
    ]  # fmt: skip
    assert vkd.columns[0].cells == ["vanilla", "reference", "VKD", "NPO", "Gradient ascent"]
    gains = dict(zip(vkd.columns[0].cells, vkd.columns[-1].cells, strict=True))
    gone = gains["NPO"]  # its attacker stops at once, at step 5 of 40 on the way from .6 to .3
    assert isinstance(gone, Number)
    assert gone.value == pytest.approx(100 * (0.3 - 0.6) * 5 / 40)
    assert "strict protocol, not comparable" in vkd.caption
    assert "copied from" not in "".join(table.caption for table in found.values())


@pytest.mark.parametrize(("benchmark", "ratio"), [({"type": "Mllmu", "train": ["x"]}, 5), ("toy", 10)])
def test_official_scores_are_those_of_the_report_beside_published_ones(
    tmp_path: Path, benchmark: str | dict[str, Any], ratio: int
) -> None:
    """Questions count the same: two people with one and three of them, and one whom only one seed was asked about.

    A winner without official scores has no number and no mark.
    """
    planter = Planter(tmp_path)
    planter.study(["vkd", "gradient_ascent", "npo"], [ratio], benchmark=benchmark)
    place = {"role": "forget", "modality": "image_text", "task": "classification", "protocol": "released"}
    known = {"a": 1.0, "b": 0.0, "c": 1.0}
    winners: dict[str, list[str]] = {}
    for method, seed, asked in (("vkd", 0, "abbbc"), ("vkd", 1, "abbb"), ("gradient_ascent", 0, "aac"), ("npo", 0, "")):
        key = planter.trial(method, ratio, Model(), seed=seed, report=True)
        winners.setdefault(method, []).append(key)
        rows = [row(person=who, question=f"{who}{n}", score=known[who], **place) for n, who in enumerate(asked)]
        if rows:
            path = tmp_path / "trials" / key / "rows" / "released.parquet"
            write_rows(path, pd.DataFrame(rows).astype(ROW_COLUMNS))
    content = {method: {str(ratio): {"trials": keys}} for method, keys in winners.items()}
    write_json(tmp_path / "winners.json", content)
    study = read(tmp_path)
    table = next(one for one in tables.tables(study) if one.name == f"mllmu_image_{ratio}")
    cells = [cell for cell in table.columns[1].cells[:3] if isinstance(cell, Number)]
    cell, nothing = cells[0], cells[2]
    assert [(one.best, one.tied) for one in cells] == [(True, False), (False, True), (False, False)]
    assert math.isnan(nothing.value)
    shown = metrics.released(study).shown.iloc[0]
    assert (f"{cell.value:.1f}", shown["classification % image"]) == ("32.5", "32.5")  # (2 of 5 + 1 of 4) / 2
    assert "official protocol" in table.caption
    assert ("copied from VL-Eraser" in table.caption) == (ratio == 5)
    assert ("MMUnlearner" in table.columns[0].cells) == (ratio == 5)


def test_nothing_published_stands_beside_strict_scores(tmp_path: Path) -> None:
    planter = Planter(tmp_path)
    planter.study(["vkd"], [5], benchmark={"type": "Mllmu"})
    key = planter.trial("vkd", 5, Model(), report=True)
    write_json(tmp_path / "winners.json", {"vkd": {"5": {"trials": [key]}}})
    table = next(one for one in tables.tables(read(tmp_path)) if one.name == "mllmu_image_5")
    assert "strict protocol" in table.caption
    assert "copied from" not in table.caption


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX: `make tools` installs one")
def test_the_document_compiles_and_nothing_sticks_out(folder: Path) -> None:
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"], cwd=folder, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (folder / "paper.pdf").exists()
