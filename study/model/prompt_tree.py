"""Long prompts that begin alike: what they begin with is computed once, and a picture once for all prompts about it.

As in `study.model.packing` every token sees only its ancestors, so what follows a prompt is what follows it alone. Here
prompts are complete, each with any number of pictures, and all rows of a batch share their beginning. P is its length.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from study.data.picture import Picture
from study.model.packing import Batch, Row, as_batch, masks, new_cache, shared_prefix
from study.model.vision import Pixels
from study.model.vlm import VLM

if TYPE_CHECKING:
    from transformers import Cache


@dataclass(frozen=True)
class Shown:
    """A complete prompt: its tokens, placeholders expanded, and its pictures in order."""

    ids: tuple[int, ...]
    pictures: tuple[Picture, ...]
    tokens: tuple[tuple[int, str], ...]
    """The ids, each with the key of the picture whose placeholder it is: equal ones can be computed once."""


def shown(vlm: VLM, ids: tuple[int, ...], pictures: tuple[Picture, ...]) -> Shown:
    """A prompt for a model. Raises `ValueError` if placeholders and pictures do not match."""
    placeholder, each = vlm.image_id, vlm.image_tokens if pictures else 1
    if (places := ids.count(placeholder)) != each * len(pictures):
        raise ValueError(f"{places} placeholders for {len(pictures)} pictures of {each} tokens each in a prompt")
    keys = iter([picture.key for picture in pictures for _ in range(each)])
    return Shown(ids, pictures, tuple((token, next(keys) if token == placeholder else "") for token in ids))


@dataclass(frozen=True)
class Tree:
    """Rows that begin with the same P tokens, of which `shown` pictures are a part; other pixels are in row order.

    P is 0 where the LLM attends to pictures across: there the first tokens may depend on what comes later.
    """

    batch: Batch
    shared: int
    shown: int


def in_rows(prompts: Sequence[Shown], begins: Sequence[Hashable]) -> Iterator[tuple[list[int], int]]:
    """The prompts that share a row, by index, and the tokens of the row: those about the same pictures.

    `begins` says which of them begin alike, so that they may be in one batch.
    """
    together: dict[Hashable, list[int]] = {}
    for i, (prompt, begin) in enumerate(zip(prompts, begins, strict=True)):
        together.setdefault((begin, prompt.pictures or i), []).append(i)
    for its in together.values():
        tokens = [prompts[i].tokens for i in its]
        yield its, sum(map(len, tokens)) - (len(its) - 1) * shared_prefix(tokens)


def tree(vlm: VLM, rows: Sequence[Sequence[Shown]]) -> Tree:
    """A batch of rows; its prompts are those of the rows, in order, and it has no answers."""
    tokens = [[prompt.tokens for prompt in prompts] for prompts in rows]
    shared = 0 if vlm.across else shared_prefix([each for row in tokens for each in row])
    first = rows[0][0].pictures[: _count(vlm, rows[0][0], 0, shared)]
    laid_out: list[Row] = []
    asked_at: list[tuple[int, int, int]] = []
    pictures = [*first]
    for prompts, its in zip(rows, tokens, strict=True):
        row = Row([], [], [], [], several=True)
        node, known = -1, 0
        for stop in (shared, shared_prefix(its)):  # what all rows begin with, and what this row's prompts do
            node = _add(vlm, row, node, prompts[0], known, max(known, stop))
            known = max(known, stop)
        pictures += prompts[0].pictures[len(first) : _count(vlm, prompts[0], 0, known)]
        for prompt in prompts:
            _add(vlm, row, node, prompt, known, len(prompt.ids))
            pictures += prompt.pictures[_count(vlm, prompt, 0, known) :]
            asked_at.append((len(laid_out), len(row.ids) - 1, 1 + _last(vlm, prompt)))
        laid_out.append(row)
    pixels = vlm.pixels(pictures) if pictures else None
    return Tree(as_batch(vlm, laid_out, [], asked_at, pixels, 0), shared, len(first))


def begun(vlm: VLM, rows: Tree) -> tuple[Tensor, Cache]:
    """The last hidden states (B, L, D) of a tree and its cache, from which replies go on."""
    batch, pixels, cache = rows.batch, rows.batch.pixels, new_cache(vlm)
    count, length = batch.input_ids.shape
    if not rows.shared:
        return vlm.run(lambda: _hidden(vlm, batch, count, slice(0, length), pixels, cache)), cache
    first, rest = (pixels[: rows.shown], pixels[rows.shown :]) if pixels is not None else (None, None)
    start = vlm.run(lambda: _hidden(vlm, batch, 1, slice(0, rows.shared), first, cache))
    cache.batch_repeat_interleave(count)
    further = vlm.run(lambda: _hidden(vlm, batch, count, slice(rows.shared, length), rest, cache))
    return torch.cat([start.expand(count, -1, -1), further], 1), cache


def _hidden(vlm: VLM, batch: Batch, rows: int, places: slice, pixels: Pixels | None, cache: Cache) -> Tensor:
    """The last hidden states of some places of the first rows, of which the cache holds those before."""
    ids, depth = batch.input_ids[:rows, places], batch.depth[:rows]
    return vlm.family.hidden(
        vlm.model,
        input_ids=ids,
        position_ids=batch.position_ids[..., :rows, places],
        attention_mask=masks(
            vlm, batch.attention_mask[:rows, :, places, : places.stop], depth[:, places], depth[:, : places.stop]
        ),
        past_key_values=cache,
        use_cache=True,
        **vlm.marks(ids),
        **({} if pixels is None or not len(pixels) else pixels.inputs(vlm.model.dtype)),
    )


def _add(vlm: VLM, row: Row, parent: int, prompt: Shown, start: int, stop: int) -> int:
    """Append a prompt's tokens from `start` to `stop`; returns their node."""
    grid = vlm.grid_positions(prompt.ids, len(prompt.pictures))
    if (axes := vlm.family.axes(vlm.model)) > 1:
        places = [axis[start:stop] for axis in grid] or [list(range(start, stop))] * axes
        row.grid = [[*before, *more] for before, more in zip(row.grid or [[]] * axes, places, strict=True)]
    return row.add(parent, prompt.ids[start:stop], start)


def _last(vlm: VLM, prompt: Shown) -> int:
    """The position of a prompt's last token."""
    grid = vlm.grid_positions(prompt.ids, len(prompt.pictures))
    return max(map(max, grid)) if grid else len(prompt.ids) - 1


def _count(vlm: VLM, prompt: Shown, start: int, stop: int) -> int:
    """How many pictures are among the tokens from `start` to `stop`."""
    return prompt.ids[start:stop].count(vlm.image_id) // vlm.image_tokens if prompt.pictures else 0
