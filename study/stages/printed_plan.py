"""The plan of a study in words: what will be done, stage by stage, what it takes, and what can be told in the end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import chain, repeat

from study.core.console import console
from study.core.sampling import COVERED, model_for
from study.core.specs import links, name_in
from study.data.halves import undealt
from study.settings import Study
from study.stages import disk, measurable, outlay
from study.stages.counts import Counts, budget_of
from study.stages.plan import Plan

Line = tuple[str, str]
"""The name of a stage, empty where a line goes on with the one before, and what it does."""


def print_plan(plan: Plan) -> None:
    """Print what will be done, stage by stage, what it takes, and what can be measured."""
    study, counts = plan.study, Counts(plan.study)
    console.print(f"Study {study.study_dir}: {study.model} on {study.benchmark}, goal {study.goal}, seed {study.seed}")
    left_out = plan.benchmark.left_out
    for name, what in (
        *([("data", left_out)] if left_out else []),
        ("learn", _learning(plan)),
        *_indented(_rows(plan)),
        *_indented(measurable.lines(plan)),
        *_search(plan, counts),
        *_of_winners(study, counts),
        *_attacks(study, counts),
        ("report", f"{plan.folder.page}"),
        ("disk", disk.told(plan.space)),
        *[("tell", _tellable(plan, ratio)) for ratio in study.forget_ratios],
        *_indented_from("budget", outlay.lines(plan)),
    ):
        console.print(f"  {name:<8} {what}", markup=False)


def _indented(lines: Iterable[str]) -> Iterator[Line]:
    return (("", line) for line in lines)


def _indented_from(name: str, lines: Iterable[str]) -> Iterator[Line]:
    """Lines of which the first has the name."""
    return zip(chain([name], repeat("")), lines, strict=False)


def _rows(plan: Plan) -> Iterator[str]:
    """What it costs that questions cannot share a row, in a model where they cannot."""
    if plan.model.path is None:
        return  # the embedded one packs
    from transformers import AutoConfig

    from study.evaluation.scoring import TEXTS_PER_ROW, candidates
    from study.model.families import family_of, why_apart

    config = AutoConfig.from_pretrained(plan.model.path, local_files_only=True, trust_remote_code=False)
    family = family_of(config.model_type)
    if why := why_apart(family, config):
        asked = plan.benchmark.split(min(plan.study.forget_ratios)).questions
        shown = [q for q in asked if q.picture is not None]
        packed = len({q.picture for q in shown}) + math.ceil((len(asked) - len(shown)) / TEXTS_PER_ROW)
        alone = len(asked) if family.prefix else sum(max(1, len(candidates(question))) for question in asked)
        yield f"{why}; to score all questions once takes {alone:,} rows in place of {packed:,}"


def _search(plan: Plan, counts: Counts) -> Iterator[Line]:
    study = plan.study
    robust = f", each attacked with {study.robustness} (third objective: recovery)" if study.robustness else ""
    most = "up to " * bool(budget_of(study))
    yield "search", f"{most}{counts.trials} trials: {study.trials} for each of {', '.join(study.methods)}{robust}"
    yield from _indented([*_search_lines(study), *plan.changed, *(f"caution: {one}" for one in _hidden(study))])
    if plan.methods_from:
        yield from _indented(plan.methods_from.lines())
    if plan.warm:
        yield from _indented(plan.warm.lines(study.methods))


def _of_winners(study: Study, counts: Counts) -> Iterator[Line]:
    seeds = f"{study.confirm_seeds} further seed{'s' * (study.confirm_seeds != 1)}"
    if counts.raced:
        few = f"the best {study.race} of each method and ratio, and the default, with {seeds}"
        yield "race", f"{few}: up to {counts.raced} runs"
    left = ", as far as they did not race" if counts.raced else ""
    yield "confirm", f"{seeds} of {counts.winners} winners{left}"
    yield "", "winners and defaults are scored on the test half: what tuning gained"
    if study.released:
        yield "official", f"{counts.attacked} models scored by the benchmark authors' official protocol"
    if study.requests > 1:
        yield "sequence", f"{counts.winners} winners: sequential unlearning in {study.requests} requests"


def _attacks(study: Study, counts: Counts) -> Iterator[Line]:
    each = len(study.attackers())
    yield "attack", f"{counts.suite} attacks: {each} on every seed of each winner, vanilla and the references"
    if counts.rest:
        yield "", f"as many on every other trial on a Pareto front, up to {counts.rest}"
    if counts.hunted:
        kinds = " and ".join(f"{study.attack_trials} of {text}" for text in study.attack_defaults())
        yield "", f"attack search: {counts.hunted} trials, for each winner {kinds}"
    if counts.checked:
        yield "metrics", f"meta-evaluation: {counts.checked} baseline models, plain, quantized and relearned"
    if counts.taught_for_metrics:
        yield "", f"{counts.taught_for_metrics} of these models are taught for it with further seeds"


def _search_lines(study: Study) -> list[str]:
    """How trials are proposed, and what ends one, or a search, early."""
    each = study.trials // len(study.forget_ratios)
    models = [model_for(study.sampler, earlier, study.startup_trials) for earlier in range(1, each)]
    words = {"sobol": "quasi-random (Sobol)", "random": "random", "tpe": "TPE", "gp": "GP", "nsga2": "NSGA-II"}
    drawn = "proposals: the default" + (f", then {words[models[0]]}" if models else " alone")
    if len(set(models)) > 1:
        drawn += f", from trial {models.index(models[-1]) + 2} at a ratio on {words[models[-1]]}"
    if study.warm_start and study.sampler == "auto":
        drawn += f"; earlier trials that predict count among the {study.startup_trials or COVERED} before TPE"
    guard = f"whose utility is below {study.collapse_floor:g}"
    halved = study.early_stopping == "pareto" and not study.robustness
    ended = guard + " or that are not among the better ones" * halved
    rule = [f"trials {ended} after a third or two thirds of their steps end there"] * (study.early_stopping != "off")
    limits = [f"{study.budget_pflop:g} PFLOP"] * bool(study.budget_pflop)
    limits += [f"{study.budget_hours:g} hours of work"] * bool(study.budget_hours)
    budget = [f"no further trial of a method after {' or '.join(limits)}"] * bool(limits)
    return [drawn, *rule, *budget]


def _learning(plan: Plan) -> str:
    """Which models are taught, or brought by the user."""
    study = plan.study
    if plan.brought is None:
        ratios = " and ".join(f"{ratio} %" for ratio in study.forget_ratios)
        each = "each of " * (len(study.forget_ratios) > 1)
        return (
            f"{Counts(study).begun_with} models: vanilla, and for {each}{ratios} of {_people(plan)} people "
            f"{study.references} reference{'s' * (study.references > 1)}{_epochs(plan)}"
        )
    if study.reference:
        return f"nothing: vanilla is {study.vanilla}, the references are {', '.join(study.reference)}"
    return (
        f"nothing: vanilla is {study.vanilla}; no reference is given, so the forget gap is measured to the base model, "
        "which knows nothing that fine-tuning taught, of the retained people either (--reference names models that do)"
    )


def _epochs(plan: Plan) -> str:
    """How many steps the epochs of a schedule are."""
    epochs, steps = plan.study.learn.epochs, plan.vanilla.schedule.steps
    return f"; {epochs:g} epochs, of vanilla {steps:,} steps" if epochs else ""


def _hidden(study: Study) -> list[str]:
    """What is to be feared of a search that optimizes an attack where no attack of another kind follows."""
    asked = (*study.attacks, *(study.searched_attacks if study.attack_trials else ()))
    kinds = {tuple(map(name_in, links(text))) for text in asked}
    if not study.robustness or kinds - {tuple(map(name_in, links(study.robustness)))}:
        return []
    return [
        f"no attack of another kind than {study.robustness} is planned; optimizing an audit can hide knowledge "
        "from that audit alone (arXiv 2608.11408): add others to --attacks, such as swap_back quantization"
    ]


def _people(plan: Plan) -> int:
    """Of how many people a forget ratio is a percentage: of all that are taught but the real ones."""
    splits = plan.benchmark.splits.values()
    return len(set[str]().union(*({lesson.person for lesson in split.lessons} - split.real_people for split in splits)))


def _tellable(plan: Plan, ratio: int) -> str:
    """What the verdicts of a ratio will be able to tell."""
    from study.metrics.intervals import FEWEST_PEOPLE  # scipy takes half a second to import
    from study.metrics.verdicts import tellable

    study, people = plan.study, len(plan.benchmark.split(ratio).forget_people)
    seeds = 1 + study.confirm_seeds
    attacks = len(study.attackers()) + len(study.attack_defaults()) * study.attack_trials
    among = {"winners": len(study.methods) * len(study.forget_ratios), "attacks": max(1, attacks)}
    told = [tellable(n, seeds, study.references, **among) for n in (people, people // 2)]
    most, half = (f"{gain:.2f}" if gain < 1.0 else "nothing" for gain in told)  # no gain in probability is larger
    if most == "nothing":
        few = f"verdicts need {FEWEST_PEOPLE}" if people < FEWEST_PEOPLE else "not even all coming back would stand out"
        return f"nothing at {ratio} %: {people} forget people, and {few}; forget more"
    rest = f"; on half of them {half}"
    shared = len(undealt(plan.benchmark.split(ratio)))
    note = f"; of {shared} too few facts are asked for halves that share none" if shared else ""
    worst = f"by the worst of {attacks} attacks " if attacks > 1 else ""
    return f"at {ratio} % a recovery of {most} {worst}on all {people} forget people from none{rest}{note}"
