"""Forgetting some attributes of people and keeping the others: labels, narrowed splits, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.benchmarks._mllmu.biography import MOST_WORDS, biography, told
from study.benchmarks.mllmu import Mllmu
from study.benchmarks.synthetic import Synthetic
from study.core.terms import Goal
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.data.picture import Picture
from study.data.synthetic_language import ATTRIBUTES, NAME

ALL = tuple(sorted(attribute.name for attribute in (*ATTRIBUTES, NAME)))
SOME = st.sets(st.sampled_from(ALL), min_size=1)

Cells = dict[str, Any]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a small benchmark that tests may read only."""
    folder = tmp_path_factory.mktemp("whole")
    Synthetic(people=20, celebrities=8, views=2, strangers=2, size=16)(folder)
    (home,) = folder.iterdir()
    return home


def rewritten(data: Path, change: Callable[[str, Cells], object]) -> None:
    """Rewrite every table; `change` gets each folder's name and row."""
    for file in data.glob("*/*.parquet"):
        table = pq.read_table(file)
        rows = table.to_pylist()
        for row in rows:
            change(file.parent.name, row)
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)


def asked(row: Cells) -> list[Cells]:
    """All questions of an evaluation row."""
    choices = row["Classification_Task"]
    return [*choices["Image_Textual_Questions"], *choices["Pure_Text_Questions"], *row["Generation_Task"],
            *row["Mask_Task"]]  # fmt: skip


def unlabel(folder: str, row: Cells) -> None:
    """Take every label from a row: what the published files are like."""
    if folder == "ft_Data":
        items = json.loads(row["metadata"])
        row["metadata"] = json.dumps([{k: v for k, v in item.items() if k != "Attribute"} for item in items])
    elif folder != "Strangers":
        for item in asked(row):
            item["Attribute"] = None


def published(table: pa.Table) -> pa.Table:
    """The table in the published schema, which has no field for labels."""

    def without(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind):
            return pa.list_(without(kind.value_type))
        if pa.types.is_struct(kind):
            return pa.struct([(f.name, without(f.type)) for f in kind.fields if f.name != "Attribute"])
        return kind

    return pa.Table.from_pylist(table.to_pylist(), pa.schema([(f.name, without(f.type)) for f in table.schema]))


# ---- narrowed splits -------------------------------------------------------------------------------------------------
@settings(max_examples=25)
@given(chosen=SOME, ratio=st.sampled_from([5, 10, 15]))
def test_questions_about_forget_people_are_parted_by_attribute(
    benchmark: Benchmark, chosen: set[str], ratio: int
) -> None:
    """Nothing but a role changes, and it is `spared` for exactly what was not asked to go."""
    whole, split = benchmark.split(ratio), benchmark.narrowed(sorted(chosen)).split(ratio)
    assert (split.lessons, split.forget_people) == (whole.lessons, whole.forget_people)
    assert split.forget_attributes == chosen
    for before, after in zip(whole.questions, split.questions, strict=True):
        spared = before.role in ("forget", "test") and before.attribute not in chosen
        assert after.role == ("spared" if spared else before.role)
        assert dataclasses.replace(after, role=before.role) == before


@settings(max_examples=25)
@given(chosen=SOME, goal=st.sampled_from(get_args(Goal)))
def test_lessons_are_parted_by_attribute(benchmark: Benchmark, chosen: set[str], goal: Goal) -> None:
    """The lessons of two requests that part the attributes are those of the request for all, each once."""
    whole = benchmark.split(15)
    parts = [benchmark.narrowed(sorted(names)).split(15) for names in (chosen, set(ALL) - chosen) if names]
    for lesson in whole.lessons:
        gone = [split.is_forgotten(lesson, goal) for split in parts]
        assert sum(gone) == whole.is_forgotten(lesson, goal)
        assert gone[0] == (whole.is_forgotten(lesson, goal) and lesson.attribute in chosen)


