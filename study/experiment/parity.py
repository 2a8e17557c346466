"""Whether a study asks a model what transformers itself would ask it, and hears the same: by the model's own processor,
forward pass and `generate`, on pictures of several shapes, several at once, and on text alone."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from study.data.picture import Picture
from study.model.decoding import replies
from study.model.packing import Group, begun, logits, pack
from study.model.vlm import VLM

SHAPES = {"wide": (160, 60), "tall": (50, 150), "tiny": (3, 2)}
"""Width and height in pixels of pictures that a processor may cut, pad or stretch each in its own way."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Maximum difference of packed logits from plain ones, as a fraction of the largest: rounding only. float32 has seven
digits and bfloat16 two to three, of which the layers of a model lose some."""
REPLY = 8
"""Tokens of the replies that are compared: enough to differ where keys, positions or ends are wrong."""


def asked(group: Group) -> list[Group]:
    """The group itself, one prompt about its picture in each shape, and the group as text: rows of unequal length."""
    assert group.picture is not None
    few = group.prompts[:1]
    shapes = [Group(_shaped(group.picture, name), few) for name in SHAPES]
    return [group, *shapes, replace(group, picture=None)]


def _shaped(picture: Picture, shape: str) -> Picture:
    file = io.BytesIO()
    picture.open().resize(SHAPES[shape]).save(file, "PNG")
    return Picture(file.getvalue(), f"the same, {shape}")


def prompts(vlm: VLM, group: Group) -> str:
    """Prompts are tokenized as `apply_chat_template(tokenize=True)` does, special tokens included."""
    compared = 0
    for shown in asked(group):
        for prompt in shown.prompts:
            try:
                wanted = _templated(vlm, prompt.text, shown.picture)
            except (TypeError, ValueError):  # GOT-OCR's takes no picture: what is left is its processor, asked below
                continue
            found = list(vlm.prompt_ids(prompt.text, shown.picture is not None))
            if found != wanted:
                raise ValueError(
                    f"{len(found)} tokens where apply_chat_template makes {len(wanted)}: {found[:4]}... is not "
                    f"{wanted[:4]}...; the family needs another `turn`, or the folder another chat template"
                )
            compared += 1
    if not compared:
        return "not compared: apply_chat_template fails with every prompt"
    starts = vlm.prompt_ids(group.prompts[0].text, False).count(vlm.tokenizer.bos_token_id)
    return f"{compared} prompts, each with {starts} token{'s' * (starts != 1)} of beginning"


def _templated(vlm: VLM, prompt: str, picture: Picture | None) -> list[int]:
    turn = vlm.family.turn(prompt, picture is not None)
    shown = [{**part, "image": vlm.prepared(picture.open())} if picture and part["type"] == "image" else part
             for part in turn["content"]]  # fmt: skip
    options: dict[str, Any] = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    said = [{**turn, "content": shown}]
    made = cast(Any, vlm.processor).apply_chat_template(said, return_tensors="pt", **options)
    ids: list[int] = made["input_ids"][0].tolist()
    return ids


@torch.no_grad()
def packed_logits(vlm: VLM, group: Group) -> str:
    """All of them in one padded batch, against each answer alone by the model's own forward pass."""
    groups = asked(group)
    packed = logits(vlm, pack(vlm, groups))
    plain = torch.cat([each for shown in groups for each in _plain(vlm, shown)])
    if not plain.isfinite().all():
        raise ValueError("what transformers makes of them is not finite: the weights are damaged, or too large for it")
    apart = float((packed - plain).abs().max() / plain.abs().max())
    if not apart <= TOLERANCE[vlm.model.dtype]:
        raise ValueError(f"they differ by {apart:.2g} of the largest; the family needs other positions or masks")
    return f"within {apart:.1g} of the largest, {len(groups)} rows: {', '.join(('as it is', *SHAPES, 'text alone'))}"


def _plain(vlm: VLM, group: Group) -> Iterator[Tensor]:
    """The logits of each answer alone."""
    for prompt in group.prompts:
        made = _own_inputs(vlm, prompt.text, group.picture)
        before = made["input_ids"].shape[1]
        for answer in prompt.answers:
            reply = [*vlm.answer_ids(prompt.text, group.picture is not None, answer), vlm.eos_id]
            yield vlm.model(**_with(vlm, made, reply)).logits[0, before - 1 : -1].float()


def _own_inputs(vlm: VLM, prompt: str, picture: Picture | None) -> dict[str, Tensor]:
    """What the model's processor makes of a prompt and a picture."""
    text = vlm.chat([vlm.family.turn(prompt, picture is not None)])
    images = [] if picture is None else [vlm.prepared(picture.open())]
    made = vlm.processed(vlm.processor, text, images)
    given = {name: tensor.to(vlm.device) for name, tensor in made.items() if name in vlm.inputs}
    return {n: t.to(vlm.model.dtype) if t.is_floating_point() else t for n, t in given.items()}


def _with(vlm: VLM, made: Mapping[str, Tensor], reply: list[int]) -> dict[str, Tensor]:
    """The inputs of a prompt, continued by the tokens of a reply."""
    ids = torch.cat([made["input_ids"], torch.tensor([reply], device=vlm.device)], 1)
    types = {name: tensor[:, -len(reply) :] for name, tensor in vlm.token_types(ids).items() if name in made}
    own = {name: torch.cat([made[name], its + vlm.family.reply_type], 1) for name, its in types.items()}
    return {**made, **own, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.no_grad()
def same_replies(vlm: VLM, group: Group) -> str:
    """Greedy replies to all of them at once, against `generate` for each."""
    groups = asked(group)
    batch = pack(vlm, groups, end=False)
    count = len(batch.prompts)
    found = replies(vlm, batch, range(count), begun(vlm, batch), REPLY)
    if vlm.model.dtype is not torch.float32:  # two likely words may change places by rounding
        return f"{found[0]!r}; not compared with generate in {str(vlm.model.dtype).removeprefix('torch.')}"
    wanted = [_generated(vlm, prompt.text, shown.picture) for shown in groups for prompt in shown.prompts]
    for ours, theirs in zip(found, wanted, strict=True):
        if ours != theirs:
            raise ValueError(f"{ours!r} where generate says {theirs!r}; the family needs other positions or masks")
    return f"{count} like those of generate, such as {found[0]!r}"


def _generated(vlm: VLM, prompt: str, picture: Picture | None) -> str:
    made = _own_inputs(vlm, prompt, picture)
    padding = vlm.tokenizer.pad_token_id if vlm.tokenizer.pad_token_id is not None else vlm.eos_id
    with _greedy(vlm.model):
        out = cast(Any, vlm.model).generate(**made, max_new_tokens=REPLY, do_sample=False, pad_token_id=padding)
    said: str = vlm.tokenizer.decode(out[0, made["input_ids"].shape[1] :], skip_special_tokens=True)
    return said.strip()


@contextmanager
def _greedy(model: Any) -> Iterator[None]:
    """Within the block `generate` is told nothing by the model's folder but where a reply ends.

    A study heeds none of the rest (beams, stop strings, least lengths ...), so it is no fault of the model.
    """
    from transformers import GenerationConfig

    before = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=before.eos_token_id if before else None)
    try:
        yield
    finally:
        model.generation_config = before
