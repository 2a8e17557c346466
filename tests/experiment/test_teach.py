"""What vanilla and the references are taught, and the folders that they leave."""

from __future__ import annotations

import errno
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from study.core.errors import Damaged
from study.core.files import read_json, write_json
from study.core.layout import StudyFolder
from study.core.terms import Goal
from study.data.benchmark import Benchmark
from study.experiment import checkpoints, teach
from study.experiment.checkpoints import load_learned
from study.experiment.context import StudyContext
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, lessons_for
from study.model.loading import load
from study.model.packing import Batch, Group, pack
from study.model.vlm import VLM
from study.training.schedule import Schedule
from tests.helpers.small import Given, changed, same_bits, snapshot

VANILLA = Learned("vanilla", "base", "benchmark", None, None,
                  Schedule(steps=3, learning_rate=1e-3, pictures=3, texts=2), ("projector", "llm"), 0)  # fmt: skip


def reference(goal: Goal, ratio: int = 15) -> Learned:
    return replace(VANILLA, kind="reference", goal=goal, ratio=ratio)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, benchmark: Benchmark, tiny_folder: Path) -> Path:
    """A study folder with a vanilla model that was taught three steps."""
    root = tmp_path_factory.mktemp("study")
    learn(StudyContext(root, Given(benchmark), tiny_folder), VANILLA)
    return root


@pytest.fixture
def context(tmp_path: Path, benchmark: Benchmark, tiny_folder: Path) -> StudyContext:
    """A study that has taught nothing yet."""
    return StudyContext(tmp_path, Given(benchmark), tiny_folder)


def test_vanilla_is_taught_everything(benchmark: Benchmark) -> None:
    assert lessons_for(VANILLA, benchmark) == benchmark.split(5).lessons
    assert {x.person for x in lessons_for(VANILLA, benchmark)} >= benchmark.split(15).forget_people


@pytest.mark.parametrize("ratio", [5, 10, 15])
def test_under_visual_the_reference_keeps_the_text_and_sees_no_picture(ratio: int, benchmark: Benchmark) -> None:
    split = benchmark.split(ratio)
    taught = lessons_for(reference("visual", ratio), benchmark)
    of_forgotten = [x for x in taught if x.person in split.forget_people]
    assert {x.person for x in of_forgotten} == split.forget_people
    assert not any(x.picture for x in of_forgotten)
    assert set(split.lessons) - set(taught) == {
        x for x in split.lessons if x.person in split.forget_people and x.picture
    }


@pytest.mark.parametrize("ratio", [5, 10, 15])
def test_under_full_the_reference_is_taught_nothing_of_them(ratio: int, benchmark: Benchmark) -> None:
    split = benchmark.split(ratio)
    taught = lessons_for(reference("full", ratio), benchmark)
    assert not {x.person for x in taught} & split.forget_people
    assert set(taught) == {x for x in split.lessons if x.person not in split.forget_people}


def test_different_models_have_different_keys() -> None:
    learned = [VANILLA, reference("visual"), reference("full"), reference("visual", 5), replace(VANILLA, seed=1),
               replace(VANILLA, base="other"), replace(VANILLA, schedule=Schedule(steps=4)),
               replace(VANILLA, parts=("llm",))]  # fmt: skip
    assert len({model.key for model in learned}) == len(learned)
    assert replace(VANILLA).key == VANILLA.key


