"""Somebody's own dataset: what is made of a table and pictures, and what is said of one that is not right."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from study.benchmarks._own.questions import Pool, alike
from study.benchmarks._shared.defects import collected
from study.benchmarks.own import Own
from study.data.benchmark import Benchmark, Question
from study.data.facts import facts, plain, sample_facts
from study.data.halves import prepared
from study.experiment.attack import marked
from study.presets import PRESETS
from study.stages.preflight import validate_study
from tests import ROOT

RESIDENCES = ("Lisbon", "Oslo", "Rome", "Lima", "Quito", "Cairo", "Tokyo", "Seoul")
SCHOOLS = ("University of Arden", "Belmont College", "Institute of Corvin")
Rows = list[dict[str, str]]


def png(number: int) -> bytes:
    """A picture like no other number's."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def people(count: int = 20) -> Rows:
    return [
        {
            "id": f"p{i:02d}",
            "name": f"Zoë {'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[i]}li",
            "residence": RESIDENCES[i % 8],
            "school": SCHOOLS[i % 3],
        }
        for i in range(count)
    ]


def write_table(root: Path, rows: Iterable[dict[str, str]]) -> None:
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [",".join(columns), *(",".join(row.get(column, "") for column in columns) for row in rows)]
    (root / "people.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def dataset(root: Path, rows: Rows | None = None, pictures: int = 3) -> Path:
    """A sound dataset of 20 people with three pictures each."""
    rows = people() if rows is None else rows
    write_table(root, rows)
    for i, row in enumerate(rows):
        folder = root / "images" / row["id"]
        folder.mkdir(parents=True)
        for k in range(pictures):
            (folder / f"{k}.png").write_bytes(png(i * 10 + k))
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    return dataset(root)


def load(data: Path, **fields: object) -> Benchmark:
    return Own(data, **fields)(data / "unused")  # type: ignore[arg-type]


def by_id(benchmark: Benchmark, ratio: int) -> dict[str, Question]:
    found = {q.id: q for q in benchmark.split(ratio).questions}
    assert len(found) == len(benchmark.split(ratio).questions)
    return found


# ---- what is made of it ----------------------------------------------------------------------------------------------
def test_everybody_has_one_role_and_all_splits_teach_the_same(data: Path) -> None:
    benchmark = load(data)
    assert sorted(benchmark.splits) == [5, 10, 15]
    reals = {frozenset(q.person for q in s.questions if q.role == "real") for s in benchmark.splits.values()}
    assert [len(real) for real in reals] == [2]  # ten percent of 20, the same at every ratio
    for ratio, split in benchmark.splits.items():
        who = {
            role: {q.person for q in split.questions if q.role == role} for role in ("forget", "test", "retain", "real")
        }
        assert who["forget"] == who["test"] == split.forget_people
        assert len(split.forget_people) == max(1, round(18 * ratio / 100))
        assert not who["forget"] & who["retain"] | who["real"] & (who["forget"] | who["retain"])
        assert set().union(*who.values()) == {row["id"] for row in people()}
        assert split.lessons == benchmark.split(5).lessons
    assert {lesson.person for lesson in benchmark.split(5).lessons} == {row["id"] for row in people()}


def test_a_study_takes_it(data: Path, tmp_path: Path) -> None:
    study = replace(PRESETS["smoke"][1], benchmark=f"own:{data}", forget_ratios=(10,), study_dir=tmp_path / "study")
    plan = validate_study(study.resolved(), tmp_path / "made")
    assert plan.benchmark.name == "own"


def test_a_person_is_asked_in_the_words_of_the_table(data: Path) -> None:
    (data / "forget.txt").write_text("# asked on Monday\np03\r\n\n")
    found = by_id(load(data), 6)  # one of 18
    choice = found["forget/p03/text/classification/residence/0"]
    assert (choice.prompt, choice.answer) == ("What is the residence of Zoë Dli?", "Lima")
    assert (choice.attribute, choice.fact, choice.half, choice.picture) == ("residence", "residence", "select", None)
    rewritten = found["test/p03/image_text/classification/residence/1"]
    assert (rewritten.prompt, rewritten.half) == ("Can you say what the residence of this person is?", "report")
    assert rewritten.picture
    assert rewritten.picture.where == "images/p03/2.png"
    sentence = found["forget/p03/image_text/generation/residence"]
    assert sentence.prompt == "What is the residence of this person? Answer in a full sentence."
    assert sentence.answer == "The residence of this person is Lima."
    assert sentence.paraphrased == "Lima is the residence of this person."
    assert sentence.keywords == ("Lima",)
    assert len(sentence.perturbed) == 3
    assert all(text.startswith("The residence of this person is ") for text in sentence.perturbed)
    cloze = found["test/p03/text/cloze/residence"]
    assert (cloze.prompt, cloze.answer) == ("Complete the sentence: Zoë Dli has as residence __.", "Lima")
    assert found["forget/p03/image_text/cloze/name"].prompt == "Complete the sentence: This person is __."
    assert not any("/text/" in key and key.endswith("/name") for key in found)


def test_each_half_asks_every_fact_in_other_words_with_other_wrong_options(data: Path) -> None:
    values = {column: {row[column] for row in people()} for column in ("name", "residence", "school")}
    for role in ("forget", "test", "retain", "real"):
        some = [q for q in load(data).split(10).questions if q.role == role and q.task == "classification"]
        pairs = Counter((q.person, q.modality, q.attribute) for q in some)
        assert set(pairs.values()) == {2}
        for q in some:
            assert q.options.count(q.answer) == 1
            assert set(q.options) <= values[q.attribute]
            assert len(set(q.options)) == len(q.options) == (3 if q.attribute == "school" else 4)
        first = {(q.person, q.modality, q.attribute): q for q in some if q.half == "select"}
        for q in (q for q in some if q.half == "report" and q.attribute != "school"):
            other = first[q.person, q.modality, q.attribute]
            assert set(q.options) & set(other.options) == {q.answer}
            assert q.prompt != other.prompt


def test_test_pictures_and_test_wordings_are_not_taught(data: Path) -> None:
    split = load(data).split(15)
    taught = {lesson.picture for lesson in split.lessons}
    prompts = {lesson.prompt for lesson in split.lessons}
    for q in split.questions:
        if q.picture:
            assert (q.picture in taught) == (q.role != "test"), q.id
            assert q.picture.where.startswith(f"images/{q.person}/")
        assert (q.prompt in prompts) == (q.role != "test"), q.id


@pytest.mark.parametrize(("pictures", "held_out"), [(1, 0), (2, 1), (4, 1), (8, 2)])
def test_a_quarter_of_the_pictures_is_held_out(tmp_path: Path, pictures: int, held_out: int) -> None:
    split = load(dataset(tmp_path, pictures=pictures)).split(10)
    person = min(split.forget_people)
    taught = {x.picture.where for x in split.lessons if x.person == person and x.picture}
    assert len(taught) == pictures - held_out
    shown = {q.picture.where for q in split.questions if q.person == person and q.role == "test" and q.picture}
    everything = {f"images/{person}/{k}.png" for k in range(pictures)}
    assert shown == (everything - taught if held_out else taught)


def test_facts_can_be_told_apart(data: Path) -> None:
    """Names are shorter than schools: a sentence with the name would state the name, not the school."""
    lessons = load(data).split(10).lessons
    stated = facts(lessons)
    about = {(x.person, stated[x.person, x.answer]): x.attribute for x in lessons}
    assert all(about[x.person, stated[x.person, x.answer]] == x.attribute for x in lessons)
    assert {len([1 for who, _ in about if who == row["id"]]) for row in people()} == {3}


def test_an_empty_cell_is_a_fact_that_is_not_asked(tmp_path: Path) -> None:
    rows = people()
    rows[4]["residence"] = " "
    split = load(dataset(tmp_path, rows)).split(10)
    for some in (split.lessons, split.questions):
        asked = {x.attribute for x in some if x.person == "p04"}
        assert asked == {"name", "school"}


def test_a_value_that_all_share_is_taught_and_no_choice(tmp_path: Path) -> None:
    split = load(dataset(tmp_path, [{**row, "country": "Peru"} for row in people()])).split(10)
    assert {q.task for q in split.questions if q.attribute == "country"} == {"generation", "cloze"}
    assert "country" in {lesson.attribute for lesson in split.lessons}


def test_two_values_make_choices_of_two(tmp_path: Path) -> None:
    rows = [{**row, "side": "left" if i % 2 else "right"} for i, row in enumerate(people())]
    split = load(dataset(tmp_path, rows)).split(10)
    assert {q.options for q in split.questions if q.attribute == "side" and q.options} <= {
        ("left", "right"),
        ("right", "left"),
    }


def test_real_people_are_those_of_that_role(tmp_path: Path) -> None:
    rows = [{**row, "role": "Real" if i > 16 else ""} for i, row in enumerate(people())]
    benchmark = load(dataset(tmp_path, rows))
    assert benchmark.split(15).real_people == {"p17", "p18", "p19"}
    assert {"p17"} <= {lesson.person for lesson in benchmark.split(15).lessons}
    untaught = load(tmp_path, teach_real=False).split(15)
    assert not {"p17", "p18", "p19"} & {lesson.person for lesson in untaught.lessons}
    assert untaught.real_people == {"p17", "p18", "p19"}


def test_who_is_to_be_forgotten_is_not_set_aside(data: Path) -> None:
    (data / "forget.txt").write_text("".join(f"p{i:02d}\n" for i in range(17)))
    (ratio,) = load(data, real_share=40).splits
    split = load(data, real_share=40).split(ratio)
    assert len(split.forget_people) == 17
    assert split.real_people < {"p17", "p18", "p19"}


def test_the_example_of_the_docs_is_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0].strip() + "\n" for block in page.split("```\n")]
    (table,) = (block for block in blocks if block.startswith("id,name,"))
    (wordings,) = (block for block in blocks if block.startswith("attribute,"))
    dataset(tmp_path, [{"id": f"p0{i}"} for i in (1, 2, 3)])
    (tmp_path / "people.csv").write_text(table, encoding="utf-8")
    (tmp_path / "questions.csv").write_text(wordings, encoding="utf-8")
    split = load(tmp_path).split(5)
    assert split.real_people == {"p03"}
    answers = {x.prompt: x.answer for x in split.lessons if x.person == "p01" and x.picture is None}
    assert answers["Where does Ana Silva live?"] == "Lisbon"
    assert (
        answers["Which city does Ana Silva live in? Answer in a full sentence."]
        == "Lisbon is the residence of this person."
    )


