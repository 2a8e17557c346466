"""The embedded base model and the folders that are read: whole or absent, offline, and of the promised size."""

from __future__ import annotations

import socket
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaProcessor
from transformers.processing_utils import ProcessorMixin

from study.base_models import tiny as made
from study.base_models.tiny import Tiny, _tokenizer
from study.core.hashing import content_key
from study.core.plugins import find, known
from study.data.benchmark import Benchmark
from study.data.synthetic_language import tokens
from study.model.loading import load
from study.model.vlm import VLM
from study.stages.plan import identity_of
from tests.helpers.small import changed, same_bits, snapshot

SMALL = Tiny(steps=0, width=16, layers=1)


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("something tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.mark.parametrize("name", known("base_models"))
def test_a_model_is_a_frozen_value(name: str) -> None:
    found = find("base_models", name)
    model = found()
    assert content_key(model) == content_key(replace(model))
    with pytest.raises(AttributeError):
        model.seed = 1


@pytest.mark.usefixtures("_offline")
def test_the_folder_is_one_that_transformers_loads(tmp_path: Path) -> None:
    """By its auto classes, without a network, and as one model and one processor."""
    folder = SMALL(tmp_path)
    assert folder.is_relative_to(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert isinstance(processor, ProcessorMixin)
    assert load(folder).eos_id == processor.tokenizer.eos_token_id
    assert not list(folder.glob("*.bin"))


def test_it_is_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SMALL(tmp_path)
    monkeypatch.setattr(Tiny, "_model", lambda *_: pytest.fail("made again"))
    assert SMALL(tmp_path) == folder
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_another_recipe_is_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same fields: neither its folder nor what was learned from it is taken for the other's."""
    folder, identity = SMALL(tmp_path), identity_of(SMALL)
    monkeypatch.setattr(made, "RECIPE", made.RECIPE + 1)
    assert SMALL(tmp_path) != folder
    assert identity_of(SMALL) != identity


def test_a_folder_that_cannot_be_finished_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that looks like a model is left, and the next try makes it."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(LlavaProcessor, "save_pretrained", full)
        with pytest.raises(OSError, match="no space"):
            SMALL(tmp_path)
    assert list(tmp_path.iterdir()) == []
    load(SMALL(tmp_path))


def test_a_faster_process_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that start together both end with the folder."""
    made = LlavaProcessor.save_pretrained

    def meanwhile(self: LlavaProcessor, folder: Path, *args: Any) -> Any:
        monkeypatch.setattr(LlavaProcessor, "save_pretrained", made)
        first.append(SMALL(tmp_path))
        return made(self, folder, *args)

    first: list[Path] = []
    monkeypatch.setattr(LlavaProcessor, "save_pretrained", meanwhile)
    assert SMALL(tmp_path) == first[0]
    assert list(tmp_path.iterdir()) == first
    load(first[0])


def test_the_seed_decides_every_weight(tmp_path: Path) -> None:
    """Whatever was drawn before."""
    torch.manual_seed(1)
    first = snapshot(load(SMALL(tmp_path / "first")))
    torch.manual_seed(2)
    assert same_bits(first, snapshot(load(SMALL(tmp_path / "second"))))
    other = replace(SMALL, seed=1)(tmp_path / "first")
    assert other != SMALL(tmp_path / "first")
    assert not same_bits(first, snapshot(load(other)))


def test_pretraining_teaches_the_eyes_and_nothing_else(tmp_path: Path) -> None:
    """And gives the same bits twice."""
    short = replace(SMALL, steps=2, strangers=4)
    blind, seeing = load(SMALL(tmp_path)), load(short(tmp_path))
    moved = changed(snapshot(blind), snapshot(seeing))
    assert {blind.part_of(name) for name in moved} == {"vision"}
    assert same_bits(snapshot(seeing), snapshot(load(short(tmp_path / "again"))))


def test_the_default_has_the_promised_size(tmp_path: Path) -> None:
    vlm = load(Tiny(steps=0)(tmp_path))
    assert sum(p.numel() for p in vlm.model.parameters()) == pytest.approx(0.62e6, rel=0.03)


def test_the_tokenizer_has_a_token_for_every_word(tiny: VLM, benchmark: Benchmark) -> None:
    """Of the language, and so of every lesson, question and option, whether a picture is shown or not."""
    texts: set[str] = set()
    for split in benchmark.splits.values():
        texts |= {text for lesson in split.lessons for text in (lesson.prompt, lesson.answer)}
        texts |= {text for q in split.questions for text in (q.prompt, q.answer, *q.options)}
    written = [text for text in texts if len(tiny.tokenizer(f" {text}").input_ids) != len(tokens(text))]
    assert written == []
    frame = tiny.prompt_ids("", True)
    for prompt in sorted({q.prompt for q in benchmark.split(10).questions}):
        assert len(tiny.prompt_ids(prompt, True)) == len(frame) + len(tokens(prompt))
    assert tiny.prompt_ids("Who is this person?", True).count(tiny.image_id) == tiny.image_tokens == (48 // 12) ** 2


@pytest.mark.parametrize("text", [
    "Where does Zoë Müller-Lüdenscheidt live?", "王小明住在哪里?", "أين تعيش ليلى؟", "สมชายอยู่ที่ไหน", "Cafe\u0301 🙂",
    "two  spaces,\na line and\ta tab", "This person lives in Lisbon.", "unbelievable (Lisbon)", " a space", "\u2581",
])  # fmt: skip
def test_any_text_can_be_written_and_read(text: str, tiny: VLM) -> None:
    """To the last character; nothing is unknown."""
    ids = tiny.tokenizer(text).input_ids
    assert tiny.tokenizer.unk_token_id not in ids
    assert tiny.tokenizer.decode(ids) == text


@given(st.text())
def test_every_text_can_be_written_and_read(text: str) -> None:
    tokenizer = _tokenizer()
    ids = tokenizer.encode(text).ids
    assert 3 not in ids
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    "fields",
    [{"size": 50}, {"width": 30}, {"width": 0}, {"layers": 0}, {"patch": 0}, {"size": 0}, {"steps": -1},
     {"strangers": 0}],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_value(fields: dict[str, int]) -> None:
    ((name, value),) = fields.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Tiny(**fields)
