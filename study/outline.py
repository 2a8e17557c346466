"""What a study will do, stage by stage, and how long that may take: printed before anything is done."""

from __future__ import annotations

from study.console import console
from study.plan import Plan
from study.settings import Study


def show(plan: Plan) -> None:
    """Print what will be done, stage by stage, and how long it may take."""
    study, winners = plan.study, len(plan.study.methods) * len(plan.study.forget_ratios)
    models, ratios = 1 + len(study.forget_ratios), len(study.forget_ratios)
    trials, confirms = len(study.methods) * study.trials, winners * study.confirm_seeds
    attacks, searched = (winners + 2 * ratios) * len(study.attackers()), study.attack_defaults()
    hunted = winners * len(searched) * study.attack_trials
    people = len({lesson.person for split in plan.benchmark.splits.values() for lesson in split.lessons})
    rest = max(0, trials - winners) if study.robustness else 0
    taught = study.metric_seeds * models  # of further seeds
    checked = 2 * ratios * (1 + study.metric_seeds) if study.metric_check else 0
    robust = f", each attacked with {study.robustness} for a third objective" if study.robustness else ""
    stages = [
        (
            "learn",
            f"{models} models: vanilla and one reference for each of {list(study.forget_ratios)} % of {people} people",
        ),
        ("search", f"{trials} trials: {study.trials} each of {', '.join(study.methods)}{robust}"),
        *[("", line) for line in (plan.warm.lines(study.methods) if plan.warm else ())],
        ("confirm", f"{confirms} runs: {study.confirm_seeds} further seeds of {winners} winners"),
        *[("released", f"{confirms + winners + 2 * ratios} models by the benchmark authors' own protocol")]
        * study.released,
        *[("sequence", f"{winners} winners on {study.requests} requests in turn")] * (study.requests > 1),
        ("attack", f"{attacks} attacks: {len(study.attackers())} on each winner, vanilla and reference"),
        *[("", f"as many on each other trial on a front, of which there may be up to {rest}")] * bool(rest),
        *[("", f"{hunted} trials of {', '.join(searched)}: {study.attack_trials} against each winner")] * bool(hunted),
        *[("metrics", f"{checked} times vanilla or a reference, plain, rounded and relearned, to check the metrics")]
        * study.metric_check,
        *[("", f"{taught} of these models are taught for it with further seeds")] * bool(taught),
        ("report", f"{plan.folder.report / 'report.html'}"),
    ]
    console.print(f"Study {study.study_dir}: {study.model} on {study.benchmark}, goal {study.goal}, seed {study.seed}")
    for name, what in stages:
        console.print(f"  {name:<8} {what}", markup=False)
    runs = trials + confirms + winners * study.requests * (study.requests > 1)
    attacked = attacks + 2 * hunted  # the control is attacked with every proposal too
    if study.robustness:
        attacked += trials + confirms + 2 * ratios
    console.print(f"  time     {_expected(study, models + taught, runs, confirms + checked, attacked + checked, rest)}")


def _expected(study: Study, models: int, trials: int, reports: int, attacks: int, rest: int) -> str:
    """The minutes that the work takes; `rest` trials may lie on a front, and are then scored and attacked as well."""
    cost = study.cost
    if cost is None:
        return "unknown for this preset until the first trials have run"
    work = models * cost.learn + trials * cost.trial + reports * cost.report + attacks * cost.attack
    more = rest * (cost.report + len(study.attackers()) * cost.attack)
    least, most = ((cost.base + 60 + seconds / study.workers) / 60 for seconds in (work, work + more))
    minutes = f"{least:.0f} to {most:.0f}" if rest else f"{least:.0f}"
    return f"about {minutes} minutes from nothing on {study.workers} cores; what is on disk is not run again"