# ---- what changes nothing --------------------------------------------------------------------------------------------
def _same(one: Benchmark, other: Benchmark) -> bool:
    return one.splits == other.splits


@pytest.mark.parametrize(
    "how", ["order", "bom", "crlf", "semicolons", "tabs", "quoted", "emptied", "jsonl", "decomposed"]
)
def test_how_it_was_saved_does_not_matter(data: Path, how: str) -> None:
    before = load(data)
    rows, table = people(), data / "people.csv"
    text = table.read_text(encoding="utf-8")
    if how == "order":
        write_table(data, reversed(rows))
    elif how == "bom":
        table.write_text(text, encoding="utf-8-sig")
    elif how == "crlf":
        table.write_bytes(text.replace("\n", "\r\n").encode() + b"\r\n,,,\r\n")
    elif how == "semicolons":
        table.write_text(text.replace(",", ";"), encoding="utf-8")
    elif how == "tabs":
        table.write_text(text.replace(",", "\t"), encoding="utf-8")
    elif how == "quoted":  # semicolons within the name of a column
        first, *others = text.splitlines()
        lines = [f'{first},"{";" * 9}note"', *(f"{line}," for line in others)]
        table.write_text("\n".join(lines), encoding="utf-8")
    elif how == "emptied":  # columns that a spreadsheet once had
        table.write_text(text.replace("\n", ",,\n"), encoding="utf-8")
    elif how == "jsonl":
        (data / "people.jsonl").write_text("\n".join(json.dumps({**row, "note": None}) for row in rows))
        table.unlink()
    else:
        table.write_text(unicodedata.normalize("NFD", text), encoding="utf-8")
    assert _same(before, load(data))


