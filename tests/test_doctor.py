"""The doctor: true counts, the arithmetic of memory against known numbers, and a failure for what is broken."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from study import doctor
from study.core.console import console
from study.core.terms import Dtype
from study.doctor import ray_guard
from study.experiment import parity, smoke_test
from study.experiment.smoke_test import of_nobody, tried
from study.model import memory_estimate
from study.model.loading import Loading, load, without_weights
from study.model.lora import lora_adapters
from study.model.memory_estimate import GIB, Estimate, estimates, shape
from study.model.packing import logits
from study.model.vlm import VLM
from tests.cost.llava import llava
from tests.helpers.families import FAMILIES
from tests.helpers.small import same_bits, snapshot

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


def test_states_and_copies_are_what_each_training_holds() -> None:
    counted = memory_estimate.Shape(
        2, {"vision": 10, "projector": 2, "llm": 88}, {"vision": 8, "projector": 2, "llm": 88}, 5, 50, 1000, 500, 100, 7
    )
    learn, adapters, features, answers, whole, referred = estimates(counted)
    assert {e.weights for e in estimates(counted)} == {200}
    assert (learn.states, learn.copies, learn.picture) == (4 * 4 * 5, 0, 3000 + 4 * 50 + 28)  # adapters are float32
    assert (adapters.states, adapters.copies, adapters.picture) == (learn.states, 0, learn.picture)
    assert (features.states, features.copies, features.picture) == (60, 20, 300)
    assert (answers.states, answers.picture) == (60, 1800 + 28)
    assert (whole.states, whole.copies, whole.picture) == (588, 0, 3300 + 28)
    assert referred.copies - whole.copies == whole.weights


def test_a_batch_is_what_is_left_over() -> None:
    estimate = Estimate("x", weights=4 * GIB, states=GIB, copies=2 * GIB, picture=GIB // 2)
    assert [estimate.batch(gib * GIB) for gib in (3, 7, 7.5, 9.9)] == [0, 0, 1, 5]


# ---- trying it ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", get_args(Dtype))
def test_every_family_is_sound(name: str, dtype: Dtype, family_folders: dict[str, Path]) -> None:
    vlm = load(family_folders[name], loading=Loading(dtype))
    before = snapshot(vlm)
    outcomes = list(tried(vlm, of_nobody()))
    assert {outcome.state for outcome in outcomes} == {"ok"}, outcomes
    seen = [{k: v for k, v in s.items() if vlm.part_of(k) != "llm"} for s in (before, snapshot(vlm))]
    assert same_bits(seen[0], seen[1])  # the visual step was taken back


def test_what_does_not_hold_is_a_failure(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packing that shifts logits, a picture of too few tokens, a step that moves nothing."""
    true, step = logits, smoke_test.STEP
    monkeypatch.setattr(parity, "logits", lambda *given: true(*given).roll(1, 0))
    monkeypatch.setattr(smoke_test, "STEP", type(step)(steps=1, learning_rate=0.0))
    monkeypatch.setattr(VLM, "image_tokens", 15)
    found = {outcome.name: outcome for outcome in tried(tiny, of_nobody())}
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


def test_a_broken_folder_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "broken")
    (folder / "chat_template.jinja").unlink()
    status, told = run(str(folder))
    assert status == 2
    assert "error: " in told
    assert "the processor has no chat template" in told


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
