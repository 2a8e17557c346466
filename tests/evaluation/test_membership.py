"""Membership inference: four scores against formulas of their own, and the attack that ranks options by them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from study.attacks.membership_inference import MembershipInference
from study.contracts import Request
from study.core.errors import Refused
from study.core.terms import PARTS
from study.data.benchmark import Benchmark, Lesson, Question
from study.data.picture import Picture
from study.evaluation.membership import Metric, auc, memberships
from study.evaluation.scoring import readings, score
from study.model.likelihood import cross_entropy
from study.model.packing import Batch, Group, Prompt, logits, pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import train
from study.training.schedule import Schedule
from tests.helpers.small import fresh, plain_logits, request_on

METRICS: tuple[Metric, ...] = get_args(Metric)
PICTURED = [Prompt("Where does this person live?", ("Lisbon", "This person lives in Rome.")),
            Prompt("What is the job of this person?", ("baker",))]  # fmt: skip


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    return request_on(benchmark, tmp_path / "cache", tiny_folder, ratio=15)


@pytest.fixture
def asked(request_: Request) -> list[Question]:
    """Every choice about forget people, with and without picture."""
    return [q for q in request_.split.questions if q.role == "forget" and q.task == "classification"]


def by_hand(metric: str, rows: np.ndarray, tokens: Sequence[int], text: str, k: float) -> float:
    """A score from (T, V) log-probabilities, one token at a time, in double precision."""
    own = [float(row[token]) for row, token in zip(rows, tokens, strict=True)]
    if metric in ("loss", "zlib"):
        mean = sum(own) / len(own)
        return mean if metric == "loss" else mean / len(zlib.compress(text.encode("utf-8")))
    if metric == "min_k_plus_plus":
        for t, row in enumerate(rows):
            mean = sum(float(np.exp(x)) * float(x) for x in row)
            second = sum(float(np.exp(x)) * float(x) ** 2 for x in row)
            own[t] = (own[t] - mean) / np.sqrt(second - mean**2)
    lowest = sorted(own)[: max(1, int(k * len(own)))]
    return sum(lowest) / len(lowest)


def scores(metric: Metric, answers: Sequence[tuple[Tensor, Sequence[int], str]], k: float) -> list[float]:
    """Of answers that stand in one batch: each the logits of its tokens, the tokens, its text."""
    nothing = torch.empty(0)
    batch = Batch(
        nothing, nothing, nothing, nothing, None, nothing, nothing,
        target=torch.tensor([token for _, tokens, _ in answers for token in tokens]),
        owner=torch.tensor([i for i, (_, tokens, _) in enumerate(answers) for _ in tokens]),
        answers=len(answers), prompts=nothing,
    )  # fmt: skip
    found = memberships(torch.cat([rows for rows, _, _ in answers]), batch, [text for _, _, text in answers], k)
    values: list[float] = getattr(found, metric).tolist()
    return values


# ---- one answer ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [0.01, 0.2, 0.5, 1.0])
def test_a_score_is_its_formula(metric: Metric, k: float) -> None:
    """Of every answer of a batch, however long."""
    draw = torch.Generator().manual_seed(0)
    answers = [
        (
            3 * torch.randn(length, 17, generator=draw, dtype=torch.float64),
            torch.randint(17, (length,), generator=draw).tolist(),
            "Łódź " * length,
        )
        for length in (1, 2, 5, 11, 40)
    ]
    wanted = [by_hand(metric, rows.log_softmax(-1).numpy(), tokens, text, k) for rows, tokens, text in answers]
    assert scores(metric, answers, k) == pytest.approx(wanted, rel=1e-12)


def test_all_tokens_of_min_k_are_the_loss() -> None:
    rows = torch.tensor([[-3.0, 0.0], [-0.5, 0.0], [-2.0, 0.0]])
    answers = [(rows, [0, 0, 0], "Rome")]
    own = sorted(rows.log_softmax(-1)[:, 0].tolist())
    assert scores("min_k", answers, 1.0) == pytest.approx(scores("loss", answers, 0.2))
    assert scores("min_k", answers, 0.2) == pytest.approx([own[0]])
    assert scores("min_k", answers, 0.67) == pytest.approx([(own[0] + own[1]) / 2])


def test_min_k_plus_plus_measures_a_token_against_its_rivals() -> None:
    """At the same log-probability, a token that is the best where it stands looks more like a member."""
    best = torch.tensor([[0.4, 0.3, 0.3]]).log()
    worst = torch.tensor([[0.4, 0.6, 1e-9]]).log()
    first, second = scores("min_k_plus_plus", [(best, [0], "Rome"), (worst, [0], "Rome")], 1.0)
    assert first > 0 > second


def test_a_certain_model_has_a_score() -> None:
    """Where there is no variance nothing is divided by nothing."""
    rows = torch.tensor([[200.0, 0.0, 0.0]])
    right, wrong = scores("min_k_plus_plus", [(rows, [0], "Rome"), (rows, [1], "Rome")], 0.2)
    assert right == pytest.approx(0)
    assert wrong < -1e3


@pytest.mark.parametrize("seed", range(5))
def test_the_auc_is_a_count_of_pairs(seed: int) -> None:
    draw = np.random.default_rng(seed)
    one, other = (draw.integers(0, 8, size).astype(float).tolist() for size in draw.integers(1, 20, 2))
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in one for b in other]
    assert auc(one, other) == pytest.approx(sum(wins) / len(wins))
    assert auc(one, other) + auc(other, one) == pytest.approx(1)


@pytest.mark.parametrize(("members", "others"), [([], [1.0]), ([1.0], []), ([], [])])
def test_an_auc_of_nobody_is_refused(members: list[float], others: list[float]) -> None:
    with pytest.raises(Refused, match=f"{len(members)} members and {len(others)} others"):
        auc(members, others)


# ---- a model ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("metric", METRICS)
def test_every_answer_gets_the_score_it_has_when_asked_alone(metric: Metric, tiny: VLM, asked: list[Question]) -> None:
    """Packed with others, about pictures or none, in the order of the groups."""
    pictures = list(dict.fromkeys(q.picture for q in asked))[:2]
    groups = [Group(pictures[0], tuple(PICTURED)), Group(None, (PICTURED[0],)), Group(pictures[1], (PICTURED[1],))]
    texts = [answer for group in groups for prompt in group.prompts for answer in prompt.answers]
    packed, without = pack(tiny, groups), pack(tiny, groups, end=False)
    with torch.no_grad():
        alone = plain_logits(tiny, groups)
        found, other = (memberships(logits(tiny, batch), batch, texts, 0.3) for batch in (packed, without))
    wanted = [
        by_hand(metric, rows.double().log_softmax(-1).numpy(), tokens.tolist(), text, 0.3)
        for (rows, tokens), text in zip(alone, texts, strict=True)
    ]
    assert getattr(found, metric).tolist() == pytest.approx(wanted, rel=1e-3)
    assert getattr(other, metric).tolist() != pytest.approx(wanted, rel=1e-3)


# ---- the attack ------------------------------------------------------------------------------------------------
def read(attack: MembershipInference, vlm: VLM, questions: Sequence[Question], request: Request) -> pd.DataFrame:
    """The rows of the attack's last stage."""
    last = list(attack(vlm, questions, request))[-1]
    assert last.read is not None
    return last.read(last.vlm, last.questions)


