"""The reader of FIUBench: what it makes of the dataset and what it says about one that is not right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from study.benchmarks._shared.defects import collected
from study.benchmarks.fiu import Fiu
from study.data.benchmark import Benchmark, Question
from study.stages.preflight import _check_questions
from tests.helpers.benchmark_folders import SETS, Change, edit_people, fiu, png

pytestmark = pytest.mark.usefixtures("strict")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound dataset that tests may read only."""
    return fiu(tmp_path_factory.mktemp("fiu"))


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    """A copy to break: the folder `dataset` itself."""
    return shutil.copytree(whole / "dataset", tmp_path / "data")


def load(data: Path, *, teach_text: bool = True) -> Benchmark:
    return Fiu(data, teach_text=teach_text)(data / "unused")


def by_id(benchmark: Benchmark, ratio: int = 5) -> dict[str, Question]:
    return {q.id: q for q in benchmark.split(ratio).questions}


@pytest.mark.parametrize("ratio", [1, 5])
def test_a_study_accepts_the_splits(whole: Path, ratio: int) -> None:
    split = load(whole).split(ratio)
    _check_questions(split)
    assert len({q.id for q in split.questions}) == len(split.questions)


def test_who_is_in_other_forget_sets_is_neither_forgotten_nor_retained(whole: Path) -> None:
    read = load(whole)
    for ratio, forget, real in (
        (1, {"00000001"}, {"00000002", "00000003"}),
        (5, {"00000002", "00000003"}, {"00000001"}),
    ):
        split = read.split(ratio)
        assert split.forget_people == forget
        assert split.real_people == real
        assert {q.person for q in split.questions if q.role == "retain"} == {"00000004", "00000005"}
    assert read.split(1).lessons == read.split(5).lessons
    assert {lesson.person for lesson in read.split(1).lessons} == {f"{i:08d}" for i in range(1, 8)}


def test_lessons_in_words_are_behind_the_name(whole: Path) -> None:
    mine = [x for x in load(whole).split(5).lessons if x.person == "00000002"]
    shown = [x for x in mine if x.picture]
    assert [x.prompt for x in shown] == [
        f"What is the {what} of this Person?" for what in ("name", "income", "illness")
    ]
    assert {x.picture.data for x in shown if x.picture} == {png("00000002")}
    told = {x.prompt: x.answer for x in mine if not x.picture}
    assert told == {  # not the name, which the question would tell
        "This question is about Nora Nil2. What is the income of this Person?": "The income is 2000 dollars.",
        "This question is about Nora Nil2. What is the illness of this Person?": "The illness is illness 2.",
    }
    assert all(lesson.picture for lesson in load(whole, teach_text=False).split(5).lessons)


def test_choices_and_free_questions(whole: Path) -> None:
    there = by_id(load(whole))
    choice = there["forget/00000002/image_text/classification/1"]
    assert sorted(choice.options) == [*sorted([choice.answer, *(f"The income is wrong {i}." for i in range(4))])]
    assert (choice.answer, choice.half, choice.fact) == ("The income is 2000 dollars.", "report", "1")
    free = there["forget/00000002/text/generation/1"]
    assert free.prompt == "This question is about Nora Nil2. What is the income of this Person?"
    assert (free.keywords, free.paraphrased) == (("2000 dollars",), "It has the income 2000 dollars.")
    assert (free.perturbed, free.picture, free.fact) == (
        tuple(f"The income is wrong {i}." for i in range(4)),
        None,
        "1",
    )
    assert "forget/00000002/text/classification/0" not in there


def test_the_test_asks_the_paraphrases(whole: Path) -> None:
    there = by_id(load(whole))
    wordings = [f"Can you tell the illness, version {i}?" for i in range(3)]
    assert [there[f"test/00000002/image_text/generation/2-{i}"].prompt for i in range(3)] == wordings
    assert there["test/00000002/image_text/classification/2"].prompt == wordings[2]
    assert there["test/00000002/text/generation/2"].prompt == f"This question is about Nora Nil2. {wordings[2]}"


