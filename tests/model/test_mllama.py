"""Mllama, whose LLM attends to pictures across: what its words see of them, against transformers alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import transformers
from torch import Tensor

from study.core.terms import PARTS
from study.data.benchmark import Benchmark
from study.data.picture import Picture
from study.engine.world import sharding
from study.evaluation.sampling import sampled
from study.model import decoding
from study.model.flop_counter import counted
from study.model.likelihood import all_tokens, cross_entropy
from study.model.loading import load
from study.model.memory_estimate import estimates, shape
from study.model.packing import Group, Prompt, logits, pack
from study.model.prompt_tree import Shown, begun, shown, tree
from study.model.vlm import VLM
from study.training.loop import train
from study.training.schedule import Schedule
from tests.helpers.processes import join, spawn
from tests.helpers.small import fresh

CITY = Prompt("Where does this person live?", ("Lisbon", "Oslo"))
JOB = Prompt("What is the job of this person?", ("baker",))
SAID: tuple[tuple[str | int, ...], ...] = (
    (0, "Where does this person live?"),
    ("Where does", 0, "this person live?"),
    (0, "This person lives in Rome.", 1, "Where does this person live?"),
    (0, 1, "Where does this person live?"),
    ("Where?", 0, "Rome.", 1, 2, "Where does this person live?", 3),
)
"""Turns of words and pictures (by number): one, behind words, two, two side by side, and all of it."""


@pytest.fixture
def vlm(family_folders: dict[str, Path]) -> VLM:
    return fresh(family_folders["mllama"])


@pytest.fixture(scope="module")
def pictures(benchmark: Benchmark) -> list[Picture]:
    return list(dict.fromkeys(q.picture for q in benchmark.split(5).questions if q.picture is not None))[:4]


def written(vlm: VLM, said: Sequence[str | int]) -> str:
    content = [{"type": "image"} if isinstance(part, int) else {"type": "text", "text": part} for part in said]
    return vlm.chat([{"role": "user", "content": content}])


def stock(vlm: VLM, said: Sequence[str | int], pictures: Sequence[Picture]) -> dict[str, Tensor]:
    """What the published class makes of a turn."""
    processor = transformers.MllamaProcessor(vlm.processor.image_processor, vlm.tokenizer)
    images = [vlm.prepared(pictures[part].open()) for part in said if isinstance(part, int)]
    options: Any = {"return_tensors": "pt", "add_special_tokens": False}
    return dict(processor(images=[images], text=[written(vlm, said)], **options))


def prompt(vlm: VLM, said: Sequence[str | int], pictures: Sequence[Picture]) -> Shown:
    its = tuple(pictures[part] for part in said if isinstance(part, int))
    return shown(vlm, vlm.written_ids(written(vlm, said), len(its)), its)


# ---- what words see ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("said", SAID)
def test_words_are_told_of_the_pictures_that_the_processor_says(
    vlm: VLM, said: tuple[str | int, ...], pictures: list[Picture]
) -> None:
    made = stock(vlm, said, pictures)
    found = vlm.token_types(made["input_ids"])["cross_attention_mask"]
    assert torch.equal(found, made["cross_attention_mask"])


@torch.no_grad()
def test_prompts_with_several_pictures_have_the_logits_of_transformers(vlm: VLM, pictures: list[Picture]) -> None:
    """In one batch of rows with one to four pictures, of which some share a row."""
    asked = [*SAID, (0, "What is the job of this person?"), (0, 1, "What is the job of this person?")]
    rows = [[0, 5], [1], [2], [3, 6], [4]]
    laid = tree(vlm, [[prompt(vlm, asked[i], pictures) for i in row] for row in rows])
    hidden, _ = begun(vlm, laid)
    found = vlm.head(hidden[laid.batch.prompts[:, 0], laid.batch.prompts[:, 1]])
    wanted = [vlm.model(**stock(vlm, asked[i], pictures)).logits[0, -1] for row in rows for i in row]
    torch.testing.assert_close(found, torch.stack(wanted), rtol=0, atol=1e-4)
    assert len({round(float(one.max()), 3) for one in wanted}) == len(wanted)


@torch.no_grad()
def test_words_without_a_picture_do_not_know_that_others_have_one(vlm: VLM, pictures: list[Picture]) -> None:
    """Not to rounding but exactly: another picture in another row changes no bit."""
    text = Group(None, (CITY, JOB))
    both = [logits(vlm, pack(vlm, [Group(picture, (JOB,)), text])) for picture in pictures[:2]]
    own = len(pack(vlm, [text]).target)
    assert torch.equal(both[0][-own:], both[1][-own:])
    assert not torch.equal(both[0][:-own], both[1][:-own])
    torch.testing.assert_close(both[0][-own:], logits(vlm, pack(vlm, [text])), rtol=0, atol=1e-5)


@torch.no_grad()
def test_what_is_on_empty_tiles_is_not_seen(vlm: VLM, pictures: list[Picture]) -> None:
    pixels = vlm.pixels(pictures[:1])
    assert pixels.tensors["aspect_ratio_mask"].tolist() == [[[1, 0, 0, 0]]]
    noise = torch.zeros_like(pixels.tensors["pixel_values"])
    noise[:, :, 1:] = 1.0
    noised = replace(pixels, tensors={**pixels.tensors, "pixel_values": pixels.tensors["pixel_values"] + noise})
    assert torch.equal(vlm.features(noised).projected, vlm.features(pixels).projected)


# ---- replies -------------------------------------------------------------------------------------------------------
def test_a_picture_stays_when_replies_are_taken_back(
    vlm: VLM, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replies to the questions of a row are drawn in several passes, from one cache."""
    questions = [q for q in benchmark.split(5).questions if q.task == "cloze" and q.picture is not None]
    some = [q for q in questions if q.picture == questions[0].picture][:4]
    assert len(some) > 1
    together = sampled(vlm, some, 2, seed=1)
    monkeypatch.setattr(decoding, "REPLIES_PER_ROW", 2)
    assert sampled(vlm, some, 2, seed=1) == together


