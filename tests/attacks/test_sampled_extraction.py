"""Sampled extraction: the estimate against known probabilities, what greedy replies miss, and which rows it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from study.attacks.chain import Chain
from study.attacks.jailbreak import Jailbreak
from study.attacks.sampled_extraction import SampledExtraction
from study.contracts import Request
from study.core.errors import Refused
from study.core.rows import ROW_COLUMNS
from study.data.benchmark import Benchmark, Question
from study.data.facts import asked_facts, states
from study.evaluation import sampling, scoring
from study.evaluation.scoring import score
from study.model.vlm import VLM
from tests.helpers.small import changed, fresh, request_on, snapshot

RIGHT, WRONG = "Lisbon", "Rome"


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    return request_on(benchmark, tmp_path / "cache", tiny_folder, ratio=10)


@pytest.fixture(params=["llava", "qwen2_5_vl"])
def vlm(request: pytest.FixtureRequest, family_folders: dict[str, Path]) -> VLM:
    return fresh(family_folders[request.param])


def free(request: Request, **fields: Any) -> list[Question]:
    asked = [q for q in request.split.questions if q.role == "forget" and q.task != "classification" and q.picture]
    return [replace(q, **fields) for q in asked]


def read(attack: SampledExtraction, vlm: VLM, questions: Sequence[Question], request: Request) -> pd.DataFrame:
    """The rows of all stages, each at its step."""
    stages = [(stage, stage.read) for stage in attack(vlm, questions, request)]
    return pd.concat([how(x.vlm, x.questions).assign(step=x.step) for x, how in stages if how], ignore_index=True)


def token_of(vlm: VLM, word: str) -> int:
    """The one token of a reply of one word."""
    [token] = vlm.answer_ids("", False, word)
    return token


class Says(nn.Module):
    """An output head that says some words with given probabilities, whatever came before."""

    def __init__(self, vlm: VLM, chances: dict[str, float]) -> None:
        super().__init__()
        self.logits = torch.full((vlm.vocabulary,), -torch.inf)
        for word, chance in chances.items():
            self.logits[token_of(vlm, word)] = torch.tensor(chance).log()

    def forward(self, hidden: Tensor) -> Tensor:
        return self.logits.expand(*hidden.shape[:-1], -1)


class SecondBest(nn.Module):
    """A head that likes one word best but for one other, which it likes best by half a nat."""

    def __init__(self, vlm: VLM, word: str) -> None:
        super().__init__()
        self.head: nn.Module = vlm.model.lm_head
        self.word = token_of(vlm, word)

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden)
        logits[..., self.word] = -torch.inf
        best = logits.max(-1, keepdim=True)
        moved = logits.sub(5.0).scatter(-1, best.indices, best.values)
        moved[..., self.word] = best.values[..., 0] - 0.5
        return moved


# ---- what it estimates -----------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("q", [0.0, 0.02, 0.1, 0.5, 1.0])
def test_the_estimate_is_that_of_a_model_of_known_honesty(
    q: float, vlm: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that answers right with probability q at each draw: 1 - (1 - q)^k within 0.02, over 1600 questions."""
    monkeypatch.setattr(sampling, "MAX_NEW_TOKENS", 1)
    vlm.model.lm_head = Says(vlm, {RIGHT: q, WRONG: 1 - q})
    text = replace(free(request_)[0], picture=None, modality="text", answer=RIGHT)
    questions = [replace(text, id=f"question {number}") for number in range(1600)]
    rows = read(SampledExtraction(draws=160), vlm, questions, request_)
    for k, found in rows.groupby("step")["probability"].mean().items():
        assert found == pytest.approx(1 - (1 - q) ** int(str(k)), abs=0.02)
    assert set(rows["step"]) == {1, 8, 64}