def test_the_loss_ranks_as_the_ordinary_scoring_does(tiny: VLM, asked: list[Question], request_: Request) -> None:
    rows = read(MembershipInference("loss"), tiny, asked, request_)
    ordinary = score(tiny, asked)
    pd.testing.assert_frame_equal(rows.drop(columns="probability"), ordinary.drop(columns="probability"))
    assert 0 < rows["score"].mean() < 1
    assert set(rows["probability"]) <= {0, 1 / 3, 2 / 3, 1}
    assert ((rows["probability"] == 1) == (rows["score"] == 1)).all()
    assert rows["probability"].corr(ordinary["probability"]) > 0.7


def test_a_question_is_won_by_its_share_of_options(tiny: VLM, asked: list[Question], request_: Request) -> None:
    """Of every question, in whatever order: how many wrong options have a lower score than the right one."""
    shuffled = asked[::-3]
    rows = read(MembershipInference("zlib"), tiny, shuffled, request_)
    assert rows["question"].tolist() == [q.id for q in shuffled]
    for line, q in zip(rows.to_dict("records"), shuffled, strict=True):
        found = readings(tiny, [q])[q.id].memberships("zlib")
        right = found[q.options.index(q.answer)]
        assert line["probability"] == sum(right > value for value in found) / (len(found) - 1)
        assert line["score"] == float(right == max(found))
        assert line["reply"] == q.options[int(np.argmax(found))]


