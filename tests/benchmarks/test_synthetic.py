"""The synthetic benchmark: its files, its people, its questions and its faces."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.benchmarks._synthetic.people import make_people, tasks
from study.benchmarks.synthetic import EVALUATION, PORTRAITS, TEACHING, TESTING, Synthetic
from study.data import synthetic_faces, synthetic_language
from study.data.benchmark import Benchmark, Lesson, Question
from study.data.facts import facts

SMALL = Synthetic(people=20, celebrities=8, views=2, strangers=5, size=24)
RATIOS = {5: 1, 10: 2, 15: 3, 20: 4}
SCHEMAS = {
    "Full_Set": (EVALUATION, 20),
    "Retain_Set": (EVALUATION, 8),
    "Test_Set": (TESTING, 20),
    "ft_Data": (TEACHING, 28 * 3),
    "Strangers": (PORTRAITS, 5),
    **{f"forget_{ratio}": (EVALUATION, count) for ratio, count in RATIOS.items()},
    **{f"retain_{100 - ratio}": (EVALUATION, 20 - count) for ratio, count in RATIOS.items()},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("synthetic")


@pytest.fixture(scope="module")
def benchmark_read(folder: Path) -> Benchmark:
    return SMALL(folder)


@pytest.fixture(scope="module")
def questions(benchmark_read: Benchmark) -> tuple[Question, ...]:
    return benchmark_read.split(15).questions


@pytest.fixture(scope="module")
def lessons(benchmark_read: Benchmark) -> tuple[Lesson, ...]:
    return benchmark_read.split(15).lessons


@pytest.mark.usefixtures("benchmark_read")
def test_every_folder_has_the_columns_and_rows_of_the_layout(folder: Path) -> None:
    (home,) = folder.iterdir()
    assert {path.name for path in home.iterdir()} == set(SCHEMAS)
    for name, (schema, count) in SCHEMAS.items():
        files = sorted((home / name).iterdir())
        tables = [pq.read_table(file) for file in files]
        assert all(table.schema.equals(schema) for table in tables), name
        assert sum(table.num_rows for table in tables) == count, name
        assert [file.name for file in files] == [
            f"train-{i:05d}-of-{len(files):05d}.parquet" for i in range(len(files))
        ]
    assert len(list((home / "Test_Set").iterdir())) == 2


def test_it_reads_back_whole(benchmark_read: Benchmark) -> None:
    assert benchmark_read.name == "synthetic"
    assert len({picture.key for picture in benchmark_read.strangers}) == 5
    for ratio, count in RATIOS.items():
        split = benchmark_read.split(ratio)
        asked = Counter(f"{q.role} {q.modality} {q.task}" for q in split.questions)
        assert len(split.forget_people) == count
        for role, people in {"forget": count, "test": count, "retain": 20 - count, "real": 8}.items():
            for modality, choices in (("image_text", 14), ("text", 12)):
                assert asked[f"{role} {modality} classification"] == choices * people
                assert asked[f"{role} {modality} generation"] == asked[f"{role} {modality} cloze"] == 6 * people
        assert len({q.id for q in split.questions}) == len(split.questions)
        assert {q.person for q in split.questions if q.role in ("forget", "test")} == split.forget_people


def test_pictures_are_shown_with_image_questions_only(questions: tuple[Question, ...]) -> None:
    assert all((q.picture is not None) == (q.modality == "image_text") for q in questions)
    pictures = {q.picture for q in questions if q.picture}
    assert {picture.open().size for picture in pictures} == {(24, 24)}


def test_each_half_asks_every_fact_in_other_words_with_other_wrong_options(questions: tuple[Question, ...]) -> None:
    asked: dict[tuple[str, ...], list[Question]] = defaultdict(list)
    for q in questions:
        if q.task == "classification":
            asked[q.role, q.person, q.modality, q.answer].append(q)
    for key, pair in asked.items():
        assert [len(pair), {q.half for q in pair}] == [2, {"select", "report"}], key
        assert pair[0].prompt != pair[1].prompt
        assert set(pair[0].options) & set(pair[1].options) == {pair[0].answer}


def test_both_halves_see_every_test_picture(questions: tuple[Question, ...]) -> None:
    seen: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for q in questions:
        if q.role == "test" and q.task == "classification" and q.picture:
            seen[q.person].add((q.half, q.picture.key))
    assert all(len(pairs) == 2 * SMALL.test_views for pairs in seen.values())


def test_options_are_answers_of_the_own_group_and_start_differently(questions: tuple[Question, ...]) -> None:
    groups: dict[bool, set[str]] = {False: set(), True: set()}
    for q in questions:
        groups[q.role == "real"].add(q.answer)
    for q in (q for q in questions if q.task == "classification"):
        assert len({synthetic_language.tokens(option)[0] for option in q.options}) == 4
        assert q.options.count(q.answer) == 1
        assert set(q.options) <= groups[q.role == "real"]


def test_the_right_option_is_anywhere(questions: tuple[Question, ...]) -> None:
    places = Counter(q.options.index(q.answer) for q in questions if q.task == "classification")
    assert all(abs(places[i] / places.total() - 0.25) < 0.05 for i in range(4))


@pytest.mark.parametrize("seed", range(20))
def test_any_group_has_enough_different_values(seed: int) -> None:
    for group in make_people(20, 8, 6, seed):
        for values in zip(*(person.values for person in group), strict=True):
            assert len(set(values)) >= 7
        assert all(tasks(person, group, half, seed) for person in group for half in (0, 1))


def test_frequent_values_give_little_away() -> None:
    """Whoever knows only how often each value occurs among the retained does about as well as chance."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for seed in range(40):
        people, _ = make_people(40, 8, 6, seed)
        held = Counter(value for person in people[6:] for value in person.values)
        for person in people[:6] + people[-6:]:
            for item in tasks(person, people, 0, seed)["Classification_Task"]["Pure_Text_Questions"]:
                guess = max(item["Options"], key=lambda letter: held[item["Options"][letter]])
                hits[person in people[:6]].append(guess == item["Correct_Answer"])
    assert 0.1 < float(np.mean(hits[True])) < 0.3
    assert 0.2 < float(np.mean(hits[False])) < 0.35


