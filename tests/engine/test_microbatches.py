"""Smaller pieces of the same work: the same logits, gradients, rows and records, and less that is kept at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from study.contracts import Method
from study.core.files import read_json
from study.core.layout import StudyFolder
from study.core.records import TrialRecord, read_record
from study.core.terms import PARTS, Part
from study.data.benchmark import Benchmark
from study.data.official_protocol import OfficialPrompt
from study.data.picture import Picture
from study.engine import microbatches
from study.engine.microbatches import (
    DoesNotFit,
    MicroBatching,
    activation_checkpointing,
    map_halving_on_oom,
    retry_on_oom,
)
from study.evaluation import official_scoring, scoring
from study.evaluation.official_scoring import generated
from study.evaluation.scoring import score
from study.experiment import checkpoints
from study.experiment import trial as trials
from study.experiment.context import StudyContext
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_ascent import GradientAscent
from study.methods.rmu import RMU
from study.methods.vkd import VKD
from study.model.likelihood import token_logps
from study.model.packing import Group, Prompt, hidden_states, logits, pack
from study.model.tensor_files import load_tensors
from study.model.vision import Features
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import train
from study.training.schedule import Schedule
from tests.helpers.families import FAMILIES
from tests.helpers.small import QUICK, FewQuestions, fresh, request_on, snapshot

CITY = Prompt("Where does this person live?", ("Lisbon", "This person lives in Rome."))
JOB = Prompt("What is the job of this person?", ("baker",))
SHORT = Schedule(steps=2, learning_rate=1e-3, pictures=2, lessons_per_picture=3)
VANILLA = Learned("vanilla", "base", "benchmark", None, None, replace(SHORT, texts=1), ("projector", "llm"), 0)
REFERENCE = replace(VANILLA, kind="reference", goal="visual", ratio=10)
OVER = MicroBatching.over


@pytest.fixture(scope="module")
def pictures(benchmark: Benchmark) -> list[Picture]:
    return list(dict.fromkeys(q.picture for q in benchmark.split(5).questions if q.picture is not None))[:3]


@pytest.fixture(scope="module")
def groups(pictures: list[Picture]) -> list[Group]:
    """Rows of several lengths, with and without a picture, in turn."""
    shown = [Group(picture, (CITY, JOB)[: 1 + i]) for i, picture in enumerate(pictures[:2])]
    return [shown[0], Group(None, (JOB,)), shown[1], Group(pictures[2], (JOB,)), Group(None, (CITY, JOB))]


def nll(vlm: VLM, groups: Sequence[Group]) -> Tensor:
    batch = pack(vlm, groups)
    return -token_logps(logits(vlm, batch), batch).mean()


def gradients(vlm: VLM, loss: Callable[[], Tensor], parts: Sequence[Part] = PARTS) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and the gradient of every weight of some parts that gets one."""
    weights = vlm.trainable(parts)
    for weight in weights.values():
        weight.requires_grad_(True)
    value = loss()
    found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
    for weight in weights.values():
        weight.requires_grad_(False)
    return value.detach(), {name: g for name, g in zip(weights, found, strict=True) if g is not None}