@pytest.mark.parametrize("attribute", ["residence", "hobby", ""])
@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("person", ["1", "2"])
@pytest.mark.parametrize("only", [(), ("residence",), ("food", "residence")])
@pytest.mark.parametrize("goal", get_args(Goal))
def test_what_is_forgotten(person: str, shown: bool, attribute: str, only: tuple[str, ...], goal: Goal) -> None:
    """The whole truth table: who, what and in which modality must all be asked for."""
    split = Split(5, frozenset({"1"}), (), (), frozenset(only))
    lesson = Lesson(person, "?", "!", Picture(b"x", "here") if shown else None, attribute)
    who, what = person == "1", not only or attribute == "residence"
    assert split.is_forgotten(lesson, goal) == (who and what and (shown or goal == "full"))


@settings(max_examples=40)
@given(chosen=SOME)
def test_every_group_that_can_be_asked_is_asked_in_both_halves(benchmark: Benchmark, chosen: set[str]) -> None:
    """Choices of each fact fall into both halves; only a name has no form as text."""
    for ratio, split in benchmark.narrowed(sorted(chosen)).splits.items():
        there = {(q.role, q.modality, q.half) for q in split.questions if q.task == "classification"}
        textual = {name for name in ALL if name != NAME.name}
        wanted: set[tuple[str, str]] = {(role, "image_text") for role in ("forget", "test")}
        wanted |= {(role, "text") for role in ("forget", "test") if chosen & textual}
        wanted |= {("spared", "image_text")} if set(ALL) - chosen else set()
        wanted |= {("spared", "text")} if textual - chosen else set()
        wanted |= {(role, modality) for role in ("retain", "real") for modality in ("image_text", "text")}
        assert there == {(*group, half) for group in wanted for half in ("select", "report")}, ratio


def test_two_of_seven_attributes_leave_every_group(benchmark: Benchmark) -> None:
    """Twice as many choices as attributes, a person and modality: four to forget, ten (text: eight) to spare."""
    split = benchmark.narrowed(["residence", "occupation"]).split(15)
    found = Counter((q.role, q.modality) for q in split.questions if q.task == "classification")
    people = len(split.forget_people)
    assert found["forget", "image_text"] == found["test", "image_text"] == 4 * people
    assert found["forget", "text"] == found["test", "text"] == 4 * people
    assert found["spared", "image_text"] == 2 * 10 * people
    assert found["spared", "text"] == 2 * 8 * people


# ---- fingerprints and refusals ---------------------------------------------------------------------------------------
def test_each_request_has_its_own_fingerprint(benchmark: Benchmark) -> None:
    """By content: the order in which attributes are named does not count, nor how often."""
    assert benchmark.narrowed(()) is benchmark
    both = benchmark.narrowed(("hobby", "food", "hobby"))
    assert both == benchmark.narrowed(["food", "hobby"])
    prints = {b.fingerprint for b in (benchmark, both, benchmark.narrowed(["food"]), benchmark.narrowed(["hobby"]))}
    assert len(prints) == 4
    assert all(len(mark) == 12 and int(mark, 16) >= 0 for mark in prints)
    other = dataclasses.replace(benchmark, fingerprint="0" * 12)
    assert other.narrowed(["food"]).fingerprint not in prints
    assert both.pictures() == benchmark.pictures()


def test_an_unknown_attribute_is_named_with_the_nearest(benchmark: Benchmark) -> None:
    """And with all there are."""
    assert benchmark.attributes == ALL
    with pytest.raises(ValueError, match=r"'residense' of benchmark synthetic: did you mean 'residence'\? .*education"):
        benchmark.narrowed(["food", "residense"])
    with pytest.raises(ValueError, match=f"'xyz' of benchmark synthetic: There are {', '.join(ALL)}"):
        benchmark.narrowed(["xyz"])


def test_a_request_is_narrowed_once(benchmark: Benchmark) -> None:
    """What was spared the first time would be lost the second."""
    with pytest.raises(ValueError, match="already narrowed to food, hobby"):
        benchmark.narrowed(["hobby", "food"]).narrowed(["food"])


