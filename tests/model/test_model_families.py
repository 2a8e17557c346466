"""What holds for every family of models: parts, prompts, features, packing, replies and VKD, against the family's own
processor and forward pass."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers import PretrainedConfig

from study.contracts import Request
from study.core import plugins
from study.core.plugins import find, known, name_of
from study.core.terms import PARTS, Part
from study.data.benchmark import Benchmark, Question
from study.data.conversation import conversation
from study.data.picture import Picture
from study.evaluation import sampling, scoring
from study.evaluation.scoring import readings
from study.methods import _saliency
from study.methods._neurons import mlps
from study.methods.vkd import VKD, pruned
from study.model import families
from study.model.families import Family, family_of, patch_side
from study.model.flop_counter import counted
from study.model.likelihood import token_logps
from study.model.loading import EAGER, load
from study.model.memory_estimate import shape
from study.model.packing import Batch, Group, Prompt, logits, pack
from study.model.vlm import VLM
from study.training.schedule import Schedule
from tests import ROOT
from tests.helpers.families import FAMILIES
from tests.helpers.small import changed, fresh, request_on, same_bits, snapshot, token_types

CITY = Prompt("Where does this person live?", ("Lisbon", "Oslo", "This person lives in Rome."))
JOB = Prompt("What is the job of this person?", ("baker",))
LONG = Prompt("In which city does this person live? In which city does this person live?", ("Cairo", "a nurse"))
WITH_VIDEOS = ("qwen2_vl", "qwen2_5_vl")


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def folder(name: str, family_folders: dict[str, Path]) -> Path:
    return family_folders[name]


@pytest.fixture
def vlm(folder: Path) -> VLM:
    return fresh(folder)


@pytest.fixture(scope="module")
def pictures(benchmark: Benchmark) -> list[Picture]:
    return list(dict.fromkeys(q.picture for q in benchmark.split(5).questions if q.picture is not None))[:4]


def own_inputs(vlm: VLM, picture: Picture | None, prompt: str, more: str = "") -> Any:
    """What the family's processor makes of the chat template's text and the picture."""
    processor: Any = vlm.processor
    content = [{"type": "image"}] * (picture is not None) + [{"type": "text", "text": prompt}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    if more and not text[-1:].isspace():
        text += " "
    images = None if picture is None else [vlm.prepared(picture.open())]
    return processor(text=[text + more], images=images, return_tensors="pt", **begun(text))


def continued(vlm: VLM, picture: Picture | None, prompt: str, answer: str) -> dict[str, Tensor]:
    """What the model is given of a prompt and an answer to it, as its own fine-tuning does."""
    if not vlm.family.prefix:
        return dict(own_inputs(vlm, picture, prompt, answer))
    made = own_inputs(vlm, picture, prompt)
    asked = made["input_ids"]
    ids = torch.cat([asked, vlm.tokenizer(answer, return_tensors="pt").input_ids], 1)
    types = token_types(vlm, ids, asked.shape[1], picture is not None)
    return {**made, **types, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


def begun(text: str) -> dict[str, bool]:
    """Told to a processor of a text whose template wrote the first token itself, as Gemma's does."""
    return {"add_special_tokens": False} if text.startswith("<s>") else {}


def asked(vlm: VLM, groups: Sequence[Group]) -> tuple[Batch, Tensor]:
    batch = pack(vlm, groups)
    with torch.no_grad():
        return batch, logits(vlm, batch)


# ---- parts -------------------------------------------------------------------------------------------------------
def test_every_part_is_found_where_the_family_keeps_it(vlm: VLM) -> None:
    for weight, _ in vlm.model.named_parameters():
        part = vlm.part_of(weight)
        assert (part == "projector") == any(x in weight for x in ("projector", "connector", ".merger.", "newline"))
        assert (part == "llm") == any(x in weight for x in ("language_model", "text_model", "lm_head"))
    assert {vlm.part_of(weight) for weight, _ in vlm.model.named_parameters()} == set(PARTS)


def test_what_can_be_trained_is_what_a_gradient_reaches(vlm: VLM, pictures: list[Picture]) -> None:
    for parameter in vlm.model.parameters():
        parameter.requires_grad_(True)
    batch = pack(vlm, [Group(pictures[0], (CITY, JOB)), Group(None, (LONG,))])
    token_logps(logits(vlm, batch), batch).sum().backward()
    reached = {weight for weight, parameter in vlm.model.named_parameters() if parameter.grad is not None}
    assert set(vlm.trainable(PARTS)) == reached
    for part in PARTS:
        assert set(vlm.trainable((part,))) == {weight for weight in reached if vlm.part_of(weight) == part} != set()