def test_rewritten_questions_are_taught_of_celebrities_only(
    questions: tuple[Question, ...], lessons: tuple[Lesson, ...]
) -> None:
    tested = {q.prompt for q in questions if q.role == "test" and q.modality == "image_text"}
    asked = {q.prompt for q in questions if q.role == "forget" and q.modality == "image_text"}
    famous = {lesson.prompt for lesson in lessons if lesson.person > "500"}
    others = {lesson.prompt for lesson in lessons if lesson.person < "500"}
    assert tested <= famous
    assert not tested & others
    assert asked <= others


def test_lessons_state_the_facts_they_are_about(lessons: tuple[Lesson, ...]) -> None:
    values = {value for attribute in synthetic_language.ATTRIBUTES for value in attribute.values}
    stated = facts(lessons)
    names = {answer for answer in stated.values() if answer not in values}
    assert len(names) == 28
    per_person = Counter(person for person, _ in {(p, fact) for (p, _), fact in stated.items()})
    assert set(per_person.values()) == {7}
    pictured = Counter((lesson.person, lesson.picture) for lesson in lessons)
    assert all(n == (8 if p > "500" else 4) * (7 if picture else 6) for (p, picture), n in pictured.items())


def test_words_of_the_language_are_not_shared() -> None:
    values = [value for attribute in synthetic_language.ATTRIBUTES for value in attribute.values]
    names = [*synthetic_language.FIRST_NAMES, *synthetic_language.LAST_NAMES]
    assert len(set(values + names)) == len(values + names)
    assert len(synthetic_language.FIRST_NAMES) == len(synthetic_language.LAST_NAMES)
    longest = max(len(value) for value in values)
    assert min(map(len, synthetic_language.FIRST_NAMES)) + 1 + min(map(len, synthetic_language.LAST_NAMES)) > longest
    wordings = [
        t
        for a in (*synthetic_language.ATTRIBUTES, synthetic_language.NAME)
        for t in (*a.short, *a.open, a.sentence, *a.cloze)
    ]
    assert not {token for text in wordings for token in synthetic_language.tokens(text)} & set(values + names)
    assert all(len(synthetic_language.tokens(word)) == 1 for word in values + names)


@pytest.mark.parametrize("seed", [0, 7])
def test_every_token_is_in_the_vocabulary(tmp_path: Path, seed: int) -> None:
    split = dataclasses.replace(SMALL, views=1, strangers=0, people=70, seed=seed)(tmp_path).split(10)
    known = set(synthetic_language.words())
    texts = {text for lesson in split.lessons for text in (lesson.prompt, lesson.answer)}
    texts |= {text for q in split.questions for text in (q.prompt, q.answer, *q.options)}
    assert {token for text in texts for token in synthetic_language.tokens(text)} <= known


def test_articles() -> None:
    work = next(attribute for attribute in synthetic_language.ATTRIBUTES if attribute.name == "occupation")
    assert (
        synthetic_language.worded(work.sentence, "Adela Abbot", "architect") == "Adela Abbot has a job as an architect."
    )
    assert (
        synthetic_language.worded(work.sentence, synthetic_language.SOMEBODY, "nurse")
        == "This person has a job as a nurse."
    )


