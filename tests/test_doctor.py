"""The doctor: true counts, the arithmetic of memory against known numbers, and a failure for what is broken."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import GenerationConfig

from study import doctor
from study.core.console import console
from study.core.terms import Dtype, Part
from study.doctor import ray_guard
from study.experiment import parity, smoke_test
from study.experiment.smoke_test import of_nobody, tried
from study.methods import _saliency
from study.methods.vkd import VKD
from study.model import memory_estimate
from study.model.loading import Loading, load, without_weights
from study.model.lora import lora_adapters
from study.model.memory_estimate import GIB, RESERVED, Estimate, Phase, Shape, estimates, fit, shape
from study.model.packing import logits
from study.model.vision import FEATURE_BYTES
from study.model.vlm import VLM
from study.presets import PRESETS
from study.training.master_weights import MasterWeights
from study.training.schedule import Schedule
from tests import ROOT
from tests.cost.llava import llava
from tests.helpers.families import FAMILIES
from tests.helpers.small import same_bits, snapshot
from tests.helpers.study_path import UNLIMITED

TINY = "tiny:steps=0,width=32,layers=2"


def run(*arguments: str) -> tuple[int, str]:
    with console.capture() as shown:
        status = doctor.main(list(arguments))
    return status, " ".join(shown.get().split())


# ---- memory ------------------------------------------------------------------------------------------------------
def test_the_arithmetic_gives_what_is_known_of_llava_7b() -> None:
    """In bfloat16, a question with its picture being 672 tokens."""
    found = shape(llava("meta"))
    assert found.weights == pytest.approx(14.1e9, rel=0.01)
    assert 2 * found.llm_trained == pytest.approx(2.8e9, rel=0.03)
    assert 2 * found.llm_passed == pytest.approx(2.0e9, rel=0.03)
    assert 2 * found.vision == pytest.approx(0.45e9 * 23 / 24, rel=0.03)  # one of 24 layers is not read
    assert found.adapters == pytest.approx(40e6, rel=0.02)
    in_layers, in_projector = 32 * (6 * 4096 + 11_008), 1024 + 4096
    assert found.adapter_inputs == 672 * (in_layers + in_projector)
    assert found.parameters["vision"] - found.trainable["vision"] == pytest.approx(12.6e6, rel=0.01)  # that layer


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_are_counted_as_training_finds_them(name: str, family_folders: dict[str, Path]) -> None:
    found, vlm = shape(without_weights(family_folders[name])), load(family_folders[name])
    assert sum(found.parameters.values()) == sum(p.numel() for p in vlm.model.parameters())
    with lora_adapters(
        vlm, vlm.trainable(("projector", "llm")), rank=memory_estimate.RANK, alpha=16, dropout=0.0, seed=0
    ) as made:
        assert found.adapters == sum(p.numel() for p in made.values())
    assert found.vision > 0
    assert found.itemsize == 4


def counted(itemsize: int) -> Shape:
    """A model of a hundred parameters. Its activations and logits are round numbers; a picture has four tokens."""
    parameters: dict[Part, int] = {"vision": 10, "projector": 2, "llm": 88}
    return Shape(
        itemsize, parameters, {**parameters, "vision": 8}, 5, 50, 1000, 500, 100, 7, image_tokens=4, gathered=9
    )


def test_states_and_copies_are_what_each_kind_of_work_holds() -> None:
    """In bfloat16: 18 bytes for a trained number, which are a master weight, gradients and two moments."""
    learn, adapters, features, answers, whole, referred, masked, score = estimates(counted(2))
    assert {e.weights for e in estimates(counted(2))} == {200}
    assert (learn.states, learn.copies, learn.step.row) == (4 * 4 * 5, 0, 3000 + 4 * 50 + 28)  # adapters are float32
    assert (adapters.states, adapters.copies, adapters.step.row) == (learn.states, 0, learn.step.row)
    assert (features.states, features.copies - FEATURE_BYTES, features.step.row) == (18 * 10, 20, 300)
    assert (answers.states, answers.copies - FEATURE_BYTES) == (18 * 10, 2 * 20 + 40)  # two visual modules, a mask
    assert answers.step.row == 1800 + 28 + 3 * 300 // 2
    assert (whole.states, whole.copies, whole.step.row) == (18 * 98, 0, 3300 + 28)
    assert (referred.copies, masked.copies) == (200, (4 + 4) * 98)
    assert score.states == score.copies == 0
    rows = [e.step.rows for e in (learn, adapters, features, answers, whole, referred, masked)]
    assert rows == [4, 8, 12, 8, 8, 8, 8]  # of four pictures: forget and retain, or three for each


def test_a_mask_is_made_before_the_first_step() -> None:
    answers, masked = (e for e in estimates(counted(2)) if e.before)
    (salient,) = answers.before
    assert salient.held == (3 * 4 + 2) * 10 + 2 * 20  # and two visual modules beside
    assert [phase.held for phase in masked.before] == [(3 * 4 + 2) * 98]
    assert salient.rows == 8
    row = 96 * 8 + 4  # tokens of a picture with eight questions, of which one has 96
    assert salient.row == int(3 * (100 + 500 * row / 100)) + 8 * 28
    assert masked.peak() == 200 + max(masked.step.peak(), masked.before[0].peak())


def test_in_float32_autocast_copies_every_weight_that_a_loss_on_answers_goes_through() -> None:
    plain = estimates(counted(4))
    assert [e.copies - FEATURE_BYTES * ("visual" in e.kind) for e in plain] == [
        200, 200, 40, 2 * 40 + 40 + 200, 200, 400 + 200, 8 * 98 + 200, 0,
    ]  # fmt: skip
    assert {e.states for e in plain if "all weights" in e.kind} == {12 * 98}


def test_rows_grow_with_the_batch() -> None:
    few, more = (estimates(counted(2), pictures=4, questions=questions)[0].step for questions in (1, 3))
    assert (few.rows, more.rows) == (4, 4)
    assert more.row == int(3 * 1000 * 2.92) + int(4 * 50 * 2.92) + 3 * 28  # (3 * 96 + 4) / (96 + 4) times the tokens
    assert [e.step.rows for e in estimates(counted(2), pictures=5)[:3]] == [5, 10, 15]


def test_how_work_fits_is_what_its_rows_and_processes_take() -> None:
    """Weights of 8 GiB, states of 4 and four rows of 2 each, beside what a GPU reserves."""
    work = Estimate("x", 8 * GIB, 4 * GIB, 0, Phase(4 * GIB, 2 * GIB, 4), gathered=GIB)
    small = replace(work, weights=GIB)
    told = {gib: fit(work, gib * GIB + RESERVED, small) for gib in (20, 19, 14, 13, 7)}
    assert told == {
        20: "whole", 19: "3 of 4 rows at once", 14: "1 of 4 rows at once", 13: "nf4", 7: "nf4",
    }  # fmt: skip
    # two processes: 1 + 8 / 2 + 4 / 2 + two rows; four: 1 + 8 / 4 + 4 / 4 + one row
    assert [fit(work, gib * GIB + RESERVED) for gib in (13, 11, 10, 6, 4.5, 4)] == [
        "FSDP on 2", "FSDP on 2", "FSDP on 4", "FSDP on 4", "FSDP on 8", "no",
    ]  # fmt: skip


def test_a_doctor_counts_the_batch_of_the_published_presets() -> None:
    schedule = PRESETS["llava_1_5_7b"][1].learn
    assert (schedule.pictures, schedule.lessons_per_picture) == (memory_estimate.PICTURES, memory_estimate.QUESTIONS)
    assert schedule.lora_rank == memory_estimate.RANK
    assert (_saliency.GROUPS, Schedule().lessons_per_picture) == (
        memory_estimate.SALIENCY_PICTURES, memory_estimate.SALIENCY_QUESTIONS,
    )  # fmt: skip
    assert VKD().keep_ratio == memory_estimate.KEPT_PICTURES


def test_what_a_step_holds_is_what_is_counted(tiny_folder: Path) -> None:
    """Master weights, gradients and moments of a visual module in bfloat16, as tensors that there are."""
    vlm = load(tiny_folder, loading=Loading("bfloat16"))
    weights = vlm.trainable(("vision", "projector"))
    masters = MasterWeights(weights)
    optimizer = torch.optim.AdamW(masters.held.values())
    for weight in weights.values():
        weight.grad = torch.ones_like(weight)
    left = sum(weight.grad.nbytes for weight in weights.values() if weight.grad is not None)
    masters.take_gradients()
    optimizer.step()
    moments = [t for state in optimizer.state.values() for name, t in state.items() if name != "step"]
    held = [t for master in masters.held.values() for t in (master, master.grad) if t is not None]
    features = next(e for e in estimates(shape(vlm)) if "features" in e.kind)
    assert features.states == left + sum(t.nbytes for t in (*held, *moments))


def test_the_page_says_what_is_calculated() -> None:
    """docs/new-base-model.md has two tables of LLaVA-1.5-7B: in the second, how it fits on GPUs."""
    page = (ROOT / "docs" / "new-base-model.md").read_text(encoding="utf-8").splitlines()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page if line.startswith("| ")]
    plain, half = (estimates(shape(llava("meta"), quantized)) for quantized in ("", "nf4"))
    instead = {estimate.kind: estimate for estimate in half}
    for e in plain:
        sizes, fits = (cells[1:] for cells in lines if cells[0].partition(" (")[0] == e.kind)
        said = [float(size) for size in sizes]
        told = [e.weights, e.states, e.copies, e.step.row, e.step.rows * GIB, e.peak()]
        assert said == [round(size / GIB, 1) for size in told], e.kind
        assert fits == [fit(e, gib * GIB, instead.get(e.kind)) for gib in doctor.USUAL], e.kind


# ---- trying it ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", get_args(Dtype))
def test_every_family_is_sound(name: str, dtype: Dtype, family_folders: dict[str, Path]) -> None:
    vlm = load(family_folders[name], loading=Loading(dtype))
    before = snapshot(vlm)
    outcomes = list(tried(vlm, of_nobody(), UNLIMITED))
    assert {outcome.state for outcome in outcomes} == {"ok"}, outcomes
    seen = [{k: v for k, v in s.items() if vlm.part_of(k) != "llm"} for s in (before, snapshot(vlm))]
    assert same_bits(seen[0], seen[1])  # the visual step was taken back


def test_what_does_not_hold_is_a_failure(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packing that shifts logits, a picture of too few tokens, a step that moves nothing."""
    true, step = logits, smoke_test.STEP
    monkeypatch.setattr(parity, "logits", lambda *given: true(*given).roll(1, 0))
    monkeypatch.setattr(smoke_test, "STEP", type(step)(steps=1, learning_rate=0.0))
    monkeypatch.setattr(VLM, "image_tokens", 15)
    found = {outcome.name: outcome for outcome in tried(tiny, of_nobody(), UNLIMITED)}
    assert "16 tokens, but prompts have 15 placeholders" in found["a picture is encoded"].note
    assert "they differ by" in found["packed logits equal those of transformers"].note
    assert "no weight changed" in found["the visual module is trained, saved and loaded"].note
    assert [outcome.state for outcome in found.values()] == ["ok", "failed", "failed", "ok", "failed", "ok"]


