"""The reader of CLEAR: what it makes of the dataset and what it says about one that is not right."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from study.benchmarks._clear.questions import CAPTION_PROMPTS, NAME_PROMPT
from study.benchmarks._shared.defects import collected, strict_data
from study.benchmarks.clear import Clear
from study.data.benchmark import Benchmark, Question
from study.stages.preflight import _check_questions
from tests.helpers.benchmark_folders import AUTHORS, CITIES, PICTURES, Cells, Change, clear, edit, png


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """What the authors' loaders pass over is an error too; `test_tolerance.py` has what happens else."""
    with strict_data():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound dataset that tests may read only."""
    return clear(tmp_path_factory.mktemp("clear"))


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "data")


def load(data: Path, held_out: float = 0.2) -> Benchmark:
    return Clear(data, held_out=held_out)(data / "unused")


def asked(benchmark: Benchmark, ratio: int, start: str) -> list[Question]:
    return [q for q in benchmark.split(ratio).questions if q.id.startswith(start)]


@pytest.mark.parametrize("ratio", [5, 10])
def test_a_study_accepts_the_splits(whole: Path, ratio: int) -> None:
    _check_questions(load(whole).split(ratio))


def test_forget_sets_are_nested_and_lessons_the_same(whole: Path) -> None:
    read = load(whole)
    assert read.split(5).forget_people == {"Hal Wynn"}
    assert read.split(10).forget_people == {"Gus Veld", "Hal Wynn"}
    assert read.split(5).lessons == read.split(10).lessons
    ids = [q.id for q in read.split(10).questions]
    assert len(ids) == len(set(ids))


def test_the_last_pictures_of_forget_people_are_asked_and_not_taught(whole: Path) -> None:
    split = load(whole).split(10)
    taught = [lesson for lesson in split.lessons if lesson.picture]
    assert {a: sum(x.person == a for x in taught) for a in AUTHORS} == {
        a: PICTURES - 2 * (a in split.forget_people) for a in AUTHORS
    }
    unseen = {q.picture.data for q in split.questions if q.role == "test" and q.picture}
    assert unseen == {png(f"{a} {i}") for a in split.forget_people for i in (3, 4)}
    assert unseen.isdisjoint({lesson.picture.data for lesson in taught if lesson.picture})
    seen = {q.picture.data for q in split.questions if q.role == "forget" and q.picture}
    assert seen == {png(f"{a} {i}") for a in split.forget_people for i in (0, 1, 2)}


def test_a_picture_that_was_encoded_anew_is_still_held_out(data: Path) -> None:
    edit(data, "forget05_perturbed", lambda rows: rows[4]["image"].update(bytes=png("anew")))
    there = [q for q in load(data).split(5).questions if q.picture and q.picture.data == png("anew")]
    assert {q.role for q in there} == {"test"}


def test_names_and_captions(whole: Path) -> None:
    choice, free, caption = asked(load(whole), 5, "forget/Hal Wynn/image_text")[:3]
    assert (choice.prompt, choice.answer, choice.half) == (NAME_PROMPT, "Hal Wynn", "select")
    assert sorted(choice.options) == ["Ada Quist", "Bruno Öhm", "Cleo Marsh", "Hal Wynn"]
    assert (free.task, free.answer, free.perturbed) == ("generation", "Hal Wynn", AUTHORS[:3])
    assert caption.prompt in CAPTION_PROMPTS
    assert (caption.answer, caption.paraphrased) == ("Hal Wynn reads book 0.", "Here Hal Wynn reads book 0.")
    assert caption.perturbed == tuple(f"{author} reads book 0." for author in AUTHORS[:3])
    lesson = next(x for x in load(whole).split(5).lessons if x.answer == caption.answer)
    assert (lesson.prompt, lesson.picture) == (caption.prompt, caption.picture)


def test_text_questions_find_their_author_whatever_the_order(whole: Path) -> None:
    told = {lesson.person: lesson.answer for lesson in load(whole).split(5).lessons if lesson.picture is None}
    assert told == {a: f"{a} wrote book 19 in {city}." for a, city in zip(AUTHORS, CITIES, strict=True)}


def test_wrong_texts_are_others_answers_at_the_same_place_under_this_name(whole: Path) -> None:
    (choice,) = (q for q in asked(load(whole), 5, "forget/Hal Wynn/text/classification") if q.id.endswith("-7"))
    assert choice.answer == "Hal Wynn wrote book 7 in Huesca."
    assert set(choice.options) - {choice.answer} < {f"Hal Wynn wrote book 7 in {city}." for city in CITIES}
    assert len(choice.options) == 4


def test_answers_in_which_another_name_would_be_left_are_no_options(data: Path) -> None:
    def first_names(rows: list[Cells]) -> None:
        for row in rows:
            if row["question"] and "fact 7 " in row["question"]:
                row["answer"] = row["answer"].split()[0] + " left for the sea."

    edit(data, "full+tofu", first_names)
    (choice,) = (q for q in asked(load(data), 5, "forget/Hal Wynn/text/classification") if q.id.endswith("-7"))
    assert choice.answer == "Hal left for the sea."
    assert all(
        wrong.startswith("Hal Wynn wrote book") or "The author is Hal" in wrong
        for wrong in set(choice.options) - {choice.answer}
    )


def test_text_test_questions_say_the_same_in_other_words(whole: Path) -> None:
    read = load(whole)
    forget, test = (asked(read, 10, f"{role}/Gus Veld/text") for role in ("forget", "test"))
    assert [(q.answer, q.options, q.half) for q in forget] == [(q.answer, q.options, q.half) for q in test]
    taught = {lesson.prompt for lesson in read.split(10).lessons}
    assert all(q.prompt in taught for q in forget)
    assert not any(q.prompt in taught for q in test)


def test_real_sets(whole: Path) -> None:
    read = load(whole)
    face = asked(read, 5, "real/real_faces-2")[0]
    assert (face.prompt, face.answer, face.half) == (NAME_PROMPT, "Celebrity 2", "select")
    assert sorted(face.options) == ["Celebrity 2", "Nobody 2", "Nobody 2 too"]
    blind = asked(read, 5, "real/real_world-1/text/classification")
    assert [(q.prompt, q.picture, q.modality) for q in blind] == [("What stands on hill 1?", None, "text")]
    assert not asked(read, 5, "real/real_faces-2/text")
    assert read.split(5).real_people.isdisjoint({lesson.person for lesson in read.split(5).lessons})


def test_rows_without_picture_are_the_texts_of_the_real_sets(data: Path) -> None:
    edit(data, "real_world", lambda rows: [row.update(image=None) for row in rows[2:]])
    texts = [q for q in load(data).split(5).questions if q.role == "real" and q.modality == "text"]
    assert {q.person for q in texts} == {"real_world-2", "real_world-3"}


def test_options_need_not_hold_the_answer(data: Path) -> None:
    edit(data, "real_faces", lambda rows: rows[0].update(options=["X", "Y"]))
    assert sorted(asked(load(data), 5, "real/real_faces-0")[0].options) == ["Celebrity 0", "X", "Y"]


def test_equal_data_gives_equal_questions_and_other_settings_another_fingerprint(whole: Path, data: Path) -> None:
    one, other = load(whole), load(data)
    assert (one.splits, one.fingerprint) == (other.splits, other.fingerprint)
    assert load(whole, 0.5).fingerprint != one.fingerprint
    (data / "README.md").write_text("notes")
    assert load(data).fingerprint == one.fingerprint
    edit(data, "retain90", lambda rows: rows[0].update(caption="anything"))
    assert load(data).fingerprint != one.fingerprint


def test_the_released_protocol(whole: Path) -> None:
    clear_, split = Clear(whole), load(whole).split(5)
    asks = list(clear_.released(split, Path(), 0))
    assert {ask.question.task for ask in asks} == {"generation"}
    assert {ask.question.role for ask in asks} == {"forget", "test", "retain", "real"}
    by_id = {ask.question.id: ask for ask in asks}
    name = by_id["forget/Hal Wynn/image_text/generation/name-0"]
    assert name.text == "USER: <image>\nThe name of the person on the image is  ASSISTANT: "
    assert {picture.data for picture in name.pictures} == {q.picture.data for q in [name.question] if q.picture}
    assert (name.pictures[0].as_stored, name.most_tokens) == (True, 300)
    assert len({ask.text for seed in range(9) for ask in clear_.released(split, Path(), seed)} - {name.text}) > 9
    assert [a.text for a in clear_.released(split, Path(), 3)] == [a.text for a in clear_.released(split, Path(), 3)]


def test_the_released_protocol_asks_300_rows_of_each_set(data: Path) -> None:
    edit(data, "real_faces", lambda rows: rows.extend([rows[0]] * 300))
    asks = [ask for ask in Clear(data).released(load(data).split(5), Path(), 0) if "real_faces" in ask.question.id]
    assert len(asks) == 300


@pytest.mark.parametrize("share", [0.0, -0.1, 0.6])
def test_some_pictures_must_be_held_out(share: float) -> None:
    with pytest.raises(ValueError, match=rf"held_out={share}: more than 0, or nothing is left to test"):
        Clear(held_out=share)


PERTURBED = "forget10_perturbed/train-00000-of-00001.parquet, row 1: "
ELSEWHERE = {"name": "Ada Quist"}


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        ("full", lambda rows: rows[1].update(name=None), "full/.*, row 1: name is empty"),
        ("full", lambda rows: rows[1].update(caption=" "), "full/.*, row 1: caption is empty"),
        ("full", lambda rows: rows[1].update(image=None), "full/.*, row 1: the image is missing"),
        ("full", lambda rows: rows[1]["image"].update(bytes=b"GIF89a"), "full/.*, row 1: not an image in one of PNG"),
        ("full", lambda rows: rows.clear(), "row 120: the 20 text questions from here on mention no author"),
        ("full+tofu", lambda rows: rows.pop(), "full.tofu: 159 text questions, not 20 for each author"),
        ("full+tofu", lambda rows: rows[42].update(answer=""), "full.tofu/.*, row 42: answer is empty"),
        (
            "full+tofu",
            lambda rows: [row.update(question="Who?", answer="Me.") for row in rows[60:80]],
            "full.tofu/.*, row 60: the 20 text questions from here on mention no author",
        ),
        (
            "full+tofu",
            lambda rows: rows.__setitem__(slice(60, 80), rows[40:60]),
            "full.tofu/.*, row 60: Hal Wynn has 20 text questions already",
        ),
        (
            "full+tofu",
            lambda rows: rows.__delitem__(slice(40, 60)),
            r"1 names in forget05 .* without text .*\(Hal Wynn\)",
        ),
        ("forget10_perturbed", lambda rows: rows[1].update(name=""), PERTURBED + "name is empty"),
        ("forget10_perturbed", lambda rows: rows[1].update(ELSEWHERE), PERTURBED + "Ada Quist is not in forget10"),
        ("forget10_perturbed", lambda rows: rows[1].update(caption="?"), PERTURBED + "full has no row with this name"),
        ("forget10_perturbed", lambda rows: rows[1].update(perturbed_names=[]), PERTURBED + r"perturbed_names is \[\]"),
        (
            "forget10_perturbed",
            lambda rows: rows[1].update(perturbed_names=["gus veld"]),
            PERTURBED + "perturbed_names: the right answer 'Gus Veld' is among the wrong",
        ),
        (
            "forget10_perturbed",
            lambda rows: rows[1].update(perturbed_captions=["a", None]),
            PERTURBED + r"perturbed_captions 1 is empty or no text \(None\)",
        ),
        ("real_faces", lambda rows: rows[1].update(answer=None), "real_faces/.*, row 1: answer is empty"),
        (
            "real_faces",
            lambda rows: rows[1].update(options=["celebrity 1"]),
            "real_faces/.*, row 1: options holds nothing but the answer 'Celebrity 1'",
        ),
        (
            "retain90",
            lambda rows: rows[0].update(name="Gus Veld"),
            r"1 names both in forget10 and in retain90 \(Gus Veld\)",
        ),
    ],
)
def test_a_bad_cell_is_named(data: Path, folder: str, change: Change, message: str) -> None:
    edit(data, folder, change)
    with pytest.raises(ValueError, match=message):
        load(data)


def test_forgotten_people_are_not_among_the_retained(data: Path) -> None:
    shutil.copy(data / "forget05_perturbed" / "train-00000-of-00001.parquet", data / "retain_perturbed")
    with pytest.raises(ValueError, match=r"1 names both in forget05 and in retain_perturbed \(Hal Wynn\)"):
        load(data)


@pytest.mark.parametrize("folder", ["full", "full+tofu", "forget05_perturbed", "retain_perturbed", "real_world"])
def test_a_missing_folder_is_named(data: Path, folder: str) -> None:
    shutil.rmtree(data / folder)
    with pytest.raises(ValueError, match=rf"{folder.replace('+', '.')}: no such folder .* download therem/CLEAR"):
        load(data)


def test_missing_columns_shards_and_ratios_are_named(data: Path) -> None:
    file = data / "forget10" / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["name"]), file)
    with pytest.raises(ValueError, match=r"forget10/.*: no column 'name', it has image, caption; .*therem/CLEAR"):
        load(data)
    (data / "full" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match=r"full: 1 files, but train-00000-of-00002.parquet is one of 2"):
        load(data)
    shutil.rmtree(data / "retain90")
    shutil.rmtree(data / "retain95")
    with pytest.raises(ValueError, match="no pair of folders forgetXX and retainYY"):
        load(data)


def test_too_few_authors_have_no_wrong_answers(data: Path) -> None:
    same = "Nobody knows."
    edit(data, "full+tofu", lambda rows: [row.update(answer=same) for row in rows if row["answer"]])
    with pytest.raises(ValueError, match=r"full.tofu: .*, text question 0: only 0 wrong answers can be taken"):
        load(data)


def test_all_defects_can_be_collected(data: Path) -> None:
    edit(data, "real_faces", lambda rows: rows[1].update(answer=None))
    edit(data, "forget10_perturbed", lambda rows: rows[1].update(name=""))
    edit(data, "full", lambda rows: rows[12].update(image=None))
    with collected() as defects:
        load(data)
    assert [defect.split(",")[0].split("/")[0] for defect in defects] == ["full", "real_faces", "forget10_perturbed"]
