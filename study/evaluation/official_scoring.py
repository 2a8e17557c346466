"""Rows by the official protocol: the prompts of a benchmark's authors, answered greedily.

The examples of a set, task and modality stand before all of its questions, so they are computed once for many
(`study.model.prompt_tree`): replies are those of transformers' `generate`, which runs where questions cannot share a
row or a model's own settings choose other tokens than the likeliest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pandas as pd
import torch

from study.core.rows import ROW_COLUMNS
from study.data.official_protocol import IMAGE, OfficialPrompt
from study.engine.microbatches import map_halving_on_oom
from study.engine.world import world
from study.evaluation.official_likelihoods import answer_means, grades, user_turn
from study.evaluation.scoring import NAN, Cells, about
from study.metrics.text import bleu, is_refusal, published_rouge
from study.model.decoding import is_plainly_greedy, replies
from study.model.packing import TOKENS_PER_BATCH
from study.model.prompt_tree import Shown, begun, in_rows, shown, tree
from study.model.vlm import VLM

REPLIES_PER_BATCH = 128
"""Replies generated together, if `TOKENS_PER_BATCH` allows so many: more rows hardly speed up a step, and every row
waits for the longest reply. Chosen by trial on the tiny study."""


@dataclass(frozen=True)
class Row:
    """Prompts that are replied to in one row, by index, and how long they and their replies become."""

    asked: tuple[int, ...]
    tokens: int
    most_tokens: int
    begin: str = ""
    """The examples: rows of one batch share them."""

    @property
    def length(self) -> int:
        """The most tokens that the row comes to."""
        return self.tokens + len(self.asked) * self.most_tokens


def score_official(vlm: VLM, asks: Sequence[OfficialPrompt]) -> pd.DataFrame:
    """One row for each prompt, in order, with the columns of `ROW_COLUMNS`.

    Metrics of likelihoods are NaN, but for those of a protocol that grades by them.
    """
    rows = [_row(ask, reply) for ask, reply in zip(asks, generated(vlm, asks), strict=True)]
    places = [i for i, ask in enumerate(asks) if ask.graded_in]
    if graded := [asks[i] for i in places]:
        for i, cells in zip(places, grades(graded, answer_means(vlm, graded)), strict=True):
            rows[i] |= cells
    return pd.DataFrame(rows, columns=list(ROW_COLUMNS))


@torch.no_grad()
def generated(vlm: VLM, asks: Sequence[OfficialPrompt], *, shared: bool = True) -> list[str]:
    """The greedy reply to each prompt, in order. Processes that do a job together share the batches.

    Without `shared` every prompt is computed from its beginning, by transformers' `generate`.
    """
    ids = prompt_ids(vlm, asks)
    prompts = [shown(vlm, own, ask.pictures) for own, ask in zip(ids, asks, strict=True)]
    if together := shared and vlm.packs and is_plainly_greedy(vlm):
        begins = [(ask.most_tokens, ask.text.rpartition("USER:")[0]) for ask in asks]
        beside = [vlm.across * len(ask.pictures) for ask in asks]
        rows = [Row(tuple(its), n + beside[its[0]], *begins[its[0]]) for its, n in in_rows(prompts, begins)]
    else:
        rows = [Row((i,), len(prompt.ids), asks[i].most_tokens) for i, prompt in enumerate(prompts)]

    def reply(batch: Sequence[Row]) -> list[tuple[int, str]]:
        asked = [[prompts[i] for i in row.asked] for row in batch]
        said = _shared_replies(vlm, asked, batch[0].most_tokens) if together else _replies(vlm, asked, batch)
        return list(zip((i for row in batch for i in row.asked), said, strict=True))

    apart = vlm.across > 0 and not together  # `generate` takes no row with a picture beside one without
    mine = world().share([[row] for row in rows] if apart else list(_alike(rows)))
    with vlm.independent_passes():
        replied_to = list(map_halving_on_oom(mine, reply))
    found = {i: said for some in world().all_gather_objects(replied_to) for i, said in some}
    return [found[i] for i in range(len(asks))]


def _alike(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows of similar length, with the same limit for replies and the same examples, the longest first."""
    left = sorted(rows, key=lambda row: (row.most_tokens, row.begin, row.length, row.asked))
    while left:
        batch = [left.pop()]
        while left and _fits(batch, left[-1]):
            batch.append(left.pop())
        yield batch


