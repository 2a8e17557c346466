"""The stage that scores vanilla, the references and the winners by the released protocol of the benchmark's authors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from study import trial
from study.cluster import Job
from study.contracts import Trial
from study.lending import lent
from study.plan import Plan, label
from study.released import Released
from study.released_scoring import score_released
from study.running import run_jobs
from study.store import write_json, write_rows
from study.trial import Bench
from study.work import counted

DRAW = 0  # of the examples and test pictures: the same for every model, so that models can be compared


def score_by_released(plan: Plan, bench: Bench, winners: Sequence[Trial]) -> list[str]:
    """Score whatever is missing of it, if the study asks for it; returns what failed."""
    models = [*(t for ratio in plan.study.forget_ratios for t in plan.yardsticks(ratio)), *winners]
    jobs = [
        Job(f"{label(t)} seed {t.seed}", _score, (bench, t))
        for t in dict.fromkeys(models)
        if plan.study.released and trial.is_complete(plan.folder, t) and not _done(bench, t)
    ]
    errors = run_jobs("released", jobs, plan.study)
    return [f"released protocol on {name}: {error}" for name, error in errors.items()]


def _done(bench: Bench, scored: Trial) -> bool:
    return bench.folder.rows(scored.key, "released").exists()


def _score(bench: Bench, scored: Trial) -> None:
    assert isinstance(bench.source, Released)  # checked before any work
    asks = list(bench.source.released(bench.benchmark.split(scored.ratio), DRAW))
    with lent(bench.root, scored.start.key, bench.device) as (vlm, _):
        unlearned, _ = trial.unlearned_model(bench.folder, scored.key, vlm)
        with counted(unlearned) as work:
            rows = score_released(unlearned, asks)
    path = bench.folder.rows(scored.key, "released")
    write_json(path.with_suffix(".json"), asdict(work))
    write_rows(path, rows)
