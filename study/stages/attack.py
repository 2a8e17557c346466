"""The attack stage: a fixed suite on every winner and baseline, then an attack search against each winner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from study.contracts import Attack
from study.core.hashing import content_key
from study.core.plugins import name_of
from study.engine.jobs import Job
from study.experiment import attack
from study.experiment.context import StudyContext
from study.experiment.records import is_complete
from study.experiment.trial_spec import Trial
from study.stages.launch import run_jobs, run_search
from study.stages.plan import Plan, label
from study.stages.search import first_seeds


def attack_winners(
    plan: Plan, context: StudyContext, winners: Sequence[Trial], front: Sequence[Trial] = ()
) -> list[str]:
    """Attack all seeds of each winner, vanilla (the ceiling), all references (the control) and a front alike."""
    baselines = [t for ratio in plan.study.forget_ratios for t in plan.baselines(ratio)]
    targets = [t for t in (*winners, *front) if is_complete(plan.folder, t)]
    return _attacks(plan, context, [(t, a) for t in (*targets, *baselines) for a in plan.study.attackers()])


def search_attacks(plan: Plan, context: StudyContext, winners: Sequence[Trial]) -> list[str]:
    """Search the worst attack on each winner's first seed.

    It is then run on its further seeds and on all baselines, and on the winners of gradient ascent as well.
    """
    from study.experiment.attack_search import AttackSearch  # Optuna takes half a second to import

    study, targets = plan.study, first_seeds(plan, winners)
    defaults = study.attack_defaults()
    if not defaults or not targets:
        return []
    search = AttackSearch(
        context=context,
        targets={f"{name} on {label(t)}": (t, name) for t in targets for name in defaults},
        defaults=defaults,
        controls={ratio: plan.control(ratio) for ratio in study.forget_ratios},
        trials=study.attack_trials,
        seed=study.seed,
        lookahead=study.lookahead,
        sampler=study.sampler,
        startup_trials=study.startup_trials,
    )
    run_search("attacks", plan, search)
    found = [(target, worst) for name, (target, _) in search.targets.items() if (worst := search.worst(name))]
    weak = [t for t in targets if name_of(t.method) == "gradient_ascent"]
    pairs = [
        (t, attack)
        for target, attack in found
        for t in (
            *(seed for seed in winners if replace(seed, seed=target.seed) == target),
            *plan.baselines(target.ratio),
            *(t for t in weak if t.ratio == target.ratio),
        )
        if is_complete(plan.folder, t)
    ]
    return _attacks(plan, context, pairs)


def _attacks(plan: Plan, context: StudyContext, pairs: Sequence[tuple[Trial, Attack]]) -> list[str]:
    names: dict[str, str] = {}
    for t, _ in pairs:  # the winner of a method comes before the rest of its front, which is called by its keys
        names.setdefault(t.key, f"{label(t)} {t.key}" if label(t) in names.values() else label(t))
    jobs = [
        Job(
            f"{name_of(a)} {content_key(a)} on {names[t.key]}",
            attack.try_attack,
            (context, t, a, plan.reference(t.ratio).key),
            partial(attack.too_small, plan.folder, t, a),
        )
        for t, a in dict.fromkeys(pairs)
        if attack.attack_state(plan.folder, t, a) == "unfinished"  # what failed is noted, and counted in the report
    ]
    errors = run_jobs("attack", jobs, plan.study)
    return [f"attack {name}: {error}" for name, error in errors.items()]
