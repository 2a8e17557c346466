"""The check of a dataset: its counts, its hints, and what the command prints and returns."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from study.benchmarks import _check as checking
from study.benchmarks.__main__ import main
from study.benchmarks.own import Own
from study.core.console import console
from study.core.terms import HALVES, Modality, Role, Task
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.data.halves import prepared
from study.data.picture import Picture
from tests import ROOT
from tests.benchmarks.test_own import dataset, people, png, write_table


def question(
    number: int,
    person: str = "a",
    role: Role = "forget",
    *,
    answer: str = "Rome",
    options: tuple[str, ...] = ("Rome", "Oslo", "Lima", "Bern"),
    modality: Modality = "image_text",
    task: Task = "classification",
    picture: Picture | None = None,
) -> Question:
    return Question(
        id=f"{role}/{person}/{modality}/{task}/{number}",
        person=person,
        role=role,
        modality=modality,
        task=task,
        half=HALVES[number % 2],
        prompt="Where?",
        answer=answer,
        options=options if task == "classification" else (),
        picture=picture,
        attribute="residence",
    )


def planted(questions: Iterable[Question], lessons: Iterable[Lesson] = (), ratio: int = 5) -> Benchmark:
    some = tuple(questions)
    forget = frozenset(q.person for q in some if q.role == "forget")
    return Benchmark("planted", "0", {ratio: Split(ratio, forget, tuple(lessons), some)})


def hints(benchmark: Benchmark) -> str:
    return "\n".join(checking.hints(benchmark))


# ---- counts ----------------------------------------------------------------------------------------------------------
def test_what_is_taught_is_counted() -> None:
    shown, other = Picture(png(1), "1"), Picture(png(2), "2")
    lessons = [
        Lesson("a", "Where?", "Rome", shown, "residence"),
        Lesson("a", "Who?", "Ann", shown),
        Lesson("b", "Where?", "Oslo", None, "residence"),
    ]
    asked = [question(0, picture=other), question(1, "c", "retain")]
    benchmark = replace(planted(asked, lessons), strangers=(Picture(png(3), "3"),))
    assert [number for _, number in checking.taught(benchmark)] == [2, 2, 2, 1, 1, 3, 1, 1]


def test_what_is_asked_is_counted_by_group_and_ratio() -> None:
    asked = [question(n, person) for person in "ab" for n in range(3)] + [question(0, "c", "real", task="cloze")]
    benchmark = planted(asked)
    benchmark = replace(benchmark, splits={**benchmark.splits, 10: Split(10, frozenset(), (), ())})
    assert checking.asked(benchmark) == [
        ["forget", "image_text", "classification", "2: 4 + 2", "0: 0 + 0"],
        ["real", "image_text", "cloze", "1: 1 + 0", "0: 0 + 0"],
    ]


# ---- numbers ---------------------------------------------------------------------------------------------------------
def test_the_interval_of_125_answers_is_nine_points() -> None:
    assert checking.interval(125) == pytest.approx(0.08765, abs=1e-4)  # 1.96 sqrt(0.25 / 125)
    assert checking.interval(1) == pytest.approx(0.98)
    assert checking.interval(0) == 1.0


def test_frequency_is_that_of_others_and_ties_are_guesses() -> None:
    kept = [question(n, f"r{n}", "retain", answer=city) for n, city in enumerate(["Rome", "rome.", "Oslo", "Lima"])]
    right = question(0, answer="Rome")  # Rome is right twice of others
    wrong = question(1, answer="Lima")
    tied = question(2, answer="Lima", options=("Lima", "Oslo", "Bern"))  # Lima and Oslo once each
    unseen = question(3, answer="Bern", options=("Bern", "Kyiv"))
    assert checking.most_frequent(planted([*kept, right, wrong, tied, unseen]).split(5)) == (1 + 0 + 0.5 + 0.5) / 4
    other = replace(right, attribute="birthplace")
    assert checking.most_frequent(planted([*kept, other]).split(5)) == 0.25


def test_an_answer_is_stated_by_a_lesson_of_that_person_only() -> None:
    lessons = [Lesson("a", "Where?", "Ann lives in Rome."), Lesson("b", "Where?", "Oslo")]
    asked = [question(0), question(1, answer="Oslo"), question(0, "b", answer="Oslo"), question(1, "b", answer="Rom")]
    found = checking.memorability(planted(asked, lessons).split(5))
    assert found.stated == 0.5
    assert (found.people, found.lessons, found.pictures, found.chance) == (2, 1, 0, 0.25)
    assert found.interval == (checking.interval(2), checking.interval(2))
    assert found.words == {"classification": 1}


def test_where_nothing_is_asked_nothing_is_claimed() -> None:
    found = checking.memorability(planted([question(0, role="retain")]).split(5))
    assert math.isnan(found.stated)
    assert math.isnan(found.guessed)
    assert "a study refuses it" in hints(planted([question(0, role="retain")]))


# ---- hints -----------------------------------------------------------------------------------------------------------
def test_what_a_study_refuses_is_told() -> None:
    told = hints(planted([question(0), question(1)]))
    assert "no text multiple-choice question about forget people falls into the validation or the test half" in told
    assert "no image_text multiple-choice question about real people" in told
    assert "no image_text multiple-choice question about forget people" not in told


def test_what_makes_a_dataset_hard_is_told() -> None:
    shown = Picture(png(1), "1")
    asked = [question(n, picture=shown) for n in range(2)] + [question(0, role="test", picture=shown)]
    asked += [question(n, f"r{n}", "retain") for n in range(4)]  # Rome, always
    long = replace(question(0, task="generation"), answer=" ".join(["word"] * 13))
    told = hints(planted([*asked, long], [Lesson("a", "Where?", "Roma", shown)]))
    for expected in (
        "there are no text lessons",
        "1 of 1 lessons do not say which attribute",
        "1 lessons of each forget person are few",
        "1 pictures of each forget person are taught",
        "100% of the test questions about pictures show a taught picture",
        "100% of the multiple-choice questions about forget people have an answer that no lesson states",
        "100% of the multiple-choice questions about forget people can be answered by frequency alone",
        "generation answers have 13 words",
        "1 forget people: the 95 % interval of an accuracy near 50 % on their pictures is +/- 98 points",
    ):
        assert expected in told, expected


def test_a_sound_dataset_is_told_little(benchmark: Benchmark) -> None:
    only = replace(benchmark, splits={15: benchmark.split(15)})
    told = list(checking.hints(only))
    assert len(told) == 2
    assert told[-1].startswith("forget ratio 15: 3 forget people: the 95 % interval of an accuracy")
    assert all("pictures of each forget person are taught" in hint for hint in told[:-1])  # this one has two


def test_attributes_that_are_never_a_choice_or_not_of_everybody_are_told() -> None:
    lessons = [
        Lesson("a", "Where?", "Rome", None, "residence"),
        Lesson("b", "Where?", "Oslo", None, "residence"),
        Lesson("a", "School?", "University of Rome", None, "school"),
    ]
    told = hints(planted([question(0)], lessons))
    assert "school is taught but has no multiple-choice question" in told
    assert "school is taught for 1 of 2 people" in told
    assert "residence is" not in told
    assert "1 of 2 people have a fact that contains another one of theirs" in told


# ---- as the model sees it --------------------------------------------------------------------------------------------
def test_placeholders_are_counted() -> None:
    assert checking.shown([1, 9, 9, 9, 2, 3], 9, lambda ids: "".join(map(str, ids))) == "1<image x 3>23"
    assert checking.shown([1, 9, 2, 9], 9, lambda ids: "".join(map(str, ids))) == "1<image x 1>2<image x 1>"


def test_one_example_of_each_kind() -> None:
    asked = [question(1, "b"), question(1), question(0), question(0, task="cloze"), question(0, "c", "real")]
    found = checking.examples(planted(asked).split(5))
    assert [q.id for q in found] == [asked[2].id, asked[3].id, asked[4].id]


# ---- the command -----------------------------------------------------------------------------------------------------
def run(*arguments: str) -> tuple[int, str]:
    with console.capture() as capture:
        status = main(list(arguments))
    return status, capture.get()


def test_a_sound_dataset_passes(tmp_path: Path) -> None:
    status, told = run(f"own:{dataset(tmp_path)}")
    assert status == 0
    assert "No defect: every row and every picture can be read." in told
    assert "people taught" in told
    assert run("check", f"own:{tmp_path}") == (status, told.replace("check ", ""))


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "notes.txt"
    place.touch()
    status, told = run("synthetic", "--data", str(place / "made"))
    assert status == 2
    assert f"{place} is a file; choose another --data" in " ".join(told.split())


def test_questions_are_counted_in_the_halves_of_a_study(tmp_path: Path) -> None:
    read = Own(path=dataset(tmp_path))(tmp_path)
    told = run(f"own:{tmp_path}")[1]
    assert f"fingerprint {read.fingerprint}" in told
    as_read, dealt = (checking.asked(benchmark)[0][-1] for benchmark in (read, prepared(read)))
    assert str(dealt) in told
    assert str(as_read) not in told


def test_every_defect_is_printed(tmp_path: Path) -> None:
    rows = people()
    dataset(tmp_path, rows)
    rows[2]["name"] = ""
    write_table(tmp_path, rows)
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, "PNG")
    (tmp_path / "images" / "p05" / "0.png").write_bytes(buffer.getvalue()[:900])  # its header is whole
    status, told = run(f"own:{tmp_path}")
    assert status == 1
    assert "2 defects, because of which a study refuses it" in told
    assert "- people.csv, line 4: p02 has no name; text questions need one" in told
    assert "- images/p05/0.png: the image is damaged" in told


def test_what_cannot_be_read_is_another_status(tmp_path: Path) -> None:
    status, told = run(f"own:{tmp_path / 'nowhere'}")
    assert (status, "nowhere: no such folder" in told, "No defect" in told) == (2, True, False)
    dataset(tmp_path)
    (tmp_path / "people.csv").write_text("id,name,residence\np00,,Rome\np01,Bo\n")
    status, told = run(f"own:{tmp_path}")
    assert status == 2
    assert "line 2: p00 has no name" in told  # what was found until then is not lost
    assert "error: " in told
    assert run("own")[0] == run("nonsense")[0] == 2


def test_questions_are_shown_as_the_model_sees_them(tmp_path: Path, tiny_folder: Path) -> None:
    status, told = run(f"own:{dataset(tmp_path)}", "--model", str(tiny_folder))
    assert status == 0
    assert told.count("<image x ") == 4 * 3  # roles x tasks
    assert "test text cloze" in told
    assert told.count("\n  * ") == 4 * 2 * 3
    assert told.count("\n  - ") == 4 * 2 * 3  # the wrong options of choices
    assert "(tokens that the model does not know)" not in told  # the tiny model writes other words in bytes


@pytest.mark.slow
def test_it_is_a_command(tmp_path: Path) -> None:
    dataset(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "study.benchmarks", f"own:{tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "What is asked" in done.stdout


def test_its_numbers_need_no_torch() -> None:
    script = "import sys, study.benchmarks._check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