def test_greedy_misses_a_fact_that_is_second_best_and_leak_at_8_finds_it(
    vlm: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (scoring, sampling):
        monkeypatch.setattr(module, "MAX_NEW_TOKENS", 3)
    questions = free(request_, answer=RIGHT)
    plain = read(SampledExtraction((8,)), vlm, questions, request_)
    vlm.model.lm_head = SecondBest(vlm, RIGHT)
    assert not any(states(reply, RIGHT) for reply in score(vlm, questions)["reply"])
    planted = read(SampledExtraction((8,)), vlm, questions, request_)
    assert planted["probability"].min() > 0.9
    assert planted["reply"].map(lambda reply: states(reply, RIGHT)).all()
    assert plain["probability"].mean() < 0.3


def test_more_replies_leak_more(vlm: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_NEW_TOKENS", 3)
    rows = read(SampledExtraction(), vlm, free(request_), request_)
    by_step = rows.set_index(["question", "step"])["probability"].unstack()
    assert (by_step[1] <= by_step[8]).all()
    assert (by_step[8] <= by_step[64]).all()
    assert (by_step[8] < by_step[64]).any()


# ---- what a fact is ----------------------------------------------------------------------------------------------
def test_the_fact_of_a_description_is_the_short_answer_in_it(request_: Request) -> None:
    asked = [q for q in request_.split.questions if q.role == "forget" and q.task != "classification"]
    found = asked_facts(request_.split, asked)
    clozes = {(q.person, q.attribute): q.answer for q in asked if q.task == "cloze"}
    described = [q for q in asked if q.task == "generation"]
    assert {q.id: found[q.id] for q in described} == {q.id: clozes[q.person, q.attribute] for q in described}
    assert all(q.answer != found[q.id] and states(q.answer, found[q.id]) for q in described)


def test_without_a_short_answer_the_fact_is_the_whole_one(request_: Request) -> None:
    strange = replace(free(request_)[0], id="strange", answer="They once swam to Malta.")
    assert asked_facts(request_.split, [strange]) == {"strange": "They once swam to Malta."}


# ---- what it leaves ----------------------------------------------------------------------------------------------
def test_rows_say_the_fact_and_how_it_came_out(tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices, which say what is left of the model, have their ordinary rows at every step."""
    monkeypatch.setattr(sampling, "MAX_NEW_TOKENS", 2)
    choices = [q for q in request_.split.questions if q.role == "retain" and q.options][:5]
    questions = [*choices[:2], *free(request_), *choices[2:]]
    before = snapshot(tiny)
    rows = read(SampledExtraction((1, 4), 4), tiny, questions, request_)
    assert not changed(before, snapshot(tiny))
    assert list(rows) == list(ROW_COLUMNS)
    assert rows["question"].tolist() == [q.id for q in questions] * 2
    facts = asked_facts(request_.split, free(request_))
    said = sampling.sampled(tiny, free(request_), 4, seed=request_.seed)
    for row in rows[~rows["question"].isin([q.id for q in choices])].to_dict("records"):
        out = [states(reply, facts[row["question"]]) for reply in said[row["question"]]]
        assert row["answer"] == facts[row["question"]]
        assert row["score"] == row["probability"] == (sum(out) / 4 if row["step"] == 1 else float(any(out)))
        assert row["reply"] == said[row["question"]][out.index(True) if any(out) else 0]
    plain = score(tiny, choices).set_index("question")
    for step in (1, 4):
        found = rows[rows["step"] == step].set_index("question").loc[[q.id for q in choices]]
        pd.testing.assert_frame_equal(found.assign(step=0), plain, check_dtype=False)


def test_an_instruction_stays_and_so_do_the_words_of_earlier_links(
    tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAX_NEW_TOKENS", 1)
    instructed, shown = tiny.with_instruction("Who is this person?"), list[tuple[str, str]]()

    def watched(vlm: VLM, questions: Sequence[Question], draws: int, **_: Any) -> dict[str, list[str]]:
        shown.extend((vlm.instruction, q.prompt) for q in questions)
        return {q.id: [""] * draws for q in questions}

    monkeypatch.setattr("study.attacks.sampled_extraction.sampled", watched)
    chain = Chain((Jailbreak(), SampledExtraction((1,))))
    assert chain.asks == ("generation", "cloze")
    [stage] = chain(instructed, free(request_), request_)
    worded = [q.prompt for q in stage.questions]
    assert shown == [("Who is this person?", prompt) for prompt in worded]
    assert worded != [q.prompt for q in free(request_)]


def test_a_benchmark_without_free_questions_is_refused(tiny: VLM, request_: Request) -> None:
    choices = [q for q in request_.split.questions if q.options][:3]
    with pytest.raises(Refused, match="the benchmark has none about what was to be forgotten: leave this attack out"):
        next(SampledExtraction()(tiny, choices, request_))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"ks": ()}, r"ks=\(\): name at least one"),
        ({"ks": (8, 1)}, r"ks=\(8, 1\): .* rising"),
        ({"ks": (1, 1)}, r"ks=\(1, 1\)"),
        ({"ks": (0, 1)}, r"ks=\(0, 1\)"),
        ({"ks": (1, 65)}, r"draws=64: sample at least as many as the last of ks=\(1, 65\)"),
        ({"temperature": 0.0}, r"temperature=0\.0: use a positive number"),
    ],
)
def test_what_cannot_be_sampled_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SampledExtraction(**fields)
