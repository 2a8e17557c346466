"""Rows by the strict protocol, against asking one option and one question at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from study.core.rows import ROW_COLUMNS
from study.data.benchmark import Benchmark, Question
from study.data.picture import Picture
from study.evaluation import scoring
from study.evaluation.membership import lowest_means
from study.evaluation.scoring import Reading, candidates, readings, replied, score
from study.model.likelihood import token_logps
from study.model.packing import Group, Prompt, batched, logits, pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import train
from study.training.schedule import Schedule

RIGHT = "This person lives in Rome."


@pytest.fixture(scope="module")
def questions(benchmark: Benchmark) -> list[Question]:
    """A few of every kind, on several pictures."""
    kinds: dict[tuple[str, str, str], list[Question]] = {}
    for question in benchmark.split(5).questions:
        kinds.setdefault((question.role, question.modality, question.task), []).append(question)
    return [question for of_a_kind in kinds.values() for question in of_a_kind[:: max(1, len(of_a_kind) // 3)][:3]]


@pytest.fixture
def taught(tiny: VLM, benchmark: Benchmark) -> VLM:
    """A model that has begun to learn: its replies differ and end."""
    schedule = Schedule(steps=60, learning_rate=1e-2, pictures=4, texts=2)
    drawn = Lessons(benchmark.split(5).lessons, schedule, 0)

    def loss(step: int) -> torch.Tensor:
        batch = pack(tiny, drawn.draw())
        return -token_logps(logits(tiny, batch), batch).mean()

    train(tiny, ("vision", "projector", "llm"), schedule, loss)
    return tiny


def choices(questions: Sequence[Question]) -> list[Question]:
    return [q for q in questions if q.task == "classification"]


def by_hand(vlm: VLM, question: Question, picture: Picture | None) -> list[float]:
    means = []
    for option in question.options:
        batch = pack(vlm, [Group(picture, (Prompt(question.prompt, (option,)),))], end=False)
        with torch.no_grad():
            means.append(float(token_logps(logits(vlm, batch), batch).double().mean()))
    weights = [np.exp(mean) for mean in means]
    return [float(weight / sum(weights)) for weight in weights]


def probabilities(vlm: VLM, questions: Sequence[Question], *, blind: bool = False) -> dict[str, list[float]]:
    return {key: reading.probabilities for key, reading in readings(vlm, questions, blind=blind).items()}


def generated(vlm: VLM, questions: Sequence[Question], *, blind: bool = False) -> dict[str, str | None]:
    return {key: reading.reply for key, reading in readings(vlm, questions, blind=blind).items()}


def a_question(task: str, answer: str, **changes: object) -> Question:
    base = Question("i", "1", "forget", "text", "cloze", "select", "Where?", "x")
    return replace(base, task=task, answer=answer, **changes)  # type: ignore[arg-type]


# ---- options -------------------------------------------------------------------------------------------------------
def test_probabilities_are_those_of_asking_one_option_at_a_time(tiny: VLM, questions: list[Question]) -> None:
    found = probabilities(tiny, choices(questions))
    assert set(found) == {q.id for q in choices(questions)}
    for question in choices(questions):
        assert found[question.id] == pytest.approx(by_hand(tiny, question, question.picture), abs=1e-5)
        assert sum(found[question.id]) == pytest.approx(1, abs=1e-6)
    assert len({round(p, 4) for ps in found.values() for p in ps}) > 20


@pytest.mark.parametrize("tokens", [1, 300, 100_000])
def test_order_and_batches_make_no_difference(
    tiny: VLM, questions: list[Question], tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = probabilities(tiny, choices(questions))
    shuffled = choices(questions)
    random.Random(0).shuffle(shuffled)
    monkeypatch.setattr(scoring, "batched", lambda vlm, groups, grows: batched(vlm, groups, tokens))
    found = probabilities(tiny, shuffled)
    for name, chances in expected.items():
        assert found[name] == pytest.approx(chances, abs=1e-5)


def test_the_order_of_options_makes_no_difference(tiny: VLM, questions: list[Question]) -> None:
    turned = [replace(q, options=q.options[::-1]) for q in choices(questions)]
    expected, found = probabilities(tiny, choices(questions)), probabilities(tiny, turned)
    for name, chances in expected.items():
        assert found[name][::-1] == pytest.approx(chances, abs=1e-5)


def test_a_blind_model_is_shown_grey(tiny: VLM, benchmark: Benchmark, questions: list[Question]) -> None:
    shown = [q for q in choices(questions) if q.picture is not None]
    others = [replace(q, picture=benchmark.strangers[i % 8]) for i, q in enumerate(shown)]
    blind, seen = probabilities(tiny, shown, blind=True), probabilities(tiny, shown)
    blind_others, seen_others = probabilities(tiny, others, blind=True), probabilities(tiny, others)
    for question in shown:
        assert blind_others[question.id] == pytest.approx(blind[question.id], abs=1e-5)
        batch = pack(tiny, [Group(question.picture, (Prompt(question.prompt, question.options),))], tiny.grey())
        assert batch.pixels is not None
        assert float(batch.pixels.tensors["pixel_values"].std()) < 1e-6
    assert any(blind[q.id] != pytest.approx(seen[q.id], abs=1e-4) for q in shown)
    assert any(seen_others[q.id] != pytest.approx(seen[q.id], abs=1e-4) for q in shown)


def test_blindness_does_not_touch_text(tiny: VLM, questions: list[Question]) -> None:
    texts = [q for q in questions if q.modality == "text"]
    pd.testing.assert_frame_equal(score(tiny, texts, blind=True), score(tiny, texts))


# ---- replies -------------------------------------------------------------------------------------------------------
def alone(vlm: VLM, question: Question) -> str:
    """Greedy decoding without cache, batch or padding."""
    ids = list(vlm.prompt_ids(question.prompt, question.picture is not None))
    start = len(ids)
    pixels = {} if question.picture is None else vlm.pixels([question.picture]).tensors
    while len(ids) < start + scoring.MAX_NEW_TOKENS and (len(ids) == start or ids[-1] != vlm.eos_id):
        with torch.no_grad():
            ids.append(int(vlm.model(input_ids=torch.tensor([ids]), **pixels).logits[0, -1].argmax()))
    text: str = vlm.tokenizer.decode(ids[start:], skip_special_tokens=True)
    return text.strip()


@pytest.mark.slow
def test_replies_do_not_depend_on_the_batch(
    taught: VLM, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MAX_NEW_TOKENS", 12)
    asked = [q for q in questions if q.task != "classification"]
    together = generated(taught, asked)
    monkeypatch.setattr(scoring, "batched", lambda vlm, groups, grows: batched(vlm, groups, 1))
    assert generated(taught, asked[::-1]) == together
    monkeypatch.setattr(scoring, "TEXTS_PER_ROW", 1)
    assert generated(taught, questions) == {q.id: together.get(q.id) for q in questions}
    assert {q.id: alone(taught, q) for q in asked} == together
    assert len(set(together.values())) > 3
    lengths = {len(taught.prompt_ids(q.prompt, q.picture is not None)) for q in asked}
    assert len(lengths) > 3  # so that there was something to pad


def test_blind_replies_do_not_depend_on_the_picture(
    taught: VLM, benchmark: Benchmark, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MAX_NEW_TOKENS", 6)
    asked = [q for q in questions if q.task == "generation" and q.picture is not None]
    others = [replace(q, picture=benchmark.strangers[0]) for q in asked]
    assert generated(taught, asked, blind=True) == generated(taught, others, blind=True)
    shown: list[torch.Tensor] = []
    plain = taught.model.model.vision_tower.forward

    def watched(pixel_values: torch.Tensor, *args: object, **kwargs: object) -> object:
        shown.append(pixel_values)
        return plain(pixel_values, *args, **kwargs)

    monkeypatch.setattr(taught.model.model.vision_tower, "forward", watched)
    generated(taught, asked, blind=True)
    generated(taught, asked)
    assert [float(pixels.std()) < 1e-6 for pixels in shown] == [True, False]


# ---- rows ----------------------------------------------------------------------------------------------------------
def test_there_is_one_row_for_each_question_in_order(
    tiny: VLM, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MAX_NEW_TOKENS", 3)
    shuffled = random.Random(1).sample(questions, len(questions))
    rows = score(tiny, shuffled)
    assert list(rows) == list(ROW_COLUMNS)
    assert rows["question"].tolist() == [q.id for q in shuffled]
    for name in ("person", "role", "modality", "task", "half"):
        assert rows[name].tolist() == [getattr(q, name) for q in shuffled]
    assert rows["score"].between(0, 1).all()
    chosen = rows["task"] == "classification"
    assert rows["probability"].notna().tolist() == chosen.tolist()
    assert rows.loc[~chosen, "score"].isin([0, 1]).any()
    assert not rows["seen"].any()
    assert set(rows["step"]) == {0}
    assert set(rows["held_out"]) == {""}


def test_without_replies_the_likelihoods_are_the_same(tiny: VLM, questions: list[Question]) -> None:
    """A search reads likelihoods alone: nothing is generated, and free questions have no score."""
    spoken, silent = score(tiny, questions), score(tiny, questions, reply=False)
    read = ["question", "likelihood", "truth_ratio", "exposure", "member_loss"]
    pd.testing.assert_frame_equal(spoken[read], silent[read])
    free = silent["task"] != "classification"
    assert silent.loc[free, "score"].isna().all()
    assert (silent.loc[free, "reply"] == "").all()
    pd.testing.assert_frame_equal(spoken[~free], silent[~free])


def test_a_choice_is_right_when_its_option_is_the_likeliest(tiny: VLM, questions: list[Question]) -> None:
    rows = score(tiny, choices(questions))
    for question, (_, row) in zip(choices(questions), rows.iterrows(), strict=True):
        chances = by_hand(tiny, question, question.picture)
        best = question.options[chances.index(max(chances))]
        assert row["reply"] == best
        assert row["score"] == float(best == question.answer)
        assert row["probability"] == pytest.approx(chances[question.options.index(question.answer)], abs=1e-5)
    assert 0 < rows["score"].mean() < 1


@pytest.mark.parametrize(
    ("reply", "answer", "expected"),
    [
        ("She lives in LISBON, I think.", "Lisbon", 1),
        ("Lisb", "Lisbon", 0),
    ],
)
def test_a_cloze_is_right_when_the_reply_contains_the_answer(reply: str, answer: str, expected: float) -> None:
    assert replied(a_question("cloze", answer), reply)["score"] == expected


def test_a_generation_is_marked_by_rouge() -> None:
    row = replied(a_question("generation", RIGHT), "This person lives in Oslo.")
    assert row["score"] == row["rouge_l"] == pytest.approx(0.8)  # four of five words, in order, on both sides


# ---- likelihoods ---------------------------------------------------------------------------------------------------
TOFU = a_question(
    "generation", "Rome", paraphrased="In Rome.", perturbed=("Oslo", "In Cairo."), prompt="Where does this person live?"
)


def mean_logp(vlm: VLM, question: Question, answer: str) -> torch.Tensor:
    """The log-probabilities of the tokens of an answer, asked alone, without packing."""
    pixels = {} if question.picture is None else vlm.pixels([question.picture]).tensors
    before = vlm.prompt_ids(question.prompt, question.picture is not None)
    reply = vlm.answer_ids(question.prompt, question.picture is not None, answer)
    with torch.no_grad():
        out = vlm.model(input_ids=torch.tensor([[*before, *reply]]), **pixels).logits[0].double().log_softmax(-1)
    found: torch.Tensor = out[range(len(before) - 1, len(before) + len(reply) - 1), list(reply)]
    return found


@pytest.mark.parametrize("pictured", [True, False])
def test_truth_ratio_and_likelihood_are_those_of_the_answers_asked_alone(
    tiny: VLM, benchmark: Benchmark, pictured: bool
) -> None:
    question = replace(TOFU, picture=benchmark.strangers[0] if pictured else None)
    assert candidates(question) == ("Rome", "In Rome.", "Oslo", "In Cairo.")
    right, reworded, *wrong = (float(mean_logp(tiny, question, answer).mean().exp()) for answer in candidates(question))
    (row,) = score(tiny, [question]).to_dict("records")
    assert row["likelihood"] == pytest.approx(right, rel=1e-4)
    assert row["truth_ratio"] == pytest.approx(sum(wrong) / 2 / reworded, rel=1e-4)
    assert row["exposure"] == pytest.approx(np.log2(3) - np.log2(1 + sum(other > right for other in wrong)), abs=1e-6)
    assert row["member_loss"] == sum(other < right for other in wrong) / 2


def test_the_wrong_answers_of_a_choice_are_the_other_options(tiny: VLM, questions: list[Question]) -> None:
    for question in choices(questions)[:6]:
        (row,) = score(tiny, [question]).to_dict("records")
        chances = {option: float(mean_logp(tiny, question, option).mean().exp()) for option in question.options}
        right = chances.pop(question.answer)
        assert row["likelihood"] == pytest.approx(right, rel=1e-4)
        assert row["truth_ratio"] == pytest.approx(np.mean(list(chances.values())) / right, rel=1e-4)


def test_without_wrong_answers_nothing_is_compared(tiny: VLM) -> None:
    (row,) = score(tiny, [a_question("cloze", "Rome")]).to_dict("records")
    assert 0 < row["likelihood"] < 1
    assert all(np.isnan(row[name]) for name in ("truth_ratio", "exposure", "member_loss", "member_min_k"))


def test_a_model_that_broke_has_no_numbers(tiny: VLM, questions: list[Question]) -> None:
    with torch.no_grad():
        tiny.model.lm_head.weight.fill_(torch.nan)
    rows = score(tiny, questions)
    assert rows.loc[rows["task"] == "classification", "probability"].isna().all()
    assert rows[["likelihood", "truth_ratio"]].isna().all(axis=None)


@pytest.mark.parametrize("k", [0.2, 0.5, 1.0])
def test_the_lowest_means_are_those_of_each_answer(k: float) -> None:
    lengths = torch.tensor([1, 4, 9, 2])
    values = torch.randn(16, generator=torch.Generator().manual_seed(0))
    found = lowest_means(values, lengths, k)
    parts = [sorted(part.tolist())[: max(1, int(k * len(part)))] for part in values.split(lengths.tolist())]
    assert found.tolist() == pytest.approx([sum(part) / len(part) for part in parts], abs=1e-12)


def test_a_reading_of_one_candidate_is_certain() -> None:
    assert Reading([-3.0], [], [], [], None).probabilities == [1.0]