def test_without_labels_people_can_only_be_forgotten_whole() -> None:
    """A benchmark without any label says so and what to do."""
    split = Split(5, frozenset({"1"}), (Lesson("1", "Where?", "Oslo"),), ())
    plain = Benchmark("b", "0", {5: split})
    assert plain.attributes == ()
    with pytest.raises(ValueError, match=r"'food': no lesson of benchmark b says .* with the key Attribute, or forget"):
        plain.narrowed(["food"])


def test_what_is_not_labelled_is_counted() -> None:
    """Lessons and questions about forget people only: it does not matter what is not known of the others."""
    labelled = Lesson("1", "Where?", "Oslo", attribute="residence")
    other = Lesson("2", "What?", "It.")
    base = Question("forget/1/0", "1", "forget", "text", "cloze", "select", "?", "!", attribute="residence")
    questions = (base, dataclasses.replace(base, id="retain/2/0", person="2", role="retain", attribute=""))
    sound = Split(5, frozenset({"1"}), (labelled, other), questions)
    assert Benchmark("b", "0", {5: sound}).narrowed(["residence"]).split(5).questions == questions
    bare = dataclasses.replace(labelled, prompt="Who?", attribute="")
    short = dataclasses.replace(sound, lessons=(labelled, bare, bare, other))
    with pytest.raises(ValueError, match=r"ratio 5: 2 lessons and 0 questions .* \(first: 1, 'Who\?'\); label them"):
        Benchmark("b", "0", {5: short}).narrowed(["residence"])
    nameless = (base, dataclasses.replace(base, id="test/1/7", role="test", attribute=""))
    with pytest.raises(ValueError, match=r"2 lessons and 1 questions .* \(first: test/1/7\)"):
        Benchmark("b", "0", {5: dataclasses.replace(short, questions=nameless)}).narrowed(["residence"])


# ---- labels in files -------------------------------------------------------------------------------------------------
def test_labels_travel_through_the_files(files: Path) -> None:
    """Every lesson and question is about the attribute whose wording it has."""
    split = Mllmu(files)(files / "unused").split(15)
    known = {value: attribute.name for attribute in ATTRIBUTES for value in attribute.values}
    items: list[Lesson | Question] = [*split.lessons, *split.questions]
    for item in items:
        stated = {name for value, name in known.items() if value in item.answer.replace(".", "").split()}
        assert {item.attribute} == (stated or {NAME.name}), item


def test_the_published_layout_is_labelled_from_biographies(files: Path, tmp_path: Path) -> None:
    """Without our key, and for celebrities, who are not in Full_Set, there are no labels; nothing else changes."""
    data = shutil.copytree(files, tmp_path / "data")
    rewritten(data, unlabel)
    for file in data.glob("*/*.parquet"):
        pq.write_table(published(pq.read_table(file)), file)
    assert "Attribute" not in str(pq.read_schema(next(data.glob("Test_Set/*.parquet"))))
    sound, bare = (Mllmu(path)(path / "unused").split(10) for path in (files, data))
    for pairs in (zip(sound.lessons, bare.lessons, strict=True), zip(sound.questions, bare.questions, strict=True)):
        for before, after in pairs:
            assert after == dataclasses.replace(before, attribute="" if before.person > "500" else before.attribute)


