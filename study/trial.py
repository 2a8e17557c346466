"""One trial, by one process or by several together: unlearn, score, keep, attack. Knows nothing of Ray."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from study import objectives
from study.chunks import Chunks, retried
from study.contracts import Attack, Request, Source, Trial
from study.deltas import apply_delta, delta
from study.learning import load_learned
from study.lending import held, lent
from study.memory import needed
from study.parallel import world
from study.plugins import name_of
from study.quantized import Quantized
from study.questions import HALVES, MODALITIES, Benchmark, Question, facts, states
from study.scoring import score
from study.store import (
    Damaged,
    Folder,
    Json,
    canonical,
    content_key,
    read_json,
    read_rows,
    rows_at,
    write_json,
    write_rows,
)
from study.training import Diverged
from study.vlm import VLM, Attention, Dtype, load
from study.weights import load_tensors, save_tensors
from study.work import Work, counted

State = Literal["complete", "diverged", "failed"]
UTILITY_QUESTIONS = 24  # of each group that is to be kept, in each half: asked at every stage of every attack


@dataclass(frozen=True)
class Bench:
    """What every job of a study needs to find: the study's folder, its benchmark and its base model."""

    root: Path
    source: Source
    base: Path
    device: str = "cpu"
    attributes: tuple[str, ...] = ()
    """What of the forget people is to be forgotten; empty for everything."""
    dtype: Dtype = "float32"
    """In what the base model's weights are kept, and those of what is learned from it."""
    attention: Attention = "sdpa"
    quantized: Quantized = ""
    """In what the LLM's linear layers are held, but for learning."""

    @property
    def folder(self) -> Folder:
        """Where the study lies."""
        return Folder(self.root)

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark, read once per process."""
        return _benchmark(self.source, self.folder.data, self.attributes)

    def needed(self) -> str:
        """What its model takes of memory, in words."""
        return needed(self.base, self.dtype, self.quantized)

    def request(self, trial: Trial, reference: str, chunks: Chunks | None = None) -> Request:
        """The forget request of a trial. `reference` is the key of the learned reference model.

        The models that it loads cut their forwards into `chunks`.
        """
        finely = chunks or Chunks()
        return Request(
            split=self.benchmark.split(trial.ratio),
            goal=trial.goal,
            strangers=self.benchmark.strangers,
            seed=trial.seed,
            cache=self.folder.cache(content_key((trial.start, trial.goal, trial.ratio))),
            base=lambda: replace(
                load(self.base, self.device, getattr(torch, self.dtype), self.attention, self.quantized), chunks=finely
            ),
            reference=lambda: replace(load_learned(self.root, reference, self.device), chunks=finely),
            start=lambda: held(self.root, trial.start.key, self.device).weights,
            adapter=getattr(getattr(trial.method, "schedule", None), "lora_rank", 0) > 0,
        )


@functools.lru_cache(maxsize=1)
def _benchmark(source: Source, folder: Path, attributes: tuple[str, ...]) -> Benchmark:
    return source(folder).narrowed(attributes)


def run(bench: Bench, trial: Trial, reference: str, *, waited: float = 0.0) -> Json:
    """Run a trial unless it is on disk, and return its record.

    A trial that diverges or that cannot be done with its hyper-parameters ends as a record that says so; one that runs
    out of memory starts anew in smaller chunks. `waited` is how many seconds the worker had been idle before; with
    loading, bookkeeping and attempts that ran out of memory it is the trial's overhead. Raises `DoesNotFit` if chunks
    of one row are too large.
    """
    done = world().told(lambda: _record(bench.folder, trial))
    if done is not None:
        return done
    called = time.monotonic() - waited
    record = retried(lambda chunks: _run(bench, trial, reference, chunks, called), bench.needed)
    world().wait()  # whoever goes on reads what the first process wrote
    return record


def _record(folder: Folder, trial: Trial) -> Json | None:
    path = folder.record(trial.key)
    return read_json(path) if path.exists() else None


def _run(bench: Bench, trial: Trial, reference: str, chunks: Chunks, called: float) -> Json:
    torch.manual_seed(trial.seed)
    request = bench.request(trial, reference, chunks)
    selects = [q for q in request.split.questions if q.half == "select" and q.task == "classification"]
    with lent(bench.root, trial.start.key, bench.device, chunks) as (vlm, before):
        started = time.monotonic()
        state: State = "complete"
        reason = instruction = ""
        try:
            unlearned = trial.method(vlm, request)
            world().align(list(unlearned.model.parameters()))
            instruction = unlearned.instruction
        except (Diverged, ValueError) as error:
            state, reason = "diverged" if isinstance(error, Diverged) else "failed", str(error)
        unlearn_seconds = time.monotonic() - started
        score_seconds, work = 0.0, Work()
        if state == "complete":
            changed = delta(unlearned, before)
            save_tensors(bench.folder.trial(trial.key) / "delta.safetensors", changed)
            started = time.monotonic()
            with counted(unlearned) as work:
                rows = _scored(bench, trial, unlearned, changed, selects, "select")
            write_rows(bench.folder.rows(trial.key, "select"), rows)  # never those of a run that was killed
            if rows["probability"].isna().any():
                state, reason = "diverged", "after the last step the probabilities of the answers are not numbers"
            score_seconds = time.monotonic() - started
    work = Work.of(world().collected(work))
    cost = {
        "unlearn_seconds": unlearn_seconds,
        "score_seconds": score_seconds,
        "overhead_seconds": time.monotonic() - called - unlearn_seconds - score_seconds,
        **asdict(work),
    }
    return keep_record(bench.folder, trial, state, reason, instruction=instruction, cost=cost, chunks=chunks.count)


def keep_record(
    folder: Folder,
    trial: Trial,
    state: State,
    reason: str,
    *,
    instruction: str = "",
    cost: Mapping[str, float],
    chunks: int = 1,
) -> Json:
    """Write a trial's record, which ends the trial: from now on it is never run again."""
    record = {
        "key": trial.key,
        "state": state,
        "reason": reason,
        "method": trial.name or name_of(trial.method),
        "hyperparameters": canonical(trial.method),
        "instruction": instruction,
        "goal": trial.goal,
        "ratio": trial.ratio,
        "seed": trial.seed,
        "start": {"kind": trial.start.kind, "key": trial.start.key},
        "chunks": chunks,
        "processes": world().size,
        "cost": dict(cost),
    }
    write_json(folder.record(trial.key), record)
    return record


