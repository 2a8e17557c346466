"""The metric check: models that know and models that do not, asked as they are, rounded, and taught something else.

What the answers say of each metric: `study.metric_trust`. No model of the pool but the yardsticks is used elsewhere.
Those must pass the gate before anything else is done; of further seeds, those that do not are left out of the pool.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
import torch

from study import gate
from study.attacks.quantization import Quantization
from study.attacks.relearning import UNRELATED, Relearning
from study.chunks import Chunks, retried
from study.cluster import Job
from study.contracts import Attack, Learned, Request, Trial
from study.lending import lent
from study.metric_trust import State
from study.objectives import forget_groups
from study.plan import Failed, Plan
from study.plugins import name_of
from study.questions import Question
from study.running import run_jobs, teach
from study.scoring import score
from study.settings import Study
from study.store import Damaged, Folder, canonical, content_key, read_json, write_json, write_rows
from study.training import Diverged
from study.trial import Bench, marked
from study.vlm import PARTS, Part

States = Mapping[State, Attack | None]
"""What is done to a model before it is asked."""


def check_metrics(plan: Plan, bench: Bench) -> list[str]:
    """Teach and ask what is missing of the pool, if the study wants it; returns what failed."""
    study = plan.study
    if not study.metric_check:
        return []
    pool = [t for ratio in study.forget_ratios for t in plan.pool(ratio)]
    failures: list[str] = []
    try:
        teach(plan, bench, [t.start for t in pool])
    except Failed as error:
        failures.append(f"metric check: {error}")
    wanted = states(study, frozen_llm=bool(bench.quantized))
    todo = {t: _missing(plan.folder, t, wanted) for t in pool if _is_learned(plan.folder, t.start)}
    jobs = [
        Job(f"{t.start.kind} on {t.ratio} % seed {t.seed}", ask, (bench, t, plan.reference(t.ratio).key, missing))
        for t, missing in todo.items()
        if missing
    ]
    errors = run_jobs("metrics", jobs, study)
    for member in pool:
        if member.seed != study.seed:  # the gate has judged the yardsticks themselves
            _judge(plan, member)
    return failures + [f"metric check of {name}: {error}" for name, error in errors.items()]


def states(study: Study, *, frozen_llm: bool = False) -> dict[State, Attack | None]:
    """What is done to each model: nothing, the suite's first quantisation (else int4), and its relearning, if any.

    The first relearning that leaves whole people out, else the first: of a person of whom it is given something, a
    model may put the rest together. Where the LLM is frozen, int4 is of the visual module.
    """
    suite = study.attackers()
    visual: tuple[Part, ...] = ("vision", "projector")
    rounded = Quantization("int4", visual if frozen_llm else PARTS)
    rounding = next((a for a in suite if isinstance(a, Quantization)), rounded)
    teaching = [a for a in suite if isinstance(a, Relearning)]
    teaching.sort(key=lambda a: a.data not in UNRELATED and a.people == 1.0)
    found: dict[State, Attack | None] = {"plain": None, "quantized": rounding}
    if teaching:
        found["relearned"] = replace(teaching[0], score_at=(teaching[0].schedule.steps,))
    return found


def ask(bench: Bench, member: Trial, reference: str, wanted: States) -> None:
    """Ask one model of the pool everything about the forget people, in each of the states; keep the rows.

    An attack that breaks the model or cannot be done is noted and not tried again.
    """
    request = bench.request(replace(member, seed=0), reference)  # one attacker for all models, whatever their seed
    questions = asked(request)
    for state, attacker in wanted.items():
        path = bench.folder.metric_check(member.key, state)
        started, failed = time.monotonic(), ""
        attempt = partial(_rows, bench, member, questions, attacker, request)
        try:
            write_rows(path, retried(attempt, bench.needed))
        except Damaged:
            raise
        except (Diverged, ValueError) as error:
            failed = str(error)
            path.unlink(missing_ok=True)
        note = {
            "state": state,
            "ratio": member.ratio,
            "seed": member.seed,
            "knows": member.start.kind == "vanilla",
            "attack": name_of(attacker) if attacker else "",
            "settings": canonical(attacker),
            "failed": failed,
            "seconds": time.monotonic() - started,
        }
        write_json(path.with_suffix(".json"), note)  # written last: what has one is done


def _judge(plan: Plan, member: Trial) -> None:
    """Write beside the rows of a model in what it does not pass the gate; whoever reads the pool leaves it out."""
    rows = plan.folder.metric_check(member.key, "plain")
    if not rows.exists():
        return
    note, short = read_json(rows.with_suffix(".json")), "; ".join(gate.further(plan, member))
    if note.get("short") != short:
        write_json(rows.with_suffix(".json"), {**note, "short": short})


def asked(request: Request) -> list[Question]:
    """Every question whose answer is to be forgotten: all tasks, both halves, in the modalities of the goal."""
    questions = request.split.questions
    groups = forget_groups(request.goal, {(q.role, q.modality) for q in questions})
    return [q for q in questions if (q.role, q.modality) in groups]


def _rows(
    bench: Bench,
    member: Trial,
    questions: Sequence[Question],
    attacker: Attack | None,
    request: Request,
    chunks: Chunks,
) -> pd.DataFrame:
    """The rows of the model as it is or, with an attacker, after its last step."""
    with lent(bench.root, member.start.key, bench.device, chunks) as (vlm, _):
        if attacker is None:
            return score(vlm, questions)
        torch.manual_seed(request.seed)
        stages = [score(s.vlm, questions).assign(step=s.step) for s in attacker(vlm, questions, request) if s.step]
    return marked(stages[-1], questions, attacker, request)


def _missing(folder: Folder, member: Trial, wanted: States) -> dict[State, Attack | None]:
    """The states that have not been asked, or that came about by another attack."""
    notes = {state: folder.metric_check(member.key, state).with_suffix(".json") for state in wanted}
    return {
        state: attacker
        for state, attacker in wanted.items()
        if not notes[state].exists() or not _same(read_json(notes[state])["settings"], attacker)
    }


def _same(settings: object, attacker: Attack | None) -> bool:
    return content_key(settings) == content_key(canonical(attacker))


def _is_learned(folder: Folder, model: Learned) -> bool:
    return (folder.learned(model.key) / "learned.json").exists()