@pytest.mark.parametrize("metric", ["min_k", "min_k_plus_plus"])
def test_the_share_of_tokens_is_the_attackers(metric: Metric, tiny: VLM, asked: list[Question]) -> None:
    """What the ordinary scoring says of memberships stays with its own."""
    few, many = (MembershipInference(metric, k).read(tiny, asked) for k in (0.2, 1.0))
    assert not few["probability"].equals(many["probability"])
    ordinary = score(tiny, asked)
    for rows in (few, many):
        pd.testing.assert_series_equal(rows[f"member_{metric}"], ordinary[f"member_{metric}"])


def test_a_model_that_says_the_same_of_everything_is_at_one_half(
    tiny: VLM, asked: list[Question], request_: Request
) -> None:
    """Ties are neither won nor lost."""
    with torch.no_grad():
        tiny.model.lm_head.weight.zero_()
    rows = read(MembershipInference("loss"), tiny, asked, request_)
    assert rows["probability"].tolist() == [0.5] * len(asked)
    assert not rows["score"].any()


def test_questions_without_options_keep_their_score(tiny: VLM, asked: list[Question], request_: Request) -> None:
    cloze = next(q for q in request_.split.questions if q.task == "cloze")
    rows = read(MembershipInference(), tiny, [cloze, asked[0]], request_)
    pd.testing.assert_frame_equal(rows[:1], score(tiny, [cloze]))


def test_nothing_is_given_and_an_instruction_is_dropped(tiny: VLM, asked: list[Question], request_: Request) -> None:
    told = tiny.with_instruction("Where does this person live?")
    [last] = MembershipInference()(told, asked[:2], request_)
    assert last.vlm.instruction == ""
    assert last.vlm.model is tiny.model
    assert MembershipInference().given(request_) == ()


def test_what_was_memorised_is_told_from_what_was_not(tiny_folder: Path, asked: list[Question]) -> None:
    """In a model that was trained on the right answers; before that it was a matter of luck."""
    vlm = fresh(tiny_folder)
    picture: Picture | None = next(q.picture for q in asked if q.picture)
    questions = [q for q in asked if q.picture == picture]
    taught = [Lesson(q.person, q.prompt, q.answer, q.picture) for q in questions]
    schedule = Schedule(steps=60, learning_rate=5e-3, pictures=1, lessons_per_picture=len(taught))
    drawn = Lessons(taught, schedule, 0)
    luck = {metric: MembershipInference(metric).read(vlm, questions)["probability"].mean() for metric in METRICS}
    train(vlm, PARTS, schedule, lambda step: cross_entropy(vlm, pack(vlm, drawn.draw())))
    assert all(0.2 < found < 0.8 for found in luck.values())
    for metric in METRICS:
        rows = MembershipInference(metric).read(vlm, questions)
        assert rows["probability"].mean() > 0.95


def test_an_untaught_model_is_near_one_half(tiny: VLM, asked: list[Question], request_: Request) -> None:
    for metric in METRICS:
        rows = read(MembershipInference(metric), tiny, asked, request_)
        assert rows["probability"].mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("field", "value"), [("metric", "gradnorm"), ("k", 0.0), ("k", 1.5), ("k", float("nan")), ("k", -0.2)]
)
def test_a_wrong_setting_is_named_with_its_value(field: str, value: Any) -> None:
    settings: dict[str, Any] = {field: value}
    with pytest.raises(ValueError, match=f"{field}={value!r}"):
        MembershipInference(**settings)