@torch.no_grad()
def test_every_picture_of_a_row_is_counted(vlm: VLM, pictures: list[Picture]) -> None:
    """Also in transformers' own pass, which has them side by side."""
    for said in SAID:
        with counted(vlm) as work:
            vlm.model(**stock(vlm, said, pictures))
        assert work.images == sum(isinstance(part, int) for part in said)


# ---- prompts -------------------------------------------------------------------------------------------------------
def test_the_published_template_asks_on_the_same_day_every_day(vlm: VLM) -> None:
    """It tells today's date where no picture is shown."""
    assert "Today Date: 26 Jul 2024\n" in vlm.chat([vlm.family.turn("Where?", False)])
    assert "Date" not in vlm.chat([vlm.family.turn("Where?", True)])


# ---- training ------------------------------------------------------------------------------------------------------
def test_a_placeholder_is_no_label(vlm: VLM, pictures: list[Picture]) -> None:
    """The model has no logit of it; what else is in a row has."""
    assert vlm.image_id == vlm.outputs < vlm.vocabulary
    batch = pack(vlm, [Group(pictures[0], (JOB,))])
    every, _ = all_tokens(batch, vlm.outputs)
    ids = batch.input_ids[0].tolist()
    assert every.target.tolist() == [token for token in ids[1:] if token != vlm.image_id]
    assert vlm.image_id in ids
    assert float(cross_entropy(vlm, batch, "all")) > 0


def taught(vlm: VLM, groups: Sequence[Group]) -> list[float]:
    """The losses of two steps, the second of which depends on every gradient of the first."""
    return train(vlm, PARTS, Schedule(steps=2, learning_rate=1e-3), lambda _: cross_entropy(vlm, pack(vlm, groups)))


def teach_half(rank: int, root: Path, port: int, base: Path, groups: Sequence[Group]) -> None:
    join(rank, port)
    with sharding():
        (root / f"{rank}.json").write_text(json.dumps(taught(load(base), groups)), encoding="utf-8")
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_process_without_a_picture_runs_the_layers_of_the_one_that_has_it(
    vlm: VLM, pictures: list[Picture], family_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Of a model that two processes share, each with a row of every step: both must gather the same layers."""
    groups = [Group(pictures[0], (CITY,)), Group(None, (JOB,))]
    spawn(teach_half, tmp_path, family_folders["mllama"], groups)
    alone = taught(vlm, groups)
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) == pytest.approx(alone, rel=1e-5)
    assert alone[1] < alone[0]


def test_what_a_picture_takes_across_is_counted_in_memory(vlm: VLM) -> None:
    counted = shape(vlm)
    tokens = 4 * 17  # four tiles of 16 patches and a token of the class
    assert (vlm.across, vlm.image_tokens) == (tokens, 1)
    assert counted.across == tokens
    assert counted.keys == tokens * 3 * 32  # in one layer, 32 wide
    assert counted.adapted_keys == tokens * (2 * 32 + 64)
    assert counted.vision == tokens * 3 * (8 * 32 + 2 * 64)
    rows = {e.kind: e.step.row for e in estimates(counted)}
    without = {e.kind: e.step.row for e in estimates(replace(counted, keys=0, adapted_keys=0))}
    alike = {kind for kind in rows if rows[kind] == without[kind]}
    assert alike == {kind for kind in rows if "features" in kind or "score" in kind}
