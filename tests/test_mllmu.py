"""The reader of MLLMU-Bench: what it makes of the layout."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from study.benchmarks.mllmu import Mllmu
from study.benchmarks.synthetic import EVALUATION, Synthetic
from study.plugins import find, known
from study.questions import Benchmark

Cells = dict[str, Any]
Change = Callable[[list[Cells]], Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound dataset that tests may read only."""
    folder = tmp_path_factory.mktemp("whole")
    Synthetic(people=20, celebrities=8, attributes=2, views=1, strangers=2, size=16)(folder)
    (home,) = folder.iterdir()
    return home


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "data")


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


def test_what_is_optional_may_be_absent(data: Path) -> None:
    shutil.rmtree(data / "Strangers")
    shutil.rmtree(data / "retain_95")
    shutil.rmtree(data / "forget_10")
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