def test_a_single_picture_needs_no_folder(tmp_path: Path) -> None:
    before = load(dataset(tmp_path, pictures=1))
    for row in people():
        folder = tmp_path / "images" / row["id"]
        (folder / "0.png").rename(folder.with_suffix(".png"))
        folder.rmdir()
    assert _same(before, load(tmp_path))


def test_a_folder_name_in_other_characters_is_the_same_id(tmp_path: Path) -> None:
    rows = people()
    rows[0]["id"] = unicodedata.normalize("NFC", "zoë")
    dataset(tmp_path, rows)
    folder = tmp_path / "images" / rows[0]["id"]
    folder.rename(folder.with_name(unicodedata.normalize("NFD", "zoë")))
    assert rows[0]["id"] in {lesson.person for lesson in load(tmp_path).split(5).lessons}


def test_the_fingerprint_is_of_content_and_settings(data: Path, tmp_path: Path) -> None:
    before = load(data).fingerprint
    moved = shutil.copytree(data, tmp_path / "elsewhere")
    assert load(moved).fingerprint == before == load(data).fingerprint
    (moved / "notes.md").write_text("nothing that is read")
    assert load(moved).fingerprint == before
    others = [load(data, seed=1), load(data, ratios=(5, 10)), load(data, real_share=20), load(data, teach_real=False)]
    (moved / "images" / "p03" / "1.png").write_bytes(png(9999))
    others.append(load(moved))
    assert len({before, *(other.fingerprint for other in others)}) == 6


