"""What a search may cost: counted work, or time, for each method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from study.core.layout import StudyFolder, record_beside
from study.core.records import AttackRecord, TrialRecord, existing
from study.experiment.records import existing_records

PETA = 1e15


@dataclass(frozen=True)
class Cost:
    """What one trial cost, with the attack of a search on it."""

    flops: float
    seconds: float


@dataclass(frozen=True)
class Budget:
    """What the trials of one method may cost together; 0 for no limit. One is begun as long as something is left."""

    pflop: float = 0.0
    """Counted work: unlearning, scoring on the way and at the end, and the search attack, in 10^15 operations."""
    hours: float = 0.0
    """Time of unlearning, scoring on the way and at the end, and the search attack."""

    def __bool__(self) -> bool:
        """Whether there is a limit."""
        return bool(self.pflop or self.hours)

    def used_up(self, costs: Sequence[Cost]) -> bool:
        """Whether nothing is left after these trials."""
        work, seconds = (math.fsum(amounts) for amounts in ([c.flops for c in costs], [c.seconds for c in costs]))
        return bool(self.pflop and work >= self.pflop * PETA) or bool(self.hours and seconds >= self.hours * 3600)

    def lasts(self, flops: float | None, seconds: float | None) -> float:
        """After how many trials nothing is left, if each costs as much; infinity without a limit on what is known."""
        costs = ((self.pflop * PETA, flops), (self.hours * 3600, seconds))
        return min((math.ceil(limit / each) for limit, each in costs if limit and each), default=math.inf)


NO_LIMIT = Budget()


def existing_costs(folder: StudyFolder, keys: Iterable[str], attack: str | None = None) -> list[Cost]:
    """What those of the trials that have ended cost; `attack` is the key of the attack on every trial, if any."""
    return [_cost(folder, record, attack) for record in existing_records(folder, keys)]


def _cost(folder: StudyFolder, record: TrialRecord, attack: str | None) -> Cost:
    flops = record.work or 0.0
    seconds = [record.cost.get(f"{name}_seconds", 0.0) for name in ("unlearn", "score", "rung")]
    if attack and (met := existing(AttackRecord, record_beside(folder.attack(record.key, attack)))):
        flops += met.work
        seconds.append(met.seconds or 0.0)
    return Cost(flops, math.fsum(seconds))
