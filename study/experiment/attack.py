"""One attack on one finished trial: run it, keep the rows of every stage, record what cannot be done."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from study.contracts import Attack, Request
from study.core.errors import Refused
from study.core.failures import Refusal
from study.core.hashing import canonical, content_key
from study.core.layout import StudyFolder, record_beside
from study.core.plugins import name_of
from study.core.provenance import Origin
from study.core.records import AttackRecord, AttackState, state_of_attack, write_record
from study.core.rows import rows_at, write_rows
from study.core.terms import HALVES, MODALITIES, Modality
from study.data.benchmark import Question
from study.data.facts import asked_facts, facts, states
from study.engine.isolation import isolated
from study.engine.microbatches import MicroBatching, retry_on_oom
from study.engine.world import world
from study.evaluation.scoring import score
from study.experiment.checkpoints import borrowed, unlearned_model
from study.experiment.context import StudyContext
from study.experiment.origin import origin_of
from study.experiment.records import is_complete, keep_record
from study.experiment.trial_spec import Trial
from study.model.flop_counter import counted
from study.model.vlm import VLM
from study.training.loop import Diverged

UTILITY_QUESTIONS = 24  # of each group that is to be kept, in each half: asked at every stage of every attack


def attack_trial(context: StudyContext, trial: Trial, attacker: Attack, reference: str) -> None:
    """Attack a finished trial and keep its rows, as step 0, and those of every stage.

    What the attacker was given is marked as seen. Some questions about others are asked too: they say whether the
    attacked model still is one. As a trial, an attack that runs out of memory starts anew.
    """
    if agreed_attack_state(context.folder, trial, attacker) != "complete":
        retry_on_oom(lambda chunks: _attack(context, trial, attacker, reference, chunks), context.needed)
        world().barrier()


def _attack(context: StudyContext, trial: Trial, attacker: Attack, reference: str, chunks: MicroBatching) -> None:
    torch.manual_seed(trial.seed)
    alike = replace(trial, seed=0)  # one attacker for all models, whatever their seed
    request = context.request(alike, reference, chunks)
    questions = _attacked_questions(request, attacker)
    started = time.monotonic()
    with borrowed(context.root, trial.start.key, context.device, chunks) as (vlm, _):
        found, _ = unlearned_model(context.folder, trial.key, vlm)
        stages, diverged = [_before(context.folder, trial, found, questions, request)], ""
        with counted(found) as work, isolated():
            scoring = 0.0
            try:
                for stage in attacker(found, questions, request):
                    before = work.flops
                    stages.append((stage.read or score)(stage.vlm, stage.questions).assign(step=stage.step))
                    scoring += work.flops - before
            except Diverged as error:  # the attacker broke the model: what came back until then is the result
                diverged = str(error)
    rows = marked(pd.concat(stages, ignore_index=True), questions, attacker, request)
    seconds = time.monotonic() - started
    own, scoring = map(math.fsum, zip(*world().all_gather_objects((work.flops - scoring, scoring)), strict=True))
    what = {
        "diverged": diverged,
        "seconds": seconds,
        "chunks": chunks.count,
        "flops": own,
        "score_flops": scoring,
        "origin": origin_of(context, attacker),
    }
    _note_attack(context.folder, trial, attacker, **what)
    write_rows(context.folder.attack(trial.key, content_key(attacker)), rows)


def _before(
    folder: StudyFolder, trial: Trial, vlm: VLM, questions: Sequence[Question], request: Request
) -> pd.DataFrame:
    """Step 0 of every attack: the trial's own rows of the attacked questions, in their order.

    Only what is not on disk is asked. That is the half `report` of a trial that did not win and is attacked because
    robustness is searched, and what the search, which generates nothing, does not have replied to.
    """
    paths = [folder.rows(trial.key, half) for half in HALVES]
    found = world().broadcast_from_first(lambda: [rows for rows in map(rows_at, paths) if rows is not None])
    found = [rows[rows["score"].notna()] for rows in found]
    known = {id for rows in found for id in rows["question"]}
    if missing := [q for q in questions if q.id not in known]:
        found.append(score(vlm, missing))
    rows = pd.concat(found).set_index("question", drop=False)
    return _stating(rows.loc[[q.id for q in questions]].reset_index(drop=True), questions, request)


def _stating(rows: pd.DataFrame, questions: Sequence[Question], request: Request) -> pd.DataFrame:
    """Rows in which a free reply is judged by whether it states the fact, as `SampledExtraction` does."""
    wanted = rows["question"].map(asked_facts(request.split, [q for q in questions if not q.options])).dropna()
    said = [float(states(reply, fact)) for reply, fact in zip(rows.loc[wanted.index, "reply"], wanted, strict=True)]
    rows.loc[wanted.index, "answer"] = wanted
    for column in ("score", "probability"):
        rows.loc[wanted.index, column] = said
    return rows


def attack_failed(
    folder: StudyFolder,
    trial: Trial,
    attacker: Attack,
    reason: str,
    kind: Refusal = "refused",
    origin: Origin | None = None,
) -> None:
    """Write down that an attack cannot be done: it is not tried again. `origin` is that of an attack that says so."""
    _note_attack(folder, trial, attacker, failed=reason, failure=kind, origin=origin)


def too_small(folder: StudyFolder, trial: Trial, attacker: Attack | None, reason: str) -> bool:
    """Record that the device is too small for a trial or, if that ended well, for the attack on it.

    Returns whether either was still to be done.
    """
    kind: Refusal = "out of memory (device)"
    if not is_complete(folder, trial):
        keep_record(folder, trial, "failed", reason, failure=kind, cost={})
    elif attacker and attack_state(folder, trial, attacker) == "unfinished":
        attack_failed(folder, trial, attacker, reason, kind)
    else:
        return False
    return True


def attack_state(folder: StudyFolder, trial: Trial, attacker: Attack) -> AttackState:
    """The state of an attack on a trial."""
    return state_of_attack(folder.attack(trial.key, content_key(attacker)))


def agreed_attack_state(folder: StudyFolder, trial: Trial, attacker: Attack) -> AttackState:
    """The same as the first process of a job sees it, so that all processes do the same."""
    return world().broadcast_from_first(lambda: attack_state(folder, trial, attacker))


def _note_attack(folder: StudyFolder, trial: Trial, attacker: Attack, **what: Any) -> None:
    """Write the record of an attack; `what` are the fields of its outcome."""
    path = record_beside(folder.attack(trial.key, content_key(attacker)))
    about = {"changes": attacker.changes, "threat": attacker.threat, **what}
    write_record(path, AttackRecord(name_of(attacker), canonical(attacker), **about))


def _attacked_questions(request: Request, attacker: Attack) -> list[Question]:
    """What the attack asks about the forget set, and choices about each other group of people, always the same."""
    mine = _forgotten(request, attacker)
    asked = [q for q in request.split.questions if q.task == "classification" and q.modality in _modalities(request)]
    for role, half in itertools.product(("spared", "retain", "real"), HALVES):
        others = sorted((q for q in asked if (q.role, q.half) == (role, half)), key=lambda q: content_key(q.id))
        mine += others[:UTILITY_QUESTIONS]
    return mine


def _forgotten(request: Request, attacker: Attack) -> list[Question]:
    """The questions about the forget set that an attack asks."""
    modalities = _modalities(request)
    mine = [q for q in request.split.questions if q.role == "forget" and q.modality in modalities]
    return [q for q in mine if q.task in attacker.asks]


def _modalities(request: Request) -> tuple[Modality, ...]:
    """The modalities in which something is to be forgotten."""
    return ("image_text",) if request.goal == "visual" else MODALITIES


def marked(rows: pd.DataFrame, questions: Sequence[Question], attacker: Attack, request: Request) -> pd.DataFrame:
    """Rows with `seen` and `held_out`: a question is seen if a lesson the attacker was given states its answer.

    Or if such a lesson is labelled with the attribute that the question asks for.
    """
    lessons = attacker.given(request)
    given: dict[str, set[str]] = {}
    for (person, _), fact in facts(lessons).items():
        given.setdefault(person, set()).add(fact)
    labels = {(lesson.person, lesson.attribute) for lesson in lessons if lesson.attribute}
    mark: dict[str, str] = {}
    for q in questions:
        known = given.get(q.person, set())
        stated = (q.person, q.attribute) in labels or any(states(q.answer, f) or states(f, q.answer) for f in known)
        mark[q.id] = "person" if not known else "" if stated else "fact"
    held_out = rows["question"].map(mark)
    return rows.assign(held_out=held_out, seen=held_out == "")


def try_attack(context: StudyContext, trial: Trial, attacker: Attack, reference: str) -> str:
    """Attack a finished trial unless that was tried; returns why it cannot be done, which is noted, or nothing.

    What was found impossible before is not told again.
    """
    if agreed_attack_state(context.folder, trial, attacker) == "unfinished":
        try:
            attack_trial(context, trial, attacker, reference)
        except Refused as error:  # what the attack itself says: anything else is an accident, and no result
            attack_failed(context.folder, trial, attacker, str(error), origin=origin_of(context, attacker))
            return str(error)
    return ""


def holds_out(attacker: Attack, request: Request) -> bool:
    """Whether the attacker leaves something to be recovered on both halves of the questions.

    Raises `Refused` if the data has nothing that the attacker could be given, or that it could ask.
    """
    mine = _forgotten(request, attacker)
    if {q.half for q in mine} != set(HALVES):
        raise Refused(f"one half of the questions has no {' or '.join(attacker.asks)} about what is to be forgotten")
    rows = pd.DataFrame({"question": [q.id for q in mine], "half": [q.half for q in mine]})
    found = marked(rows, mine, attacker, request)
    return set(found.loc[found["held_out"] != "", "half"]) == set(HALVES)
