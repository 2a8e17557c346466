"""What a training step costs beside one of the loop that the authors of MLLMU-Bench publish: CPU time, one thread.

    python -m tests.cost.step              # gradient ascent on rank-16 adapters, 4 pictures of one lesson a step
    python -m tests.cost.step --lessons 8  # 8 lessons of each picture: one row of ours, eight of theirs

All train adapters of the same untrained tiny model on the same lessons in the same order:
- ours: the loop of a trial (`study.training.loop`), from the drawing of lessons to merged weights;
- authors: a data loader that opens the pictures and tokenizes the texts of each batch, a model that peft wraps and
  that computes the logits of every token, AdamW, a linear decay. Theirs trains on the words of the prompt too; here it
  trains on those of the answer, as ours does, so that both have the same losses (a test compares them);
- prepared: the same loop on batches that were made beforehand: the most that a better data loader can save it. Ours
  keeps pictures and tokens as well, from one trial of a worker to the next.

The runs take turns, and a ratio is the median over the turns. docs/cost.md counts the operations of a large model.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from study.base_models.tiny import Tiny
from study.benchmarks.synthetic import Synthetic
from study.core.console import table
from study.core.terms import Part
from study.data.benchmark import Benchmark, Lesson
from study.data.picture import Picture
from study.model.likelihood import cross_entropy
from study.model.loading import load
from study.model.packing import pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from study.training.loop import train
from study.training.schedule import Schedule

RATIO = 20
TRAINED: tuple[Part, ...] = ("llm",)
"""The part that is adapted."""
SHAPE = Schedule(steps=84, pictures=4, lessons_per_picture=1, lora_rank=16)
"""The authors' batch and rank, and so many steps that setting up and merging weigh little."""

Asked = tuple[Picture, str, str]
"""A lesson: picture, question, answer."""
Inputs = dict[str, Tensor]
Run = Callable[[VLM], list[float]]
"""Trains a model; returns the loss of every step."""


def taught(benchmark: Benchmark) -> list[Lesson]:
    """The lessons to be forgotten that have a picture."""
    split = benchmark.split(RATIO)
    return [lesson for lesson in split.lessons if lesson.picture and split.is_forgotten(lesson, "full")]


# ---- ours ----------------------------------------------------------------------------------------------------------
def ours(lessons: Sequence[Lesson], schedule: Schedule) -> Run:
    """Gradient ascent as a trial runs it."""

    def run(vlm: VLM) -> list[float]:
        forget = Lessons(lessons, schedule, seed=0)
        return train(vlm, TRAINED, schedule, lambda _: -cross_entropy(vlm, pack(vlm, forget.draw())))

    return run


# ---- the authors' --------------------------------------------------------------------------------------------------
def authors(lessons: Sequence[Lesson], schedule: Schedule) -> Run:
    """Gradient ascent as the authors run it, on the lessons that ours draws."""
    asked = drawn(lessons, schedule)

    def run(vlm: VLM) -> list[float]:
        rows = len(asked) // schedule.steps
        rowed: Any = asked  # a list will do, but torch's annotation wants a `Dataset`
        return ascended(vlm, schedule, DataLoader(rowed, rows, collate_fn=lambda batch: collated(vlm, batch)))

    return run


def prepared(vlm: VLM, lessons: Sequence[Lesson], schedule: Schedule) -> Run:
    """The same without its data loader."""
    asked = drawn(lessons, schedule)
    rows = len(asked) // schedule.steps
    batches = [collated(vlm, asked[i : i + rows]) for i in range(0, len(asked), rows)]
    return lambda vlm: ascended(vlm, schedule, batches)


def drawn(lessons: Sequence[Lesson], schedule: Schedule) -> list[Asked]:
    """The lessons of all steps."""
    forget = Lessons(lessons, schedule, seed=0)
    groups = [group for _ in range(schedule.steps) for group in forget.draw()]
    return [(group.picture, p.text, p.answers[0]) for group in groups for p in group.prompts if group.picture]


