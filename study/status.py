"""How far a study is: `mus status runs/<study>`, from any terminal, also while it runs.

It reads the study's folder and nothing else: neither Ray nor the process that runs the study is asked.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from study.core import erasure, inventory, lock
from study.core.console import duration
from study.core.layout import StudyFolder
from study.core.records import FailureRecord, PlanRecord, TrialRecord, existing, read_record, read_study
from study.stages.ended import Ended, ended_in

FEW = 5
"""Failures that are shown: all of them are in the report."""
PART_OF = {"check": "learn", "base": "learn", "controls": "attack", "attacks": "attack", "race": "confirm",
           "sequence": "confirm", "metrics": "score"}  # fmt: skip
"""The stage of the plan that a stage belongs to, by the name that a run prints, where the two differ."""


@dataclass(frozen=True)
class Line:
    """One stage of a study."""

    stage: str
    done: int
    jobs: int
    seconds: float | None
    """Of what is left, one job after the other; None if that is not known."""


def lines(plan: PlanRecord, found: Ended) -> list[Line]:
    """How far each stage is. What a job takes is what those that have ended took, else what the plan takes it for."""
    told = []
    for stage in plan.stages:
        done = found.done[stage.stage]
        jobs = done if found.finished else stage.jobs
        calculated = stage.flops / found.rate if stage.flops and found.rate else stage.seconds
        each = found.each[stage.stage].seconds or calculated
        left = max(0, jobs - done)
        told.append(Line(stage.stage, min(done, jobs), jobs, 0.0 if not left else each and each * left))
    return told


def main(arguments: list[str] | None = None) -> int:
    """Print the state of a study. Returns 0, or 2 if the folder is none, was purged, or has a damaged file."""
    parser = argparse.ArgumentParser(prog="mus status", description=__doc__)
    parser.add_argument("study", type=Path, help="the folder of the study, such as runs/tiny")
    folder = StudyFolder(parser.parse_args(arguments).study)
    try:
        erasure.check(folder)
        for line in told(folder):
            print(line)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def told(folder: StudyFolder) -> Iterator[str]:
    """The state of a study in lines. Raises `Damaged` for a file that is not what was written."""
    settings = read_study(folder)["settings"]
    ratios = " ".join(f"{ratio} %" for ratio in settings["forget_ratios"])
    failed = [read_record(FailureRecord, path) for path in folder.failure_records()]
    finished = inventory.is_taken(folder) and not failed
    runs = lock.owner(folder)
    state = f"running ({runs})" if runs else "finished" if finished else "not running; the same command continues it"
    yield f"{folder.root}: {state}"
    yield f"goal {settings['goal']}, forget ratios {ratios}, methods {' '.join(settings['methods'])}"
    if plan := existing(PlanRecord, folder.plan):
        found = ended_in(folder, plan.taught, plan.seed, finished=finished)
        yield from _table(lines(plan, found), plan.workers)
    else:
        yield f"no {folder.plan.name} here: it was begun by an earlier version, and a run of this one writes it"
    yield from _endings(folder)
    yield from _failures(failed)
    yield from best(folder.root)


def _table(found: Sequence[Line], workers: int) -> Iterator[str]:
    yield f"{'stage':10}{'done':>8}{'of at most':>12}  left"
    for line in found:
        yield f"{line.stage:10}{line.done:8,}{line.jobs:12,}  {_left(line.seconds, workers)}".rstrip()
    known = [line.seconds for line in found if line.seconds is not None]
    whole = math.fsum(known) if len(known) == len(found) else None
    done, jobs = sum(line.done for line in found), sum(line.jobs for line in found)
    yield f"{'all':10}{done:8,}{jobs:12,}  {_left(whole, workers)}".rstrip()


def _left(seconds: float | None, workers: int) -> str:
    """How long work takes with so many jobs at once."""
    if seconds is None:
        return "not known yet"
    return duration(seconds / workers) if seconds else ""


def _endings(folder: StudyFolder) -> Iterator[str]:
    """How trials ended that have no objectives, by number."""
    states = Counter(trial.state for path in folder.trial_records() if (trial := existing(TrialRecord, path)))
    others = [f"{count} {state}" for state, count in sorted(states.items()) if state != "complete"]
    if others:
        yield f"trials that ended otherwise: {', '.join(others)}"


def _failures(failed: Sequence[FailureRecord]) -> Iterator[str]:
    """What failed without being a result, the first few by name."""
    if failed:
        jobs, are = ("1 job", "is") if len(failed) == 1 else (f"{len(failed)} jobs", "are")
        yield f"{jobs} failed by accident in this run and {are} still to be done:"
    for record in failed[:FEW]:
        planned = PART_OF.get(record.stage)
        stage = f"{planned} ({record.stage})" if planned else record.stage
        yield f"  {stage}: {record.job}: {record.message}"


def best(root: Path) -> Iterator[str]:
    """The trial of each method and ratio that is nearest to the ideal so far, on the validation half."""
    from analysis import study_folder  # pandas takes a while, and help does without
    from analysis.trials import trials

    found = trials(study_folder.read(root, checked=False))
    found = found[(found["kind"] == "method") & found["distance"].notna()].sort_values("distance")
    if found.empty:
        return
    yield "best so far, on the validation half:"
    for _, one in found.drop_duplicates(["ratio", "method"]).sort_values(["ratio", "distance"]).iterrows():
        scores = f"forget gap {one['forget_gap']:.3f}, utility {one['utility']:.3f}"
        yield f"  {one['ratio']} %  {one['method']}: {scores} (trial {one['key']})"


if __name__ == "__main__":
    sys.exit(main())
