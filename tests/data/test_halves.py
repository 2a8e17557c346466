"""Validation and test half never ask for the same fact about the same person, where a dataset has facts enough."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from study.benchmarks.synthetic import Synthetic
from study.core.terms import HALVES, Half, Modality, Task
from study.data.benchmark import Benchmark, Question, Split
from study.data.halves import dealt_by_fact, facts_of, prepared, undealt

ANSWERS = ("Lisbon", "a pilot", "chess")


def question(
    number: int, answer: str, modality: Modality = "image_text", task: Task = "classification", attribute: str = ""
) -> Question:
    """One question about Ann, in the half that its number says."""
    half: Half = HALVES[number % 2]
    options = (answer, "wrong") if task == "classification" else ()
    return Question(
        f"{modality}/{task}/{number}", "ann", "forget", modality, task, half, "?", answer, options, attribute=attribute
    )


def split(*questions: Question) -> Split:
    """A split whose only forget person is Ann."""
    return Split(10, frozenset({"ann"}), (), questions)


def halves_of_facts(found: Split) -> dict[tuple[str, str], set[str]]:
    """The halves in which each fact about each person is asked."""
    together: dict[tuple[str, str], set[str]] = {}
    for person in {q.person for q in found.questions}:
        asked = [q for q in found.questions if q.person == person]
        for q, fact in ((q, facts_of(asked)[q.id]) for q in asked):
            together.setdefault((person, fact), set()).add(q.half)
    return together


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """The embedded benchmark as its reader gives it."""
    return Synthetic(people=20, celebrities=8, views=1, test_views=1, strangers=0)(tmp_path_factory.mktemp("data"))


def test_no_fact_of_the_embedded_benchmark_is_in_both_halves(synthetic: Benchmark) -> None:
    whole = prepared(synthetic)
    for ratio, found in whole.splits.items():
        assert set(map(len, halves_of_facts(found).values())) == {1}, ratio
        assert undealt(found) == []
        assert undealt(synthetic.split(ratio)) == sorted(found.forget_people)
        kinds = Counter((q.role, q.modality, q.half) for q in found.questions if q.task == "classification")
        for role, modality, _ in kinds:
            one, other = (kinds[role, modality, half] for half in HALVES)
            assert abs(one - other) <= 0.25 * (one + other), (role, modality)


def test_a_person_has_the_same_halves_in_every_role_and_ratio(synthetic: Benchmark) -> None:
    halves: dict[tuple[str, str], set[str]] = {}
    for found in prepared(synthetic).splits.values():
        for key, there in halves_of_facts(found).items():
            halves.setdefault(key, set()).update(there)
    assert set(map(len, halves.values())) == {1}


def test_rows_of_other_halves_are_not_taken_for_these(synthetic: Benchmark) -> None:
    assert prepared(synthetic).fingerprint == prepared(synthetic).fingerprint != synthetic.fingerprint


def test_facts_without_labels_are_told_by_the_answers() -> None:
    choices = [question(n, ANSWERS[n // 2]) for n in range(6)]
    sentence = question(6, "This person lives in Lisbon.", task="generation")
    found = dealt_by_fact(split(*choices, sentence))
    assert set(map(len, halves_of_facts(found).values())) == {1}
    assert found.questions[6].half == found.questions[0].half == found.questions[1].half


def test_a_label_and_an_answer_that_mean_the_same_stay_together() -> None:
    labelled = [question(n, ANSWERS[n], attribute=name) for n, name in enumerate(("residence", "job", "hobby"))]
    found = dealt_by_fact(split(*labelled, question(3, "Lisbon", "image_text", "cloze")))
    assert found.questions[3].half == found.questions[0].half


def test_who_has_too_few_facts_stays_as_the_dataset_has_it() -> None:
    names = split(question(0, "Ann"), question(1, "Ann"))
    assert dealt_by_fact(names) == names
    assert undealt(names) == ["ann"]


def test_each_modality_keeps_both_halves() -> None:
    shared, image, text = question(0, "Lisbon"), question(1, "a pilot"), question(2, "chess", "text")
    also = replace(shared, id="text/classification/0", modality="text")
    found = dealt_by_fact(split(shared, also, image, text))
    for modality in ("image_text", "text"):
        assert {q.half for q in found.questions if q.modality == modality} == set(HALVES)


def test_attributes_are_dealt_where_there_are_two(synthetic: Benchmark) -> None:
    """A single attribute is a single fact, which both halves ask for; two are dealt, and so is what is spared."""
    one, two = prepared(synthetic, ("residence",)), prepared(synthetic, ("residence", "occupation"))
    assert one.split(10).forget_attributes == frozenset({"residence"})
    assert len({one.fingerprint, two.fingerprint, prepared(synthetic).fingerprint}) == 3
    assert undealt(one.split(10)) == sorted(one.split(10).forget_people)
    assert undealt(two.split(10)) == []
    for found in (one.split(10), two.split(10)):
        kinds = {(q.role, q.modality, q.half) for q in found.questions if q.task == "classification"}
        assert kinds == {(role, modality, half) for role, modality, _ in kinds for half in HALVES}
