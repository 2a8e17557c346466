"""A model from its folder through what a study does with it, in as few steps as that takes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from study.attacks.relearning import Relearning
from study.data.benchmark import Benchmark
from study.evaluation.scoring import score
from study.experiment.checkpoints import save
from study.experiment.smoke_test import of_nobody, tried
from study.methods.gradient_difference import GradientDifference
from study.methods.npo import NPO
from study.methods.vkd import VKD
from study.model.loading import Loading, load, without_weights
from study.model.packing import logits, pack
from study.model.vlm import VLM
from study.training.schedule import Schedule
from tests.helpers.small import changed, request_on, snapshot

ONE = Schedule(steps=1, learning_rate=1e-3, pictures=2, lessons_per_picture=2)
EAGER_ONLY = ("got_ocr2", "inkling2", "paligemma2")
"""Families without sdpa attention, whose settings need `attention=eager`, as the error says."""
UNLIMITED = 600.0
"""Seconds of the smoke test: no check is left out."""


def refused(name: str, folder: Path) -> str:
    """Why a study cannot use a model, in one line: the first that the doctor finds wrong, if anything."""
    try:
        without_weights(folder)
        vlm = load(folder, loading=loading_of(name))
    except (OSError, ValueError) as error:
        return str(error).removeprefix(f"{folder}: ").splitlines()[0]
    failed = [check for check in tried(vlm, of_nobody(), UNLIMITED) if check.state != "ok"]
    return f"{failed[0].name}: {failed[0].note.splitlines()[0]}" if failed else ""


def loading_of(name: str) -> Loading:
    return Loading(attention="eager" if name in EAGER_ONLY else "sdpa")


def answers(vlm: VLM) -> Tensor:
    with torch.no_grad():
        return logits(vlm, pack(vlm, [of_nobody()]))


def walk(name: str, folder: Path, benchmark: Benchmark, place: Path) -> None:
    """Unlearn with VKD, GradDiff and adapters, score, attack, save and reload. Raises `AssertionError` where a step
    changes nothing, or where what is reloaded answers otherwise."""
    vlm = load(folder, loading=loading_of(name))
    request = request_on(benchmark, place / "cache", folder)
    adapted = Schedule(steps=1, learning_rate=1e-3, pictures=2, lessons_per_picture=2, lora_rank=2)
    visual = VKD(variant="features", schedule=ONE)
    for method in (visual, GradientDifference(schedule=ONE), NPO(schedule=adapted, trains=("llm",))):
        before = snapshot(vlm)
        method(vlm, request)
        moved = {vlm.part_of(weight) for weight in changed(before, snapshot(vlm))}
        assert moved <= set(method.trains), f"{method} moved {moved}"
        assert moved, f"{method} moved nothing"
    questions = [q for q in request.split.questions if q.task == "cloze"][:2]
    told = answers(vlm)
    for stage in Relearning(schedule=ONE, score_at=(1,))(vlm, questions, request):
        assert len(score(stage.vlm, questions)) == len(questions)
    assert not torch.equal(answers(vlm), told), "relearning moved nothing"
    save(vlm, place / "saved")
    again = load(place / "saved", loading=loading_of(name))
    torch.testing.assert_close(answers(again), answers(vlm), rtol=0, atol=1e-5)
