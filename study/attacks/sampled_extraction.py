"""Sampled extraction: ask again and again, and let the model talk, until a reply states the fact (arXiv 2511.04934).

Greedy replies show what a model says first. What unlearning has only moved to second place comes out when replies are
sampled: leak@k is the probability that at least one of k replies states the fact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple, cast

import pandas as pd

from study.contracts import Attack, InChain, Reading, Request, Stage
from study.core import validation
from study.core.errors import Refused
from study.core.rows import ROW_COLUMNS
from study.core.terms import Task
from study.data.benchmark import Question
from study.data.facts import asked_facts, states
from study.evaluation.sampling import sampled
from study.evaluation.scoring import NAN, Cells, about, score
from study.metrics.formulas import leak_at_k
from study.metrics.text import is_refusal
from study.model.vlm import VLM


@dataclass(frozen=True)
class SampledExtraction(Attack):
    """Samples replies to the generation and cloze questions about what was to be forgotten; step k is leak@k.

    The attacker may ask as often as it likes and needs neither weights nor facts; an instruction stays. In its rows
    `score` and `probability` are the unbiased estimate of leak@k from all `draws`, `answer` is the fact, and `reply` is
    the first reply that states it, if any does. At step 0 they say whether the greedy reply states it, so the gain is
    what sampling tells beyond that. Whoever guesses often enough is right some day: what counts is the difference to
    the references, and a `k` near the number of possible answers tells no model from another.
    """

    ks: tuple[int, ...] = (1, 8, 64)
    """The numbers of replies after which it is asked whether the fact is out, rising."""
    draws: int = 64
    """Replies that are sampled to each question. More than the last of `ks` make the estimates less noisy."""
    temperature: float = 1.0
    """What logits are divided by: 1 samples what the model has learned."""
    in_chain: ClassVar[InChain] = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.positive(self, "temperature")
        if not self.ks or list(self.ks) != sorted({*self.ks}) or self.ks[0] < 1:
            raise ValueError(f"ks={self.ks}: name at least one number of replies, from 1 and rising")
        if self.draws < self.ks[-1]:
            raise ValueError(f"draws={self.draws}: sample at least as many as the last of ks={self.ks}")

    @property
    def asks(self) -> tuple[Task, ...]:
        """What is replied to freely."""
        return ("generation", "cloze")

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """The same replies read as leak@k for each k. Raises `Refused` if no question is replied to freely."""
        asked = [q for q in questions if not q.options]
        if not asked:
            raise Refused(
                "sampled_extraction asks generation and cloze questions, and the benchmark has none about what was to "
                "be forgotten: leave this attack out"
            )
        facts = asked_facts(request.split, asked)
        said = sampled(vlm, asked, self.draws, seed=request.seed, temperature=self.temperature)
        told = {q.id: _told(q, facts[q.id], said[q.id]) for q in asked}

        @cache
        def choices() -> dict[str, Cells]:
            """The ordinary rows of questions with options, asked once: no stage changes a weight."""
            rows = score(vlm, [q for q in questions if q.options]).to_dict("records")
            return {str(row["question"]): row for row in cast("list[Cells]", rows)}

        for k in self.ks:
            yield Stage(k, vlm, questions, _reading(choices, {i: its.leak(k) for i, its in told.items()}))


class _Told(NamedTuple):
    """The replies to one question: the row of them, and how many of how many state the fact."""

    row: Cells
    leaks: int
    draws: int

    def leak(self, k: int) -> Cells:
        """The row with the estimate of leak@k."""
        leak = leak_at_k(self.leaks, self.draws, k)
        return {**self.row, "score": leak, "probability": leak}


def _told(question: Question, fact: str, replies: Sequence[str]) -> _Told:
    state = {reply: states(reply, fact) for reply in set(replies)}
    telling = [reply for reply in replies if state[reply]]
    shown = (telling or replies)[0]
    said = {"answer": fact, "reply": shown, "refused": is_refusal(shown), "parsed": bool(shown)}
    row = {**dict.fromkeys(ROW_COLUMNS, NAN), **about(question, "strict"), **said}
    return _Told(row, len(telling), len(replies))


def _reading(choices: Callable[[], dict[str, Cells]], leaks: dict[str, Cells]) -> Reading:
    """What was sampled; nothing is sampled again."""

    def read(vlm: VLM, questions: Sequence[Question]) -> pd.DataFrame:
        rows = choices() | leaks
        return pd.DataFrame([rows[q.id] for q in questions], columns=list(ROW_COLUMNS))

    return read