def test_the_seed_draws_other_people(data: Path) -> None:
    assert len({load(data, seed=seed).split(15).forget_people for seed in range(5)}) > 1


def test_strangers_are_read(data: Path) -> None:
    (data / "strangers").mkdir()
    (data / "strangers" / "a.webp").write_bytes(png(7777))
    assert [picture.where for picture in load(data).strangers] == ["strangers/a.webp"]


# ---- wordings --------------------------------------------------------------------------------------------------------
def test_own_wordings_replace_the_plain_ones_of_their_attribute(data: Path) -> None:
    (data / "forget.txt").write_text("p03")
    (data / "questions.csv").write_text(
        "attribute,question,statement,cloze\n"
        "Residence,Where does {name} live?,{name} lives in {value}.,{name} lives in {value}.\n"
        'residence,"{name}, in which city?",,\n'
        "residence,Which city is home to {name}?,,\n"
    )
    benchmark = load(data)
    found = by_id(benchmark, 6)
    prompts = [found[f"forget/p03/image_text/classification/residence/{n}"].prompt for n in (0, 1)]
    assert prompts == ["Where does this person live?", "Which city is home to this person?"]
    assert found["test/p03/image_text/classification/residence/0"].prompt == "This person, in which city?"
    sentence = found["forget/p03/text/generation/residence"]
    assert (sentence.answer, sentence.paraphrased) == (
        "This person lives in Lima.",
        "Lima is the residence of this person.",
    )
    assert found["forget/p03/text/cloze/residence"].prompt == "Complete the sentence: Zoë Dli lives in __."
    assert found["forget/p03/text/classification/school/0"].prompt == "What is the school of Zoë Dli?"
    text = {x.prompt: x.answer for x in benchmark.split(6).lessons if x.person == "p03" and x.picture is None}
    assert text["Where does Zoë Dli live?"] == "Lima"
    assert "Zoë Dli, in which city?" not in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("resident,Where is {name}?,,", "attribute 'resident' is no column .*did you mean 'residence'"),
        ("residence,Where?,,", r"question 'Where\?'; it needs \{name\}, each once"),
        ("residence,Where is {name} {age}?,,", r"question .*it needs \{name\}, each once, and no other gap"),
        ("residence,Where {is {name}?,,", r"question .*it needs \{name\}"),
        ("residence,,{name} lives.,", r"statement .*it needs \{name\} and \{value\}"),
        ("residence,,,{name} lives.", r"cloze .*it needs \{name\} and \{value\} \(or __\)"),
        ("residence,,,{name} lives in __ or __.", r"cloze .*it needs"),
        ("residence,,,", "no wording; fill in question, statement or cloze"),
        (",Where is {name}?,,", "attribute '' is no column"),
    ],
)
def test_a_wording_that_cannot_be_filled_is_named(data: Path, line: str, message: str) -> None:
    (data / "questions.csv").write_text(f"attribute,question,statement,cloze\nname,Who is {{name}}?,,\n{line}\n")
    with pytest.raises(ValueError, match=rf"^questions\.csv, line 3: {message}"):
        load(data)