def test_tokens_and_replies_that_transformers_does_not_make_are_failures(
    tiny: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = VLM.processed

    def twice(vlm: VLM, processor: Any, text: str, images: Sequence[Any]) -> Any:
        made = true(vlm, processor, text, images)
        return {**made, "input_ids": torch.cat([made["input_ids"][:, :1], made["input_ids"]], 1)}

    monkeypatch.setattr(VLM, "processed", twice)  # as if the first token were added twice
    with pytest.raises(ValueError, match=r"\d+ tokens where apply_chat_template makes \d+"):
        parity.prompts(tiny, of_nobody())
    monkeypatch.undo()
    tiny._ids.clear()
    assert "each with 0 tokens of beginning" in parity.prompts(tiny, of_nobody())
    said = iter(range(100))
    monkeypatch.setattr(parity, "_generated", lambda *_: f"something else {next(said)}")
    with pytest.raises(ValueError, match="where generate says 'something else 0'"):
        parity.same_replies(tiny, of_nobody())


def test_weights_that_are_no_numbers_are_not_called_wrong_positions(tiny: VLM) -> None:
    with torch.no_grad():
        next(iter(tiny.trainable(["llm"]).values())).fill_(math.nan)
    with pytest.raises(ValueError, match="what transformers makes of them is not finite: the weights are damaged"):
        parity.packed_logits(tiny, of_nobody())


@pytest.mark.parametrize("asked", ["--memory-gb=nan", "--memory-gb=-1.0", "--pictures=0", "--questions=-3"])
def test_what_is_no_amount_is_refused(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        doctor.parse([TINY, asked])
    assert f"error: {asked}: use a positive number" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said",
    [
        {"stop_strings": ["x"]},
        {"num_beams": 4, "early_stopping": True},
        {"min_new_tokens": 50},
        {"suppress_tokens": list(range(5, 50))},
        {"prompt_lookup_num_tokens": 3},
        {"return_dict_in_generate": True},
    ],
)
def test_what_a_study_does_not_heed_fails_no_model(said: dict[str, Any], tiny: VLM) -> None:
    model: Any = tiny.model
    before = model.generation_config = GenerationConfig(**{**model.generation_config.to_diff_dict(), **said})
    assert "like those of generate" in parity.same_replies(tiny, of_nobody())
    assert model.generation_config is before


def test_it_stops_when_the_time_is_over(tiny: VLM) -> None:
    assert {outcome.state for outcome in tried(tiny, of_nobody(), seconds=-1.0)} == {"not tried"}


# ---- the command -------------------------------------------------------------------------------------------------
def test_it_tells_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ray_guard", lambda *_: (True, "nothing there"))
    status, told = run(TINY, "--benchmark", "synthetic:people=20,celebrities=8,views=2,strangers=8")
    assert status == 0
    assert "LlavaForConditionalGeneration, llava, float32, family llava (study/model/families/llava.py)" in told
    assert "model.multi_modal_projector" in told
    assert "2 of 2 vision layers feed the LLM" in told
    assert "48 x 48 pixels and 16 tokens" in told
    assert "'USER: <image>\\n" in told
    assert told.count(" ok ") == 6
    assert "of them unknown" not in told  # the questions are the benchmark's, whose every word is known


def test_what_does_not_fit_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ray_guard", lambda *_: (True, "nothing there"))
    monkeypatch.setattr(doctor, "load", lambda *_: pytest.fail("loaded"))
    status, told = run(TINY, "--memory-gb", "0.0001")
    assert status == 0
    assert "not tried" in told
    assert run(TINY, "--no-smoke")[0] == 0


def test_what_failed_is_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ray_guard", lambda *_: (False, "the Ray at x lets anyone run code"))
    status, told = run(TINY, "--no-smoke")
    assert status == 1
    assert "failed: the Ray at x lets anyone run code" in told


def test_what_is_left_out_is_said(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ray_guard", lambda *_: (True, "nothing there"))
    assert "Left out - nothing" in run(str(tiny_folder), "--no-smoke")[1]
    folder = shutil.copytree(tiny_folder, tmp_path / "sampled")
    (folder / "generation_config.json").write_text('{"temperature": 0.2, "repetition_penalty": 1.2, "eos_token_id": 2}')
    told = run(str(folder), "--no-smoke")[1]
    assert "Left out - repetition_penalty, temperature of generation_config.json: replies are greedy" in told


def test_what_takes_too_long_to_lay_out_is_stopped(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(console, "print", lambda text, **_: said.append(text))
    monkeypatch.setattr(doctor, "LAYOUT", 1)
    monkeypatch.setattr(doctor, "without_weights", lambda *_: time.sleep(600))
    assert doctor.main([str(tiny_folder), "--no-smoke"]) == 2
    assert said == [f"error: {tiny_folder}: to lay it out takes more than 1 s: look at the sizes in config.json"]


def test_a_broken_folder_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "broken")
    (folder / "chat_template.jinja").unlink()
    status, told = run(str(folder))
    assert status == 2
    assert "error: " in told
    assert "the processor has no chat template" in told


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "notes.txt"
    place.touch()
    status, told = run(TINY, "--data", str(place))
    assert status == 2
    assert f"{place} is a file; choose another --data" in " ".join(told.split())


def test_whatever_transformers_fails_with_is_a_failed_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(doctor, "ray_guard", lambda *_: (True, "nothing there"))
    monkeypatch.setattr(doctor, "load", broken)
    status, told = run(TINY)
    assert status == 1
    assert "loading failed RuntimeError: no kernel for this" in " ".join(told.replace("│", " ").split())


# ---- Ray ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("", "127.0.0.1:6379"),
        ("auto", "127.0.0.1:6379"),
        ("local", "127.0.0.1:6379"),
        ("10.0.0.7:6380", "10.0.0.7:6380"),
    ],
)
def test_a_ray_without_a_token_is_noticed(address: str, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {True: (True, "requires a token"), False: (False, "lets anyone run code"), None: (True, "none answers")}
    for answer, (safe, said) in answers.items():
        places: list[str] = []
        monkeypatch.setattr(doctor, "asks_for_token", lambda gcs, to=places, says=answer: to.append(gcs) or says)
        found = ray_guard(address, "token")
        assert found[0] is safe
        assert said in found[1]
        assert places == [asked]


def test_what_starts_without_a_token_is_noticed_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "asks_for_token", lambda _: pytest.fail("asked"))
    assert ray_guard("", "disabled") == (
        False, "RAY_AUTH_MODE=disabled starts Rays that anyone can use: unset it, or set it to token",
    )  # fmt: skip
    assert ray_guard("ray://head:10001", "token")[0]


def test_where_nothing_listens_nothing_is_open() -> None:
    assert ray_guard("127.0.0.1:1", "token")[1].startswith("none answers at 127.0.0.1:1")
