"""What a search costs beside its trials: `python -m tests.cost.overhead`.

Trials that end at once are searched by the code of a study, from what proposes to the records that workers leave and
read: its CPU time for each is what a trial of a study costs beside its work. Only their rows are not there: objectives
are made up.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import optuna
import tyro

from study.benchmarks.synthetic import Synthetic
from study.contracts import Method
from study.core.records import RungScore, TrialRecord
from study.core.terms import SamplerName
from study.engine.tune_runner import ProposalSearcher
from study.experiment import method_search
from study.experiment.budget import Budget
from study.experiment.context import StudyContext
from study.experiment.method_search import MethodSearch
from study.experiment.records import keep_record
from study.experiment.rungs import Rungs
from study.experiment.trial_spec import Learned, Trial
from study.methods.none import NoMethod
from study.methods.npo import NPO
from study.training.schedule import Schedule

VANILLA = Learned("vanilla", "base", "benchmark", None, None, Schedule(), ("llm",), 0)
RATIO = 10
WINDOW = 24
"""Trials before and up to each one of a table, whose median it shows."""


@dataclass(frozen=True)
class Options:
    """What is searched."""

    trials: int = 2000
    at: tuple[int, ...] = (8, 50, 500, 2000)
    """The trials whose overhead is shown."""
    sampler: SamplerName = "auto"


def search_of(root: Path, trials: int, sampler: SamplerName) -> MethodSearch:
    """A search of NPO by its default settings, with weights that are dropped and a budget that is not used up."""
    reference = replace(VANILLA, kind="reference", goal="visual", ratio=RATIO)
    baselines = [Trial(start, NoMethod(), "visual", RATIO, 0) for start in (VANILLA, reference)]
    defaults: Mapping[str, Method] = {"npo": NPO()}
    return MethodSearch(
        context=StudyContext(root, Synthetic(), root),
        defaults=defaults,
        trials=trials,
        ratios=(RATIO,),
        baselines={RATIO: baselines},
        goal="visual",
        seed=0,
        lookahead=2,
        sampler=sampler,
        budget=Budget(pflop=1e9),
        keep="winners",
    )


def judged(context: StudyContext, trial: Trial, baselines: Sequence[Trial]) -> dict[str, float]:
    """Made-up objectives of a trial."""
    drawn = random.Random(trial.key)
    return {"forget_gap": drawn.random(), "utility": 0.5 + drawn.random() / 2}


def run(
    context: StudyContext, trial: Trial, reference: str, *, waited: float = 0.0, rungs: Rungs | None = None
) -> TrialRecord:
    """What is left of a trial without its work: rungs, weights and a record."""
    assert rungs is not None
    values, scores, ending = judged(context, trial, ()), list[RungScore](), None
    for rung in (1, 2):
        if ending is None:
            scores.append(RungScore(rung, 10 * rung, **values))
            ending = rungs.decide(scores[-1])
    weights = context.folder.delta(trial.key)
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"")
    state = ending.state if ending else "complete"
    return keep_record(context.folder, trial, state, "", cost={"flops": 1e9}, rungs=scores)


def overheads(search: MethodSearch) -> Iterator[float]:
    """The CPU seconds of each trial: of what proposes it, and of what a worker does beside its work."""
    proposals = ProposalSearcher(search)
    with patch.object(method_search, "judged", judged), patch.object(method_search, "run", run):
        for number in range(search.trials):
            started = time.process_time()
            asked = proposals.suggest(f"{number}")
            label, place = asked["place"]
            search.execute(asked["job"], label, place, 0.0)
            proposals.on_trial_complete(f"{number}", {})
            yield time.process_time() - started


def main(options: Options) -> None:
    """Print the median overhead around some trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        spent = []
        for one in overheads(search_of(Path(folder), options.trials, options.sampler)):
            spent.append(one)
            if len(spent) in options.at:
                print(f"trial {len(spent):5}: {1000 * statistics.median(spent[-WINDOW:]):7.1f} ms of CPU", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