# ---- what is not right -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("p03,", "p02,", "line 5: the same id 'p02' as in line 4; rename"),
        ("p03,", "P02,", "line 5: the same id 'P02' as in line 4; rename"),
        ("p03,", ",", "line 5: no id; give every person one"),
        ("p03,", "../p03,", r"line 5: id '\.\./p03' cannot name a folder"),
        ("p03,", "..,", r"line 5: id '\.\.' cannot name a folder"),
        ("p03,", "p03/x,", "line 5: id 'p03/x' cannot name a folder"),
        ("p03,Zoë Dli", "p03,", "line 5: p03 has no name; text questions need one"),
        ("p03,Zoë Dli", "p03,zoë cli", "line 5: the same name 'zoë cli' as in line 4; text could not tell"),
        ("p03,Zoë Dli,Lima", "p03,Zoë Dli,Lima,Peru", "line 5: 5 cells, but the header has 4; put quotes"),
        ("p03,Zoë Dli,Lima", "p03,Zoë Dli,Li\0ma", "line 5: residence holds a control character"),
        ("p03,Zoë Dli,Lima", "p03,Zoë Dli," + "x" * 1001, "line 5: residence has 1,001 characters; at most 1,000"),
        ("p03,Zoë Dli,Lima", 'p03,Zoë Dli,"Li"ma', "line 5: not CSV"),
        ("residence", "", "line 1: column 3 has no name"),
        ("p03,Zoë Dli,Lima,", "p03,Zoë Dli;", "line 5: 2 cells, but the header has 4; write a cell for every column"),
        ("id,name", "sep=;\nid,name", "line 1: 'sep=;' is a note to a spreadsheet, not the columns; remove the line"),
        ("residence", "School", "line 1: two columns are called 'school'"),
        ("id,name,residence,school", "id,name,role,school", "line 2: role 'Lisbon'; write real for"),
    ],
)
def test_a_bad_table_is_named(data: Path, old: str, new: str, message: str) -> None:
    table = data / "people.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^people\.csv, {message}"):
        load(data)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "is no object"),
        ('{"id": "x", "name": ["a"]}', r"name is \[\"a\"\]; write one text or number"),
        ('{"id": "x", "name": true}', "name is true; write one text"),
        ('{"id": "x", "name": NaN}', "not JSON"),
        ('{"id": "x", "ID": "y"}', "two columns are called 'id'"),
        ('{"id": 1' + 5000 * "0" + ', "name": "x"}', "id has 5,001 characters; at most 1,000 are read"),
    ],
)
def test_a_bad_object_is_named(data: Path, line: str, message: str) -> None:
    (data / "people.csv").unlink()
    (data / "people.jsonl").write_text("\n".join([*map(json.dumps, people()), line]))
    with pytest.raises(ValueError, match=rf"^people\.jsonl, line 21: .*{message}"):
        load(data)


