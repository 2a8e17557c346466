"""Questions in, rows out, by the strict protocol: zero-shot, nothing of the answer in the prompt.

A multiple choice is made by the likelihood of each option after the bare question: per-token mean log-probability,
softmax over the options. Other questions are answered greedily. `study.metrics.registry` defines each number and names
its source.

One forward pass answers all questions about a picture: it is encoded once, its tokens and the words before the question
are computed once, every candidate answer is scored from there (`study.model.packing`), and replies continue from there
(`study.model.decoding`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import pandas as pd
import torch

from study.core.rows import ROW_COLUMNS
from study.data.benchmark import Question
from study.data.picture import Picture
from study.engine.microbatches import map_halving_on_oom
from study.engine.world import world
from study.evaluation.membership import SHARE, Metric, memberships
from study.metrics.formulas import beats, exposure, truth_ratio
from study.metrics.text import bleu, contains, exact_match, is_refusal, rouge
from study.model.decoding import replies
from study.model.packing import Batch, Group, Prompt, answer_logits, batched, hidden_states, new_cache, pack
from study.model.vlm import VLM

MAX_NEW_TOKENS = 50
"""Of a free reply, as in the evaluation code of MLLMU-Bench."""
TEXTS_PER_ROW = 8
"""Text questions packed in one row. They share only the beginning of the prompt, and the mask of a row grows with the
square of its length: chosen by trial on the tiny study."""

NAN = float("nan")

T = TypeVar("T")
Cells = dict[str, object]


@dataclass(frozen=True)
class Reading:
    """A model's answers to one question. The lists are in the order of `candidates`; larger means likelier."""

    means: list[float]
    """Mean log-probability of the tokens of each candidate, in nats."""
    zlib: list[float]
    min_k: list[float]
    min_k_plus_plus: list[float]
    reply: str | None
    """What it replied greedily; None if it was a choice, or not asked to reply."""

    def memberships(self, metric: Metric) -> list[float]:
        """The score of each candidate, as in `study.evaluation.membership`."""
        return {
            "loss": self.means, "zlib": self.zlib, "min_k": self.min_k, "min_k_plus_plus": self.min_k_plus_plus,
        }[metric]  # fmt: skip

    @property
    def probabilities(self) -> list[float]:
        """The probability of each candidate if it is one of them; they sum to 1."""
        chances: list[float] = torch.tensor(self.means).softmax(0).tolist()
        return chances


def score(vlm: VLM, questions: Sequence[Question], *, blind: bool = False, reply: bool = True) -> pd.DataFrame:
    """One row per question, in the order of `questions`, with the columns of `ROW_COLUMNS`.

    With `blind` every picture is replaced by a grey one: what is still right then was never seen. Without `reply`
    nothing is generated: of questions without options only the likelihoods of their answers are told.
    """
    read = readings(vlm, questions, blind=blind, reply=reply)
    return pd.DataFrame([_row(q, read[q.id]) for q in questions], columns=list(ROW_COLUMNS))


def candidates(question: Question) -> tuple[str, ...]:
    """The answers whose likelihood is computed: the options, or the right answer, its paraphrase and wrong ones."""
    if question.options:
        return question.options
    return tuple(filter(None, (question.answer, question.paraphrased, *question.perturbed)))


def readings(
    vlm: VLM, questions: Sequence[Question], *, blind: bool = False, k: float = SHARE, reply: bool = True
) -> dict[str, Reading]:
    """What a model says to each question, by question id. Those without options are replied to if
    asked to `reply`.

    `k` is the fraction of tokens that `min_k` and `min_k_plus_plus` use. Processes that do a job together share the
    pictures.
    """
    return per_question(vlm, questions, partial(_read, vlm, k=k, reply=reply), candidates, blind=blind)


@torch.no_grad()
def per_question(
    vlm: VLM,
    questions: Sequence[Question],
    ask: Callable[[Batch, Sequence[Question]], Iterable[T]],
    answers: Callable[[Question], tuple[str, ...]],
    *,
    blind: bool = False,
    grows: int = 0,
) -> dict[str, T]:
    """What `ask` finds for each question, by question id; it is given a batch and its questions, in order.

    Questions about one picture are in one row, with their `answers`; `grows` as in `batched`. Processes that do a job
    together share the pictures.
    """
    groups = world().share(list(_grouped(questions, answers)))
    rows = iter(groups)

    def read(part: Sequence[tuple[Group, list[Question]]]) -> list[tuple[str, T]]:
        asked = [question for _, mine in part for question in mine]
        shown = sum(group.picture is not None for group, _ in part)
        batch = pack(vlm, [group for group, _ in part], vlm.grey(shown) if blind and shown else None, end=False)
        return list(zip((q.id for q in asked), ask(batch, asked), strict=True))

    parts = batched(vlm, [group for group, _ in groups], grows=grows)
    with vlm.independent_passes():
        found = dict(map_halving_on_oom((list(itertools.islice(rows, len(part))) for part in parts), read))
    return dict(itertools.chain.from_iterable(some.items() for some in world().all_gather_objects(found)))


