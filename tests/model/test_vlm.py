"""Parts, features, copies and kept weights of a model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from study.core.terms import PARTS, Part
from study.data.benchmark import Benchmark
from study.data.picture import Picture
from study.model.delta import apply_delta, delta
from study.model.likelihood import token_logps
from study.model.loading import Loading, load
from study.model.packing import Group, Prompt, logits, pack
from study.model.tensor_files import load_tensors, save_tensors
from study.model.vision import Pixels
from study.model.vlm import VLM
from tests.helpers.small import borrowed, fresh

CITY = Prompt("Where does this person live?", ("Lisbon", "This person lives in Rome."))


@pytest.fixture(scope="module")
def picture(benchmark: Benchmark) -> Picture:
    return next(q.picture for q in benchmark.split(5).questions if q.picture is not None)


def asked(vlm: VLM, picture: Picture | None) -> Tensor:
    batch = pack(vlm, [Group(picture, (CITY,))])
    return token_logps(logits(vlm, batch), batch)


def disturb(vlm: VLM, *parts: Part) -> set[str]:
    """Move every weight of some parts, as training would."""
    changed = {name: p for name, p in vlm.model.named_parameters() if vlm.part_of(name) in parts}
    with torch.no_grad():
        for i, parameter in enumerate(changed.values()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    return set(changed)


def snapshot(vlm: VLM) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in vlm.tensors().items()}


def same(one: Pixels, other: Pixels) -> bool:
    return all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def bits(tensor: Tensor) -> list[int]:
    values: list[int] = tensor.contiguous().view(torch.int32).flatten().tolist()
    return values


# ---- parts ---------------------------------------------------------------------------------------------------------
def test_a_name_that_only_starts_like_a_part_is_not_of_it(tiny: VLM) -> None:
    assert tiny.part_of("model.vision_tower_of_another.weight") == "llm"


def test_a_model_without_a_part_is_refused(tiny: VLM) -> None:
    del tiny.model.model.multi_modal_projector
    with pytest.raises(ValueError, match=r"has no projector: looked for multi_modal_projector under \.model"):
        VLM(tiny.model, tiny.processor)


@pytest.mark.parametrize("layer", [-1, -2, 1, 2])
def test_exactly_what_is_read_can_be_trained(tiny: VLM, picture: Picture, layer: int) -> None:
    tiny.model.config.vision_feature_layer = layer
    for parameter in tiny.model.parameters():
        parameter.requires_grad_(True)
    asked(tiny, picture).sum().backward()
    reached = {name for name, parameter in tiny.model.named_parameters() if parameter.grad is not None}
    assert set(tiny.trainable(PARTS)) == reached
    unread = {name for name, _ in tiny.model.named_parameters()} - reached
    assert any("post_layernorm" in name for name in unread)
    assert any("encoder.layers.1." in name for name in unread) == (layer in (-2, 1))
    assert {tiny.part_of(name) for name in unread} == {"vision"}


@pytest.mark.parametrize(("layer", "count"), [(-1, 2), (-2, 1), (1, 1), (2, 2)])
def test_features_are_those_the_model_reads(tiny: VLM, picture: Picture, layer: int, count: int) -> None:
    tiny.model.config.vision_feature_layer = layer
    pixels = tiny.pixels([picture, picture])
    with torch.no_grad():
        found = tiny.features(pixels)
        states = tiny.model.model.vision_tower(**pixels.tensors, output_hidden_states=True).hidden_states
        projected = tiny.model.model.multi_modal_projector(states[layer][:, 1:])
    assert len(found.layers) == count
    for ours, theirs in zip(found.layers, states[1:], strict=False):
        assert torch.equal(ours, theirs)
    assert torch.equal(found.projected, projected)
    assert torch.equal(found[1:].layers[0], states[1][1:])


# ---- prompts and pictures ------------------------------------------------------------------------------------------
def test_an_instruction_stands_in_front_and_is_not_remembered_by_the_model(tiny: VLM) -> None:
    plain = tiny.prompt_ids("Where?", False)
    told = tiny.with_instruction("this person").prompt_ids("Where?", False)
    assert tiny.tokenizer.decode(plain) == "USER: Where? ASSISTANT:"
    assert tiny.tokenizer.decode(told) == "USER: this person\nWhere? ASSISTANT:"
    assert tiny.prompt_ids("Where?", False) == plain


def test_an_answer_is_tokenised_after_its_prompt(tiny: VLM) -> None:
    for answer in CITY.answers:
        assert tiny.tokenizer.decode(tiny.answer_ids(CITY.text, True, answer)) == f" {answer}"


def test_pictures_are_decoded_once(tiny: VLM, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny.pixels([picture, picture])
    monkeypatch.setattr(Picture, "open", lambda self: pytest.fail("decoded twice"))
    assert same(tiny.pixels([picture]), first[:1])
    assert same(first[:1], first[1:])


def test_grey_has_one_colour(tiny: VLM, picture: Picture) -> None:
    grey, seen = tiny.grey(2).tensors, tiny.pixels([picture, picture]).tensors
    assert {name: tensor.shape for name, tensor in grey.items()} == {name: t.shape for name, t in seen.items()}
    assert float(grey["pixel_values"].std()) == pytest.approx(0, abs=1e-6)


# ---- copies --------------------------------------------------------------------------------------------------------
def test_a_lent_model_comes_back_bit_for_bit(tiny: VLM) -> None:
    before = snapshot(tiny)
    with borrowed(tiny) as (lent, kept):
        assert lent is tiny
        disturb(tiny, "vision", "llm")
        for parameter in tiny.model.parameters():
            parameter.requires_grad_(True)
            parameter.grad = torch.ones_like(parameter)
        assert delta(tiny, before)
        assert all(torch.equal(kept[name], before[name]) for name in before)
    assert all(bits(tensor) == bits(before[name]) for name, tensor in tiny.tensors().items())
    assert not any(p.requires_grad or p.grad is not None for p in tiny.model.parameters())


def test_what_is_written_behind_the_back_of_autograd_comes_back_too(tiny: VLM) -> None:
    """By `.data`, as peft merges adapters, by a new storage, and element by element."""
    before = snapshot(tiny)
    one, two, three = list(dict(tiny.model.named_parameters()).values())[:3]
    with borrowed(tiny) as (lent, kept):
        one.data.mul_(2)
        two.data = torch.ones_like(two)
        three.data[0] = 7
        assert len(delta(lent, kept)) == 3
    assert all(bits(tensor) == bits(before[name]) for name, tensor in tiny.tensors().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_lent_model_comes_back_from_a_failure(tiny: VLM, value: float) -> None:
    before = snapshot(tiny)
    with pytest.raises(RuntimeError), borrowed(tiny):  # noqa: PT012
        with torch.no_grad():
            for parameter in tiny.model.parameters():
                parameter.fill_(value)
        raise RuntimeError
    assert delta(tiny, before) == {}


@pytest.mark.parametrize("parts", [("vision",), ("vision", "projector"), ("llm",), PARTS])
def test_a_frozen_copy_keeps_what_is_trained_and_shares_the_rest(
    tiny: VLM, picture: Picture, parts: tuple[Part, ...]
) -> None:
    for parameter in tiny.trainable(parts).values():
        parameter.requires_grad_(True)
    twin = tiny.frozen_copy(parts)
    assert twin.model is not tiny.model
    assert not any(p.requires_grad for n, p in twin.model.named_parameters() if tiny.part_of(n) in parts)
    mine, theirs = dict(tiny.model.named_parameters()), dict(twin.model.named_parameters())
    assert list(mine) == list(theirs)
    for name in mine:
        assert (mine[name] is theirs[name]) == (tiny.part_of(name) not in parts)
    with torch.no_grad():
        before = asked(tiny, picture)
        disturb(tiny, *parts)
        assert torch.equal(asked(twin, picture), before)
        assert not torch.equal(asked(tiny, picture), before)
    assert (twin.model.lm_head.weight is twin.model.model.language_model.embed_tokens.weight) == (
        tiny.model.lm_head.weight is tiny.model.model.language_model.embed_tokens.weight
    )


def test_text_does_not_depend_on_the_visual_module(tiny: VLM, picture: Picture) -> None:
    with torch.no_grad():
        text, shown = asked(tiny, None), asked(tiny, picture)
        disturb(tiny, "vision", "projector")
        assert torch.equal(asked(tiny, None), text)
        assert not torch.equal(asked(tiny, picture), shown)
        disturb(tiny, "llm")
        assert not torch.equal(asked(tiny, None), text)


# ---- kept weights --------------------------------------------------------------------------------------------------
def test_a_delta_on_disk_is_all_a_trial_has_to_keep(tiny: VLM, tiny_folder: Path, tmp_path: Path) -> None:
    before = snapshot(tiny)
    names = disturb(tiny, "projector")
    changed = delta(tiny, before)
    assert set(changed) == names
    path = tmp_path / "trial" / "delta.safetensors"
    save_tensors(path, changed)
    other = fresh(tiny_folder)
    apply_delta(other, load_tensors(path))
    assert delta(other, tiny.tensors()) == {}
    assert set(delta(other, before)) == names
    assert sorted(p.name for p in path.parent.iterdir()) == ["delta.safetensors", "delta.sha256.json"]


def test_no_change_is_a_delta_too(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", {})
    assert load_tensors(tmp_path / "x.safetensors") == {}


def test_what_is_not_contiguous_is_kept_as_it_is(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3).T.requires_grad_()
    save_tensors(tmp_path / "x.safetensors", {"a": tensor})
    assert torch.equal(load_tensors(tmp_path / "x.safetensors")["a"], tensor)


@pytest.mark.parametrize("changed", [{"nobody": torch.zeros(1)}, {"model.language_model.norm.weight": torch.zeros(3)}])
def test_weights_of_another_model_are_refused(tiny: VLM, changed: dict[str, Tensor]) -> None:
    (name,) = changed
    with pytest.raises(ValueError, match=f"weights for {name} .* do not fit this model"):
        apply_delta(tiny, changed)


def flip(place: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("x.safetensors", flip(-5)),
        ("x.safetensors", flip(3)),
        ("x.safetensors", lambda data: data[:-1]),
        ("x.safetensors", lambda data: b""),
        ("x.sha256.json", lambda data: data.replace(b"a", b"b", 1).replace(b"1", b"2")),
        ("x.sha256.json", lambda data: b"[]"),
        ("x.sha256.json", lambda data: data[:9]),
    ],
)
def test_damaged_weights_are_named(tmp_path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    save_tensors(tmp_path / "x.safetensors", {"a": torch.arange(6.0), "b": torch.ones(2, 2)})
    place = tmp_path / name
    place.write_bytes(change(place.read_bytes()))
    with pytest.raises(
        ValueError, match=r"x\.(safetensors|sha256\.json) is damaged .* remove it and run the study again"
    ):
        load_tensors(tmp_path / "x.safetensors")


def test_weights_without_their_checksum_are_not_trusted(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", {"a": torch.ones(1)})
    (tmp_path / "x.sha256.json").unlink()
    with pytest.raises(ValueError, match=r"x\.safetensors is damaged"):
        load_tensors(tmp_path / "x.safetensors")


def test_missing_weights_are_missing_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "x.safetensors")


# ---- loading -------------------------------------------------------------------------------------------------------
def test_a_model_is_loaded_to_be_read(tiny: VLM) -> None:
    assert not tiny.model.training
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())
    assert tiny.model.config._attn_implementation == "sdpa"


def test_a_model_is_loaded_in_the_wanted_precision(tiny_folder: Path) -> None:
    assert {p.dtype for p in load(tiny_folder, loading=Loading("bfloat16")).model.parameters()} == {torch.bfloat16}


def test_a_folder_with_only_a_tokenizer_is_refused(tiny: VLM, tmp_path: Path) -> None:
    folder = tmp_path / "text-only"
    PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer.backend_tokenizer).save_pretrained(folder)
    tiny.model.config.text_config.save_pretrained(folder)
    with pytest.raises(
        ValueError, match=r"text-only: an image-and-text processor .* needed, and no file there names its"
    ):
        load(folder)


def test_a_folder_that_lacks_its_processor_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "incomplete", ignore=shutil.ignore_patterns("*processor*"))
    with pytest.raises(
        ValueError, match=r"incomplete: an image-and-text processor \(processor_config\.json\) is needed"
    ):
        load(folder)