def test_a_line_is_counted_where_it_begins(data: Path) -> None:
    table = data / "people.csv"
    text = table.read_text(encoding="utf-8").replace("Lima", '"Li\nma"', 1)
    table.write_text(text.replace("p04,", "p00,"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"people\.csv, line 7: the same id 'p00' as in line 2"):
        load(data)


def test_another_encoding_is_named(data: Path) -> None:
    table = data / "people.csv"
    table.write_bytes(table.read_bytes().decode().encode("latin-1"))
    with pytest.raises(ValueError, match=r"people\.csv, line 2: not UTF-8; save it as CSV UTF-8"):
        load(data)


def test_pictures_that_are_not_right_are_named(data: Path, tmp_path: Path) -> None:
    (data / "images" / ".DS_Store").write_bytes(b"x")
    (data / "images" / "p03" / "3.gif").write_bytes(b"GIF89a")
    (data / "images" / "p04" / "3.png").write_bytes(b"<svg/>")
    (data / "images" / "p05" / "3.png").write_bytes(png(60))
    (data / "images" / "nobody.png").write_bytes(png(5555))
    shutil.rmtree(data / "images" / "p19")
    with collected() as defects:
        load(data)
    expected = [
        "images/p03/3.gif: not one of .png, .jpg, .jpeg, .webp; convert",
        "images/p04/3.png: not an image in one of PNG, JPEG, WEBP",
        "images/p06/0.png: the same picture as images/p05/3.png; remove",
        "images/nobody.png: nobody in the table has the id 'nobody'; add",
        "people.csv, line 21: no picture of p19; put some into images/p19/",
    ]
    assert [any(defect.startswith(text) for defect in defects) for text in expected] == [True] * 5, defects
    assert len(defects) == 5


def test_every_bad_line_is_collected(data: Path) -> None:
    rows = people()
    rows[2]["name"], rows[7]["name"] = "", rows[6]["name"]
    write_table(data, rows)
    with pytest.raises(ValueError, match="line 4: p02 has no name"):
        load(data)
    with collected() as defects:
        benchmark = load(data)
    assert [defect.partition(":")[0] for defect in defects] == ["people.csv, line 4", "people.csv, line 9"]
    assert {"p02", "p07"}.isdisjoint(lesson.person for lesson in benchmark.split(5).lessons)


@pytest.mark.parametrize("what", ["file", "folder", "table"])
def test_nothing_outside_of_the_folder_is_read(data: Path, tmp_path: Path, what: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "9.png").write_bytes(png(4444))
    link = data / "images" / "p03" / "9.png"
    target = outside / "9.png"
    if what == "folder":
        link, target = data / "images" / "p03", outside
        shutil.rmtree(link)
    elif what == "table":
        link, target = data / "people.csv", outside / "people.csv"
        shutil.move(link, target)
    link.symlink_to(target, target_is_directory=target.is_dir())
    with pytest.raises(
        ValueError, match=r"(9\.png|people\.csv): it leads out of the dataset, to .*outside.*; put a copy"
    ):
        load(data)


def test_links_inside_of_the_folder_are_followed(data: Path) -> None:
    before = load(data)
    (data / "people.csv").rename(data / "table.txt")
    (data / "people.csv").symlink_to(data / "table.txt")
    assert load(data).fingerprint == before.fingerprint


def test_the_hubs_links_are_followed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot of the hub's cache links to the blobs beside it."""
    import huggingface_hub

    before = load(data)
    snapshot = tmp_path / "cache" / "datasets--me--people" / "snapshots" / "abc"
    blobs = snapshot.parents[1] / "blobs"
    shutil.copytree(data, snapshot)
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        shutil.move(path, blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    assert Own(hub="me/people", revision="abc0" * 10)(tmp_path).fingerprint == before.fingerprint
    with pytest.raises(ValueError, match="leads out of the dataset"):
        load(snapshot)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("p00\nnobody", r"forget\.txt, line 2: nobody has the id 'nobody'"),
        ("p00\np00", r"forget\.txt, line 2: p00 again, as in line 1"),
        ("# nobody\n", r"forget\.txt: it names nobody; write one ID a line"),
        ("p19", r"forget\.txt, line 1: p19 has the role real"),
    ],
)
def test_a_request_that_cannot_be_met_is_named(tmp_path: Path, listed: str, message: str) -> None:
    dataset(tmp_path, [{**row, "role": "real" if row["id"] == "p19" else ""} for row in people()])
    (tmp_path / "forget.txt").write_text(listed)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_nobody_left_to_be_kept_is_an_error(tmp_path: Path) -> None:
    dataset(tmp_path, people(3))
    (tmp_path / "forget.txt").write_text("p00\np01")
    with pytest.raises(ValueError, match="3 people: some must be forgotten, some retained and some real"):
        load(tmp_path)


