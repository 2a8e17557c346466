"""The stage that tries the base model before anything is learned from it, as `mus doctor` does.

What is wrong with a model then costs seconds, not the hours of learning.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from study.core.console import Stage
from study.core.errors import Failed
from study.core.hashing import content_key, file_digest
from study.core.records import BaseCheckRecord, read_record, write_record
from study.engine.jobs import Job, run_all
from study.experiment.context import StudyContext
from study.experiment.smoke_test import group_of, of_nobody, tried
from study.model.loading import load
from study.model.packing import Group
from study.stages.launch import noted, raise_first
from study.stages.plan import Plan

SMALL = 2**20
"""Bytes of a file that is read to see whether it is the same; of larger ones, which are weights, size and time tell."""
PACKAGES = ("torch", "transformers", "tokenizers", "pillow")
"""What a model's answers depend on beside its folder."""


def check_base(plan: Plan, context: StudyContext) -> None:
    """Try the base model, unless this very folder was tried with these versions in this study.

    A model that is sharded is not tried: it would not fit into the memory of one process. Raises `Failed` that names
    what failed.
    """
    note, subject = plan.folder.base_check, _subject(context)
    if plan.study.sharded or (note.exists() and read_record(BaseCheckRecord, note).subject == subject):
        return
    gpus = min(plan.study.gpus_per_trial, 1.0)
    with Stage("check", 1, "model") as stage:
        jobs = [Job(plan.study.model, _try, (context, _question(plan), note, subject))]
        failures = run_all(jobs, lambda job, failure: stage.advance(str(failure or "tried")), at_once=1, gpus=gpus)
    raise_first(noted(plan.folder, "check", failures))
    checks = read_record(BaseCheckRecord, note).checks
    if failed := {name: told for name, (state, told) in checks.items() if state == "failed"}:
        note.unlink()
        what = "; ".join(f"{name}: {told}" for name, told in failed.items())
        raise Failed(f"base model {plan.study.model}: {what} (`mus doctor {plan.study.model}` tells more)")


def _subject(context: StudyContext) -> str:
    """What was tried: a digest of the folder's files, the versions and the way of loading."""
    files = {path.name: _mark(path) for path in sorted(context.base.iterdir()) if path.is_file()}
    return content_key([files, {name: version(name) for name in PACKAGES}, context.loading.as_taught])


def _mark(path: Path) -> list[str | int]:
    about = path.stat()
    return [file_digest(path)] if about.st_size <= SMALL else [about.st_size, about.st_mtime_ns]


def _question(plan: Plan) -> Group:
    """A question of the benchmark about a picture; one about a drawn portrait if it has none."""
    questions = plan.benchmark.split(min(plan.study.forget_ratios)).questions
    asked = next((q for q in questions if q.picture is not None), None)
    return group_of(asked.picture, asked.prompt, asked.answer) if asked and asked.picture else of_nobody()


def _try(context: StudyContext, group: Group, note: Path, subject: str) -> None:
    checks = tried(load(context.base, context.device, context.loading.as_taught), group)
    write_record(note, BaseCheckRecord(subject, {check.name: (check.state, check.note) for check in checks}))
