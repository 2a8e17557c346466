"""Greedy replies to all prompts of a packed batch at once, from the keys and values that its forward left.

A picture's tokens are computed once for all that is asked about it: every prompt of a row goes on from where it ends,
one token of each prompt at a time, and sees its own ancestors and what it has said itself. So the replies are those of
asking one by one (to float rounding). Shapes: B rows of L tokens, P prompts, at most Q of them in one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from study.model.packing import Batch, masks
from study.model.vlm import VLM

if TYPE_CHECKING:
    from transformers import Cache


@torch.no_grad()
def replies(vlm: VLM, batch: Batch, wanted: Sequence[int], hidden: Tensor, cache: Cache, most_tokens: int) -> list[str]:
    """The replies to the `wanted` prompts of a batch (P of them, rising), without the token that ends them.

    `hidden` (B, L, D) and `cache` come from `study.model.packing.hidden_states`. Plain arg max, at most `most_tokens`
    tokens: penalties and sampling that a model's generation settings ask for are left out.
    """
    prompts = batch.prompts[torch.tensor(wanted, device=vlm.device)]
    ends = torch.tensor(_ends(vlm), device=vlm.device)
    tokens = vlm.run(lambda: _best(vlm, hidden[prompts[:, 0], prompts[:, 1]]))  # (P,) the last of each reply
    said, talk = [tokens], _Talk(batch, prompts)
    going = (~torch.isin(tokens, ends)).nonzero().squeeze(1)  # the replies that have not ended
    while len(going) and len(said) < most_tokens:
        tokens = tokens.clone()
        tokens[going] = vlm.run(partial(_next, vlm, talk, going, tokens[going], cache))
        said.append(tokens)
        going = going[~torch.isin(tokens[going], ends)]
    return [_text(vlm, list(map(int, reply))) for reply in torch.stack(said, 1).tolist()]


class _Talk:
    """What has been said so far: where each reply stands, and what it may see. K keys are in the cache."""

    def __init__(self, batch: Batch, prompts: Tensor) -> None:
        self.rows, last, self.positions = prompts.t().contiguous()  # (P,) each
        positions = batch.position_ids if batch.position_ids.ndim == 3 else batch.position_ids[None]
        self.axes, self.places = len(positions), positions[0]  # (B, K); with three positions there are no windows
        self.visible = batch.attention_mask[self.rows, 0, last]  # (P, K)

    def heard(self, vlm: VLM, going: Tensor, tokens: Tensor, cache: Cache) -> Tensor:
        """Add `tokens` (G,) to the replies `going` (G,); the hidden states that predict what comes next, (G, D)."""
        rows = self.rows[going]
        slots = torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows)  # rows come in order
        count, keys = int(slots.max()) + 1, self.visible.shape[1]
        shape = (len(self.places), count)
        ids, positions = self.places.new_zeros(shape), self.places.new_zeros(shape)
        ids[rows, slots], positions[rows, slots] = tokens, self.positions[going]
        self.visible = torch.cat([self.visible, self.visible.new_zeros(len(self.visible), count)], 1)
        self.visible[going, keys + slots] = True
        mask = self.visible.new_zeros(*shape, keys + count)
        mask[:, range(count), range(keys, keys + count)] = True  # a slot without reply sees itself
        mask[rows, slots] = self.visible[going]
        self.places = torch.cat([self.places, positions], 1)
        self.positions = self.positions.index_add(0, going, torch.ones_like(going))
        hidden = vlm.model.model(
            input_ids=ids,
            position_ids=positions.expand(self.axes, -1, -1) if self.axes > 1 else positions,
            attention_mask=masks(vlm, mask[:, None], positions, self.places),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        out: Tensor = hidden[rows, slots]
        return out


def _next(vlm: VLM, talk: _Talk, going: Tensor, tokens: Tensor, cache: Cache) -> Tensor:
    return _best(vlm, talk.heard(vlm, going, tokens, cache))


def _best(vlm: VLM, hidden: Tensor) -> Tensor:
    head: torch.nn.Module = vlm.model.lm_head
    best: Tensor = head(hidden).argmax(-1)
    return best


def _ends(vlm: VLM) -> list[int]:
    """The tokens that end a reply: the tokenizer's, and those that the model's own settings name beside it."""
    settings = vlm.model.generation_config
    named = settings.eos_token_id if settings is not None else None
    return sorted({vlm.eos_id, *(named if isinstance(named, list) else [] if named is None else [named])})


def _text(vlm: VLM, ids: list[int]) -> str:
    """A reply up to the token that ends it."""
    ends = _ends(vlm)
    stop = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    text: str = vlm.tokenizer.decode(ids[:stop], skip_special_tokens=True)
    return text.strip()
