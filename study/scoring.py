"""Model x questions -> rows, by the strict protocol: zero-shot, options by likelihood, greedy replies.

Classification: each option's probability is exp of its mean log-probability per token after the bare question
(options are not listed in the prompt), normalised over the options; the score is 1 when the right one is largest.
Generation: greedy, ROUGE-L F1 with stemming. Cloze: 1 when the reply contains the answer, whatever the case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from rouge_score.rouge_scorer import RougeScorer

from study.packing import (
    TOKENS_PER_BATCH,
    Group,
    Prompt,
    answer_lengths,
    answer_sums,
    batched,
    logits,
    pack,
    token_logps,
)
from study.questions import Picture, Question
from study.store import ROW_COLUMNS
from study.vlm import VLM

MAX_NEW_TOKENS = 50
REPLIES_PER_BATCH = 128

_ROUGE = RougeScorer(["rougeL"], use_stemmer=True)


def score(vlm: VLM, questions: Sequence[Question], *, blind: bool = False) -> pd.DataFrame:
    """One row per question, in the order of `questions`, with the columns of `ROW_COLUMNS`.

    With `blind` every picture is replaced by a grey one: what is still right then was never seen.
    """
    chosen = option_probabilities(vlm, [q for q in questions if q.task == "classification"], blind=blind)
    replies = generated(vlm, [q for q in questions if q.task != "classification"], blind=blind)
    return pd.DataFrame([_row(q, chosen.get(q.id), replies.get(q.id)) for q in questions], columns=list(ROW_COLUMNS))


@torch.no_grad()
def option_probabilities(vlm: VLM, questions: Sequence[Question], *, blind: bool = False) -> dict[str, list[float]]:
    """The probability of each option of each question, by question id; they sum to 1."""
    by_picture: dict[Picture | None, list[Question]] = {}
    for question in questions:
        by_picture.setdefault(question.picture, []).append(question)
    texts = by_picture.pop(None, [])
    asked = [*by_picture.items(), *((None, texts[i : i + 8]) for i in range(0, len(texts), 8))]
    groups = [Group(picture, tuple(Prompt(q.prompt, q.options) for q in qs)) for picture, qs in asked]
    means: list[float] = []
    for part in batched(vlm, groups):
        pictures = sum(group.picture is not None for group in part)
        grey = vlm.grey(pictures) if blind and pictures else None
        batch = pack(vlm, part, grey, end=False)
        sums = answer_sums(token_logps(logits(vlm, batch), batch), batch)
        means += (sums / answer_lengths(batch)).tolist()
    found: dict[str, list[float]] = {}
    at = 0
    for _, qs in asked:
        for question in qs:
            options = torch.tensor(means[at : at + len(question.options)])
            found[question.id] = options.softmax(0).tolist()
            at += len(question.options)
    return found


@torch.no_grad()
def generated(vlm: VLM, questions: Sequence[Question], *, blind: bool = False) -> dict[str, str]:
    """The greedy reply to each question, by question id; batches hold prompts of similar length, padded left."""
    replies: dict[str, str] = {}
    for pictured in (True, False):
        ids = {q: vlm.prompt_ids(q.prompt, pictured) for q in questions if (q.picture is not None) == pictured}
        order = sorted(ids, key=lambda q: (len(ids[q]), q.id))
        while order:
            longest = len(ids[order[-1]]) + MAX_NEW_TOKENS
            batch = order[-max(1, min(REPLIES_PER_BATCH, TOKENS_PER_BATCH // longest)) :]
            del order[-len(batch) :]
            replies |= zip((q.id for q in batch), _replies(vlm, batch, ids, blind), strict=True)
    return replies


def _replies(vlm: VLM, batch: Sequence[Question], ids: Mapping[Question, tuple[int, ...]], blind: bool) -> list[str]:
    length = max(len(ids[q]) for q in batch)
    pad = vlm.tokenizer.pad_token_id or 0
    tokens = torch.tensor([[pad] * (length - len(ids[q])) + list(ids[q]) for q in batch]).to(vlm.device)
    mask = torch.tensor([[0] * (length - len(ids[q])) + [1] * len(ids[q]) for q in batch]).to(vlm.device)
    pictures = [q.picture for q in batch if q.picture is not None]
    shown: dict[str, torch.Tensor] = {}
    if pictures:
        pixels = vlm.grey(len(pictures)) if blind else vlm.pixels(pictures)
        shown = {**pixels.inputs(vlm.model.dtype), **vlm.token_types(tokens)}
    out = vlm.model.generate(  # type: ignore[operator]
        input_ids=tokens,
        attention_mask=mask,
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        pad_token_id=pad,
        **shown,
    )
    return [text.strip() for text in vlm.tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)]


def rouge_l(reply: str, answer: str) -> float:
    """ROUGE-L F1 in [0, 1], stemmed (Lin 2004, as in MLLMU-Bench); equal texts score 1 in any script."""
    if reply.casefold().split() == answer.casefold().split():
        return 1.0
    return float(_ROUGE.score(answer, reply)["rougeL"].fmeasure)


def _row(question: Question, chosen: list[float] | None, reply: str | None) -> dict[str, object]:
    if chosen is not None:
        right = question.options.index(question.answer)
        probability, text = chosen[right], question.options[max(range(len(chosen)), key=chosen.__getitem__)]
        mark = float(text == question.answer)
    else:
        assert reply is not None
        probability, text = float("nan"), reply
        if question.task == "cloze":
            mark = float(question.answer.casefold() in reply.casefold())
        else:
            mark = rouge_l(reply, question.answer)
    return {
        "question": question.id,
        "person": question.person,
        "role": question.role,
        "modality": question.modality,
        "task": question.task,
        "half": question.half,
        "score": mark,
        "probability": probability,
        "reply": text,
        "step": 0,
        "seen": False,
        "held_out": "",
    }
