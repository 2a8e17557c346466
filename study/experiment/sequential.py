"""Forget requests that arrive one after another: what a later one does to those before it.

Whoever was forgotten is gone from the data, so later requests can neither forget them again nor retain them; whose
request is still to come is retained until then.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pandas as pd
import torch

from study.core.errors import Refused
from study.core.hashing import content_key
from study.core.layout import record_beside
from study.core.records import SequenceRecord, write_record
from study.core.rows import write_rows
from study.core.terms import Goal
from study.data.benchmark import Split
from study.engine.isolation import isolated
from study.engine.microbatches import MicroBatching, release, retry_on_oom
from study.evaluation.scoring import score
from study.experiment.checkpoints import borrowed
from study.experiment.context import StudyContext
from study.experiment.trial_spec import Trial
from study.training.loop import Diverged


def split_requests(split: Split, goal: Goal, requests: int) -> list[Split]:
    """The request of a split as several: each with its share of the people and the lessons there still are.

    Raises `ValueError` if there are more requests than people.
    """
    people = sorted(split.forget_people)
    if requests > len(people):
        raise ValueError(f"requests={requests}: only {len(people)} people are forgotten at {split.ratio} %; use fewer")
    random.Random(f"requests {split.ratio}").shuffle(people)
    parts: list[Split] = []
    lessons = split.lessons
    for number in range(requests):
        parts.append(replace(split, forget_people=frozenset(people[number::requests]), lessons=lessons))
        lessons = tuple(lesson for lesson in lessons if not parts[-1].is_forgotten(lesson, goal))
    return parts


def run_sequential(context: StudyContext, trial: Trial, requests: int, reference: str) -> None:
    """Apply a trial's method to one request after another; score before the first (step 0) and after each.

    What diverges ends the sequence there, and the record says so; one that runs out of memory starts anew in smaller
    chunks, as a trial does. `reference` is as in `StudyContext.request`.
    """
    retry_on_oom(lambda chunks: _in_sequence(context, trial, requests, reference, chunks), context.needed)


def _in_sequence(context: StudyContext, trial: Trial, requests: int, reference: str, chunks: MicroBatching) -> None:
    path = context.folder.sequence(trial.key, requests)
    torch.manual_seed(trial.seed)
    whole = context.request(trial, reference, chunks)
    parts = split_requests(whole.split, trial.goal, requests)
    asked = [q for q in whole.split.questions if q.half == "report" and q.task == "classification"]
    started, diverged = time.monotonic(), ""
    with borrowed(context.root, trial.start.key, context.device, chunks) as (vlm, _):
        stages = [score(vlm, asked)]
        for number, part in enumerate(parts, 1):
            cache = context.folder.cache(content_key((trial, requests, number)))  # saliency is that of the model now
            try:
                with isolated():
                    vlm = trial.method(vlm, replace(whole, split=part, cache=cache))
            except (Diverged, Refused) as error:
                diverged = f"request {number}: {error}"
                break
            stages.append(score(vlm, asked).assign(step=number))
            if vlm.sharded is not None:
                release()  # the method's copies, which refer to themselves
    people = tuple(tuple(sorted(part.forget_people)) for part in parts)
    write_record(record_beside(path), SequenceRecord(people, diverged, time.monotonic() - started, chunks.count))
    write_rows(path, pd.concat(stages, ignore_index=True))