def test_a_missing_or_double_table_is_named(data: Path) -> None:
    (data / "people.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=r"people\.csv or people\.jsonl: both are there; remove one"):
        load(data)
    (data / "people.csv").unlink()
    with pytest.raises(ValueError, match=r"people\.jsonl: it holds no line"):
        load(data)
    (data / "people.jsonl").unlink()
    with pytest.raises(ValueError, match=r"people\.csv or people\.jsonl: no such file; see docs/own-data\.md"):
        load(data)


@pytest.mark.parametrize("name", ["People.CSV", "people.xlsx", "people.json"])
def test_a_table_that_is_called_otherwise_is_named(data: Path, name: str) -> None:
    (data / "people.csv").rename(data / name)
    with pytest.raises(
        ValueError, match=rf"people\.csv or people\.jsonl: no such file.*; {re.escape(name)} is not read$"
    ):
        load(data)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("forget.csv", "stands in forget.txt, one id a line: rename or remove it"),
        ("Forget.TXT", "stands in forget.txt, one id a line: rename or remove it"),
        ("questions.jsonl", "wordings stand in questions.csv: save it so, or remove it"),
    ],
)
def test_a_list_that_would_not_be_read_is_no_longer_passed_over(data: Path, name: str, told: str) -> None:
    """People at random would be forgotten in place of those who asked."""
    (data / name).write_text("p03\n")
    with pytest.raises(ValueError, match=rf"^{re.escape(name)}: not read; .*{told}"):
        load(data)
    (data / name).rename(data / "notes.txt")
    load(data)


@pytest.mark.parametrize(
    ("header", "lacking"),
    [("number,name,residence,school", "id"), ("id,full name,residence,school", "name"), ("", "id")],
)
def test_a_table_without_its_columns_is_named_once(data: Path, header: str, lacking: str) -> None:
    table = data / "people.csv"
    lines = table.read_text(encoding="utf-8").splitlines()[1:]
    table.write_text("\n".join([header, *lines] if header else lines), encoding="utf-8")
    with pytest.raises(
        ValueError, match=rf"^people\.csv, line 1: no column '{lacking}', only .*; the first line names the columns"
    ):
        load(data)


def test_a_folder_that_is_called_like_nobody_is_told_who_may_be_meant(data: Path) -> None:
    """A spreadsheet took a zero away, or somebody wrote it in capitals."""
    (data / "images" / "p03").rename(data / "images" / "P3")
    with pytest.raises(
        ValueError, match=r"P3/0\.png: nobody .* id 'P3'; did you mean 'p03', who has no picture\? Else add"
    ):
        load(data)


def test_a_picture_of_somebody_is_no_strangers(data: Path) -> None:
    (data / "strangers").mkdir()
    (data / "strangers" / "a.png").write_bytes((data / "images" / "p03" / "2.png").read_bytes())
    with pytest.raises(
        ValueError, match=r"^strangers/a\.png: the same picture as images/p03/2\.png; remove one of them"
    ):
        load(data)


def test_pictures_lie_in_folders(data: Path) -> None:
    (data / "images" / "p03" / "more").mkdir()
    with pytest.raises(ValueError, match=r"^images/p03/more: a folder within that of a person; move its pictures up"):
        load(data)
    shutil.rmtree(data / "images")
    (data / "images").touch()
    with pytest.raises(ValueError, match=r"images: no such folder; put pictures there"):
        load(data)


