"""The tables of all metrics on a study whose answers are planted."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from analysis import intervals
from analysis.sections import metrics
from analysis.study_folder import StudyResults, read
from analysis.tables import Table
from study.core.files import write_json
from study.core.rows import read_rows, write_rows
from tests.helpers.page import page_of
from tests.helpers.planted import REFERENCE, Model, Planter, plant


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vanilla, reference, one method with two seeds."""
    return plant(tmp_path_factory.mktemp("study"), {"vkd": Model(forget=0.2, test=0.6, keep=0.8)}, [10])


@pytest.fixture(scope="module")
def forget(root: Path) -> pd.DataFrame:
    """All metrics of the method on the forget set."""
    return metrics.metrics(read(root), "forget").query("method == 'vkd'").set_index("metric")


def tables_of(study: StudyResults) -> list[Table]:
    return [part for part in metrics.parts(study) if isinstance(part, Table)]


def the_rows(study: StudyResults, method: str, name: str = "report") -> list[Path]:
    keys = [t.key for t in study.trials.values() if t.label == method and study.rows(t.key, "report") is not None]
    return [study.root / "trials" / key / "rows" / f"{name}.parquet" for key in keys]


def test_planted_numbers_come_back(forget: pd.DataFrame) -> None:
    """Only the forget set, which stands at .2, and not the test set at .6; with text at .8 where both are meant."""
    expected = {"accuracy": 0.2, "cloze": 0.2, "likelihood": 0.2, "truth_ratio_forget": 0.8, "rouge_l": 0.2,
                "exposure": 0.4, "member_zlib": 0.2, "ks": 1.0, "js": 0.0, "rlf": (0.04 + 0.64) / 1.0}  # fmt: skip
    assert dict(forget["mean"][list(expected)]) == pytest.approx(expected)
    assert set(forget["protocol"]) == {"strict"}
    assert {"rlr", "model_utility", "truth_ratio_utility"}.isdisjoint(forget.index)


def test_what_a_number_is_over(forget: pd.DataFrame) -> None:
    """Twelve people, four questions of each task on each, two seeds; keywords are in no row."""
    sizes = forget[["people", "questions", "seeds"]]
    assert list(sizes.loc["accuracy"]) == [12, 48, 2]
    assert list(sizes.loc["likelihood"]) == [12, 144, 2]
    assert list(sizes.loc["exact_match"]) == [0, 0, 0]
    assert forget["low"].dropna().index.tolist() == ["accuracy", "likelihood", "truth_ratio_forget"]


def test_what_is_kept(root: Path) -> None:
    kept = metrics.metrics(read(root), "kept").query("method == 'vkd'").set_index("metric")["mean"]
    assert kept[["accuracy", "rlr", "model_utility", "truth_ratio_utility"]].tolist() == pytest.approx([0.8] * 4)
    assert {"rlf", "ks", "truth_ratio_forget"}.isdisjoint(kept.index)


def test_shown_columns(root: Path) -> None:
    """Vanilla and reference first; what nobody has is left out; a p-value is never shown as 0."""
    table = metrics.all_metrics(read(root), "forget")
    shown = table.shown.set_index("method")
    assert shown.index.tolist() == ["vanilla", "reference", "VKD"]
    assert shown.loc["VKD", "accuracy"] == "0.20 [0.20, 0.20]"
    assert shown.loc["VKD", "MIA: Min-K%"] == "0.200"
    assert shown["JS"].tolist() == ["1.000", "0.000", "0.000"]  # of 20 cells, .7 / 1.7 and .8 / 1.8 are in one
    assert shown.loc["reference", "forget quality"] == "1.000"
    assert shown.loc["VKD", "forget quality"] == f"{2 / math.comb(96, 48):.1e}"  # 48 questions, all higher
    assert "exact match" not in shown
    assert "exact_match" in set(table.raw["metric"])
    assert "Protocol: strict" in table.note


def test_text_counts_where_it_is_to_go(tmp_path: Path) -> None:
    planter = Planter(tmp_path)
    planter.study(["vkd"], [10], goal="full")
    planter.yardsticks(10, attacked=False)
    vanilla = metrics.metrics(read(tmp_path), "forget").query("method == 'reference'").set_index("metric")
    assert vanilla.loc["accuracy", "mean"] == pytest.approx((REFERENCE.forget + REFERENCE.keep) / 2)
    assert vanilla.loc["accuracy", "questions"] == 96