def kept(loss: Callable[[], Tensor]) -> int:
    """The bytes that a loss keeps for its backward pass."""
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            found[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss()
    assert value.requires_grad
    return sum(found.values())


def assert_alike(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(one[0], other[0])
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-3, atol=1e-5)


# ---- chunks of rows ------------------------------------------------------------------------------------------------
@given(st.integers(1, 40), st.integers(1, 64))
def test_every_row_is_in_one_chunk_and_none_is_larger_than_it_need_be(rows: int, count: int) -> None:
    cut = MicroBatching(count)
    microbatches: list[slice] = []

    def run(some: slice) -> list[Tensor]:
        microbatches.append(some)
        return [torch.arange(rows)[some], torch.zeros(rows, 2)[some]]

    numbers, wide = cut.over(torch.zeros(rows), run)
    assert numbers.tolist() == list(range(rows))
    assert wide.shape == (rows, 2)
    assert max(some.stop - some.start for some in microbatches) == math.ceil(rows / count)
    assert cut.rows == rows


def test_the_most_rows_are_remembered() -> None:
    cut = MicroBatching(2)
    for rows in (3, 7, 5):
        cut.over(torch.zeros(rows), lambda some: [torch.zeros(7)[some]])
    assert cut.rows == 7


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("name", FAMILIES)
def test_chunks_give_the_loss_and_the_gradients_of_the_whole(
    name: str, count: int, family_folders: dict[str, Path], groups: list[Group]
) -> None:
    vlm = fresh(family_folders[name])
    whole = gradients(vlm, lambda: nll(vlm, groups))
    cut = replace(vlm, chunks=MicroBatching(count))
    assert_alike(gradients(cut, lambda: nll(cut, groups)), whole)
    assert cut.chunks.rows == (len(groups) if vlm.packs else sum(len(group.prompts) for group in groups))


@pytest.mark.parametrize("name", FAMILIES)
def test_chunks_give_the_features_of_the_whole(
    name: str, family_folders: dict[str, Path], pictures: list[Picture]
) -> None:
    vlm = fresh(family_folders[name])
    pixels = vlm.pixels(pictures)

    def size(lent: VLM) -> Tensor:
        made: Features = lent.features(pixels)
        return torch.stack([t.square().mean() for t in (*made.layers, made.projected)]).sum()

    parts: tuple[Part, ...] = ("vision", "projector")
    cut = replace(vlm, chunks=MicroBatching(2))
    assert_alike(gradients(cut, lambda: size(cut), parts), gradients(vlm, lambda: size(vlm), parts))


def test_the_finer_the_chunks_the_less_is_kept(tiny: VLM, groups: list[Group], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the backward pass hardly anything; in it the rows of one chunk are computed, never more."""
    for weight in tiny.trainable(PARTS).values():
        weight.requires_grad_(True)
    rows: list[int] = []
    tiny.model.model.language_model.register_forward_pre_hook(
        lambda _module, _args, kwargs: rows.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    whole = kept(lambda: nll(tiny, groups))
    assert rows == [5]
    for count, sizes in ((2, [3, 2]), (8, [1] * 5)):
        cut, start = replace(tiny, chunks=MicroBatching(count)), len(rows)
        assert kept(lambda cut=cut: nll(cut, groups)) < 0.2 * whole  # type: ignore[misc]
        assert rows[start:] == sizes


def test_forwards_without_gradient_are_cut_too(tiny: VLM, groups: list[Group]) -> None:
    """Those of a reference model, within a step."""
    cut = replace(tiny, chunks=MicroBatching(4))
    with torch.no_grad():
        torch.testing.assert_close(nll(cut, groups), nll(tiny, groups))
    assert cut.chunks.rows == len(groups)


@pytest.mark.slow
@pytest.mark.parametrize("method", [
    RMU(layer=0, schedule=QUICK), VKD(variant="features", schedule=QUICK), VKD(schedule=QUICK),
])  # fmt: skip
def test_methods_do_the_same_in_chunks(
    method: Any, tiny: VLM, tiny_folder: Path, benchmark: Benchmark, tmp_path: Path
) -> None:
    start, found = snapshot(tiny), []
    for count in (1, 4):
        vlm = replace(fresh(tiny_folder), chunks=MicroBatching(count))
        method(vlm, request_on(benchmark, tmp_path / str(count), tiny_folder))
        found.append(snapshot(vlm))
    assert_near(start, *found)


def assert_near(start: dict[str, Tensor], one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Two models are where the same training led: Adam may turn a weight whose gradient is but rounding."""
    way = torch.cat([(one[name] - start[name]).flatten() for name in one])
    drift = torch.cat([(one[name] - other[name]).flatten() for name in one])
    assert float(way.norm()) > 0
    assert float(drift.norm() / way.norm()) < 0.02


# ---- out of memory while training ----------------------------------------------------------------------------------
def short_above(most: int) -> Callable[..., list[Any]]:
    """A machine with memory for so many rows at once."""

    def over(self: MicroBatching, like: Tensor, *how: Any) -> list[Any]:
        found = OVER(self, like, *how)
        if math.ceil(len(like) / self.count) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return found

    return over


def test_work_starts_anew_with_twice_the_chunks() -> None:
    tried: list[int] = []

    def attempt(cut: MicroBatching) -> str:
        tried.append(cut.count)
        cut.rows = 8
        if cut.count < 4:
            raise torch.OutOfMemoryError
        return "done"

    assert retry_on_oom(attempt, lambda: pytest.fail("nobody needs it")) == "done"
    assert tried == [1, 2, 4]


@pytest.mark.parametrize(("rows", "tries"), [(0, [1]), (1, [1, 2]), (2, [1, 2]), (5, [1, 2, 4, 8])])
def test_what_does_not_fit_row_by_row_is_given_up_with_an_estimate(rows: int, tries: list[int]) -> None:
    tried: list[int] = []

    def attempt(cut: MicroBatching) -> None:
        tried.append(cut.count)
        cut.rows = rows
        raise torch.OutOfMemoryError("too little")

    with pytest.raises(DoesNotFit, match=r"one row at a time \(too little\)\. Calculated requirement: a lot\. Set"):
        retry_on_oom(attempt, lambda: "a lot")
    assert tried == tries


def test_other_errors_are_not_tried_again() -> None:
    tried: list[int] = []

    def attempt(cut: MicroBatching) -> None:
        tried.append(cut.count)
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        retry_on_oom(attempt, str)
    assert tried == [1]


def test_memory_is_free_again_before_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing holds on to the tensors of an attempt that failed."""
    alive: list[bool] = []
    died: list[int] = []

    class Large:
        def __del__(self) -> None:
            died.append(1)

    def attempt(cut: MicroBatching) -> None:
        cut.rows = 2
        alive.append(len(died) == cut.count - 1)
        held = Large()
        if cut.count == 1:
            raise torch.OutOfMemoryError(str(held))

    monkeypatch.setattr(microbatches, "release", lambda: alive.append(len(died) == 1))
    retry_on_oom(attempt, str)
    assert alive == [True, True, True]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[StudyContext]:
    root = tmp_path_factory.mktemp("study")
    context = StudyContext(root, FewQuestions(), tiny_folder)
    for learned in (VANILLA, REFERENCE):
        learn(context, learned)
    yield context
    checkpoints.evict()


@pytest.mark.slow
@pytest.mark.parametrize("method", [VKD(variant="features", schedule=SHORT), GradientAscent(schedule=SHORT)])
def test_a_trial_that_runs_out_of_memory_ends_as_it_would_have(
    method: Method, study: StudyContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (Trial(VANILLA, method, "visual", 10, seed) for seed in (0, 0))
    plain = trials.run(study, one, REFERENCE.key)
    wanted = load_tensors(study.folder.trial(one.key) / "delta.safetensors")
    study.folder.record(one.key).unlink()
    before = snapshot(checkpoints.cached(study.root, VANILLA.key, "cpu").vlm)
    monkeypatch.setattr(MicroBatching, "over", short_above(1))
    record = trials.run(study, other, REFERENCE.key)
    rows = 6 if isinstance(method, VKD) else 2
    assert (plain.chunks, record.chunks) == (1, 8 if rows == 6 else 2)
    assert read_record(TrialRecord, study.folder.record(one.key)) == record
    found = load_tensors(study.folder.trial(one.key) / "delta.safetensors")
    assert found.keys() == wanted.keys()
    assert_near({name: before[name] for name in found}, found, wanted)
    after = snapshot(checkpoints.cached(study.root, VANILLA.key, "cpu").vlm)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_a_trial_without_room_for_a_row_says_what_it_needs(
    study: StudyContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MicroBatching, "over", short_above(0))
    asked = Trial(VANILLA, VKD(schedule=SHORT), "visual", 10, 7)
    with pytest.raises(DoesNotFit, match=r"Tried to allocate 2\.00 GiB.*unlearn: all weights [\d.]+ GiB"):
        trials.run(study, asked, REFERENCE.key)
    assert not study.folder.record(asked.key).exists()


def test_learning_that_runs_out_of_memory_ends_as_it_would_have(
    study: StudyContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MicroBatching, "over", short_above(1))
    learn(replace(study, root=tmp_path), VANILLA)
    places = [StudyFolder(root).learned(VANILLA.key) for root in (study.root, tmp_path)]
    plain, cut = (read_json(place / "curve.json") for place in places)
    assert cut == pytest.approx(plain, abs=1e-4)
    assert [read_json(place / "learned.json")["chunks"] for place in places] == [1, 2]


# ---- layers computed twice -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FAMILIES)
def test_layers_computed_twice_give_the_same_loss_and_gradients(
    name: str, family_folders: dict[str, Path], groups: list[Group]
) -> None:
    vlm = fresh(family_folders[name])
    vlm.model.train()
    whole = gradients(vlm, lambda: nll(vlm, groups))
    with activation_checkpointing(vlm.model):
        assert_alike(gradients(vlm, lambda: nll(vlm, groups)), whole)
        through = gradients(vlm, lambda: nll(vlm, groups), ("projector",))
    assert_alike(through, (whole[0], {name: whole[1][name] for name in through[1]}))
    assert through[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_computed_twice_keep_less_while_the_schedule_says_so(
    name: str, family_folders: dict[str, Path], groups: list[Group]
) -> None:
    vlm, sizes = fresh(family_folders[name]), []

    def loss(step: int) -> Tensor:
        sizes.append(kept(lambda: nll(vlm, groups)))
        return nll(vlm, groups)

    for checkpoint in (False, True, False):
        train(vlm, PARTS, Schedule(steps=1, learning_rate=1e-6, checkpoint=checkpoint), loss)
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] == pytest.approx(sizes[0], rel=0.02)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in vlm.model.modules())


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("parts", [("vision", "projector"), ("llm",), PARTS])
def test_training_with_layers_computed_twice_is_the_same_training(
    lora_rank: int, parts: tuple[Part, ...], tiny_folder: Path, benchmark: Benchmark
) -> None:
    """The draws of the adapters' dropout too."""
    curves, models = [], []
    for checkpoint in (False, True):
        vlm = fresh(tiny_folder)
        schedule = replace(QUICK, steps=3, lora_rank=lora_rank, lora_dropout=0.3, checkpoint=checkpoint)
        drawn = Lessons(benchmark.split(5).lessons, schedule, 0)
        curves.append(train(vlm, parts, schedule, lambda _, vlm=vlm, drawn=drawn: nll(vlm, drawn.draw())))  # type: ignore[misc]
        models.append(snapshot(vlm))
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    assert_near(snapshot(fresh(tiny_folder)), *models)


# ---- out of memory while scoring -----------------------------------------------------------------------------------
@given(st.lists(st.integers(1, 9), max_size=5), st.integers(1, 9))
def test_pieces_that_fit_give_every_result_in_order(sizes: list[int], room: int) -> None:
    pieces = [[(i, j) for j in range(size)] for i, size in enumerate(sizes)]
    worked: list[int] = []

    def work(some: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        if len(some) > room:
            raise torch.OutOfMemoryError
        worked.append(len(some))
        return list(some)

    short = max(sizes, default=0) > room
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(microbatches, "release", lambda: None)  # collecting garbage takes most of a second
        if short:
            with pytest.warns(UserWarning, match="halved from now on") as told:
                found = list(map_halving_on_oom(pieces, work))
            assert len(told) == 1
        else:
            found = list(map_halving_on_oom(pieces, work))
    assert found == [item for piece in pieces for item in piece]
    assert all(size <= room for size in worked)


def test_a_row_that_does_not_fit_by_itself_is_an_error() -> None:
    def work(some: Sequence[int]) -> list[int]:
        raise torch.OutOfMemoryError("too little")

    with pytest.warns(UserWarning, match="out of memory with 3 rows"), pytest.raises(
        DoesNotFit, match=r"a single row \(too little\): use a GPU"
    ):  # fmt: skip
        list(map_halving_on_oom([[1, 2, 3]], work))


@pytest.mark.slow
def test_scoring_goes_on_with_smaller_batches(tiny: VLM, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [q for q in benchmark.split(5).questions if q.role in ("forget", "real")]
    wanted, rows = score(tiny, questions), list[int]()

    def short(vlm: VLM, batch: Any, cache: Any = None) -> Tensor:
        if len(batch.input_ids) > 2:
            raise torch.OutOfMemoryError
        rows.append(len(batch.input_ids))
        return hidden_states(vlm, batch, cache)

    monkeypatch.setattr(scoring, "hidden_states", short)
    with pytest.warns(UserWarning, match="halved from now on"):
        found = score(tiny, questions)
    assert max(rows) <= 2
    assert len(rows) > 3
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_released_replies_go_on_with_smaller_batches(
    tiny: VLM, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [q for q in benchmark.split(15).questions if q.task == "cloze" and q.picture is None][:9]
    asks = [OfficialPrompt(q, f"USER:\n{q.prompt}\nASSISTANT:", (), 5) for q in asked]
    wanted, real, sizes = generated(tiny, asks), official_scoring._shared_replies, list[int]()

    def short(vlm: VLM, some: Sequence[Any], most_tokens: int) -> list[str]:
        if len(some) > 2:
            raise torch.OutOfMemoryError
        sizes.append(len(some))
        return real(vlm, some, most_tokens)

    monkeypatch.setattr(official_scoring, "_shared_replies", short)
    with pytest.warns(UserWarning, match="halved from now on"):
        assert generated(tiny, asks) == wanted
    assert sum(sizes) == 9
    assert max(sizes) == 2