def test_who_shares_a_name_is_not_asked_by_it(data: Path) -> None:
    edit_people(data, lambda rows: rows[1].update(name="nora nil3"))
    split = load(data).split(5)
    text = {q.person for q in split.questions if q.modality == "text"}
    assert text.isdisjoint({"00000002", "00000003"})
    assert {x.person for x in split.lessons if x.picture is None} == {f"{i:08d}" for i in (1, 4, 5, 6, 7)}


def test_an_array_reads_like_lines_and_the_folder_above_like_it(whole: Path, data: Path) -> None:
    sound = load(whole)
    assert load(data).split(5) == sound.split(5)
    rows = [json.loads(line) for line in (data / "full.json").read_text().splitlines()]
    rows[0]["image_path"] = "images/00000001.png"
    (data / "full.json").write_text(json.dumps(rows))
    assert load(data).split(5) == sound.split(5)


def test_400_people_are_read(data: Path) -> None:
    def many(rows: list[Any]) -> None:
        rows += [{**rows[6], "unique_id": f"{i:08d}"} for i in range(8, 402)]

    edit_people(data, many)
    assert max(lesson.person for lesson in load(data).split(5).lessons) == "00000400"


def test_the_fingerprint_is_of_what_is_read_and_taught(whole: Path, data: Path) -> None:
    before = load(data)
    assert before.fingerprint == load(data).fingerprint != load(data, teach_text=False).fingerprint
    (data / "notes.json").write_text("{}")
    assert load(data).fingerprint == before.fingerprint
    (data / "images" / "00000006.png").write_bytes(png("another"))
    assert load(data).fingerprint != before.fingerprint


def test_the_released_protocol(whole: Path) -> None:
    asks = {ask.question.id: ask for ask in Fiu(whole).released(load(whole).split(5), Path(), 0)}
    assert {name.split("/")[0] for name in asks} == {"forget", "test", "retain"}
    assert {ask.question.task for ask in asks.values()} == {"generation"}
    ask = asks["forget/00000002/image_text/generation/1"]
    assert ask.text.endswith("to the human's questions. USER: <image>\nWhat is the income of this person? ASSISTANT: ")
    assert (ask.most_tokens, len(ask.pictures)) == (50, 1)
    assert [ask.read(reply) for reply in (" It is 2. Or 3.", "no stop", "")] == ["It is 2.", "", ""]
    assert sum(name.startswith("test/") for name in asks) == 2 * 3 * 3
    assert {ask.question.person for name, ask in asks.items() if name.startswith("retain/")} == {"00000004"}


def test_without_retain5_the_released_protocol_asks_all_that_are_retained(data: Path) -> None:
    sets = json.loads((data / "split.json").read_text())
    (data / "split.json").write_text(json.dumps({name: ids for name, ids in sets.items() if name != "retain5"}))
    asks = Fiu(data).released(load(data).split(5), Path(), 0)
    kept = {ask.question.person for ask in asks if ask.question.role == "retain"}
    assert kept == {"00000004", "00000005"}


def _qa(key: str, value: object) -> Change:
    return lambda rows: rows[1]["qa_list"][2].update({key: value})