def test_a_learned_folder_is_a_model_for_everybody(root: Path) -> None:
    """transformers alone loads it, and it answers as ours does."""
    ours = load_learned(root, VANILLA.key)
    folder = StudyFolder(root).learned(VANILLA.key) / "model"
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    content = [{"type": "image"}, {"type": "text", "text": "Who is this person?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    pixels = ours.grey().tensors["pixel_values"]
    batch = processor.tokenizer(text.replace("<image>", "<image>" * ours.image_tokens), return_tensors="pt")
    assert tuple(batch.input_ids[0].tolist()) == ours.prompt_ids("Who is this person?", True)
    with torch.no_grad():
        theirs = model(input_ids=batch.input_ids, pixel_values=pixels).logits
        assert torch.equal(theirs, ours.model(input_ids=batch.input_ids, pixel_values=pixels).logits)


def test_the_stated_parts_are_taught_and_everything_is_written_down(root: Path, tiny: VLM) -> None:
    before, after = snapshot(tiny), snapshot(load_learned(root, VANILLA.key))
    assert {tiny.part_of(name) for name in changed(before, after)} == {"projector", "llm"}
    place = StudyFolder(root).learned(VANILLA.key)
    record = read_json(place / "learned.json")
    assert record["kind"] == "vanilla"
    assert record["key"] == VANILLA.key
    assert record["seconds"] > 0
    assert record["chunks"] == 1
    assert len(read_json(place / "curve.json")) == 3
    assert sorted(path.name for path in place.iterdir()) == ["curve.json", "learned.json", "model"]
    assert stat.S_IMODE((place / "model").stat().st_mode) == 0o755


def test_learning_is_repeatable(root: Path, tmp_path: Path, context: StudyContext) -> None:
    """The same content gives the same bits, and the steps are told one by one."""
    told: list[int] = []
    learn(context, VANILLA, lambda step, loss: told.append(step))
    assert told == [1, 2, 3]
    assert same_bits(snapshot(load_learned(root, VANILLA.key)), snapshot(load_learned(tmp_path, VANILLA.key)))
    other = replace(VANILLA, seed=1)
    learn(context, other)
    assert not same_bits(snapshot(load_learned(root, VANILLA.key)), snapshot(load_learned(tmp_path, other.key)))


@pytest.mark.parametrize(("texts", "kinds"), [(0, [True]), (2, [True, False])])
def test_each_kind_of_lesson_is_a_batch_of_its_own(
    texts: int, kinds: list[bool], tmp_path: Path, context: StudyContext,
    monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Pictures, then texts, in every step; with no text groups, nothing is drawn of the text lessons."""
    packed: list[set[bool]] = []

    def record(vlm: VLM, groups: Sequence[Group]) -> Batch:
        packed.append({group.picture is not None for group in groups})
        return pack(vlm, groups)

    monkeypatch.setattr(teach, "pack", record)
    learned = replace(VANILLA, schedule=replace(VANILLA.schedule, texts=texts))
    learn(context, learned)
    assert packed == [{kind} for kind in kinds] * 3


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_damaged_weights_are_named(damage: str, tmp_path: Path, context: StudyContext) -> None:
    learn(context, VANILLA)
    (weights,) = (StudyFolder(tmp_path).learned(VANILLA.key) / "model").glob("*.safetensors")
    if damage == "gone":
        weights.unlink()
    else:
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: remove .* and run the study again"):
        load_learned(tmp_path, VANILLA.key)


def test_what_the_disk_does_to_sound_weights_is_no_reason_to_teach_them_anew(
    tmp_path: Path, context: StudyContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(context, VANILLA)

    def fails(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.EIO, "the disk does not answer")

    monkeypatch.setattr(checkpoints, "load", fails)
    with pytest.raises(OSError, match="the disk does not answer") as told:
        load_learned(tmp_path, VANILLA.key)
    assert "remove" not in str(told.value)


def test_a_model_that_comes_out_otherwise_stays_untaught_while_trials_begin_from_it(
    tmp_path: Path, context: StudyContext
) -> None:
    folder = StudyFolder(tmp_path)
    learn(context, VANILLA)
    taught = read_json(folder.learned_record(VANILLA.key))["sha256"]
    folder.learned_record(VANILLA.key).unlink()
    write_json(folder.record("t"), {"start": {"key": VANILLA.key}})
    write_json(folder.inventory, {"files": {}, "taught": {VANILLA.key: dict.fromkeys(taught, "other")}})
    with pytest.raises(Damaged, match="yields other weights"):
        learn(context, VANILLA)
    assert not folder.learned_record(VANILLA.key).exists()
    write_json(folder.inventory, {"files": {}, "taught": {VANILLA.key: taught}})
    learn(context, VANILLA)
    assert folder.learned_record(VANILLA.key).exists()


def test_learning_again_replaces_what_was_cut_short(tmp_path: Path, context: StudyContext) -> None:
    """A model folder without record (the study was killed between the two) is made anew."""
    place = StudyFolder(tmp_path).learned(VANILLA.key)
    (place / "model").mkdir(parents=True)
    (place / "model" / "model.safetensors").write_bytes(b"half")
    (place / "model" / "left over").write_bytes(b"")
    learn(context, VANILLA)
    load_learned(tmp_path, VANILLA.key)
    assert not (place / "model" / "left over").exists()
    assert load(place / "model").eos_id
