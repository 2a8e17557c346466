"""The reader of MLLMU-Bench: what it makes of the layout."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from study.benchmarks._mllmu.cells import questions, row_pictures
from study.benchmarks._shared.defects import collected, strict_data
from study.benchmarks._shared.rows import Row
from study.benchmarks.mllmu import Mllmu
from study.benchmarks.synthetic import EVALUATION, Synthetic
from study.core.plugins import find, known
from study.data.benchmark import Benchmark
from tests.helpers.hub_layout import as_on_the_hub

COMMIT = "0e3098e" + 33 * "0"

Cells = dict[str, Any]
Change = Callable[[list[Cells]], Any]


def load(data: Path) -> Benchmark:
    return Mllmu(data)(data / "unused")


def edit(data: Path, folder: str, change: Change) -> None:
    """Rewrite the first shard of a folder with its rows changed in place."""
    file = sorted((data / folder).iterdir())[0]
    table = pq.read_table(file)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)


def choice(row: Cells) -> Cells:
    """The first image question of a row."""
    found: Cells = row["Classification_Task"]["Image_Textual_Questions"][0]
    return found


def metadata(*pairs: tuple[object, object]) -> str:
    return json.dumps([{"Question": q, "Answer": a} for q, a in pairs])


def test_it_is_found_by_its_name() -> None:
    assert {"mllmu", "synthetic"} <= set(known("benchmarks"))
    assert find("benchmarks", "mllmu") is Mllmu


def test_roles_prompts_and_halves(whole: Path) -> None:
    split = load(whole).split(15)
    by_id = {q.id: q for q in split.questions}
    person = min(split.forget_people)
    full = pd.read_parquet(whole / "Full_Set").set_index("ID").loc[person]
    item = full["Classification_Task"]["Image_Textual_Questions"][3]
    asked = by_id[f"forget/{person}/image_text/classification/3"]
    assert (asked.prompt, asked.options) == (item["Question"], tuple(item["Options"][x] for x in "ABCD"))
    assert asked.answer == item["Options"][item["Correct_Answer"]]
    assert asked.half == "report"
    assert asked.picture
    assert asked.picture.data == full["image"]["bytes"]
    cloze = by_id[f"test/{person}/text/cloze/0"]
    assert cloze.prompt.startswith("Complete the sentence: ")
    assert "__" in cloze.prompt
    assert (cloze.half, cloze.options, cloze.picture) == ("select", (), None)
    generated = by_id[f"forget/{person}/text/generation/0"]
    written = {"Question": generated.prompt, "Ground_Truth": generated.answer, "Type": "Pure_Text"}
    assert {**written, "Attribute": generated.attribute} in list(full["Generation_Task"])


def test_a_choice_may_have_a_fifth_option(tmp_path: Path) -> None:
    """In the other rows its cell is empty; it may be the right one."""
    source = Synthetic(people=20, celebrities=8, attributes=2, views=1, strangers=2, size=16)
    data = as_on_the_hub(tmp_path, source)
    rows = [pd.read_parquet(file).set_index("ID") for file in (data / "retain_85").iterdir()]
    asked = {q.id: q for q in load(data).split(15).questions}
    rights = set()
    for person, cell in rows[0]["Classification_Task"].items():
        item = cell["Image_Textual_Questions"][0]
        found = asked[f"retain/{person}/image_text/classification/0"]
        assert found.options == tuple(item["Options"][letter] for letter in "ABCDE")
        assert found.answer == item["Options"][item["Correct_Answer"]]
        rights.add(item["Correct_Answer"])
        assert len(asked[f"retain/{person}/image_text/classification/1"].options) == 4
    assert "E" in rights
    assert len(rights) > 1


def test_what_is_optional_may_be_absent(data: Path) -> None:
    shutil.rmtree(data / "Strangers")
    shutil.rmtree(data / "retain_95")
    shutil.rmtree(data / "forget_10")
    shutil.rmtree(data / "forget_20")
    for file in data.glob("*/*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.drop_columns([c for c in ("Directory", "biography") if c in table.schema.names]), file)
    read = load(data)
    assert read.strangers == ()
    assert list(read.splits) == [15]
    with pytest.raises(ValueError, match="has 15; choose among these"):
        read.split(5)


def test_test_rows_may_have_a_single_image(data: Path) -> None:
    def single(rows: list[Cells]) -> None:
        for row in rows:
            row["image"] = row.pop("images")[1]

    before = load(data)
    for file in (data / "Test_Set").iterdir():
        rows = pq.read_table(file).to_pylist()
        single(rows)
        pq.write_table(pa.Table.from_pylist(rows, schema=EVALUATION), file)
    after = load(data)
    assert [q.id for q in before.split(5).questions] == [q.id for q in after.split(5).questions]
    assert before.fingerprint != after.fingerprint


def test_dirty_cells_are_cleaned(data: Path) -> None:
    def smudge(rows: list[Cells]) -> None:
        choice(rows[0])["Correct_Answer"] = f" {choice(rows[0])['Correct_Answer'].lower()} "
        choice(rows[0])["Question"] += "\n"
        rows[0]["Generation_Task"] = None

    sound = {q.id: q for q in load(data).split(10).questions}
    edit(data, "Retain_Set", smudge)
    edit(data, "ft_Data", lambda rows: rows[0].update(metadata=metadata(("When?", 1987), ("How tall?", 1.5))))
    dirty = load(data).split(10)
    assert {q.id: q for q in dirty.questions} == {
        k: q for k, q in sound.items() if "real/501" not in k or "gener" not in k
    }
    assert [lesson.answer for lesson in dirty.lessons[:2]] == ["1987", "1.5"]


def test_ids_may_be_numbers(data: Path) -> None:
    sound = load(data).split(10)
    file = data / "ft_Data" / "train-00000-of-00001.parquet"
    table = pq.read_table(file)
    numbers = pa.array([int(i) for i in table["ID"].to_pylist()])
    pq.write_table(table.set_column(table.schema.get_field_index("ID"), "ID", numbers), file)
    assert load(data).split(10).lessons == sound.lessons


def test_a_celebrity_with_a_fictitious_id_is_somebody_else(data: Path) -> None:
    edit(data, "Retain_Set", lambda rows: rows[0].update(ID="001"))
    split = load(data).split(5)
    assert {q.person for q in split.questions if q.id.startswith("real/001/")} == {"real-001"}
    assert not any(q.role == "real" and q.person in split.forget_people for q in split.questions)


def test_a_lesson_without_image_is_text(whole: Path) -> None:
    lessons_read = load(whole).split(5).lessons
    assert sum(lesson.picture is None for lesson in lessons_read) == 20 * 2 * 4 + 8 * 2 * 8
    assert sum(lesson.picture is not None for lesson in lessons_read) == 20 * 3 * 4 + 8 * 3 * 8


def test_the_fingerprint_is_of_what_is_read(data: Path) -> None:
    before = load(data).fingerprint
    assert len(before) == 12
    assert int(before, 16) >= 0
    (data / "README.md").write_text("notes")
    assert load(data).fingerprint == before
    edit(data, "Full_Set", lambda rows: rows[0].update(biography="{}"))
    assert load(data).fingerprint != before


def test_a_truncated_image_is_found_where_it_is_used(data: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, "PNG")
    edit(data, "forget_5", lambda rows: rows[0]["image"].update(bytes=buffer.getvalue()[:900]))
    pictures = [q.picture for q in load(data).split(5).questions if q.role == "forget" and q.picture]
    with pytest.raises(
        ValueError, match=r"forget_5/train-00000-of-00001.parquet, row 0, ID \d{3}: the image is damaged"
    ):
        pictures[0].open()


def test_lists_may_be_arrays_or_none_as_pandas_gives_them(whole: Path) -> None:
    frame = pd.read_parquet(whole / "Test_Set" / "train-00000-of-00002.parquet")
    cells: Cells = {str(column): value for column, value in frame.iloc[0].items()}
    assert isinstance(cells["Generation_Task"], np.ndarray)
    assert isinstance(cells["images"], np.ndarray)
    row = Row("file", 0, cells, cells["ID"])
    shown = row_pictures(row, {})
    assert len(shown) == 2
    found = list(questions(row, "test", row.id, shown))
    plain = Row("file", 0, pq.read_table(whole / "Test_Set").to_pylist()[0], row.id)
    assert found == list(questions(plain, "test", row.id, row_pictures(plain, {})))
    none = Row("file", 0, {**cells, "Generation_Task": None, "Mask_Task": None}, row.id)
    assert {q.task for q in questions(none, "test", row.id, shown)} == {"classification"}


def test_lessons_may_repeat_the_id(data: Path) -> None:
    sound = load(data).split(5).lessons

    def repeat(rows: list[Cells]) -> None:
        for row in rows:
            row["metadata"] = json.dumps([{**item, "ID": row["ID"]} for item in json.loads(row["metadata"])])

    edit(data, "ft_Data", repeat)
    assert load(data).split(5).lessons == sound


def test_splits_are_the_published_ones(data: Path) -> None:
    """Those of two ratios are not nested, and no other people are drawn for a ratio."""
    edit(data, "forget_5", lambda rows: rows[0].update(ID="777"))
    edit(data, "Test_Set", lambda rows: rows[0].update(ID="777"))
    edit(data, "ft_Data", lambda rows: rows[0].update(ID="777"))
    benchmark = load(data)
    assert benchmark.split(5).forget_people == {"777"}
    assert "777" not in benchmark.split(15).forget_people


def test_lessons_are_those_of_the_folder_that_is_asked_for(data: Path) -> None:
    before = load(data)
    shutil.copytree(data / "ft_Data", data / "ft_mine")
    edit(data, "ft_mine", lambda rows: rows[0].update(metadata=metadata(("Who?", "Bo"))))
    after = Mllmu(data, train="ft_mine")(data)
    assert (after.split(5).lessons[0].prompt, after.split(5).lessons[0].answer) == ("Who?", "Bo")
    assert after.fingerprint != before.fingerprint
    shutil.rmtree(data / "ft_Data")
    assert Mllmu(data, train="ft_mine")(data).fingerprint == after.fingerprint


# ---- lessons split by request ----------------------------------------------------------------------------------------
def split_by_id(data: Path, ratio: int, home: Path) -> Path:
    """The lessons of `data` as MLLMMU/baseline_train_split has them: forget_X and retain_(100-X), by ID."""
    taught = pq.read_table(data / "ft_Data")
    forget = set(pq.read_table(data / f"forget_{ratio}")["ID"].to_pylist())
    for folder, inside in ((f"forget_{ratio}", True), (f"retain_{100 - ratio}", False)):
        chosen = [row for row in taught.to_pylist() if (row["ID"] in forget) == inside and row["ID"] < "500"]
        (home / folder).mkdir(parents=True)
        pq.write_table(
            pa.Table.from_pylist(chosen, schema=taught.schema), home / folder / "train-00000-of-00001.parquet"
        )
    return home


def test_the_same_lessons_split_by_id_change_nothing(data: Path, tmp_path: Path) -> None:
    given = split_by_id(data, 15, split_by_id(data, 10, tmp_path / "given"))
    assert Mllmu(data, train_split=given)(data) == load(data)


def test_other_lessons_replace_those_of_their_people(data: Path, tmp_path: Path) -> None:
    before = load(data)
    given = split_by_id(data, 10, tmp_path / "given")
    edit(given, "forget_10", lambda rows: [row.update(metadata=metadata(("Who?", "Bo"))) for row in rows])
    after = Mllmu(data, train_split=given)(data)
    forget = before.split(10).forget_people
    assert {(x.prompt, x.answer) for x in after.split(10).lessons if x.person in forget} == {("Who?", "Bo")}
    kept = [{x for x in b.split(10).lessons if x.person not in forget} for b in (before, after)]
    assert kept[0] == kept[1]
    assert {x.person for x in after.split(10).lessons} == {x.person for x in before.split(10).lessons}
    assert after.split(5).lessons == after.split(10).lessons  # vanilla is taught once
    assert after.fingerprint != before.fingerprint


def test_people_whom_one_ratio_lacks_are_taught_what_another_has(data: Path, tmp_path: Path) -> None:
    given = split_by_id(data, 15, split_by_id(data, 10, tmp_path / "given"))
    before = load(data)
    person = min({f"{i:03d}" for i in range(1, 21)} - before.split(10).forget_people - before.split(15).forget_people)
    edit(given, "retain_90", lambda rows: rows.__setitem__(slice(None), [r for r in rows if r["ID"] != person]))
    said = metadata(("Who?", "Bo"))
    edit(given, "retain_85", lambda rows: [row.update(metadata=said) for row in rows if row["ID"] == person])
    after = Mllmu(data, train_split=given)(data).split(5).lessons
    assert {(x.prompt, x.answer) for x in after if x.person == person} == {("Who?", "Bo")}
    assert {x.person for x in after} == {x.person for x in before.split(5).lessons}


def other_people(given: Path) -> None:
    edit(given, "forget_10", lambda rows: [row.update(ID="019") for row in rows])


def stranger(given: Path) -> None:
    def rename(rows: list[Cells]) -> None:
        somebody = rows[0]["ID"]
        for row in rows:
            row["ID"] = "499" if row["ID"] == somebody else row["ID"]

    edit(given, "retain_90", rename)


def both(given: Path) -> None:
    shutil.copytree(given / "forget_10", given / "retain_90", dirs_exist_ok=True)


def disagree(given: Path) -> None:
    edit(given, "retain_85", lambda rows: rows[0].update(metadata=metadata(("Who?", "Bo"))))


def evaluation(given: Path) -> None:
    file = given / "forget_10" / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["metadata"]), file)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_people, r"2 IDs of forget_10 of which .*given/forget_10 teaches nothing \(0\d\d, 0\d\d\)"),
        (stranger, r"1 IDs in .*given that are not in Full_Set \(499\)"),
        (both, r"2 IDs both in forget_10 and in retain_90 of .*given"),
        (disagree, r"given: what forget_15 and retain_85 teach about 0\d\d is not what another ratio does"),
        (evaluation, r"^given/forget_10/.*: no column 'metadata', .*right folder of MLLMMU/baseline_train_split"),
        (
            shutil.rmtree,
            r"given: no folder forget_5 or forget_10 or forget_15 or forget_20 there; give the folder of MLLMMU/base",
        ),
    ],
)
def test_lessons_that_do_not_fit_are_named(
    data: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    given = split_by_id(data, 15, split_by_id(data, 10, tmp_path / "given"))
    spoil(given)
    with pytest.raises(ValueError, match=message):
        Mllmu(data, train_split=given)(data)


# ---- from the hub ----------------------------------------------------------------------------------------------------
def test_the_hub_is_asked_for_a_commit(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def download(*names: object, **settings: object) -> str:
        asked.append((names, settings))
        return str(whole)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = Mllmu(hub="MLLMMU/MLLMU-Bench", revision=COMMIT)(tmp_path)
    assert asked == [(("MLLMMU/MLLMU-Bench",), {"revision": COMMIT, "repo_type": "dataset"})]
    assert found == load(whole)


def test_nothing_is_downloaded_for_a_path(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> str:
        raise AssertionError("nothing is to be downloaded")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", never)
    assert load(whole).splits
    with pytest.raises(AssertionError, match="nothing is to be downloaded"):
        Mllmu(hub="MLLMMU/MLLMU-Bench", revision=COMMIT)(whole)


def test_offline_it_is_taken_from_the_cache_or_named(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    hub = Mllmu(hub="MLLMMU/MLLMU-Bench", revision=COMMIT)
    with pytest.raises(OSError, match=f"dataset MLLMMU/MLLMU-Bench at revision {COMMIT} cannot be downloaded"):
        hub(tmp_path)
    kept = tmp_path / "datasets--MLLMMU--MLLMU-Bench" / "snapshots" / COMMIT
    shutil.copytree(whole, kept)
    assert hub(tmp_path).fingerprint == load(whole).fingerprint


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Mllmu(), r"path=\., hub='': give either a local folder or the name of a repository"),
        (Mllmu(Path("x"), "a/b", "1"), "path=x, hub='a/b': give either"),
        (Mllmu(hub="MLLMMU/MLLMU-Bench"), r"hub=MLLMMU/MLLMU-Bench: pin what is downloaded, write .*,revision=COMMIT"),
        (Mllmu(hub="MLLMU-Bench", revision="1"), "hub='MLLMU-Bench': write OWNER/NAME"),
        (Mllmu(hub="a/b", revision="main"), "revision='main': branches and tags can move, so give the full commit, 40"),
        (Mllmu(hub="a/b", revision="0e3098e"), "revision='0e3098e': .* 40 hexadecimal digits"),
    ],
)
def test_a_place_that_is_none_is_named(source: Mllmu, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        source(tmp_path)


# ---- every defect ----------------------------------------------------------------------------------------------------
def test_every_defect_is_collected(data: Path) -> None:
    edit(data, "retain_85", lambda rows: choice(rows[1]).update(Correct_Answer="E"))
    edit(data, "retain_85", lambda rows: rows[4].update(ID=None))
    edit(data, "retain_85", lambda rows: rows.append(rows[2]))
    edit(data, "ft_Data", lambda rows: rows[3].update(metadata="["))
    edit(data, "Strangers", lambda rows: rows[1].update(image=None))
    with collected() as defects, strict_data():
        benchmark = load(data)
    places = [defect.partition(":")[0].replace("/train-00000-of-00001.parquet", "") for defect in defects]
    assert [place.partition(", ID")[0] for place in places] == [
        "ft_Data, row 3",
        "retain_85, row 1",
        "retain_85, row 4",
        "retain_85, row 17",
        "Strangers, row 1",
    ]
    assert sorted(benchmark.splits) == [5, 10, 15, 20]
    assert len({q.person for q in benchmark.split(15).questions if q.role == "retain"}) == 17 - 1
    assert len(benchmark.strangers) == 1
    with strict_data(), pytest.raises(ValueError, match=r"^ft_Data/.*, row 3.*\n4 more:(\n- .*){4}$"):
        load(data)