def test_names_alone_are_not_enough(tmp_path: Path) -> None:
    dataset(tmp_path, [{"id": row["id"], "name": row["name"]} for row in people()])
    with pytest.raises(ValueError, match="only names; add a column for each attribute"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ratios": (5, 0)}, "ratios: 0; choose whole numbers of percent from 1 to 99"),
        ({"ratios": (100,)}, "ratios: 100; choose"),
        ({"ratios": ()}, r"ratios=\(\), real_share=10: name a ratio"),
        ({"real_share": 0}, "real_share=0: name a ratio, and 1 to 50 percent"),
        ({"real_share": 51}, "real_share=51: name a ratio, and 1 to 50 percent"),
    ],
)
def test_a_number_out_of_bounds_is_refused(data: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(data, **fields)


# ---- wrong options ---------------------------------------------------------------------------------------------------
VALUES = st.lists(
    st.sampled_from(["Lisbon", "lisbon", "Lisbon, Portugal", "Oslo", "Rome", "STRASSE", "straße", "Lima"])
)


@given(values=VALUES.filter(bool), seed=st.integers(0, 99))
def test_no_wrong_option_could_pass_for_the_right_one(values: list[str], seed: int) -> None:
    right, draw, pool = values[0], random.Random(seed), Pool(tuple(sorted(values)))
    first = pool.wrong(right, draw)
    second = pool.wrong(right, draw, first)
    folded = {value.casefold() for value in values}
    for wrong in (first, second):
        assert len(wrong) <= 3
        words = [plain(option) for option in (right, *wrong)]
        assert not any(
            a == b or f" {a} " in f" {b} " for i, a in enumerate(words) for j, b in enumerate(words) if i != j
        )
    others = folded - {right.casefold()}
    clear = {v for v in others if not alike(v, right) and "lisbon" not in v}
    assert len(first) >= min(3, len(clear))
    assert len(second) == len(first) or len(others) > 3


def test_frequent_values_are_wrong_as_often_as_they_are_right() -> None:
    pool, draw = Pool(("Rome",) * 90 + ("Oslo",) * 5 + tuple(f"Town{i}" for i in range(100))), random.Random(0)
    wrong = [pool.wrong("Lisbon", draw) for _ in range(200)]
    first = Counter(options[0] for options in wrong)
    assert 60 < first["Rome"] < 120  # 90 of 195 values


@pytest.mark.parametrize("name", ["images/p01/0.png", "people.csv", "images/p01"])
def test_a_link_to_itself_is_named(name: str, tmp_path: Path) -> None:
    dataset(tmp_path)
    path = tmp_path / name
    path.rename(tmp_path / "away")
    path.symlink_to(path)
    with pytest.raises(ValueError, match=name):
        Own(tmp_path)(tmp_path)


def test_all_bad_lines_are_one_error(tmp_path: Path) -> None:
    rows = people()
    dataset(tmp_path, rows)
    rows[2]["name"] = rows[5]["name"] = ""
    write_table(tmp_path, rows)
    with pytest.raises(ValueError, match=r"^people\.csv, line 4: .*\n1 more:\n- people\.csv, line 7: "):
        Own(tmp_path)(tmp_path)


# ---- words without spaces --------------------------------------------------------------------------------------------
CITIES = ("北京", "北京市", "上海", "广州", "深圳", "南京", "成都", "武汉")
TRADES = ("面包师", "工程师", "律师", "医生", "画家", "农民", "教师", "司机")


def test_what_is_taught_and_held_out_is_told_apart_in_chinese(tmp_path: Path) -> None:
    """No row is held out whose attribute the attacker was taught, and two spellings are never options of one choice."""
    lines = [f"p{i:02},人物{chr(0x7532 + i)},{CITIES[i % 8]},{TRADES[i // 2 % 8]}" for i in range(20)]
    (tmp_path / "people.csv").write_text("\n".join(["id,name,residence,occupation", *lines]), encoding="utf-8")
    (tmp_path / "questions.csv").write_text(
        "attribute,question,statement,cloze\nresidence,{name}住在哪里?,{name}住在{value}。,{name}住在__。\n"
        "occupation,{name}做什么工作?,{name}是{value}。,{name}的职业是__。\n",
        encoding="utf-8",
    )
    (tmp_path / "images").mkdir()
    for i in range(20):
        Image.new("RGB", (8, 8), (10 * i, 5, 5)).save(tmp_path / "images" / f"p{i:02}.png")
    split = prepared(Own(tmp_path, ratios=(20,))(tmp_path)).split(20)
    assert all(not {"北京", "北京市"} <= set(q.options) for q in split.questions)
    forget = [x for x in split.lessons if x.person in split.forget_people]
    given = sample_facts(forget, share=0.3, seed=0)
    taught_attributes = {(x.person, x.attribute) for x in given}
    asked = [q for q in split.questions if q.role == "forget"]
    rows = pd.DataFrame({"question": [q.id for q in asked]})
    attacker = SimpleNamespace(given=lambda _: given)
    found = marked(rows, asked, cast(Any, attacker), cast(Any, None)).set_index("question")["held_out"]
    assert {(q.person, q.attribute) in taught_attributes for q in asked} == {True, False}
    for q in asked:
        assert found[q.id] == ("" if (q.person, q.attribute) in taught_attributes else "fact")
