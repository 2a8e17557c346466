"""What the authors' own loaders pass over is skipped, counted and listed; the rest is an error, with all defects."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.sections.settings import parts
from analysis.study_folder import StudyResults
from analysis.tables import Pairs
from study.benchmarks._shared.defects import reading, strict_data
from study.benchmarks.clear import Clear
from study.benchmarks.fiu import Fiu
from study.benchmarks.mllmu import Mllmu
from study.benchmarks.umu import Umu
from study.core.console import console
from study.core.files import read_json
from study.data.benchmark import Benchmark
from study.presets import PRESETS
from study.stages.manifest import settle
from study.stages.preflight import validate_study
from study.stages.printed_plan import print_plan
from tests.benchmarks.test_mllmu import choice, edit, metadata
from tests.benchmarks.test_mllmu_errors import huge_png
from tests.helpers import benchmark_folders
from tests.helpers.benchmark_folders import edit_people

Rows = list[dict[str, Any]]
Change = Callable[[Rows], Any]


def mllmu(data: Path) -> Benchmark:
    return Mllmu(data)(data)


def asked(benchmark: Benchmark, ratio: int) -> set[str]:
    return {q.id for q in benchmark.split(ratio).questions}


# ---- MLLMU-Bench -----------------------------------------------------------------------------------------------------
def _choice(**fields: Any) -> Change:
    return lambda rows: choice(rows[1]).update(fields)


def _options(**fields: Any) -> Change:
    return lambda rows: choice(rows[1])["Options"].update(fields)


def _item(column: str, **fields: Any) -> Change:
    return lambda rows: rows[1][column][0].update(fields)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_choice(Question=""), "Question is empty"),
        (_choice(Correct_Answer="E"), "Correct_Answer 'E' is not among"),
        (_options(A="x", B="X"), "two options are the same"),
        (_item("Mask_Task", Ground_Truth=None), "Ground_Truth is empty"),
        (_item("Generation_Task", Type="Audio"), "Type is 'Audio', not one of"),
    ],
)
def test_one_odd_question_is_skipped_and_no_other(change: Change, said: str, data: Path) -> None:
    before = mllmu(data)
    edit(data, "retain_85", change)
    after = mllmu(data)
    (line,) = after.skipped
    assert line.startswith("retain_85/train-00000-of-00001.parquet, row 1, ID ")
    assert said in line
    lost = asked(before, 15) - asked(after, 15)
    assert len(lost) == 1 or "Type" in said
    assert asked(after, 15) < asked(before, 15)
    with strict_data(), pytest.raises(ValueError, match="row 1, ID"):
        mllmu(data)


def test_lessons_that_cannot_be_read_and_repeated_rows_are_skipped(data: Path) -> None:
    before = mllmu(data)
    edit(data, "ft_Data", lambda rows: rows.append({**rows[0], "metadata": "["}))
    edit(data, "ft_Data", lambda rows: rows.append({**rows[0], "metadata": "[" * 100_000}))
    edit(data, "ft_Data", lambda rows: rows.append({**rows[0], "image": {"bytes": b"GIF89a", "path": ""}}))
    edit(data, "ft_Data", lambda rows: rows.append({**rows[0], "metadata": metadata(("Who?", ""))}))
    edit(data, "retain_85", lambda rows: rows.append(rows[2]))
    after = mllmu(data)
    assert after.split(15) == before.split(15)
    said = "\n".join(after.skipped)
    assert len(after.skipped) == 5
    assert all(one in said for one in ("metadata is not JSON", "not an image", "Answer is empty", "the same ID as in"))
    assert after.left_out.startswith(f"5 of {after.rows:,} rows skipped, in whole or in part")
    assert after.rows == before.rows + 5
    assert before.left_out == ""


def test_nobody_is_left_without_questions_of_a_kind(data: Path) -> None:
    def spoil(rows: Rows) -> None:
        for item in rows[1]["Mask_Task"]:
            item["Ground_Truth"] = ""

    edit(data, "retain_85", spoil)
    with pytest.raises(ValueError, match=r"^retain_85/.*, row 1, ID \d+: none of its cloze") as caught:
        mllmu(data)
    assert "Ground_Truth is empty" in str(caught.value)  # what led to it is told with it


def test_nobody_is_left_without_lessons(data: Path) -> None:
    edit(data, "ft_Data", lambda rows: [row.update(metadata="[") for row in rows if row["ID"] == rows[1]["ID"]])
    with pytest.raises(ValueError, match=r"^1 IDs in ft_Data of whom no lesson can be read \(001\)"):
        mllmu(data)


def test_all_errors_are_told_at_once(data: Path) -> None:
    edit(data, "retain_85", lambda rows: rows[1].update(Classification_Task=None))
    edit(data, "forget_15", lambda rows: rows[0].update(images=None, image={"bytes": b"", "path": ""}))
    with pytest.raises(ValueError, match=r"\n\d more:\n- ") as caught:
        mllmu(data)
    assert "retain_85/train-00000-of-00001.parquet, row 1" in str(caught.value)
    assert "forget_15/train-00000-of-00001.parquet, row 0" in str(caught.value)


def test_of_several_pictures_one_may_be_damaged(data: Path) -> None:
    def two(rows: Rows) -> None:
        for row in rows:
            row["images"] = [*row["images"], {"bytes": b"no picture", "path": ""}]

    edit(data, "Test_Set", two)
    found = mllmu(data)
    assert found.skipped
    assert all("not an image" in line for line in found.skipped)


@pytest.mark.parametrize("side", [8_000, 20_000])  # above our limit, and above that from which Pillow refuses
def test_of_several_pictures_none_may_be_too_large(side: int, data: Path) -> None:
    def two(rows: Rows) -> None:
        rows[1]["images"] = [*rows[1]["images"], {"bytes": huge_png(side), "path": ""}]

    edit(data, "Test_Set", two)
    with pytest.raises(ValueError, match=r"Test_Set/.*, row 1, ID .*at most 50,000,000"):
        mllmu(data)


# ---- hostile folders -------------------------------------------------------------------------------------------------
def test_links_out_of_a_dataset_are_not_followed(data: Path, tmp_path: Path) -> None:
    file = data / "retain_85" / "train-00000-of-00001.parquet"
    outside = tmp_path / "outside.parquet"
    file.rename(outside)
    file.symlink_to(outside)
    with pytest.raises(ValueError, match="it leads out of the dataset, to"):
        mllmu(data)
    file.unlink()
    file.symlink_to(file)
    with pytest.raises(ValueError, match="it leads nowhere"):
        mllmu(data)


def test_a_dataset_may_itself_be_a_link(data: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(data)
    assert mllmu(tmp_path / "link").fingerprint == mllmu(data).fingerprint


@pytest.mark.parametrize(("value", "said"), [("x" * 100_001, "has 100,001 characters"), ("a\0b", "holds a NUL")])
def test_texts_have_limits(value: str, said: str, data: Path) -> None:
    edit(data, "retain_85", _choice(Question=value))
    with pytest.raises(ValueError, match=said):
        mllmu(data)


# ---- UMU-Bench -------------------------------------------------------------------------------------------------------
def test_umu_asks_what_both_sides_have(tmp_path: Path) -> None:
    root = benchmark_folders.umu(tmp_path)
    before = Umu(root)(root)

    def more(rows: Rows) -> None:
        cell = ast.literal_eval(rows[0]["Generation"])
        cell["unimodal"]["Hobby"] = {"question": "What is the hobby?", "answer": "chess"}
        rows[0]["Generation"] = str(cell)

    edit(root, "retain_95", more)
    after = Umu(root)(root)
    assert after.split(5) == before.split(5)
    assert "do not pair up" in after.left_out


def test_umu_leaves_a_fact_out_on_both_sides(tmp_path: Path) -> None:
    root = benchmark_folders.umu(tmp_path)
    before = Umu(root)(root)

    def spoil(rows: Rows) -> None:
        cell = ast.literal_eval(rows[0]["Cloze"])
        cell["muitimodal"]["Pet"]["answer"] = ""
        rows[0]["Cloze"] = str(cell)

    edit(root, "retain_95", spoil)
    lost = asked(before, 5) - asked(Umu(root)(root), 5)
    assert sorted(id.split("/")[2] for id in lost) == ["image_text", "text"]


# ---- FIUBench --------------------------------------------------------------------------------------------------------
def fact(**fields: Any) -> Change:
    return lambda rows: rows[1]["qa_list"][1].update(fields)


def test_fiu_without_keywords_is_asked_and_not_marked_by_them(tmp_path: Path) -> None:
    root = benchmark_folders.fiu(tmp_path)
    before = Fiu(root)(root)
    edit_people(root / "dataset", fact(keywords=[]))
    after = Fiu(root)(root)
    assert asked(after, 5) == asked(before, 5)
    assert "keywords are []" in after.left_out
    changed = {q.keywords for q in after.split(5).questions if q.person == "00000002" and q.fact == "1"}
    assert changed == {()}


def test_fiu_takes_paraphrases_in_a_list_and_paths_of_another_machine(tmp_path: Path) -> None:
    root = benchmark_folders.fiu(tmp_path)
    before = Fiu(root)(root)

    def change(rows: Rows) -> None:
        told = rows[1]["qa_list"][1]
        told["paraphrased_answer"] = [told["paraphrased_answer"]]
        rows[2]["image_path"] = "/data/FIUBench/" + rows[2]["image_path"].removeprefix("./")

    edit_people(root / "dataset", change)
    after = Fiu(root)(root)
    assert after.split(5) == before.split(5)
    assert after.skipped == ()


def test_fiu_names_nested_json_and_paths_outside(tmp_path: Path) -> None:
    root = benchmark_folders.fiu(tmp_path)
    edit_people(root / "dataset", lambda rows: rows[1].update(image_path="/etc/dataset/../../passwd"))
    with pytest.raises(ValueError, match="leads out of the folder"):
        Fiu(root)(root)
    edit_people(root / "dataset", lambda rows: rows[1].update(image_path="images/\0.png"))
    with pytest.raises(ValueError, match="image_path holds a NUL character"):
        Fiu(root)(root)
    (root / "dataset" / "full.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"full\.json, row 0: not JSON"):
        Fiu(root)(root)


# ---- CLEAR -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("place", [-1, 45, 79])
def test_clear_goes_on_with_nineteen_questions_of_an_author(place: int, tmp_path: Path) -> None:
    root = benchmark_folders.clear(tmp_path)
    before = Clear(root)(root)
    edit(root, "full+tofu", lambda rows: rows.pop(place))
    after = Clear(root)(root)
    (line,) = after.skipped
    assert "159 text questions, not 20 for each author: " in line
    assert line.endswith("has 19")
    told = [
        {(x.person, x.prompt, x.answer) for x in benchmark.split(10).lessons if x.picture is None}
        for benchmark in (before, after)
    ]
    assert len(told[0] - told[1]) == 1
    assert told[1] < told[0]


# ---- where it is told ------------------------------------------------------------------------------------------------
def test_the_plan_the_study_and_the_report_say_what_was_skipped(data: Path, tmp_path: Path) -> None:
    edit(data, "retain_85", _choice(Correct_Answer="E"))
    study = replace(PRESETS["smoke"][1], benchmark=f"mllmu:{data}", study_dir=tmp_path / "study", forget_ratios=(15,))
    plan = validate_study(study, tmp_path / "made")
    with console.capture() as shown:
        print_plan(plan)
    line = "1 of "
    assert f"data     {line}" in shown.get()
    assert "Correct_Answer 'E' is not among" in shown.get()
    plan.root.mkdir()
    settle(plan)
    record = read_json(plan.folder.settings)
    assert record["skipped"]["all"] == list(plan.benchmark.skipped)
    said, table = list(parts(StudyResults(plan.root, {"skipped": record["skipped"]})))[:2]
    assert isinstance(said, str)
    assert said.startswith(line)
    assert isinstance(table, Pairs)
    with pytest.raises(ValueError, match="Correct_Answer 'E'"):
        validate_study(replace(study, strict_data=True), tmp_path / "made")


def test_a_reading_within_a_reading_tells_its_own() -> None:
    with reading() as outer:
        with pytest.raises(ValueError, match="broken"), reading():
            raise ValueError("broken")
        assert outer.defects == []
