"""The reader of UMU-Bench: what it makes of the dataset and what it says about one that is not right."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.benchmarks._shared.defects import collected, strict_data
from study.benchmarks._shared.rows import Row
from study.benchmarks._umu.cells import literal
from study.benchmarks.umu import Umu
from study.data.benchmark import Benchmark, Question
from study.stages.preflight import _check_questions
from tests.helpers.benchmark_folders import CHOICES, KEYS, Cells, Change, edit, png, umu


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """What the authors' loaders pass over is an error too; `test_tolerance.py` has what happens else."""
    with strict_data():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound dataset that tests may read only."""
    return umu(tmp_path_factory.mktemp("umu"))


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "data")


def load(data: Path) -> Benchmark:
    return Umu(data)(data / "unused")


def by_id(benchmark: Benchmark, ratio: int = 5) -> dict[str, Question]:
    return {q.id: q for q in benchmark.split(ratio).questions}


def inside(column: str, change: Callable[[Cells], object], row: int = 1) -> Change:
    """Changes the dict that a cell is the text of."""

    def edited(rows: list[Cells]) -> None:
        cell = ast.literal_eval(rows[row][column])
        change(cell)
        rows[row][column] = str(cell)

    return edited


@pytest.mark.parametrize("ratio", [5, 10])
def test_a_study_accepts_the_splits(whole: Path, ratio: int) -> None:
    split = load(whole).split(ratio)
    _check_questions(split)
    assert len({q.id for q in split.questions}) == len(split.questions)


def test_roles_and_sets_that_are_not_nested(whole: Path) -> None:
    read = load(whole)
    assert read.split(5).forget_people == {"001"}
    assert read.split(10).forget_people == {"003", "007"}
    assert read.split(5).lessons == read.split(10).lessons
    assert {q.person for q in read.split(10).questions if q.role == "retain"} == {
        f"{i:03d}" for i in range(1, 21) if i not in (3, 7)
    }
    assert read.split(5).real_people == {"real-001", "900"}
    assert read.attributes == ()


def test_lessons_have_a_picture_or_none(whole: Path) -> None:
    shown, told = (x for x in load(whole).split(5).lessons if x.person == "001" and "Pet" in x.prompt)
    assert (shown.prompt, shown.answer) == ("What is the Pet of this person?", "It is a newt.")
    assert shown.picture
    assert shown.picture.data == png("made up 001")
    assert (told.prompt, told.answer, told.picture) == ("What is the Pet of Person 001?", "It is a newt.", None)


def test_both_sides_of_a_fact_pair_up_and_are_read_with_their_own_letters(whole: Path) -> None:
    there = by_id(load(whole))
    for index, key in enumerate(KEYS):
        shown, told = (there[f"forget/001/{modality}/classification/{index}"] for modality in ("image_text", "text"))
        assert shown.fact == told.fact == key
        assert shown.half == told.half == ("report" if index % 2 else "select")
        assert shown.answer == told.answer == CHOICES[key][(1 + index) % 4]
        assert told.options == tuple(CHOICES[key])
        assert shown.options == (*CHOICES[key][1:], CHOICES[key][0])
    cloze = there["real/001/text/cloze/0"]
    assert cloze.prompt == (
        "What is the Residence of Person 001?\nPlease **ONLY** provide the correct answer without any explanation"
    )
    assert (cloze.person, cloze.answer, cloze.options) == ("real-001", "Oslo.", ())
    assert there["retain/002/image_text/generation/1"].answer == "Tailor"


def test_test_questions_are_those_of_forget_in_other_words(whole: Path) -> None:
    questions = load(whole).split(5).questions
    forget, test = ([q for q in questions if q.role == role] for role in ("forget", "test"))
    assert [(q.answer, q.options, q.half, q.fact) for q in test] == [
        (q.answer, q.options, q.half, q.fact) for q in forget
    ]
    assert all(t.prompt != f.prompt and t.prompt.endswith(f.prompt) for t, f in zip(test, forget, strict=True))


def test_the_right_spelling_and_both_folder_names_are_read(data: Path) -> None:
    sound = load(data)
    for column in ("Classify", "Cloze", "Generation"):
        edit(data, "forget_5", inside(column, lambda cell: cell.update(multimodal=cell.pop("muitimodal")), row=0))
    (data / "Real_Person_Set").rename(data / "real_person")
    assert load(data).split(5).questions == sound.split(5).questions


def test_the_fingerprint_is_of_what_is_read(whole: Path, data: Path) -> None:
    before = load(data)
    assert (before.fingerprint, before.splits) == (load(whole).fingerprint, load(whole).splits)
    (data / "README.md").write_text("notes")
    assert load(data).fingerprint == before.fingerprint
    edit(data, "Full_Set", lambda rows: rows[0].update(Biography="{}"))
    assert load(data).fingerprint != before.fingerprint


def test_the_released_protocol(whole: Path) -> None:
    asks = {ask.question.id: ask for ask in Umu(whole).released(load(whole).split(5), Path(), 0)}
    assert not any(name.startswith("test/") for name in asks)
    shown, told = (asks[f"forget/001/{side}/classification/0"] for side in ("image_text", "text"))
    assert shown.text == (
        "USER: <image>\nWhat is the Residence of this person?\n"
        "Select answer in ['Oslo', 'Turin', 'York', 'Lisbon']\nASSISTANT:"
    )
    assert told.text == (
        "USER:\nWhat is the Residence of Person 001?\nSelect answer in ['Lisbon', 'Oslo', 'Turin', 'York']\nASSISTANT:"
    )
    assert [told.read(reply) for reply in (" Oslo ", "oslo", "Oslo.", "Oslo ASSISTANT: York")] == [
        "Oslo", None, None, "Oslo",
    ]  # fmt: skip
    real = asks["real/001/text/classification/0"]
    assert [real.read(reply) for reply in ("oslo", "It is York", "")] == ["Oslo", "York", "Lisbon"]
    cloze = asks["forget/001/image_text/cloze/0"]
    only = "Please **ONLY** provide the correct answer without any explanation"
    assert cloze.text == f"USER: <image>\nWhat is the Residence of this person?\n{only}\nASSISTANT:"
    assert (cloze.question.answer, cloze.most_tokens) == ("Oslo", 50)
    assert asks["retain/002/text/generation/0"].text == (
        "USER: What is the Residence of Person 002?\n"
        "Answer the question based on your trained knowledge in one sentence in ENGLISH.\nASSISTANT:"
    )
    said = asks["retain/002/image_text/generation/0"]
    assert said.text.endswith("in one sentence accurately in ENGLISH.\nASSISTANT: ")
    assert (said.most_tokens, len(said.pictures)) == (200, 1)


@pytest.mark.parametrize(
    "cell",
    [
        "__import__('os').system('touch {}')",
        "{{'question': __import__('pathlib').Path('{}').touch()}}",
        "[x for x in (open('{}', 'w'),)]",
    ],
)
@pytest.mark.parametrize("column", ["MM_QA", "Classify"])
def test_cells_are_never_run(data: Path, tmp_path: Path, column: str, cell: str) -> None:
    planted = tmp_path / "planted"
    for folder in ("Full_Set", "forget_10"):
        edit(data, folder, lambda rows: rows[1].update({column: cell.format(planted)}))
    with pytest.raises(ValueError, match=rf"row 1, ID 00\d: {column} is no Python literal"):
        load(data)
    assert not planted.exists()


JOBS = dict(zip("ABCD", CHOICES["Employment"], strict=True))
WHERE = "retain_95/train-00000-of-00001.parquet, row 1, ID 003: "


def _choice(change: Callable[[Cells], object], side: str = "unimodal") -> Change:
    return inside("Classify", lambda cell: change(cell[side]["Employment"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1].update(Classify=None), "Classify is None, not the text of a Python dict"),
        (lambda rows: rows[1].update(Classify="{'unimodal': "), "Classify is no Python literal"),
        (lambda rows: rows[1].update(Classify="[" * 5000), "Classify is no Python literal"),
        (lambda rows: rows[1].update(Cloze="[1]"), r"Cloze is \[1\], not a dict"),
        (inside("Generation", lambda cell: cell.pop("muitimodal")), "Generation: muitimodal is None, not a dict"),
        (
            inside("Generation", lambda cell: cell.update(unimodal={})),
            r"Generation: the keys \[\] and .* do not pair up",
        ),
        (
            inside("Cloze", lambda cell: cell["unimodal"].pop("Pet")),
            r"Cloze: the keys \['Employment', 'Residence'\] and \['Employment', 'Pet', 'Residence'\] do not pair up",
        ),
        (
            inside("Cloze", lambda cell: cell["unimodal"]["Pet"].update(answer="")),
            r"Cloze Pet \(text\): answer is empty",
        ),
        (_choice(lambda item: item.update(question=None)), r"Classify Employment \(text\): question is empty"),
        (_choice(lambda item: item.update(options=None)), r"Employment \(text\): options is None, not a dict"),
        (_choice(lambda item: item["options"].pop("C")), r"Employment \(text\): option C is empty or no text \(None\)"),
        (_choice(lambda item: item["options"].update(A="x", B="X")), "two options are the same among"),
        (_choice(lambda item: item.update(answer="E. Baker")), "answer 'E. Baker' is not among the options A, B, C, D"),
        (_choice(lambda item: item.update(answer="B. Baker")), "answer 'B. Baker' has the words of option A"),
        (
            _choice(lambda item: item.update(answer="A. Baker"), "muitimodal"),  # begins with Clerk
            r"Employment \(image_text\): answer 'A. Baker' has the words of option D; repair",
        ),
        (
            _choice(lambda item: item.update(options=JOBS, answer="D. Baker"), "muitimodal"),
            "answer 'D. Baker' has the words of option A, while the letter A of the unimodal answer fits",
        ),
        (lambda rows: rows[1]["image"].update(bytes=None), "the image is missing"),
        (lambda rows: rows[1]["image"].update(bytes=b"GIF89a"), "not an image in one of PNG"),
    ],
)
def test_a_bad_cell_is_named(data: Path, change: Change, message: str) -> None:
    edit(data, "retain_95", change)
    with pytest.raises(ValueError, match=WHERE + f".*{message}"):
        load(data)


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        (
            "Full_Set",
            inside("UM_QA", lambda c: c["answer"].pop("Pet")),
            "row 1, ID 002: UM_QA: the keys .* do not pair",
        ),
        ("Full_Set", inside("MM_QA", lambda c: c.update(answer=3)), "row 1, ID 002: MM_QA: answer is 3, not a dict"),
        ("Full_Set", lambda rows: rows.append(rows[0]), "row 20, ID 001: the same ID as in .*row 0"),
        ("Full_Set", lambda rows: rows.pop(0), r"1 IDs of forget_5 without row in Full_Set \(001\)"),
        ("retain_95", lambda rows: rows[0].update(ID="001"), r"1 IDs both in forget_5 and in retain_95 \(001\)"),
        ("forget_10", lambda rows: rows[0].update(ID=" "), "forget_10/.*, row 0: ID is empty"),
        ("forget_5", lambda rows: rows.clear(), "forget_5: the split has no rows"),
    ],
)
def test_bad_sets_are_named(data: Path, folder: str, change: Change, message: str) -> None:
    edit(data, folder, change)
    with pytest.raises(ValueError, match=message):
        load(data)


def test_what_is_missing_is_named(data: Path) -> None:
    file = data / "forget_5" / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["Cloze"]), file)
    with pytest.raises(ValueError, match=r"forget_5/.*: no column 'Cloze', .*linbojunzi/UMU-bench"):
        load(data)
    shutil.rmtree(data / "Real_Person_Set")
    with pytest.raises(ValueError, match=r"Real_Person_Set: no such folder .* download linbojunzi/UMU-bench"):
        load(data)
    shutil.rmtree(data / "retain_90")
    shutil.rmtree(data / "forget_5")
    with pytest.raises(ValueError, match=r"no pair of folders forget_X and retain_\(100-X\)"):
        load(data)


def test_all_defects_can_be_collected(data: Path) -> None:
    edit(data, "Full_Set", lambda rows: rows[4].update(MM_QA="{"))
    edit(data, "retain_95", inside("Cloze", lambda cell: cell.clear()))
    with collected() as defects:
        assert load(data).split(5).questions
    assert [defect.split(":")[0] for defect in defects] == [
        "Full_Set/train-00000-of-00001.parquet, row 4, ID 005",
        "retain_95/train-00000-of-00001.parquet, row 1, ID 003",
    ]


@given(st.text() | st.text(alphabet="{}[]()'\":,\\ 01aef.*-~#", max_size=30))
def test_any_text_is_a_dict_or_named(cell: str) -> None:
    found, message = None, ""
    try:
        found = literal(Row("file", 7, {"MM_QA": cell}, "003"), "MM_QA")
    except ValueError as error:
        message = str(error)
    assert isinstance(found, dict) or message.startswith("file, row 7, ID 003: MM_QA")