def _grouped(
    questions: Sequence[Question], answers: Callable[[Question], tuple[str, ...]]
) -> Iterator[tuple[Group, list[Question]]]:
    """Questions about one picture together; text questions a few at a time, because they share little."""
    together: dict[Picture, list[Question]] = {}
    texts = [q for q in questions if q.picture is None]
    for question in questions:
        if question.picture is not None:
            together.setdefault(question.picture, []).append(question)
    rows = [texts[i : i + TEXTS_PER_ROW] for i in range(0, len(texts), TEXTS_PER_ROW)]
    for picture, mine in [*together.items(), *((None, row) for row in rows)]:
        yield Group(picture, tuple(Prompt(q.prompt, answers(q)) for q in mine)), mine


def _read(vlm: VLM, batch: Batch, asked: Sequence[Question], k: float, reply: bool) -> Iterator[Reading]:
    """One reading for each prompt of a batch, in order."""
    free = [i for i, question in enumerate(asked) if reply and not question.options]
    cache = new_cache(vlm) if free and not vlm.recurrent else None
    hidden = hidden_states(vlm, batch, cache)
    answers = [answer for question in asked for answer in candidates(question)]
    per_answer = memberships(answer_logits(vlm, batch, hidden), batch, answers, k)
    start = None if cache is None else (hidden, cache)
    said = dict(zip(free, replies(vlm, batch, free, start, MAX_NEW_TOKENS), strict=True)) if free else {}
    counts = [len(candidates(question)) for question in asked]
    columns = [[part.tolist() for part in column.cpu().split(counts)] for column in per_answer]
    for i, (mean, by_bytes, low, lower) in enumerate(zip(*columns, strict=True)):
        yield Reading(mean, by_bytes, low, lower, said.get(i))


def about(question: Question, protocol: str) -> Cells:
    """The cells of a row that do not depend on the reply."""
    return {
        "question": question.id,
        "person": question.person,
        "role": question.role,
        "modality": question.modality,
        "task": question.task,
        "half": question.half,
        "answer": question.answer,
        "fact": question.fact or question.attribute,
        "protocol": protocol,
        "step": 0,
        "seen": False,
        "held_out": "",
    }


def _row(question: Question, reading: Reading) -> Cells:
    return {**about(question, "strict"), **_likelihoods(question, reading), **_said(question, reading)}


def _said(question: Question, reading: Reading) -> Cells:
    if question.options:
        return _chosen(question, reading)
    if reading.reply is not None:
        return replied(question, reading.reply)
    return {"reply": "", "score": NAN, "probability": NAN, "refused": False, "parsed": False}


def _likelihoods(question: Question, reading: Reading) -> Cells:
    """The metrics of the right answer among the candidates; NaN where there is no wrong one."""
    right = question.options.index(question.answer) if question.options else 0
    reworded = 1 if question.paraphrased and not question.options else right
    wrong = [i for i in range(len(reading.means)) if i not in (right, reworded)]

    def rank(values: list[float]) -> float:
        return beats(values[right], [values[i] for i in wrong])

    others = [reading.means[i] for i in wrong]
    return {
        "likelihood": math.exp(reading.means[right]),
        "truth_ratio": truth_ratio(reading.means[reworded], others),
        "exposure": exposure(reading.means[right], others),
        "member_loss": rank(reading.means),
        "member_zlib": rank(reading.zlib),
        "member_min_k": rank(reading.min_k),
        "member_min_k_plus_plus": rank(reading.min_k_plus_plus),
    }


def _chosen(question: Question, reading: Reading) -> Cells:
    chances = reading.probabilities
    text = question.options[max(range(len(chances)), key=chances.__getitem__)]
    return {
        "reply": text,
        "score": float(text == question.answer),
        "probability": chances[question.options.index(question.answer)],
        "refused": False,
        "parsed": True,
    }


def replied(question: Question, reply: str) -> Cells:
    """The cells of a free reply: a cloze is right if it contains the answer, the score of a description is ROUGE-L."""
    overlap = rouge(reply, question.answer)
    right = float(contains(reply, question.answer)) if question.task == "cloze" else overlap.rouge_l
    return {
        "reply": reply,
        "score": right,
        "probability": NAN,
        **overlap._asdict(),
        "bleu": bleu(reply, question.answer),
        "exact_match": exact_match(reply, question.keywords),
        "refused": is_refusal(reply),
        "parsed": bool(reply),
    }
