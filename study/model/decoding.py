"""Replies to all prompts of a packed batch at once, from the keys and values of its forward pass.

A picture's tokens are computed once for all questions about it: every prompt of a row is continued, one token of each
reply at a time, and sees its ancestors and the reply so far. So the replies are those of asking one by one (up to float
rounding). Several replies to one prompt go the same way for as long as they say the same, so that what many of them
begin with is computed once, too. Shapes as in `study.model`; here Q is the maximum number of replies in one row that
differ, G the number of all that do, and S the number of replies that have not ended.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from study.model.packing import Batch, masks, new_cache, shown
from study.model.vlm import VLM

if TYPE_CHECKING:
    from transformers import Cache

Start: TypeAlias = "tuple[Tensor, Cache] | None"
"""The last hidden states (B, L, D) and the cache of a batch; None where each reply begins with its own pass."""
REPLIES_PER_ROW = 64
"""Sampled replies in one row that are continued together. Each attends, behind a mask, to what all others of the row
have said, so twice as many may cost four times the attention. The replies to one prompt are never divided."""

FURTHER = (
    "min_new_tokens", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id",
    "forced_eos_token_id", "sequence_bias", "exponential_decay_length_penalty", "encoder_repetition_penalty",
)  # fmt: skip
"""Generation settings that choose other tokens than the likeliest as soon as they say anything."""

Choose = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""The next token of each reply (S,): from the logits of what the replies have said so far (G, V), which of these each
has said (S,), the number of each reply (S,), and how many tokens all have."""


@torch.no_grad()
def replies(vlm: VLM, batch: Batch, wanted: Sequence[int], start: Start, most_tokens: int) -> list[str]:
    """The replies to the `wanted` prompts of a batch (P of them, rising), without the token that ends them.

    `start` comes from `study.model.packing.begun`. Plain arg max, at most `most_tokens` tokens: penalties and sampling
    that a model's generation settings ask for are left out.
    """
    prompts = batch.prompts[torch.tensor(wanted, device=vlm.device)]
    if start is None:
        said = _one_by_one(vlm, batch, prompts, 1, most_tokens, _likeliest)
    else:
        said = _continued(vlm, batch, prompts, 1, *start, most_tokens, _likeliest)
    return [_text(vlm, reply) for reply in said.tolist()]


@torch.no_grad()
def sampled_replies(
    vlm: VLM, batch: Batch, wanted: Sequence[int], start: Start, uniforms: Tensor, temperature: float
) -> list[list[str]]:
    """As `replies`, n drawn replies to each of P prompts, token by token in proportion to exp(logit / temperature).

    `uniforms` (P, n, most tokens) are the numbers in [0, 1) that decide: each picks the token in whose part of the
    distribution, summed up in the order of the vocabulary, it falls. So a reply depends on its own numbers alone.
    """
    text = lru_cache(maxsize=None)(partial(_text, vlm))  # many say the same
    count, most_tokens = uniforms.shape[1:]
    if start is None:
        prompts = batch.prompts[torch.tensor(wanted, device=vlm.device)]
        chosen = partial(_drawn, uniforms.to(vlm.device), temperature)
        said = _one_by_one(vlm, batch, prompts, count, most_tokens, chosen)
        return [[text(tuple(reply)) for reply in its] for its in said.reshape(len(wanted), count, -1).tolist()]
    found: dict[int, list[str]] = {}
    hidden, cache = start
    length = cache.get_seq_length()
    for some in _passes(batch.prompts[torch.tensor(wanted, device=vlm.device), 0].tolist(), count):
        prompts = batch.prompts[torch.tensor([wanted[i] for i in some], device=vlm.device)]
        chosen = partial(_drawn, uniforms[some].to(vlm.device), temperature)
        said = _continued(vlm, batch, prompts, count, hidden, cache, most_tokens, chosen)
        cache.crop(length - cache.get_seq_length())  # what has been said is not needed any more
        for i, its in zip(some, said.reshape(len(some), -1, said.shape[1]).tolist(), strict=True):
            found[i] = [text(tuple(reply)) for reply in its]
    return [found[i] for i in range(len(wanted))]