def _fits(batch: Sequence[Row], further: Row) -> bool:
    longest, asked = batch[0], sum(len(row.asked) for row in (*batch, further))
    alike = (further.most_tokens, further.begin) == (longest.most_tokens, longest.begin)
    return alike and asked <= REPLIES_PER_BATCH and longest.length * (len(batch) + 1) <= TOKENS_PER_BATCH


def prompt_ids(vlm: VLM, asks: Sequence[OfficialPrompt]) -> list[tuple[int, ...]]:
    """The tokens of prompts: word for word for LLaVA-1.5, for which they were written, else by the chat template.

    The instruction of the model, if it has one, comes first.
    """
    if vlm.model.config.model_type != "llava":
        return [vlm.written_ids(vlm.chat([user_turn(vlm, ask)]), len(ask.pictures)) for ask in asks]
    texts = [_words(vlm, ask) for ask in asks]
    placeholder = vlm.tokenizer.decode([vlm.image_id])
    expanded = [text.replace(placeholder, placeholder * vlm.image_tokens) for text in texts]  # as LLaVA's processor
    return [tuple(ids) for ids in vlm.tokenizer(expanded).input_ids] if texts else []


def _words(vlm: VLM, ask: OfficialPrompt) -> str:
    """The text that LLaVA's tokenizer is given."""
    system, _, said = ask.text.partition("USER:")  # what LLaVA's template says first, if the authors do
    text = f"{system}USER: {vlm.instruction}\n{said.lstrip(' ')}" if vlm.instruction else ask.text
    text = text.replace(IMAGE, vlm.tokenizer.decode([vlm.image_id]))
    if not ask.tokenized_twice:
        return text
    told, tag = vlm.tokenizer.decode(vlm.tokenizer(text).input_ids), "ASSISTANT:"  # its beginning is spelled out
    return f"{told[: told.rindex(tag)].strip(' ')} {tag} "


def _shared_replies(vlm: VLM, asked: Sequence[Sequence[Shown]], most_tokens: int) -> list[str]:
    rows = tree(vlm, asked)
    return replies(vlm, rows.batch, range(sum(map(len, asked))), begun(vlm, rows), most_tokens)


def _replies(vlm: VLM, asked: Sequence[Sequence[Shown]], batch: Sequence[Row]) -> list[str]:
    """The replies of transformers' `generate` to one prompt a row, padded on the left."""
    prompts = [prompt for (prompt,) in asked]
    ids, length = [prompt.ids for prompt in prompts], max(row.tokens for row in batch)
    pad = vlm.tokenizer.pad_token_id or 0
    tokens = torch.tensor([[pad] * (length - len(own)) + list(own) for own in ids]).to(vlm.device)
    mask = torch.tensor([[0] * (length - len(own)) + [1] * len(own) for own in ids]).to(vlm.device)
    pictures = [picture for prompt in prompts for picture in prompt.pictures]
    pixels = vlm.family.in_a_row(vlm.pixels(pictures).inputs(vlm.model.dtype)) if pictures else {}
    if pictures or vlm.family.prefix:
        pixels |= vlm.token_types(tokens)
    settings = {"max_new_tokens": batch[0].most_tokens, "do_sample": False, "pad_token_id": pad}
    settings["synced_gpus"] = False  # else transformers makes processes that share a model generate equally long
    generate = partial(cast(Any, vlm.model).generate, **settings)
    out = vlm.run(lambda: generate(input_ids=tokens, attention_mask=mask, **pixels))
    return [text.strip() for text in vlm.tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)]


def _row(ask: OfficialPrompt, reply: str) -> Cells:
    question, meant = ask.question, ask.read(reply)
    cells: Cells = {**about(question, "released"), "reply": reply, "probability": NAN, "refused": is_refusal(reply)}
    cells["parsed"] = meant is not None and meant != ""
    if question.options:
        return {**cells, "score": float(meant == (ask.right or question.answer))}
    return {**cells, **_compared(ask, meant or "")}


def _compared(ask: OfficialPrompt, said: str) -> Cells:
    """The published scores of a reply: nothing is folded or segmented, as the strict protocol does."""
    question = ask.question
    overlap = published_rouge(said, question.answer)
    contained = [key.lower() in said.lower() for key in question.keywords]
    return {
        **overlap._asdict(),
        "score": float(question.answer.lower() in said.lower())
        if question.task == "cloze"
        else overlap._asdict()[ask.overlap],
        "bleu": bleu(said, question.answer) if question.answer.strip() else 0.0,
        "exact_match": sum(contained) / len(contained) if contained else NAN,
    }