def report(bench: Bench, trial: Trial, *, blind: bool = False) -> None:
    """Score the half of the questions that no search has seen, on every task; keep the rows.

    With `blind`, also ask every picture question of a choice about a grey picture.
    """
    questions = bench.benchmark.split(trial.ratio).questions
    wanted = {"report": [q for q in questions if q.half == "report"]}
    if blind:
        wanted["blind"] = [q for q in questions if q.modality == "image_text" and q.task == "classification"]
    if world().told(lambda: all(bench.folder.rows(trial.key, name).exists() for name in wanted)):
        return
    with lent(bench.root, trial.start.key, bench.device) as (vlm, _):
        found, changed = unlearned_model(bench.folder, trial.key, vlm)
        rows = bench.folder.rows(trial.key, "report")
        with counted(found) as work:
            kept_rows(rows, lambda: _scored(bench, trial, found, changed, wanted["report"], "report"))
        if (done := Work.of(world().collected(work))).tokens:
            write_json(rows.with_suffix(".json"), asdict(done))
        if blind:
            kept_rows(bench.folder.rows(trial.key, "blind"), lambda: score(found, wanted["blind"], blind=True))
    world().wait()


def kept_rows(path: Path, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The rows at `path`, measured and written first if they are missing or damaged.

    Processes that do a job together all measure, or none does.
    """
    rows = world().told(lambda: rows_at(path))
    if rows is None:
        rows = measure()
        write_rows(path, rows)
    return rows


def attack(bench: Bench, trial: Trial, attacker: Attack, reference: str) -> None:
    """Attack a finished trial and keep the rows of every stage; what the attacker was given is marked as seen.

    Some questions about others are asked too: they say whether the attacked model still is one. As a trial, an attack
    that runs out of memory starts anew.
    """
    if _attack_state(bench.folder, trial, attacker) != "complete":
        retried(lambda chunks: _attack(bench, trial, attacker, reference, chunks), bench.needed)
        world().wait()


def _attack(bench: Bench, trial: Trial, attacker: Attack, reference: str, chunks: Chunks) -> None:
    torch.manual_seed(trial.seed)
    alike = replace(trial, seed=0)  # one attacker for all models, whatever their seed
    request = bench.request(alike, reference, chunks)
    questions = _attacked_questions(request.split.questions, trial)
    started = time.monotonic()
    with lent(bench.root, trial.start.key, bench.device, chunks) as (vlm, _):
        found, _ = unlearned_model(bench.folder, trial.key, vlm)
        stages, diverged = [], ""
        try:
            for stage in attacker(found, questions, request):
                stages.append((stage.read or score)(stage.vlm, stage.questions).assign(step=stage.step))
        except Diverged as error:  # the attacker broke the model: what came back until then is the result
            diverged = str(error)
    rows = marked(pd.concat(stages, ignore_index=True), questions, attacker, request)
    seconds = time.monotonic() - started
    _note_attack(bench.folder, trial, attacker, diverged=diverged, seconds=seconds, chunks=chunks.count)
    write_rows(bench.folder.attack(trial.key, content_key(attacker)), rows)


def is_complete(folder: Folder, trial: Trial) -> bool:
    """Whether a trial has ended well."""
    path = folder.record(trial.key)
    return path.exists() and bool(read_json(path)["state"] == "complete")


def attack_failed(folder: Folder, trial: Trial, attacker: Attack, reason: str) -> None:
    """Write down that an attack cannot be done: it is not tried again."""
    _note_attack(folder, trial, attacker, failed=reason)


def attack_state(folder: Folder, trial: Trial, attacker: Attack) -> Literal["complete", "failed", "missing"]:
    """What became of an attack on a trial."""
    path = folder.attack(trial.key, content_key(attacker))
    if path.exists():
        return "complete"
    note = path.with_suffix(".json")
    return "failed" if note.exists() and "failed" in read_json(note) else "missing"


def _attack_state(folder: Folder, trial: Trial, attacker: Attack) -> str:
    """What became of an attack, as the first of several processes sees it."""
    return world().told(lambda: attack_state(folder, trial, attacker))


def _note_attack(folder: Folder, trial: Trial, attacker: Attack, **what: Json) -> None:
    path = folder.attack(trial.key, content_key(attacker)).with_suffix(".json")
    write_json(path, {"attack": name_of(attacker), "settings": canonical(attacker), **what})


def _attacked_questions(questions: Sequence[Question], trial: Trial) -> list[Question]:
    """The choices that were to be forgotten, and some about each other group of people, always the same."""
    modalities = ("image_text",) if trial.goal == "visual" else MODALITIES
    asked = [q for q in questions if q.task == "classification" and q.modality in modalities]
    mine = [q for q in asked if q.role == "forget"]
    for role, half in itertools.product(("spared", "retain", "real"), HALVES):
        others = sorted((q for q in asked if (q.role, q.half) == (role, half)), key=lambda q: content_key(q.id))
        mine += others[:UTILITY_QUESTIONS]
    return mine


def judged(bench: Bench, trial: Trial, vanilla: str, reference: str) -> dict[str, float]:
    """The objectives of a complete trial, from the select half of its rows and those of the two yardsticks."""
    with _repairable(bench.folder, trial.key):
        own, before, wanted = (read_rows(bench.folder.rows(key, "select")) for key in (trial.key, vanilla, reference))
    return objectives.objectives(own, before, wanted, trial.goal)


def marked(rows: pd.DataFrame, questions: Sequence[Question], attacker: Attack, request: Request) -> pd.DataFrame:
    """Rows with `seen` and `held_out`: a question is seen if a lesson the attacker was given states its answer."""
    given: dict[str, set[str]] = {}
    for (person, _), fact in facts(attacker.given(request)).items():
        given.setdefault(person, set()).add(fact)
    mark: dict[str, str] = {}
    for q in questions:
        known = given.get(q.person)
        stated = known is not None and any(states(q.answer, f) or states(f, q.answer) for f in known)
        mark[q.id] = "person" if known is None else "" if stated else "fact"
    held_out = rows["question"].map(mark)
    return rows.assign(held_out=held_out, seen=held_out == "")


def unlearned_model(folder: Folder, key: str, vlm: VLM) -> tuple[VLM, dict[str, torch.Tensor]]:
    """The model a finished trial left, rebuilt on `vlm` from its delta and its instruction."""
    record = read_json(folder.record(key))
    with _repairable(folder, key):
        changed = load_tensors(folder.trial(key) / "delta.safetensors")
    apply_delta(vlm, changed)
    return vlm.with_instruction(record["instruction"]) if record["instruction"] else vlm, changed


@contextmanager
def _repairable(folder: Folder, key: str) -> Iterator[None]:
    """A finished trial is not run again for a file that it lost: say what has to go for that."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise Damaged(f"{error}. To run trial {key} again, remove the folder {folder.trial(key)}") from error


def _scored(
    bench: Bench, trial: Trial, vlm: VLM, changed: dict[str, Any], questions: Sequence[Question], name: str
) -> pd.DataFrame:
    """The rows of some questions; text rows of a model whose LLM is the start's are scored once per study."""
    if vlm.instruction or any(vlm.part_of(tensor) == "llm" for tensor in changed):
        return score(vlm, questions)
    # The LLM is bit for bit the start's and a text prompt touches nothing else: any trial's rows will do.
    cache = bench.folder.cache(content_key((trial.start, trial.ratio, "text"))) / f"{name}.parquet"
    shared = kept_rows(cache, lambda: score(vlm, [q for q in questions if q.modality == "text"]))
    return pd.concat([score(vlm, [q for q in questions if q.modality != "text"]), shared], ignore_index=True)


def attacked(bench: Bench, trial: Trial, attacker: Attack, reference: str) -> str:
    """Attack a finished trial unless that was tried; returns why it cannot be done, which is noted, or nothing.

    What was found impossible before is not told again.
    """
    if _attack_state(bench.folder, trial, attacker) == "missing":
        try:
            attack(bench, trial, attacker, reference)
        except Damaged:
            raise
        except ValueError as error:  # what cannot be done with these settings is a result, not an accident
            attack_failed(bench.folder, trial, attacker, str(error))
            return str(error)
    return ""


def holds_out(attacker: Attack, request: Request) -> bool:
    """Whether the attacker leaves something to be recovered on both halves of the questions.

    Raises `ValueError` if the data has nothing that the attacker could be given.
    """
    modalities = ("image_text",) if request.goal == "visual" else MODALITIES
    asked = [q for q in request.split.questions if q.task == "classification" and q.modality in modalities]
    mine = [q for q in asked if q.role == "forget"]
    rows = pd.DataFrame({"question": [q.id for q in mine], "half": [q.half for q in mine]})
    found = marked(rows, mine, attacker, request)
    return set(found.loc[found["held_out"] != "", "half"]) == set(HALVES)
