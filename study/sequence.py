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

from study.chunks import Chunks, release, retried
from study.contracts import Trial
from study.lending import lent
from study.questions import Goal, Split
from study.scoring import score
from study.store import content_key, write_json, write_rows
from study.training import Diverged
from study.trial import Bench


def in_turn(split: Split, goal: Goal, requests: int) -> list[Split]:
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


def in_sequence(bench: Bench, trial: Trial, requests: int, reference: str) -> None:
    """Apply a trial's method to one request after another; score before the first (step 0) and after each.

    What diverges ends the sequence there, and the record says so; one that runs out of memory starts anew in smaller
    chunks, as a trial does. `reference` is as in `Bench.request`.
    """
    retried(lambda chunks: _in_sequence(bench, trial, requests, reference, chunks), bench.needed)


def _in_sequence(bench: Bench, trial: Trial, requests: int, reference: str, chunks: Chunks) -> None:
    path = bench.folder.sequence(trial.key, requests)
    torch.manual_seed(trial.seed)
    whole = bench.request(trial, reference, chunks)
    parts = in_turn(whole.split, trial.goal, requests)
    asked = [q for q in whole.split.questions if q.half == "report" and q.task == "classification"]
    started, diverged = time.monotonic(), ""
    with lent(bench.root, trial.start.key, bench.device, chunks) as (vlm, _):
        stages = [score(vlm, asked)]
        for number, part in enumerate(parts, 1):
            cache = bench.folder.cache(content_key((trial, requests, number)))  # saliency is that of the model now
            try:
                vlm = trial.method(vlm, replace(whole, split=part, cache=cache))
            except (Diverged, ValueError) as error:
                diverged = f"request {number}: {error}"
                break
            stages.append(score(vlm, asked).assign(step=number))
            if vlm.spread is not None:
                release()  # the method's copies, which refer to themselves
    about = {
        "people": [sorted(part.forget_people) for part in parts],
        "diverged": diverged,
        "seconds": time.monotonic() - started,
        "chunks": chunks.count,
    }
    write_json(path.with_suffix(".json"), about)
    write_rows(path, pd.concat(stages, ignore_index=True))
