"""Questions that share a prefix, packed into one row of a batch.

A picture with ten questions of four options each is one row: the picture's tokens once, each question once, each
option once. Every token sees only its ancestors in that tree, and positions restart at each branch, so all logits are
those of asking one by one (up to float rounding), for a fraction of the tokens. Shapes as in `study.model`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from study.core.errors import Refused
from study.data.picture import Picture
from study.model.families import additive
from study.model.vision import Pixels
from study.model.vlm import VLM

if TYPE_CHECKING:
    from transformers import Cache

TOKENS_PER_BATCH = 16_384
"""Padded tokens of a batch that is only scored: at a width of 4096 (7B) 128 MiB for each bfloat16 activation, and the
GPU is busy long before. If it does not fit, `map_halving_on_oom` halves the batch."""


@dataclass(frozen=True)
class Prompt:
    """One prompt and the answers whose likelihood after it is computed."""

    text: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Prompts about one picture, or about none."""

    picture: Picture | None
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class Batch:
    """Packed groups as tensors. Answers are numbered in the order in which the groups list them."""

    input_ids: Tensor  # (B, L)
    position_ids: Tensor  # (B, L), or (3, B, L) where a token has three positions (Hunyuan: four)
    depth: Tensor  # (B, L) the tokens between each and the root of its row: its position, where it has one
    attention_mask: Tensor  # (B, 1, L, L) bool
    pixels: Pixels | None  # of the rows that have a picture, in order
    row: Tensor  # (T,) the row of each answer token
    source: Tensor  # (T,) the index in the row whose logits predict it
    target: Tensor  # (T,) the token itself
    owner: Tensor  # (T,) the answer it belongs to
    answers: int  # A
    prompts: Tensor  # (P, 3) for each prompt: its row, the index of its last token, the position after it