def collated(vlm: VLM, batch: Sequence[Asked]) -> Inputs:
    """A batch as the authors collate it: pictures opened, texts tokenized and padded."""
    processor: Any = vlm.processor
    turns = [[vlm.family.turn(question, True)] for _, question, _ in batch]
    prompts = [processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    answers = [f" {answer}{processor.tokenizer.eos_token}" for _, _, answer in batch]
    made = processor(
        text=[prompt + answer for prompt, answer in zip(prompts, answers, strict=True)],
        images=[picture.open() for picture, _, _ in batch],
        padding=True,
        return_tensors="pt",
    )
    labels = made["input_ids"].clone()
    for row, answer in zip(labels, answers, strict=True):  # padding is on the left
        row[: -len(processor.tokenizer(answer, add_special_tokens=False).input_ids)] = -100
    return {**made, "labels": labels}


def ascended(vlm: VLM, schedule: Schedule, batches: Iterable[Inputs]) -> list[float]:
    """The authors' loop; the adapters are merged at the end."""
    config = LoraConfig(
        r=schedule.lora_rank,
        lora_alpha=schedule.lora_alpha,
        lora_dropout=schedule.lora_dropout,
        target_modules=list(vlm.linear(TRAINED)),
    )
    torch.manual_seed(0)  # adapters begin as ours do
    model: Any = get_peft_model(vlm.model, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    decay = LambdaLR(optimizer, schedule.rate)
    curve = []
    model.train()
    for batch in batches:
        loss = -model(**batch).loss
        loss.backward()
        optimizer.step()
        decay.step()
        optimizer.zero_grad()
        curve.append(loss.item())
    model.merge_and_unload()
    return curve


# ---- measuring -----------------------------------------------------------------------------------------------------
def seconds(vlm: VLM, run: Run) -> float:
    """The CPU time of a run on a model of its own."""
    own = replace(vlm, model=copy.deepcopy(vlm.model))
    started = time.process_time()
    run(own)
    return time.process_time() - started


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.cost.step", description=__doc__.splitlines()[0])
    parser.add_argument("--lessons", type=int, default=SHAPE.lessons_per_picture, help="lessons of each picture")
    parser.add_argument("--steps", type=int, default=SHAPE.steps)
    parser.add_argument("--turns", type=int, default=7, help="runs of each way, one after another")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    schedule = replace(SHAPE, steps=given.steps, lessons_per_picture=given.lessons)
    with tempfile.TemporaryDirectory() as folder:
        vlm = load(Tiny(steps=0)(Path(folder)))
        lessons = taught(Synthetic()(Path(folder)))
        ways = {
            "ours": ours(lessons, schedule),
            "authors": authors(lessons, schedule),
            "prepared": prepared(vlm, lessons, schedule),
        }
        print_costs(schedule, [measured(vlm, ways) for _ in range(1 + given.turns)][1:])  # imports, caches: not counted


def measured(vlm: VLM, ways: Mapping[str, Run]) -> dict[str, float]:
    """The CPU seconds of each way, one after another."""
    return {name: seconds(vlm, run) for name, run in ways.items()}


def print_costs(schedule: Schedule, turns: Sequence[Mapping[str, float]]) -> None:
    """Print what a step of each way took, and what ours took relative to it."""
    title = (
        f"{schedule.steps} steps of {schedule.pictures} x {schedule.lessons_per_picture} lessons, {len(turns)} turns"
    )
    rows: list[list[object]] = []
    for name in turns[0]:
        step = statistics.median(turn[name] for turn in turns) / schedule.steps
        rows.append([name, 1e3 * step, statistics.median(turn["ours"] / turn[name] for turn in turns)])
    table(title, ["way", "CPU ms per step", "ours relative to it"], rows)


if __name__ == "__main__":
    main()