# ---- prompts and pictures ----------------------------------------------------------------------------------------
def test_prompts_are_what_the_processor_makes_of_them(vlm: VLM, pictures: list[Picture]) -> None:
    for picture in (pictures[0], None):
        for prompt in (CITY, JOB, LONG):
            made = own_inputs(vlm, picture, prompt.text)
            before = vlm.prompt_ids(prompt.text, picture is not None)
            assert before == tuple(made.input_ids[0].tolist())
            for answer in prompt.answers:
                whole = own_inputs(vlm, picture, prompt.text, answer).input_ids[0].tolist()
                assert [*before, *vlm.answer_ids(prompt.text, picture is not None, answer)] == whole


def test_prompts_are_what_the_chat_template_tokenizes(name: str, vlm: VLM, pictures: list[Picture]) -> None:
    """With one token of beginning where the tokenizer or the template has one, never two."""
    processor: Any = vlm.processor
    for picture in (pictures[0], None):
        shown = [{"type": "image", "image": vlm.prepared(picture.open())}] if picture else []
        said = [{"role": "user", "content": [*shown, {"type": "text", "text": CITY.text}]}]
        made = processor.apply_chat_template(
            said, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        found = vlm.prompt_ids(CITY.text, picture is not None)
        assert list(found) == made["input_ids"][0].tolist()
        begins = found.count(vlm.tokenizer.bos_token_id)
        assert begins == (0 if name in ("llava", "qwen2_vl", "qwen2_5_vl") else 1)


def test_an_instruction_is_expanded_like_any_other_text(vlm: VLM, pictures: list[Picture]) -> None:
    made = own_inputs(vlm, pictures[0], f"Where?\n{CITY.text}")
    assert vlm.with_instruction("Where?").prompt_ids(CITY.text, True) == tuple(made.input_ids[0].tolist())


def test_a_second_turn_follows_the_reply_in_the_template(vlm: VLM, pictures: list[Picture]) -> None:
    """The picture and an instruction stand in the first turn alone."""
    processor: Any = vlm.processor
    for picture in (pictures[0], None):
        content = [{"type": "image"}] * (picture is not None) + [{"type": "text", "text": f"Where?\n{CITY.text}"}]
        said = [("user", content), ("assistant", [{"type": "text", "text": "Rome"}]),
                ("user", [{"type": "text", "text": JOB.text}])]  # fmt: skip
        text = processor.apply_chat_template(
            [{"role": role, "content": part} for role, part in said], add_generation_prompt=True
        )
        images = None if picture is None else [vlm.prepared(picture.open())]
        made = processor(text=[text], images=images, return_tensors="pt", **begun(text)).input_ids[0].tolist()
        prompt = conversation(CITY.text, "Rome", JOB.text)
        assert vlm.with_instruction("Where?").prompt_ids(prompt, picture is not None) == tuple(made)


def test_pictures_are_what_the_processor_makes_of_them(vlm: VLM, pictures: list[Picture]) -> None:
    together = vlm.pixels(pictures)
    assert together.flat == vlm.pixels_of([pictures[0].open()]).flat
    for i, picture in enumerate(pictures):
        made = own_inputs(vlm, picture, CITY.text)
        alone = together[[i]].inputs(torch.float32)
        of_tokens = ("input_ids", "attention_mask", "cross_attention_mask")
        assert alone.keys() == {key for key in made if key not in of_tokens and "type" not in key}
        assert all(torch.equal(tensor, made[key]) for key, tensor in alone.items())


def test_pictures_of_every_shape_take_the_same_tokens(vlm: VLM) -> None:
    shapes = ((48, 48), (90, 30), (20, 130), (300, 200), (3, 2))
    images = [Image.effect_noise(shape, 80).convert("RGB") for shape in shapes]
    pixels = vlm.pixels_of(images)
    assert len(pixels) == 5
    with torch.no_grad():
        features = vlm.features(pixels)
        assert features.projected.shape[:2] == (5, 17 if vlm.across else vlm.image_tokens)  # Mllama: of one tile
        for i in range(5):  # a picture does not depend on its batch
            alone = vlm.features(vlm.pixels_of([images[i]]))
            torch.testing.assert_close(alone.projected[0], features.projected[i], rtol=0, atol=1e-5)
            for ours, theirs in zip(alone.layers, features.layers, strict=True):
                torch.testing.assert_close(ours[0], theirs[i], rtol=0, atol=1e-5)


def test_features_are_rectangular_and_carry_gradients(name: str, vlm: VLM, pictures: list[Picture]) -> None:
    """One (B, N, D) for every layer that is read and what the projector says; the LLM is not called."""
    llm = vlm.model.get_submodule(vlm.prefixes["llm"])
    llm.forward = lambda *_, **__: pytest.fail("the LLM was called")
    weights = vlm.trainable(("vision", "projector"))
    for weight in weights.values():
        weight.requires_grad_(True)
    features = vlm.features(vlm.pixels(pictures[:3]))
    assert len(features.layers) == {"llava_next": 1, "mllama": 3}.get(name, 2)
    assert {layer.ndim for layer in features.layers} == {3}
    assert {len(layer) for layer in features.layers} == {3}
    features.projected.sum().backward()
    assert all(weight.grad is not None for weight in weights.values())


def test_features_are_what_the_llm_is_given(vlm: VLM, pictures: list[Picture]) -> None:
    """In place of the placeholders, in their order; what Mllama attends to has a row for each, and empty tiles."""
    given: list[Tensor] = []

    def watch(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        given.append(kwargs["cross_attention_states" if vlm.across else "inputs_embeds"])

    with vlm.model.get_submodule(vlm.prefixes["llm"]).register_forward_pre_hook(watch, with_kwargs=True):
        batch, _ = asked(vlm, [Group(picture, (JOB,)) for picture in pictures])
    with torch.no_grad():
        projected = vlm.features(vlm.pixels(pictures)).projected
    those = given[0][:, :17].flatten(0, 1) if vlm.across else given[0][batch.input_ids == vlm.image_id]
    torch.testing.assert_close(those, projected.flatten(0, 1), rtol=0, atol=1e-5)


# ---- packing -----------------------------------------------------------------------------------------------------
def plain(vlm: VLM, groups: Sequence[Group]) -> Tensor:
    """The logits of every answer's tokens, each asked alone through the family's processor and forward pass."""
    found = []
    for group in groups:
        for prompt in group.prompts:
            before = own_inputs(vlm, group.picture, prompt.text).input_ids.shape[1]
            for answer in prompt.answers:
                whole: Any = continued(vlm, group.picture, prompt.text, answer + vlm.tokenizer.eos_token)
                with torch.no_grad():
                    found.append(vlm.model(**whole).logits[0, before - 1 : -1])
    return torch.cat(found)


@pytest.mark.parametrize("shown", [(True,), (False,), (True, False, True)], ids=["picture", "text", "mixed"])
def test_packed_logits_are_those_of_asking_one_by_one(
    vlm: VLM, pictures: list[Picture], shown: tuple[bool, ...]
) -> None:
    prompts = ((CITY, JOB, LONG), (LONG, CITY), (JOB,))
    groups = [Group(pictures[i] if seen else None, prompts[i]) for i, seen in enumerate(shown)]
    _, found = asked(vlm, groups)
    expected = plain(vlm, groups)
    assert float((found - expected).abs().max()) < 1e-4
    assert float(expected.std()) > 0.05  # there is something to compare


def test_another_picture_gives_other_logits(vlm: VLM, pictures: list[Picture]) -> None:
    _, one = asked(vlm, [Group(pictures[0], (CITY,))])
    _, other = asked(vlm, [Group(pictures[1], (CITY,))])
    assert float((one - other).abs().max()) > 1e-3


def test_branches_do_not_see_each_other(vlm: VLM, pictures: list[Picture]) -> None:
    """Not to rounding but exactly: other tokens in the other branches change no bit."""
    batch, before = asked(vlm, [Group(pictures[0], (JOB, CITY)), Group(None, (LONG, CITY))])
    answer = batch.owner == 0  # "baker" in row 0
    seen = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
    seen[0] = batch.attention_mask[0, 0][batch.source[answer]].any(0)
    scrambled = torch.where(seen | (batch.input_ids == vlm.image_id), batch.input_ids, vlm.eos_id)
    with torch.no_grad():
        after = logits(vlm, replace(batch, input_ids=scrambled))
    assert torch.equal(after[answer], before[answer])
    assert not torch.equal(after[~answer], before[~answer])


# ---- scoring -----------------------------------------------------------------------------------------------------
def test_replies_are_those_of_generating_one_by_one(
    vlm: VLM, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MAX_NEW_TOKENS", 8)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # as initialized, every model says one word and repeats it
        for name, weight in vlm.trainable(("llm",)).items():
            weight.add_((0.3 if "embed" in name else 1.0) * torch.randn(weight.shape, generator=generator))
    questions = [q for q in benchmark.split(5).questions if q.task != "classification"]
    pictured, texts = ([q for q in questions if (q.picture is None) == blank] for blank in (False, True))
    together = [q for q in pictured if q.picture == pictured[0].picture][:5]  # the row of one picture has several
    some = [*together, *pictured[5 :: len(pictured) // 6], *texts[:: len(texts) // 6]]
    found = {key: reading.reply for key, reading in readings(vlm, some).items()}
    for question in some:
        whole = own_inputs(vlm, question.picture, question.prompt)
        options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": vlm.tokenizer.pad_token_id}
        out = vlm.model.generate(**whole, **options)  # type: ignore[operator]
        said = vlm.tokenizer.decode(out[0, whole.input_ids.shape[1] :], skip_special_tokens=True)
        assert found[question.id] == said.strip()
    assert len({len(vlm.prompt_ids(q.prompt, q.picture is not None)) for q in some}) > 3
    assert len(set(found.values())) > 2


def drawn_alone(vlm: VLM, question: Question, uniforms: Tensor, temperature: float) -> str:
    """A reply token by token, each from a whole forward pass of its own: no cache, batch, padding or other reply."""
    pictured = question.picture is not None
    pixels = vlm.pixels([question.picture]).inputs(vlm.model.dtype) if question.picture else {}
    begun = ids = list(vlm.prompt_ids(question.prompt, pictured))
    for number in uniforms:
        tokens = torch.tensor([ids])
        types = token_types(vlm, tokens, len(begun), pictured)
        with torch.no_grad():
            out = vlm.model(input_ids=tokens, **pixels, **types).logits[0, -1]
        ids = [*ids, int(((out.double() / temperature).softmax(-1).cumsum(-1) <= number).sum())]
        if ids[-1] == vlm.eos_id:
            ids = ids[:-1]
            break
    said: str = vlm.tokenizer.decode(ids[len(begun) :], skip_special_tokens=True)
    return said.strip()


def test_sampled_replies_are_those_of_drawing_one_by_one(
    name: str, vlm: VLM, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers pick the same tokens, so the distributions after every beginning are those of asking alone."""
    monkeypatch.setattr(sampling, "MAX_NEW_TOKENS", 4)
    questions = [q for q in benchmark.split(5).questions if q.task != "classification"]
    pictured, texts = ([q for q in questions if (q.picture is None) == blank] for blank in (False, True))
    together = [q for q in pictured if q.picture == pictured[0].picture][:3]
    some = [*together, *pictured[5 :: len(pictured) // 2], *texts[:: len(texts) // 2]]
    temperature = 2.0 if name == "paligemma" else 0.2  # its embeddings, scaled, are its head, too: it repeats a word
    with counted(vlm) as work:
        found = sampling.sampled(vlm, some, 4, seed=3, temperature=temperature)
    shown = [q.picture for q in some if q.picture]
    assert work.images == (len(set(shown)) if vlm.packs else len(shown))
    for question in some:
        alone = [drawn_alone(vlm, question, one, temperature) for one in sampling._uniforms(question, 4, 3)]
        assert found[question.id] == alone
    assert len({reply for replies in found.values() for reply in replies}) > len(some)


def test_a_blind_model_sees_nothing(vlm: VLM, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MAX_NEW_TOKENS", 4)
    questions = [q for q in benchmark.split(5).questions if q.picture is not None]
    some = [q for q in questions if q.task == "classification"][:4], [q for q in questions if q.task == "cloze"][:4]

    def elsewhere(questions: Sequence[Question]) -> list[Question]:
        return [replace(q, picture=benchmark.strangers[i]) for i, q in enumerate(questions)]

    seen, blind = readings(vlm, some[0]), readings(vlm, some[0], blind=True)
    assert blind != seen
    others = readings(vlm, elsewhere(some[0]), blind=True)
    assert all(others[key].means == pytest.approx(reading.means, abs=1e-5) for key, reading in blind.items())
    said, elsewhere_said = (readings(vlm, qs, blind=True) for qs in (some[1], elsewhere(some[1])))
    assert [r.reply for r in said.values()] == [r.reply for r in elsewhere_said.values()]


# ---- VKD ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def request_(benchmark: Benchmark, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    monkeypatch.setattr(_saliency, "BATCHES", 2)
    return request_on(benchmark, tmp_path / "cache", folder)


@pytest.mark.parametrize("teacher", ["stranger", "pruned", "base"])
def test_vkd_trains_the_visual_module_and_no_text_answer_changes(teacher: Any, vlm: VLM, request_: Request) -> None:
    def text() -> Tensor:
        return asked(vlm, [Group(None, (CITY, LONG))])[1]

    before, answers = snapshot(vlm), text()
    schedule = Schedule(steps=2, learning_rate=1e-3, pictures=3, lessons_per_picture=2)
    VKD(teacher=teacher, saliency_threshold=0.0, schedule=schedule)(vlm, request_)
    assert changed(before, snapshot(vlm)) == set(vlm.trainable(("vision", "projector")))
    assert torch.equal(text(), answers)


def test_the_pruned_teacher_lacks_whole_neurons(vlm: VLM, request_: Request) -> None:
    """Silent ones: whatever leads into or out of a neuron is zero."""
    before = snapshot(vlm)
    teacher = pruned(vlm, request_, 0.25)
    assert same_bits(before, snapshot(vlm))
    moved = changed(before, snapshot(teacher))
    kinds = {weight.split(".mlp.")[1].split(".")[0] for weight in moved}
    assert kinds in ({"fc1", "fc2"}, {"gate_proj", "up_proj", "down_proj"})
    weights = [weight for weight in moved if weight.endswith("weight")]
    into = {weight for weight in weights if not weight.endswith(("fc2.weight", "down_proj.weight"))}
    gone = {weight: teacher.tensors()[weight].eq(0).all(-1 if weight in into else 0) for weight in weights}
    assert {int(neurons.sum()) for neurons in gone.values()} == {16}
    for weight, neurons in gone.items():
        for one, other in (("gate_proj", "up_proj"), ("gate_proj", "down_proj"), ("fc1", "fc2")):
            assert torch.equal(neurons, gone.get(weight.replace(one, other), neurons))


def test_pruned_neurons_alone_can_be_trained(vlm: VLM, request_: Request) -> None:
    """A projector without an MLP is then left alone."""
    before = snapshot(vlm)
    schedule = Schedule(steps=2, learning_rate=1e-3, pictures=3, lessons_per_picture=2)
    VKD(neurons="pruned", schedule=schedule)(vlm, request_)
    moved = changed(before, snapshot(vlm))
    layers = {name for mlp in mlps(vlm, "vision", "projector") for name in mlp.layers}
    assert {name.rpartition(".")[0] for name in moved} == layers


def test_a_method_on_answers_reaches_every_part(vlm: VLM, request_: Request) -> None:
    """Saliency, which asks for the gradient of every weight that can be trained, finds none without one."""
    found = _saliency.squared_gradients(vlm, PARTS, request_.forget, 0)
    assert found.keys() == vlm.trainable(PARTS).keys()
    silent = {weight for weight, square in found.items() if not square.any()}
    assert not {weight for weight in silent if "k_proj.bias" not in weight}  # a key's bias moves no softmax


# ---- loading -----------------------------------------------------------------------------------------------------
def test_a_loaded_model_is_saved_as_the_family_it_is(vlm: VLM, folder: Path, tmp_path: Path) -> None:
    vlm.model.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert same_bits(snapshot(vlm), snapshot(again))
    assert again.prompt_ids(CITY.text, True) == vlm.prompt_ids(CITY.text, True)
    recorded = json.loads((tmp_path / "processor_config.json").read_text())["processor_class"]
    assert recorded == json.loads((folder / "processor_config.json").read_text())["processor_class"]
    assert hasattr(__import__("transformers"), recorded)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_prefix_and_its_suffix_are_those_of_the_stock_processor(name: str, vlm: VLM, pictures: list[Picture]) -> None:
    """By the way in which its publisher fine-tunes it: an answer is the `suffix`."""
    if not vlm.family.prefix:
        pytest.skip("not a prefix model")
    stock: Any = transformers.PaliGemmaProcessor(vlm.processor.image_processor, vlm.tokenizer)
    image = pictures[0].open()
    for answer in CITY.answers:
        made = stock(images=[image], text=[f"<image>{CITY.text}"], suffix=[answer], return_tensors="pt")
        prompt, reply = vlm.prompt_ids(CITY.text, True), (*vlm.answer_ids(CITY.text, True, answer), vlm.eos_id)
        assert made["input_ids"][0].tolist() == [*prompt, *reply]
        assert made["token_type_ids"][0].tolist() == [0] * len(prompt) + [1] * len(reply)
        _, found = asked(vlm, [Group(pictures[0], (Prompt(CITY.text, (answer,)),))])
        with torch.no_grad():
            wanted = vlm.model(**{n: t for n, t in made.items() if n != "labels"}).logits[0, len(prompt) - 1 : -1]
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_a_prefix_model_refuses_rows_beyond_its_window(vlm: VLM, pictures: list[Picture]) -> None:
    """Of PaliGemma 2, some of whose layers see a window."""
    if not vlm.family.prefix:
        pytest.skip("not a prefix model")
    vlm.model.config.get_text_config().sliding_window = 20
    with pytest.raises(ValueError, match=r"a row of \d+ tokens is longer than the window of 20 that some layers see"):
        asked(vlm, [Group(pictures[0], (CITY,))])


def test_attention_is_the_one_that_takes_packed_masks(vlm: VLM) -> None:
    assert vlm.attention == "sdpa"
    assert vlm.model.config.get_text_config()._attn_implementation == "sdpa"


def test_attention_that_is_written_out_says_the_same(
    vlm: VLM, folder: Path, pictures: list[Picture], benchmark: Benchmark
) -> None:
    """Packed logits and replies, for a model that has no other."""
    eager = load(folder, loading=EAGER)
    assert eager.attention == eager.model.config.get_text_config()._attn_implementation == "eager"
    groups = [Group(pictures[0], (CITY, JOB, LONG)), Group(None, (LONG, CITY))]
    torch.testing.assert_close(asked(eager, groups)[1], asked(vlm, groups)[1], atol=1e-4, rtol=1e-3)
    some = [q for q in benchmark.split(5).questions if q.task != "classification"][::9]
    one, other = ({key: reading.reply for key, reading in readings(v, some).items()} for v in (eager, vlm))
    assert one == other


@pytest.mark.parametrize("name", WITH_VIDEOS)
def test_a_processor_of_videos_is_loaded_for_pictures_alone(family_folders: dict[str, Path], name: str) -> None:
    """The stock class cannot be made without its video processor, which needs torchvision and takes no `backend`."""
    processor: Any = load(family_folders[name]).processor
    stock = getattr(transformers, type(processor).__name__)
    assert isinstance(processor, stock)
    assert "video_processor" in stock.get_attributes()
    assert processor.get_attributes() == ["image_processor", "tokenizer"]
    assert "Qwen2VLImageProcessor" in type(processor.image_processor).__name__


@pytest.mark.parametrize("name", WITH_VIDEOS)
def test_a_qwen_folder_without_its_processor_is_refused(
    family_folders: dict[str, Path], name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "text-only"
    shutil.copytree(family_folders[name], folder, ignore=shutil.ignore_patterns("*processor*"))
    with pytest.raises(ValueError, match=r"text-only: an image-and-text processor \(processor_config\.json\) is"):
        load(folder)


# ---- sides -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "processor", "vision", "side"),
    [
        ("qwen2_vl", {"merge_size": 2, "patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 1_003_520}},
         {}, 392),
        ("qwen2_vl", {"merge_size": 2, "patch_size": 14, "size": {"shortest_edge": 500**2, "longest_edge": 10**6}},
         {}, 504),
        ("qwen2_5_vl", {"merge_size": 2, "patch_size": 14, "size": {"shortest_edge": 56, "longest_edge": 300**2}},
         {}, 280),
        ("idefics2", {"do_image_splitting": False, "size": {"shortest_edge": 378, "longest_edge": 980}},
         {"patch_size": 14, "image_size": 980}, 392),
        ("idefics3",
         {"do_image_splitting": False, "size": {"longest_edge": 1456}, "max_image_size": {"longest_edge": 364}},
         {"patch_size": 14, "image_size": 364}, 364),
        ("smolvlm",
         {"do_image_splitting": False, "size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384}},
         {"patch_size": 14, "image_size": 384}, 384),
        ("llava_next", {"image_grid_pinpoints": [], "size": {"shortest_edge": 336}}, {"image_size": 336}, 336),
        ("llava", {"size": {"shortest_edge": 336}}, {"image_size": 336}, None),
        ("gemma3", {"size": {"height": 896, "width": 896}}, {"image_size": 896}, None),
    ],
    ids=["qwen", "qwen large", "qwen small", "idefics2", "idefics3", "smolvlm", "llava-next", "llava-1.5", "gemma3"],
)  # fmt: skip
def test_the_side_of_published_models(
    name: str, processor: dict[str, Any], vision: dict[str, int], side: int | None
) -> None:
    """As the family's file states it, and as it is found for a model that has none."""
    config = PretrainedConfig()
    config.vision_config = SimpleNamespace(**vision)
    for family in (family_of(name), Family()):
        assert family.side(SimpleNamespace(**processor), config) == side


@pytest.mark.parametrize(
    ("vision", "side"), [({"patch_size": 16}, 16), ({"patch_size": (12, 10)}, 12), ({"patch_size": None}, 14), ({}, 14)]
)
def test_a_patch_is_of_the_tower_whatever_its_configuration_says(vision: dict[str, Any], side: int) -> None:
    config = PretrainedConfig()
    config.vision_config = SimpleNamespace(**vision)
    assert patch_side(config) == side
    assert patch_side(PretrainedConfig(**vision)) == side  # where the tower has no configuration of its own


@pytest.mark.parametrize(
    ("name", "vision", "widths"),
    [
        ("qwen2_vl", {"embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4}, (1280, 5120)),
        ("qwen2_5_vl", {"hidden_size": 1280, "intermediate_size": 3420}, (1280, 3420)),
        ("llava", {"hidden_size": 1024, "intermediate_size": 4096}, (1024, 4096)),
    ],
)
def test_the_widths_of_published_towers(name: str, vision: dict[str, Any], widths: tuple[int, int]) -> None:
    for family in (family_of(name), Family()):
        assert family.widths(PretrainedConfig(**vision)) == widths


# ---- files -------------------------------------------------------------------------------------------------------
HEAD = "lm_head.weight"
STATED = ("vision", "projector", "llm", "learned", "state_read")


def stranger(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> VLM:
    """The same weights under a `model_type` that no file is called like."""
    monkeypatch.setattr(vlm.model.config, "model_type", "stranger")
    return VLM(vlm.model, vlm.processor)


def test_every_family_with_a_file_is_tested() -> None:
    assert sorted(FAMILIES) == list(known("families"))


def test_a_family_is_the_file_that_is_called_like_its_model_type(name: str, vlm: VLM) -> None:
    assert vlm.model.config.model_type == name
    assert type(vlm.family) is find("families", name) is not Family
    assert name_of(vlm.family) == name


def test_what_a_file_states_is_there(vlm: VLM) -> None:
    """Each part under one name, and learned tokens; a tower is read to its end unless a hidden state is stated."""
    family, named = vlm.family, set(vlm.tensors())
    assert set(STATED) <= vars(type(family)).keys()
    stated = {part: [f"model.{name}" for name in getattr(family, part)] for part in PARTS}
    assert stated == {part: [prefix] for part, prefix in vlm.prefixes.items()}
    assert all(list(vlm.model.get_submodule(prefix).parameters()) for prefix in vlm.prefixes.values())
    assert {f"model.{name}" for name in family.learned} == {name for name in named if name.count(".") == 1} - {HEAD}
    assert family.state_read is None or hasattr(vlm.model.config, family.state_read)
    assert (set(vlm.trainable(PARTS)) == named) == (family.state_read is None)


def test_a_model_without_a_file_is_found_out(
    vlm: VLM, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the files state is what is found where there is none: parts, tokens, masks and logits are the same."""
    if vlm.family.prefix:
        pytest.skip(
            "nothing in a model says that its prompts are prefixes: the doctor's smoke test fails without a file"
        )
    if vlm.across:
        with pytest.raises(ValueError, match="how its LLM attends to them is not known here; the family needs a file"):
            stranger(vlm, monkeypatch)
        return
    groups = [Group(pictures[0], (CITY, JOB)), Group(None, (LONG,)), Group(pictures[1], (LONG, CITY))]
    batch, expected = asked(vlm, groups)
    stated, trained = shape(vlm), vlm.trainable(PARTS).keys()
    features = vlm.features(vlm.pixels(pictures[:2]))
    other = stranger(vlm, monkeypatch)
    assert type(other.family) is Family
    assert (other.prefixes, other.trainable(PARTS).keys()) == (vlm.prefixes, trained)
    assert {name: other.part_of(name) for name in other.tensors()} == {
        name: vlm.part_of(name) for name in vlm.tensors()
    }
    found, logits = asked(other, groups)
    assert torch.equal(found.input_ids, batch.input_ids)
    assert torch.equal(found.position_ids, batch.position_ids)
    assert torch.equal(found.attention_mask, batch.attention_mask)
    assert torch.equal(logits, expected)
    again = other.features(other.pixels(pictures[:2]))
    assert all(map(torch.equal, (*again.layers, again.projected), (*features.layers, features.projected)))
    assert shape(other) == stated


def test_a_picture_is_not_cut_into_several(vlm: VLM) -> None:
    """Nor if no file says how."""
    image_processor: Any = vlm.processor.image_processor
    for family in (vlm.family, Family()):
        if hasattr(image_processor, "do_image_splitting"):
            image_processor.do_image_splitting = True
        family.keep_whole(image_processor)
        assert not getattr(image_processor, "do_image_splitting", False)


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ("vision", r"get_encoder\(modality='image'\) names none"),
        ("projector", "nothing stands beside model.vision_tower, nor behind its layers"),
        ("llm", r"get_decoder\(\) names none"),
    ],
)
def test_a_model_without_a_part_is_refused(part: Part, why: str, tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    delattr(tiny.model.model, tiny.prefixes[part].removeprefix("model."))
    with pytest.raises(ValueError, match=f"LlavaForConditionalGeneration has no {part}: {why}"):
        stranger(tiny, monkeypatch)


def test_the_documented_family_is_the_whole_of_a_file() -> None:
    page = (ROOT / "docs" / "new-base-model.md").read_text(encoding="utf-8")
    assert (
        f"```python\n{(ROOT / 'study' / 'model' / 'families' / 'llava_next.py').read_text(encoding='utf-8')}```" in page
    )


NEWCOMER = """
from dataclasses import dataclass
from study.model.families._family import Family

@dataclass(frozen=True)
class Newcomer(Family):
    projector = ("bridge",)
    state_read = None

    def turn(self, prompt, with_picture):
        return super().turn(prompt + " this person", with_picture)

    def side(self, image_processor, config):
        return 24
"""


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the file of a new family would lie, in a folder of its own."""
    folder = tmp_path / "study" / "model" / "families"
    folder.mkdir(parents=True)
    monkeypatch.setattr(plugins, "ROOT", tmp_path)
    monkeypatch.setattr(families, "__path__", [str(folder)])
    family_of.cache_clear()
    yield folder / "newcomer.py"
    family_of.cache_clear()
    sys.modules.pop("study.model.families.newcomer", None)


def test_a_new_family_is_one_file(tiny: VLM, newcomer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, told = tiny.trainable(("vision",)).keys(), tiny.prompt_ids("Where? this person", True)
    tiny.model.model.bridge = tiny.model.model.multi_modal_projector
    del tiny.model.model.multi_modal_projector
    monkeypatch.setattr(tiny.model.config, "model_type", "newcomer")
    newcomer.write_text(NEWCOMER)
    importlib.invalidate_caches()
    family_of.cache_clear()
    vlm = VLM(tiny.model, tiny.processor)
    assert name_of(vlm.family) == "newcomer"
    assert vlm.prefixes["projector"] == "model.bridge"
    assert {name for name in vlm.tensors() if vlm.part_of(name) == "projector"} == set(vlm.trainable(("projector",)))
    assert vlm.side == 24
    assert vlm.prompt_ids("Where?", True) == told
    assert vlm.trainable(("vision",)).keys() > before
