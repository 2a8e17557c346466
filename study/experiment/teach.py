"""Teach a base model: vanilla gets every lesson, the reference all but those of a forget request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from study.core import inventory
from study.core.files import write_json
from study.core.records import write_record
from study.core.terms import Part
from study.data.benchmark import Benchmark
from study.engine.microbatches import MicroBatching, retry_on_oom
from study.engine.sharded_tensors import full_tensor
from study.engine.world import World, world
from study.experiment.checkpoints import save
from study.experiment.context import StudyContext
from study.experiment.origin import origin_of
from study.experiment.records import learned_record
from study.experiment.trial_spec import Learned, lessons_for
from study.model.delta import apply_delta
from study.model.likelihood import cross_entropy
from study.model.loading import load
from study.model.memory_estimate import describe
from study.model.packing import pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import OnStep, train


def learn(context: StudyContext, learned: Learned, on_step: OnStep | None = None) -> None:
    """Teach `learned` from the base model and keep it as a Hugging Face folder.

    The processes of one world share every batch, and every tensor too where models are sharded; the first tells and
    keeps. If memory runs out it is taught anew in smaller chunks, by several after `RestartFiner`. Raises
    `DoesNotFit` if those of one row are too large, or if the model is sharded.
    """
    started, here = time.monotonic(), world()
    told = on_step if here.rank == 0 else None

    def attempt(chunks: MicroBatching) -> tuple[VLM, list[float]]:
        vlm = replace(load(context.base, context.device, context.loading.as_taught), chunks=chunks)
        return vlm, _taught(vlm, learned, context.benchmark, told)

    vlm, curve = retry_on_oom(attempt, lambda: describe(context.base, context.loading.as_taught))
    if vlm.sharded is not None:
        vlm = _gathered(vlm, learned.parts, context, here)
    if here.rank == 0:
        _keep(context, learned, vlm, curve, time.monotonic() - started)
    here.barrier()


def _taught(vlm: VLM, learned: Learned, benchmark: Benchmark, on_step: OnStep | None) -> list[float]:
    """Teach a model in place; the loss of every step."""
    torch.manual_seed(learned.seed)
    drawn = Lessons(lessons_for(learned, benchmark), learned.schedule, learned.seed)

    def loss(step: int) -> torch.Tensor:
        groups = drawn.draw()
        total = torch.zeros((), device=vlm.device)
        for part in (
            [group for group in groups if group.picture is not None],
            [group for group in groups if group.picture is None],
        ):
            if part:  # each kind by itself: rows of one length, and text counts as much as pictures
                total = total + cross_entropy(vlm, pack(vlm, part))
        return total

    return train(vlm, learned.parts, learned.schedule, loss, on_step=on_step)


def _gathered(vlm: VLM, parts: Sequence[Part], context: StudyContext, here: World) -> VLM:
    """A model that was sharded, in one piece, in the first process's main memory: the base, with what was taught."""
    plain = load(context.base, "cpu", context.loading.as_taught, whole=True) if here.rank == 0 else vlm
    for name, parameter in vlm.trainable(parts).items():
        tensor = full_tensor(parameter.detach())
        if here.rank == 0:
            apply_delta(plain, {name: tensor})
    return plain


def _keep(context: StudyContext, learned: Learned, vlm: VLM, curve: list[float], seconds: float) -> None:
    """Write the model, its loss curve and last the record, which says that all is there."""
    folder = context.folder
    folder.learned(learned.key).mkdir(parents=True, exist_ok=True)
    digests = save(vlm, folder.model_dir(learned.key))
    inventory.check_taught(folder, learned.key, digests)
    write_json(folder.curve(learned.key), curve)
    origin, chunks = origin_of(context), vlm.chunks.count
    record = learned_record(learned, context.loading, digests, seconds=seconds, chunks=chunks, origin=origin)
    write_record(folder.learned_record(learned.key), record)
