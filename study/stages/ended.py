"""The jobs of a study that have ended, and what they took, as their records say: read from the folder alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from study.core.files import read_object
from study.core.layout import StudyFolder, record_beside
from study.core.records import AttackRecord, LearnedRecord, MethodProposal, TrialRecord, existing
from study.data.official_protocol import VERSION


@dataclass(frozen=True)
class Each:
    """What one job of a stage takes, as far as it is known."""

    flops: float | None = None
    seconds: float | None = None

    @classmethod
    def mean(cls, jobs: Sequence[tuple[float, float]]) -> Each:
        """Of jobs that have ended; operations of 0 were not counted."""
        if not jobs:
            return cls()
        flops, seconds = (math.fsum(amounts) / len(jobs) for amounts in zip(*jobs, strict=True))
        return cls(flops or None, seconds or None)

    @property
    def rate(self) -> float | None:
        """Operations in a second."""
        return self.flops / self.seconds if self.flops and self.seconds else None


@dataclass(frozen=True)
class Ended:
    """The work of jobs that have ended, (operations, seconds) each, as their records say, and how many have."""

    learned: Sequence[tuple[float, float]]
    searched: Sequence[tuple[float, float]]
    again: Sequence[tuple[float, float]]
    attacked: Sequence[tuple[float, float]]
    done: Mapping[str, int]
    """The jobs of each stage that need not be done any more, whatever came of them."""
    finished: bool
    """Whether a run has ended with these settings and left nothing to be tried again."""

    @property
    def rate(self) -> float | None:
        """Operations in a second of trials and attacks together."""
        return Each.mean([*self.searched, *self.again, *self.attacked]).rate

    @property
    def each(self) -> dict[str, Each]:
        """What one job took of each stage, in their order, as far as some have ended."""
        return {
            "learn": Each.mean(self.learned),
            "search": Each.mean([*self.searched, *self.again]),
            "confirm": Each.mean([*self.again, *self.searched]),
            "score": Each(),
            "attack": Each.mean(self.attacked),
            "official": Each(),
        }


def ended_in(folder: StudyFolder, taught: Collection[str], seed: int, *, finished: bool) -> Ended:
    """What is on disk of a study that teaches models with these keys. Raises `Damaged` if a record is not one."""
    learned = [record for key in taught if (record := existing(LearnedRecord, folder.learned_record(key)))]
    trials = {t.key: t for path in folder.trial_records() if (t := existing(TrialRecord, path))}
    methods = [t for t in trials.values() if t.kind == "method"]
    again = [t for t in methods if t.seed != seed]
    attacks = [a for key in trials for path in folder.attacks(key) if (a := existing(AttackRecord, path))]
    proposed = [p for path in folder.proposals() if (p := existing(MethodProposal, path))]
    judged = Counter(path.stem for path in folder.meta_evaluations())
    done = {
        "learn": len(learned),
        "search": sum(p.trial in trials for p in proposed),
        "confirm": len(again) + sum(len(folder.sequences(t.key)) for t in methods),
        "score": sum(folder.rows(key, "report").exists() for key in trials) + judged["plain"],
        "attack": len(attacks) + judged["quantized"],  # the plan counts one attack for each of these models
        "official": sum(scored_officially(folder, key) for key in trials),
    }
    return Ended(
        learned=[(0.0, record.seconds) for record in learned],
        searched=[_spent(t) for t in methods if t.seed == seed and t.cost],
        again=[_spent(t) for t in again if t.cost],  # one that did not fit into the device says nothing of others
        attacked=[(a.work, a.seconds) for a in attacks if a.seconds is not None],
        done=done,
        finished=finished,
    )


def scored_officially(folder: StudyFolder, key: str) -> bool:
    """Whether a trial has rows by the official protocol as this version has it. Raises `Damaged` as `ended_in`."""
    rows = folder.rows(key, "released")
    record = record_beside(rows)
    return rows.exists() and record.exists() and read_object(record).get("protocol") == VERSION


def _spent(trial: TrialRecord) -> tuple[float, float]:
    seconds = (f"{name}_seconds" for name in ("unlearn", "rung", "score", "overhead"))
    return trial.work or 0.0, math.fsum(trial.cost.get(name, 0.0) for name in seconds)