def _passes(rows: Sequence[int], count: int) -> Iterator[list[int]]:
    """The prompts that are replied to together, by their index: at most `REPLIES_PER_ROW` replies in a row.

    `rows` are the rows of the prompts, in order. Every pass continues some prompts of as many rows as it can.
    """
    each = max(1, REPLIES_PER_ROW // count)
    place = [i - rows.index(row) for i, row in enumerate(rows)]
    for start in range(0, max(place, default=-1) + 1, each):
        yield [i for i, at in enumerate(place) if start <= at < start + each]


def _continued(
    vlm: VLM, batch: Batch, prompts: Tensor, count: int, hidden: Tensor, cache: Cache, most_tokens: int, choose: Choose
) -> Tensor:
    """The tokens of `count` replies to each of `prompts` (P, 3), (P * count, tokens); ended ones are filled up."""
    ends = torch.tensor(_ends(vlm), device=vlm.device)
    talk = _Talk(batch, prompts)
    going = torch.arange(count * len(prompts), device=vlm.device)  # (S,) the replies that have not ended
    so_far = going // count  # (S,) what each has said, as an index of what predicts its next token
    said = ends[:1].expand(len(going), most_tokens).clone()
    logits = vlm.run(lambda: vlm.head(hidden[prompts[:, 0], prompts[:, 1]]))  # (G, V)
    for step in range(most_tokens):
        tokens = choose(logits, so_far, going, step)
        said[going, step] = tokens
        on = ~torch.isin(tokens, ends)
        going = going[on]
        if not len(going) or step + 1 == most_tokens:
            return said[:, : step + 1]
        (before, last), so_far = torch.stack([so_far[on], tokens[on]]).unique(dim=1, return_inverse=True)
        logits = vlm.run(partial(_next, vlm, talk, before, last, cache))
    return said


def _one_by_one(vlm: VLM, batch: Batch, prompts: Tensor, count: int, most_tokens: int, choose: Choose) -> Tensor:
    """As `_continued`, each reply in a row of its own: a layer that reads a row as it stands has one state a row."""
    ends = torch.tensor(_ends(vlm), device=vlm.device)
    said = ends[:1].expand(count * len(prompts), most_tokens).clone()
    nothing = torch.zeros(1, dtype=torch.long, device=vlm.device)
    for i, (row, last, position) in enumerate(prompts.tolist()):
        rows, begun = slice(row, row + 1), new_cache(vlm)
        pixels = shown(vlm, batch, rows)
        inputs = {} if pixels is None else pixels.inputs(vlm.model.dtype)
        places = batch.position_ids[..., rows, : last + 1]
        first = _step(vlm, batch.input_ids[rows, : last + 1], places, begun, inputs)
        for reply in range(i * count, (i + 1) * count):
            logits, cache = first, copy.deepcopy(begun) if count > 1 else begun
            for step in range(most_tokens):
                token = choose(logits, nothing, nothing + reply, step)
                said[reply, step] = token[0]
                if step + 1 == most_tokens or bool(torch.isin(token, ends)):
                    break
                here = places[..., :1].new_full((*places.shape[:-1], 1), position + step)
                logits = _step(vlm, token[None], here, cache, {})
    return said


def _step(vlm: VLM, ids: Tensor, positions: Tensor, cache: Cache, pixels: Mapping[str, Tensor]) -> Tensor:
    """The logits (1, V) behind the tokens (1, L) of a row that goes on."""

    def run() -> Tensor:
        inputs = {"input_ids": ids, "position_ids": positions, "past_key_values": cache, "use_cache": True}
        return vlm.head(vlm.family.hidden(vlm.model, **inputs, **vlm.marks(ids), **pixels)[:, -1])

    return vlm.run(run)


class _Talk:
    """What has been said so far: where it stands, and what the next token may see. K keys are in the cache."""

    def __init__(self, batch: Batch, prompts: Tensor) -> None:
        self.rows, last, self.positions = prompts.t().contiguous()  # (G,) each; before a word is said, G is P
        self.axes = len(batch.position_ids) if batch.position_ids.ndim == 3 else 1
        self.places, self.depth = batch.depth, batch.depth[self.rows, last] + 1  # (B, K) and (G,)
        self.visible = batch.attention_mask[self.rows, 0, last]  # (G, K)

    def heard(self, vlm: VLM, before: Tensor, tokens: Tensor, cache: Cache) -> Tensor:
        """Go on with `tokens` (G,) after what was said `before` (G,), rising indices of it: hidden states (G, D)."""
        self.rows, at, deep = self.rows[before], self.positions[before], self.depth[before]
        every = torch.arange(len(before), device=before.device)
        slots = every - torch.searchsorted(self.rows, self.rows)  # rows come in order
        count, keys = int(slots.max()) + 1, self.visible.shape[1]
        shape = (len(self.places), count)
        ids, positions, places = (self.places.new_zeros(shape) for _ in range(3))
        ids[self.rows, slots], positions[self.rows, slots], places[self.rows, slots] = tokens, at, deep
        self.visible = torch.cat([self.visible[before], self.visible.new_zeros(len(before), count)], 1)
        self.visible[every, keys + slots] = True
        mask = self.visible.new_zeros(*shape, keys + count)
        mask[:, range(count), range(keys, keys + count)] = True  # a slot without reply sees itself
        mask[self.rows, slots] = self.visible
        self.places, self.positions, self.depth = torch.cat([self.places, places], 1), at + 1, deep + 1
        hidden = vlm.family.hidden(
            vlm.model,
            input_ids=ids,
            position_ids=positions.expand(self.axes, -1, -1) if self.axes > 1 else positions,
            attention_mask=masks(vlm, mask[:, None], places, self.places),
            past_key_values=cache,
            use_cache=True,
        )
        out: Tensor = hidden[self.rows, slots]
        return out


def _next(vlm: VLM, talk: _Talk, before: Tensor, tokens: Tensor, cache: Cache) -> Tensor:
    return vlm.head(talk.heard(vlm, before, tokens, cache))


def _likeliest(logits: Tensor, so_far: Tensor, going: Tensor, step: int) -> Tensor:
    return logits.argmax(-1)[so_far]


def _drawn(uniforms: Tensor, temperature: float, logits: Tensor, so_far: Tensor, going: Tensor, step: int) -> Tensor:
    """The tokens that `uniforms` (P, n, most tokens) pick. In double precision: a float32 sum over a vocabulary rounds
    away the parts of unlikely tokens."""
    parts = (logits.double() / temperature).softmax(-1).cumsum(-1)  # (G, V)
    prompt = so_far.new_zeros(len(logits)).index_put((so_far,), going // uniforms.shape[1])  # (G,)
    picked = torch.searchsorted(parts, uniforms[prompt, :, step] * parts[:, -1:], right=True)  # (G, n)
    return picked[so_far, going % uniforms.shape[1]].clamp(max=logits.shape[-1] - 1)


def is_plainly_greedy(vlm: VLM) -> bool:
    """Whether transformers' `generate`, told not to sample, takes the likeliest token each time and ends as here."""
    settings = vlm.model.generation_config
    if settings is None:
        return False
    neutral = {
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "min_length": 0,
        "guidance_scale": 1,
    }
    changed = any(getattr(settings, name, None) not in (None, usual) for name, usual in neutral.items())
    further = any(getattr(settings, name, None) is not None for name in FURTHER)
    named = settings.eos_token_id
    return not (changed or further) and vlm.eos_id in (named if isinstance(named, list) else [named])


def _ends(vlm: VLM) -> list[int]:
    """The tokens that end a reply: the tokenizer's, and those that the model's own settings name beside it."""
    settings = vlm.model.generation_config
    named = settings.eos_token_id if settings is not None else None
    return sorted({vlm.eos_id, *(named if isinstance(named, list) else [] if named is None else [named])})


def _text(vlm: VLM, ids: Sequence[int]) -> str:
    """A reply up to the token that ends it."""
    ends = _ends(vlm)
    stop = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    text: str = vlm.tokenizer.decode(ids[:stop], skip_special_tokens=True)
    return text.strip()