def test_without_biographies_there_are_no_labels(files: Path, tmp_path: Path) -> None:
    """Which hinders nobody who forgets whole people."""
    data = shutil.copytree(files, tmp_path / "data")
    rewritten(data, unlabel)
    for file in data.glob("*/*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.drop_columns([c for c in ("biography",) if c in table.schema.names]), file)
    read = Mllmu(data)(data / "unused")
    assert read.attributes == ()
    assert read.narrowed([]) is read


def test_a_label_counts_more_than_the_biography(files: Path, tmp_path: Path) -> None:
    """And one that is no text is named with its place."""
    data = shutil.copytree(files, tmp_path / "data")

    def relabel(folder: str, row: Cells) -> None:
        if folder == "forget_5":
            asked(row)[0]["Attribute"] = " fame "

    rewritten(data, relabel)
    questions = Mllmu(data)(data / "unused").split(5).questions
    assert [q.id.split("/", 2)[2] for q in questions if q.attribute == "fame"] == ["image_text/classification/0"]

    def spoil(folder: str, row: Cells) -> None:
        if folder == "ft_Data":
            row["metadata"] = json.dumps([{"Question": "?", "Answer": "!", "Attribute": ["residence"]}])

    rewritten(data, spoil)
    with pytest.raises(ValueError, match=r"ft_Data/train.*row 0, ID 001: metadata 0: Attribute is empty or no text"):
        Mllmu(data)(data / "unused")


# ---- labels told from biographies ------------------------------------------------------------------------------------
BIOGRAPHY = json.dumps(
    {
        "Name": "Adela Abbot",
        " Educated at: ": "Arden College",
        "Residence": "Lisbon, Portugal",
        "Born": "Porto",
        "Annual Salary": "$80,000",
        "Height": 180,
        "Parents": {"Father": {"Name": "Bruno Abbot"}, "Mother": ["Carla Crane"]},
        "Medical Conditions": None,
        "Married": True,
        "Description": "Adela Abbot lives in Lisbon, Portugal and was born in Porto, where she has a cat.",
    }
)


def test_a_biography_is_tidied() -> None:
    """Names, nested values and numbers; a long text, which retells the others, is no attribute."""
    found = biography(BIOGRAPHY)
    assert found == {
        "name": ("adela abbot",), "educated_at": ("arden college",), "residence": ("lisbon portugal",),
        "born": ("porto",), "annual_salary": ("80 000",), "height": ("180",),
        "parents": ("bruno abbot", "carla crane"),
    }  # fmt: skip
    assert all(len(words.split()) <= MOST_WORDS for values in found.values() for words in values)


@pytest.mark.parametrize("cell", [None, 3, "", "{", "[1]", '"Lisbon"', "{}", '{"": "x", "y": ""}', b"{}"])
def test_whatever_else_is_no_biography(cell: object) -> None:
    """It is not needed to teach or to ask, so it is no error."""
    assert biography(cell) == {}


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ("Where does this person live?", "This person lives in LISBON, Portugal.", "residence"),
        ("What is the name of this person?", "This person's name is Adela Abbot.", "name"),
        ("Where does Adela Abbot live?", "Adela Abbot lives in Lisbon, Portugal.", "residence"),
        ("What does she earn?", "80,000 dollars", "annual_salary"),
        ("Who is her mother?", "Carla Crane", "parents"),
        ("How tall?", "180 cm", "height"),
        ("Where does this person live?", "Lisbon", ""),  # may be short for several places
        ("Where does this person live?", "Adela Abbot lives in Lisbon, Portugal.", ""),  # the name, too
        ("Who lives in Lisbon, Portugal?", "Somebody of Lisbon, Portugal", ""),
        ("Has she a cat?", "Yes", ""),
        ("Where was she born?", "In Portoroz", ""),
        ("?", "...", ""),
    ],
)
def test_an_attribute_is_told_only_where_it_is_safe(prompt: str, answer: str, expected: str) -> None:
    assert told(prompt, answer, biography(BIOGRAPHY)).attribute == expected


def test_a_value_of_two_attributes_tells_neither() -> None:
    """Born in Lisbon and living there."""
    about = biography('{"Born": "Lisbon, Portugal", "Residence": "Lisbon"}')
    assert told("Where does she live?", "Lisbon", about).attribute == ""
    assert told("Where was she born?", "Lisbon, Portugal", about).attribute == ""
    assert told("?", "Lisbon", {}).attribute == ""


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())))
def test_what_is_told_is_stated(prompt: str, answer: str, content: dict[str, Any]) -> None:
    """Whatever the biography: the label is one of its names, and none is made up."""
    about = biography(json.dumps(content))
    assert told(prompt, answer, about).attribute in {"", *about}