def test_the_same_seed_gives_the_same_bytes_once(folder: Path, tmp_path: Path, benchmark_read: Benchmark) -> None:
    assert SMALL(tmp_path).fingerprint == benchmark_read.fingerprint
    assert dataclasses.replace(SMALL, seed=1)(tmp_path).fingerprint != benchmark_read.fingerprint
    assert len(list(tmp_path.iterdir())) == 2
    (home,) = folder.iterdir()
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    assert SMALL(folder) == benchmark_read
    assert before == {path: path.stat().st_mtime_ns for path in home.rglob("*")}


def test_a_damaged_folder_says_how_to_mend_it(tmp_path: Path) -> None:
    SMALL(tmp_path)
    (home,) = tmp_path.iterdir()
    (home / "ft_Data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"is damaged \(ft_Data/train.*remove it and it is written again"):
        SMALL(tmp_path)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("study.benchmarks.synthetic._write_shards", interrupt)
    with pytest.raises(KeyboardInterrupt):
        SMALL(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("people", 19), ("people", 501), ("celebrities", 7), ("attributes", 7), ("views", 0), ("size", 8), ("seed", -1)],
)
def test_numbers_out_of_bounds_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field}={value}: choose a whole number from"):
        Synthetic(**{field: value})


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), other=st.integers(0, 2**32))
def test_public_and_reserved_faces_differ_in_two_visible_factors(seed: int, other: int) -> None:
    public = [synthetic_faces.random_face(random.Random(f"{seed} {i}"), public=True) for i in range(12)]
    reserved = [synthetic_faces.random_face(random.Random(f"{other} {i}"), public=False) for i in range(12)]
    assert all(synthetic_faces.is_public(face) and not synthetic_faces.is_reserved(face) for face in public)
    assert min(synthetic_faces.difference(a, b) for a in public for b in reserved) >= 2


def test_study_faces_are_reserved_and_four_factors_apart() -> None:
    faces = Synthetic(people=40, seed=3).faces()
    assert len(faces) == 50
    assert faces == Synthetic(people=40, seed=3).faces() != Synthetic(people=40, seed=4).faces()
    assert all(synthetic_faces.is_reserved(face) for face in faces)
    assert min(synthetic_faces.difference(a, b) for i, a in enumerate(faces) for b in faces[:i]) >= 4


def test_faces_can_be_avoided_and_can_run_out() -> None:
    first = synthetic_faces.distinct_faces(5, 0, 4, public=True)
    again = synthetic_faces.distinct_faces(5, 0, 4, public=True, avoid=first)
    assert min(synthetic_faces.difference(a, b) for a in first for b in again) >= 4
    with pytest.raises(ValueError, match="of 3 faces differ in 11 factors: ask for fewer"):
        synthetic_faces.distinct_faces(3, 0, 11, public=True)


def test_what_does_not_show_makes_no_difference() -> None:
    face = dataclasses.replace(
        synthetic_faces.random_face(random.Random(0)), hat="none", hair_style="bald", beard="none", hair_colour="red"
    )
    repainted = dataclasses.replace(face, hat_colour="purple", hair_colour="green")
    assert synthetic_faces.difference(face, repainted) == 0
    assert (
        synthetic_faces.difference(face, dataclasses.replace(face, eyes="blue" if face.eyes == "grey" else "grey")) == 1
    )


@pytest.mark.parametrize("hair", synthetic_faces.FACTORS["hair_style"])
@pytest.mark.parametrize("hat", synthetic_faces.FACTORS["hat"])
def test_every_head_is_drawn_in_any_view_and_size(hair: str, hat: str) -> None:
    rng = random.Random(f"{hair} {hat}")
    face = dataclasses.replace(synthetic_faces.random_face(rng), hair_style=hair, hat=hat)
    views = [synthetic_faces.train_view(rng), synthetic_faces.test_view(rng)]
    drawn = [synthetic_faces.draw(face, view, 32, np.random.default_rng(0)) for view in views]
    assert [(image.mode, image.size) for image in drawn] == [("RGB", (32, 32))] * 2
    assert drawn[0].tobytes() == synthetic_faces.draw(face, views[0], 32, np.random.default_rng(0)).tobytes()
    assert drawn[0].tobytes() != drawn[1].tobytes()


def test_every_visible_factor_changes_the_portrait() -> None:
    face = synthetic_faces.Face("sand", "red", "long", "blue", "none", "cap", "blue", "beard", "white", "oval")
    view = synthetic_faces.train_view(random.Random(0))
    plain = synthetic_faces.draw(face, view, 48, np.random.default_rng(0))
    for factor, values in synthetic_faces.FACTORS.items():
        other = next(value for value in values if value != getattr(face, factor))
        changed = synthetic_faces.draw(dataclasses.replace(face, **{factor: other}), view, 48, np.random.default_rng(0))
        assert np.abs(np.asarray(plain, dtype=int) - np.asarray(changed, dtype=int)).max() > 30, factor