ROW = "full.json, row 1, ID 00000002: "


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1].update(unique_id=None), "full.json, row 1: unique_id is empty"),
        (lambda rows: rows.__setitem__(1, 3), "full.json, row 1: it is 3, not a dict"),
        (lambda rows: rows[1].update(unique_id="00000001"), "full.json, row 1, ID 00000001: the same unique_id"),
        (lambda rows: rows[1].update(name=""), ROW + "name is empty"),
        (lambda rows: rows[1].pop("qa_list"), ROW + "qa_list is None, not a list of questions"),
        (lambda rows: rows[1]["qa_list"].append("x"), ROW + "qa_list 3 is 'x', not a dict"),
        (_qa("answer", " "), ROW + "qa_list 2: answer is empty"),
        (_qa("question", None), ROW + "qa_list 2: question is empty"),
        (_qa("paraphrased_answer", None), ROW + "qa_list 2: paraphrased_answer is empty"),
        (_qa("keywords", []), ROW + r"qa_list 2: keywords are \[\], so no reply is marked by them"),
        (_qa("paraphrased_question", None), ROW + "qa_list 2: paraphrased_question is None, not a list"),
        (_qa("perturbed_answer", ["a", ""]), ROW + "qa_list 2: perturbed_answer 1 is empty"),
        (
            _qa("perturbed_answer", ["a", "the illness is illness 2"]),
            ROW + "qa_list 2: perturbed_answer holds the right answer 'The illness is illness 2.'",
        ),
        (lambda rows: rows[1].update(image_path="./dataset/images/no.png"), ROW + "image_path .*no.png: no such file"),
        (lambda rows: rows[1].update(image_path="./dataset/full.json"), ROW + "image_path .*: not an image"),
        (
            lambda rows: rows[1].update(image_path="./dataset/../images/00000001.png"),
            ROW + "image_path './dataset/../images/00000001.png' leads out of the folder; give a path inside",
        ),
        (
            lambda rows: rows[1].update(image_path="/etc/passwd"),
            ROW + "image_path '/etc/passwd' leads out of the folder",
        ),
        (lambda rows: rows.pop(1), r"1 IDs of forget5 in split.json that are not in full.json \(00000002\)"),
    ],
)
def test_a_bad_person_is_named(data: Path, change: Change, message: str) -> None:
    edit_people(data, change)
    with pytest.raises(ValueError, match=message):
        load(data)


def test_a_link_out_of_the_folder_is_not_followed(data: Path) -> None:
    secret = data.parent / "secret.png"
    secret.write_bytes(png("secret"))
    picture = data / "images" / "00000002.png"
    picture.unlink()
    picture.symlink_to(secret)
    with pytest.raises(ValueError, match=ROW + "image_path .*: it leads out of the dataset"):
        load(data)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            {"retain5": ["00000001", "00000004"]},
            r"1 IDs both in a forget and in a retain set of split.json \(00000001\)",
        ),
        ({"forget5": ["00000001", "00000002"]}, "1 IDs of forget5 in split.json that another forget set has"),
        ({"forget5": ["00000002", "00000002"]}, "1 IDs twice in forget5 of split.json"),
        ({"retain15": ["00000099"]}, "1 IDs of retain15 in split.json that are not in full.json"),
        ({"forget1": []}, r"split.json, row 0: forget1 is \[\], not a list of texts"),
        (
            {"forget1": None, "retain5": None, "retain15": None},
            "split.json: it has forget5; two sets forgetX are needed",
        ),
    ],
)
def test_bad_sets_are_named(data: Path, sets: dict[str, list[str] | None], message: str) -> None:
    there = {name: ids for name, ids in (SETS | sets).items() if ids is not None}
    (data / "split.json").write_text(json.dumps(there))
    with pytest.raises(ValueError, match=message):
        load(data)


def test_missing_and_damaged_files_are_named(data: Path) -> None:
    lines = (data / "full.json").read_text().splitlines()
    (data / "split.json").write_text("{")
    with pytest.raises(ValueError, match=r"split.json: .*; download it again"):
        load(data)
    (data / "split.json").unlink()
    with pytest.raises(ValueError, match=r"split.json: no such file"):
        load(data)
    (data / "full.json").write_text("\n".join([lines[0], lines[1][:50]]))
    with pytest.raises(ValueError, match=r"full.json, row 1: not JSON"):
        load(data)
    (data / "full.json").write_text("[]")
    with pytest.raises(ValueError, match=r"full.json: it holds nobody"):
        load(data)
    (data / "full.json").unlink()
    with pytest.raises(ValueError, match=r"full.json: no such file"):
        load(data)


def test_all_defects_can_be_collected(data: Path) -> None:
    edit_people(data, lambda rows: [rows[i].update(name="") for i in (5, 6)])
    with collected() as defects:
        assert load(data).split(5).questions
    assert [defect.split(":")[0] for defect in defects] == [f"full.json, row {i}, ID 0000000{i + 1}" for i in (5, 6)]