@dataclass
class Row:
    """One row under construction: a tree of nodes laid out as a list of tokens."""

    ids: list[int]
    node: list[int]
    positions: list[int]
    parents: list[int]
    grid: list[list[int]] = field(default_factory=list)
    """For models with several positions per token, those of the first tokens: a row for each."""
    depth: list[int] = field(default_factory=list)
    """How many tokens lie between each and the root."""
    ends: list[int] = field(default_factory=list)
    """The depth behind each node."""
    several: bool = False
    """Whether it shows more than one picture: each has its tokens side by side."""

    def add(self, parent: int, tokens: Sequence[int], start: int) -> int:
        """Append `tokens` as a child of node `parent` at position `start`; returns the new node."""
        self.parents.append(parent)
        node = len(self.parents) - 1
        self.ids.extend(tokens)
        self.node.extend([node] * len(tokens))
        self.positions.extend(range(start, start + len(tokens)))
        begin = self.ends[parent] if parent >= 0 else 0
        self.ends.append(begin + len(tokens))
        self.depth.extend(range(begin, self.ends[-1]))
        return node

    def answer(self, prompt: int, tokens: Sequence[int], start: int, last: int) -> list[tuple[int, int]]:
        """Append an answer, which may have no tokens, behind a prompt; for each token what predicts it, and itself.

        The last token of the prompt, at index `last`, predicts the first, and each the next.
        """
        begin = len(self.ids)
        self.add(prompt, tokens, start)
        return list(zip([last, *range(begin, begin + len(tokens) - 1)], tokens, strict=False))

    def mask(self) -> np.ndarray:
        """(L, L) bool: which token (column) each token (row) may see."""
        kin = np.eye(len(self.parents), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                kin[node] |= kin[parent]
        nodes = np.array(self.node, np.int64)
        seen: np.ndarray = kin[nodes[:, None], nodes] & np.tri(len(nodes), dtype=bool)
        return seen

    def mutual(self, image_ids: Sequence[int]) -> np.ndarray:
        """(L, L) bool: which tokens are of the same picture."""
        shown = np.isin(self.ids, image_ids)
        begins = shown & ~np.concatenate([[False], shown[:-1]])
        picture = np.cumsum(begins) if self.several else np.zeros(len(shown))
        same: np.ndarray = shown[:, None] & shown & (picture[:, None] == picture)
        return same

    def prompt(self) -> np.ndarray:
        """(L, L) bool: which tokens are of the prompt, in a row of one: its root and the branch for the rest of it."""
        asked = np.array(self.node) <= 1
        return asked[:, None] & asked


def pack(vlm: VLM, groups: Sequence[Group], pixels: Pixels | None = None, *, end: bool = True) -> Batch:
    """Pack groups into a batch.

    `pixels` replaces the pictures' own pixels (augmented or grey ones), in the order of the groups with a picture;
    `end` appends the end-of-sentence token to every answer (wanted when training, not when options are compared).
    """
    rows: list[Row] = []
    tokens: list[tuple[int, int, int, int]] = []  # row, source, target, owner
    asked_at: list[tuple[int, int, int]] = []  # row, index of the last token, position after it
    shown: list[int] = []  # for each row with a picture, which of the pixels are its own
    answers = 0
    for group, again in _in_rows(vlm, groups):  # one row each
        row = Row([], [], [], [])
        # 1. The root: what all prompts begin with, that is the picture and whatever the chat template puts before it.
        pictured = group.picture is not None
        prompts = [vlm.prompt_ids(prompt.text, pictured) for prompt in group.prompts]
        shared = shared_prefix(prompts)
        if pictured and len(prompts) > 1 and vlm.image_id in prompts[0][shared:]:
            raise Refused("the chat template puts the question before the picture, so questions cannot share it")
        root = row.add(-1, prompts[0][:shared], 0)
        row.grid = vlm.grid_positions(prompts[0][:shared])
        after = 1 + max(map(max, row.grid)) if row.grid else shared  # a picture may take fewer positions than tokens
        for prompt, ids in zip(group.prompts, prompts, strict=True):
            # 2. A branch for the rest of each prompt, all at the same positions: they do not see each other.
            asked = row.add(root, ids[shared:], after)
            last = len(row.ids) - 1
            if not again.prompt:
                asked_at.append((len(rows), last, after + len(ids) - shared))
            # 3. A branch for each of its answers.
            for answer in prompt.answers:
                reply = vlm.answer_ids(prompt.text, pictured, answer) + ((vlm.eos_id,) if end else ())
                its = row.answer(asked, reply, after + len(ids) - shared, last)
                tokens += [(len(rows), source, target, answers) for source, target in its]
                answers += 1
        if pictured:
            shown.append(shown[-1] if again.picture else shown[-1] + 1 if shown else 0)
        rows.append(row)
    # 4. The pixels of all pictures, in the order of their rows, then everything as padded tensors.
    if pixels is None and any(group.picture for group in groups):
        pixels = vlm.pixels([group.picture for group in groups if group.picture])
    if pixels is not None and len(shown) > len(pixels):
        pixels = pixels[shown]
    return as_batch(vlm, rows, tokens, asked_at, pixels, answers)


@dataclass(frozen=True)
class _Again:
    """What a row has in common with the one before, in a model whose questions do not share a row."""

    picture: bool = False
    prompt: bool = False


def _in_rows(vlm: VLM, groups: Sequence[Group]) -> Iterator[tuple[Group, _Again]]:
    """What each row holds: a group, one prompt where its tokens see each other, one answer in a recurrent model."""
    for group in groups:
        if vlm.packs:
            yield group, _Again()
            continue
        for i, prompt in enumerate(group.prompts):
            if not vlm.recurrent:
                yield Group(group.picture, (prompt,)), _Again(i > 0)
                continue
            for j in range(max(1, len(prompt.answers))):
                yield Group(group.picture, (Prompt(prompt.text, prompt.answers[j : j + 1]),)), _Again(i + j > 0, j > 0)


def new_cache(vlm: VLM) -> Cache:
    """An empty cache of keys and values, and of what else a model's layers keep."""
    return vlm.family.cache(vlm.model.config)


def begun(vlm: VLM, batch: Batch) -> tuple[Tensor, Cache] | None:
    """The last hidden states of a batch and its cache, from which replies go on; None of a recurrent model."""
    if vlm.recurrent:
        return None
    cache = new_cache(vlm)
    return hidden_states(vlm, batch, cache), cache


def logits(vlm: VLM, batch: Batch) -> Tensor:
    """The logits that predict each answer token, (T, V) float32; the output head runs on no other token."""
    return at_answers(vlm, batch, vlm.head).float()


def at_answers(vlm: VLM, batch: Batch, read: Callable[[Tensor], Tensor]) -> Tensor:
    """`read` applied to the last hidden states that predict answer tokens, (T, D) to (T, ...).

    The rows are computed in the model's micro-batches. Processes that share a step share them.
    """

    def run(rows: slice) -> list[Tensor]:
        tokens = _tokens(batch, rows)
        return [read(_hidden(vlm, batch, rows)[batch.row[tokens] - rows.start, batch.source[tokens]])]

    (out,) = vlm.over(batch.input_ids, run)
    return out


def _tokens(batch: Batch, rows: slice) -> slice:
    """The answer tokens of some rows: they are in the order of their rows."""
    if rows.stop - rows.start == len(batch.input_ids):
        return slice(None)
    return slice(int((batch.row < rows.start).sum()), int((batch.row < rows.stop).sum()))


def answer_logits(vlm: VLM, batch: Batch, hidden: Tensor) -> Tensor:
    """As `logits`, from the last hidden states (B, L, D) of the batch."""
    out: Tensor = vlm.run(lambda: vlm.head(hidden[batch.row, batch.source]))
    return out.float()


def hidden_states(vlm: VLM, batch: Batch, cache: Cache | None = None) -> Tensor:
    """The last hidden states of a batch, (B, L, D); keys and values are stored in `cache`, if there is one."""
    return vlm.run(lambda: _hidden(vlm, batch, slice(0, len(batch.input_ids)), cache))


def _hidden(vlm: VLM, batch: Batch, rows: slice, cache: Cache | None = None) -> Tensor:
    """The last hidden states of some rows."""
    pixels, depth = shown(vlm, batch, rows), batch.depth[rows]
    if vlm.across and vlm.sharded is not None and batch.pixels is not None and pixels is None:
        pixels = batch.pixels[:1]  # of no row: the layers that attend across run in all processes or in none
    with _unseen(vlm, batch) if pixels is None else nullcontext():
        return vlm.family.hidden(
            vlm.model,
            input_ids=batch.input_ids[rows],
            position_ids=batch.position_ids[..., rows, :],
            attention_mask=masks(vlm, batch.attention_mask[rows], depth, depth),
            past_key_values=cache,
            use_cache=cache is not None,
            **_types_in_training(vlm, batch.input_ids[rows]),
            **vlm.marks(batch.input_ids[rows]),
            **({} if pixels is None else pixels.inputs(vlm.model.dtype)),
        )


def _types_in_training(vlm: VLM, ids: Tensor) -> dict[str, Tensor]:
    """Which tokens are a picture's, where a model asks for it in training (Molmo) although it is given its masks."""
    if not vlm.model.training or "mm_token_type_ids" not in vlm.inputs:
        return {}
    return {name: types for name, types in vlm.token_types(ids).items() if name == "mm_token_type_ids"}


@contextmanager
def _unseen(vlm: VLM, batch: Batch) -> Iterator[None]:
    """Within the block, a picture times 0 is added to word embeddings, if other rows of the batch have a picture.

    All processes must run the same layers of a sharded model, forward and backward: a process whose rows are all text
    has to encode a picture as well, and to pass the gradient through the LLM.
    """
    if vlm.sharded is None or batch.pixels is None:
        yield
        return
    nothing = 0.0 * vlm.encoded(batch.pixels[:1])[-1].sum()
    embeddings: Any = vlm.model.get_input_embeddings()
    hook = embeddings.register_forward_hook(lambda _module, _inputs, words: words + nothing)
    try:
        yield
    finally:
        hook.remove()


def shown(vlm: VLM, batch: Batch, rows: slice) -> Pixels | None:
    """The pixels of some rows."""
    if batch.pixels is None or len(batch.input_ids) == rows.stop - rows.start:
        return batch.pixels
    pictured = (batch.input_ids == vlm.image_id).any(1)
    first, last = int(pictured[: rows.start].sum()), int(pictured[: rows.stop].sum())
    return batch.pixels[first:last] if last > first else None


def masks(vlm: VLM, mask: Tensor, depth: Tensor, seen: Tensor) -> Tensor | dict[str, Tensor | None]:
    """The mask (B, 1, Q, K) of each kind of layer: those with a sliding window (Gemma 3) see less of a long row.

    `depth` (B, Q) and `seen` (B, K) are how far the tokens that attend, and those that they may attend to, are from the
    root of their row.
    """
    found = vlm.family.masks(vlm.model.config, mask, depth, seen)
    if vlm.attention != "eager":
        return found
    if isinstance(found, Tensor):
        return additive(found, vlm.model.dtype)
    return {kind: None if one is None else additive(one, vlm.model.dtype) for kind, one in found.items()}


def batched(vlm: VLM, groups: Sequence[Group], tokens: int = TOKENS_PER_BATCH, grows: int = 0) -> Iterator[list[Group]]:
    """Split groups into lists whose padded size is at most `tokens` (a larger group is a list by itself).

    Each row may grow by as many tokens as `grows` while it is replied to.
    """
    batch: list[Group] = []
    rows = longest = 0
    for group in groups:
        its = [_most_tokens(vlm, part) + grows for part, _ in _in_rows(vlm, [group])]
        if batch and max(longest, *its) * (rows + len(its)) > tokens:
            yield batch
            batch, rows, longest = [], 0, 0
        batch.append(group)
        rows, longest = rows + len(its), max(longest, *its)
    if batch:
        yield batch


def _most_tokens(vlm: VLM, group: Group) -> int:
    """The maximum number of tokens of a group's row and beside it; an answer may get an end token."""
    pictured = group.picture is not None
    prompts = [vlm.prompt_ids(prompt.text, pictured) for prompt in group.prompts]
    answers = sum(
        len(vlm.answer_ids(prompt.text, pictured, answer)) + 1 for prompt in group.prompts for answer in prompt.answers
    )
    row = sum(map(len, prompts)) - (len(prompts) - 1) * shared_prefix(prompts) + answers
    return row + pictured * vlm.across


def shared_prefix(prompts: Sequence[tuple[Any, ...]]) -> int:
    """The number of leading tokens that all prompts share, leaving each at least one of its own."""
    shortest, first, last = min(map(len, prompts)) - 1, min(prompts), max(prompts)  # what these two share, all share
    return next((i for i in range(shortest) if first[i] != last[i]), shortest)


def as_batch(
    vlm: VLM,
    rows: Sequence[Row],
    tokens: Sequence[tuple[int, int, int, int]],
    asked_at: Sequence[tuple[int, int, int]],
    pixels: Pixels | None,
    answers: int,
) -> Batch:
    """Rows as padded tensors: row, source, target and owner of each of the `tokens`, the rest as `Batch` has it."""
    length, device = max(len(row.ids) for row in rows), vlm.device
    ids = np.full((len(rows), length), vlm.tokenizer.pad_token_id or 0, np.int64)
    positions = np.zeros((vlm.family.axes(vlm.model), len(rows), length), np.int64)
    depth = np.zeros((len(rows), length), np.int64)
    mask = np.zeros((len(rows), length, length), bool)
    mask[:, range(length), range(length)] = True  # a padding token sees itself: no row of the softmax is empty
    prefix, mutual = vlm.family.prefix, vlm.family.mutual(vlm.model, vlm.inputs)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n], positions[:, i, :n], depth[i, :n] = row.ids, row.positions, row.depth
        mask[i, :n, :n] = row.mask()
        if row.grid:
            positions[:, i, : len(row.grid[0])] = row.grid
        if prefix or mutual:
            mask[i, :n, :n] |= row.prompt() if prefix else row.mutual(vlm.image_ids)
    table = torch.tensor(tokens, dtype=torch.long).reshape(-1, 4).to(device)
    return Batch(
        torch.from_numpy(ids).to(device),
        torch.from_numpy(positions if len(positions) > 1 else positions[0]).to(device),
        torch.from_numpy(depth).to(device),
        torch.from_numpy(mask)[:, None].to(device),
        None if pixels is None else pixels.to(device),
        row=table[:, 0],
        source=table[:, 1],
        target=table[:, 2],
        owner=table[:, 3],
        answers=answers,
        prompts=torch.tensor(asked_at, dtype=torch.long).reshape(-1, 3).to(device),
    )
