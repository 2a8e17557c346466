"""Rows by the official protocol: the prompts of a benchmark's authors, answered by transformers' greedy `generate`.

Prompts of similar length are batched and padded on the left. Few-shot examples differ from question to question, so
little is shared: the strict protocol (`study.evaluation.scoring`) is much cheaper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import pandas as pd
import torch

from study.core.rows import ROW_COLUMNS
from study.data.official_protocol import IMAGE, OfficialPrompt
from study.engine.microbatches import map_halving_on_oom
from study.engine.world import world
from study.evaluation.scoring import NAN, Cells, about, replied
from study.metrics.text import is_refusal
from study.model.packing import TOKENS_PER_BATCH
from study.model.vlm import VLM

REPLIES_PER_BATCH = 128
"""Replies generated together, if `TOKENS_PER_BATCH` allows so many: more rows hardly speed up a step, and every row
waits for the longest reply. Chosen by trial on the tiny study."""


def score_official(vlm: VLM, asks: Sequence[OfficialPrompt]) -> pd.DataFrame:
    """One row for each prompt, in order, with the columns of `ROW_COLUMNS`; metrics of likelihoods are NaN."""
    return pd.DataFrame(
        [_row(ask, reply) for ask, reply in zip(asks, generated(vlm, asks), strict=True)], columns=list(ROW_COLUMNS)
    )


@torch.no_grad()
def generated(vlm: VLM, asks: Sequence[OfficialPrompt]) -> list[str]:
    """The greedy reply to each prompt, in order. Processes that do a job together share the batches."""
    ids = [prompt_ids(vlm, ask) for ask in asks]

    def reply(batch: Sequence[int]) -> list[tuple[int, str]]:
        return list(zip(batch, _replies(vlm, [asks[i] for i in batch], [ids[i] for i in batch]), strict=True))

    mine = world().shard(list(_alike(asks, [len(own) for own in ids])))
    with vlm.independent_passes():
        replied_to = list(map_halving_on_oom(mine, reply))
    found = {i: said for some in world().all_gather_objects(replied_to) for i, said in some}
    return [found[i] for i in range(len(asks))]


def _alike(asks: Sequence[OfficialPrompt], lengths: Sequence[int]) -> Iterator[list[int]]:
    """The indices of prompts of similar length and with the same limit for replies, the longest first."""
    order = sorted(range(len(asks)), key=lambda i: (asks[i].most_tokens, lengths[i], i))
    while order:
        last = order[-1]
        longest = lengths[last] + asks[last].most_tokens
        alike = [i for i in order if asks[i].most_tokens == asks[last].most_tokens]
        batch = alike[-max(1, min(REPLIES_PER_BATCH, TOKENS_PER_BATCH // longest)) :]
        del order[-len(batch) :]
        yield batch


def prompt_ids(vlm: VLM, ask: OfficialPrompt) -> tuple[int, ...]:
    """The tokens of a prompt: word for word for LLaVA-1.5, for which it was written, else through the chat template.

    The instruction of the model, if it has one, comes first.
    """
    system, _, said = ask.text.partition("USER:")  # what LLaVA's template says first, if the authors do
    first = f"{vlm.instruction}\n" if vlm.instruction else ""
    if vlm.model.config.model_type == "llava":
        text = f"{system}USER: {first}{said.lstrip(' ')}" if first else ask.text
        placeholder = vlm.tokenizer.decode([vlm.image_id])
        return vlm.written_ids(text.replace(IMAGE, placeholder), len(ask.pictures))
    said = said.rstrip().removesuffix("ASSISTANT:").replace("USER:", "").strip()
    texts = (first + said).split(IMAGE)
    content = [{"type": "text", "text": texts[0]}] * bool(texts[0].strip())
    for text in texts[1:]:
        content += [{"type": "image"}, {"type": "text", "text": text}]
    return vlm.written_ids(vlm.chat([{"role": "user", "content": content}]), len(ask.pictures))


def _replies(vlm: VLM, asks: Sequence[OfficialPrompt], ids: Sequence[tuple[int, ...]]) -> list[str]:
    length = max(map(len, ids))
    pad = vlm.tokenizer.pad_token_id or 0
    tokens = torch.tensor([[pad] * (length - len(own)) + list(own) for own in ids]).to(vlm.device)
    mask = torch.tensor([[0] * (length - len(own)) + [1] * len(own) for own in ids]).to(vlm.device)
    pictures = [picture for ask in asks for picture in ask.pictures]
    shown = {**vlm.pixels(pictures).inputs(vlm.model.dtype), **vlm.token_types(tokens)} if pictures else {}
    settings = {"max_new_tokens": asks[0].most_tokens, "do_sample": False, "pad_token_id": pad}
    settings["synced_gpus"] = False  # else transformers makes processes that share a model generate equally long
    generate = partial(cast(Any, vlm.model).generate, **settings)
    out = vlm.run(lambda: generate(input_ids=tokens, attention_mask=mask, **shown))
    return [text.strip() for text in vlm.tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)]


def _row(ask: OfficialPrompt, reply: str) -> Cells:
    question, meant = ask.question, ask.read(reply)
    if question.options:
        marked: Cells = {"score": float(meant == question.answer), "probability": NAN, "refused": is_refusal(reply)}
    else:
        marked = replied(question, meant or "")
        if question.task == "generation":
            marked["score"] = marked[ask.overlap]
    return {**about(question, "released"), **marked, "reply": reply, "parsed": meant is not None and meant != ""}