def test_every_seed_has_its_own_number(tmp_path: Path) -> None:
    """Seeds at .2 and .4: their mean and spread; the p-value is of each, not of both together."""
    study = read(plant(tmp_path, {"vkd": Model(forget=0.2)}, [10]))
    second = the_rows(study, "vkd")[1]
    rows = read_rows(second)
    there = (rows["role"] == "forget") & (rows["task"] == "classification") & (rows["modality"] == "image_text")
    rows.loc[there, ["score", "truth_ratio"]] = [0.4, 0.7]
    write_rows(second, rows)
    found = metrics.metrics(read(tmp_path), "forget").query("method == 'vkd'").set_index("metric")
    assert list(found.loc["accuracy", ["mean", "seed_sd"]]) == pytest.approx([0.3, 0.2 / 2**0.5])
    assert list(found.loc["ks", ["mean", "seed_sd"]]) == pytest.approx([0.5, 1 / 2**0.5])  # the reference has .7


def test_people_are_resampled_and_questions_count_the_same(tmp_path: Path) -> None:
    """Half of one person's questions are gone: the mean is that of the questions left."""
    study = read(plant(tmp_path, {"vkd": Model(forget=0.2)}, [10]))
    for path in the_rows(study, "vkd"):
        rows = read_rows(path)
        rows.loc[(rows["role"] == "forget") & (rows["person"] == "forget-0"), "score"] = 1.0
        gone = (rows["role"] == "forget") & (rows["person"] == "forget-0") & rows["question"].str.endswith(("2", "3"))
        write_rows(path, rows[~gone])
    found = metrics.metrics(read(tmp_path), "forget").query("method == 'vkd'").set_index("metric")
    assert found.loc["accuracy", "mean"] == pytest.approx((2 * 1.0 + 44 * 0.2) / 46)
    sums = pd.DataFrame({"sum": [2 * 2 * 1.0, *[2 * 4 * 0.2] * 11], "count": [4, *[8] * 11]})
    spread = intervals.interval(sums, lambda means: means[:, 0] / means[:, 1])
    assert list(found.loc["accuracy", ["low", "high"]]) == pytest.approx([spread.low, spread.high])
    assert spread.low < spread.high


def test_without_a_reference_nothing_is_compared(tmp_path: Path) -> None:
    planter = Planter(tmp_path)
    planter.study(["vkd"], [10])
    key = planter.trial("vkd", 10, Model(), report=True)
    write_json(tmp_path / "winners.json", {"vkd": {"10": {"trials": [key]}}})
    table = metrics.all_metrics(read(tmp_path), "forget")
    assert "forget quality" not in table.shown
    assert table.shown["method"].tolist() == ["VKD"]
    assert table.raw.set_index("metric").loc["ks", "seeds"] == 0


def test_a_study_that_has_only_begun_has_empty_tables(tmp_path: Path) -> None:
    Planter(tmp_path).study(["vkd"], [10])
    tables = tables_of(read(tmp_path))
    assert [(table.name, len(table.raw), len(table.shown)) for table in tables] == [
        ("metrics_forget", 0, 0), ("metrics_kept", 0, 0),
    ]  # fmt: skip


@pytest.mark.slow
def test_the_report_has_them_folded_away(root: Path) -> None:
    page = page_of(root)
    folded = [part.partition("</details>")[0] for part in page.split("<details>")[1:]]
    assert ["Every metric on what had to be forgotten" in part for part in folded] == [False, True, False]
    assert ["Every metric on what had to be kept" in part for part in folded] == [False, False, True]
    assert "Official protocol" not in page
    written = pd.read_csv(root / "report" / "tables" / "metrics_forget.csv")
    assert set(written["method"]) == {"vanilla", "reference", "vkd"}


@pytest.mark.slow
def test_the_released_protocol_is_a_table_of_its_own(tmp_path: Path) -> None:
    """Per cent of choices and clozes, ROUGE-L of descriptions; strict rows that got into the file do not count."""
    study = read(plant(tmp_path, {"vkd": Model(forget=0.2)}, [10]))
    for path in the_rows(study, "vkd"):
        rows = read_rows(path)
        asked = rows.assign(protocol="released", half="report")
        silent = (asked["role"] == "forget") & (asked["task"] == "classification") & (asked["modality"] == "text")
        write_rows(
            path.with_name("released.parquet"), pd.concat([asked.assign(parsed=~silent), rows.assign(score=0.0)])
        )
    table = next(t for t in tables_of(read(tmp_path)) if t.name == "released")
    assert table.shown["set"].tolist() == ["forget", "test", "retain", "real"]
    first = table.shown.iloc[0]
    assert (first["method"], first["classification % image"], first["cloze % text"]) == ("VKD", "20.0", "90.0")
    assert (first["ROUGE-L image"], first["ROUGE-L text"], first["unparsable choices %"]) == ("0.200", "0.900", "50.0")
    assert table.raw[["seeds", "questions"]].iloc[0].tolist() == [2, 48]
    assert set(table.raw["protocol"]) == {"released"}
    assert "Official protocol" in page_of(tmp_path)
