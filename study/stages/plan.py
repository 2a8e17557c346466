"""A study made concrete (plug-ins, learned models, baselines), and its plan, printed before anything is done."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

from study.contracts import BaseModel, Method, Source
from study.core.console import console
from study.core.hashing import Json, canonical, content_key, file_digest
from study.core.hub import MODEL_FILES
from study.core.layout import StudyFolder
from study.core.plugins import name_of
from study.core.records import ModelKind
from study.core.specs import links, name_in
from study.data.benchmark import Benchmark
from study.data.halves import undealt
from study.engine.samplers import model_for
from study.experiment.trial_spec import Learned, Trial, lessons_for
from study.methods.none import NoMethod
from study.settings import Study
from study.stages import disk
from study.stages.brought import Brought
from study.stages.methods_from import winners_of
from study.stages.warm_start import WarmStart
from study.training.epochs import in_steps
from study.training.schedule import Schedule

PLACES = ("path", "train_split", "hub", "revision")
"""Settings that say where a benchmark or a base model lies. Its fingerprint, or its files, say what it is."""


@dataclass(frozen=True)
class Plan:
    """A study made concrete: its plug-ins, the models to be taught and the baseline trials of each ratio."""

    study: Study
    model: BaseModel
    source: Source
    benchmark: Benchmark
    brought: Brought | None = None
    """The models that the study begins with; None if it teaches its own."""
    warm: WarmStart | None = None
    """What the search starts with from an earlier study; None if it starts cold."""
    defaults: Mapping[str, Method] = field(default_factory=dict)
    """The default of each method, as the benchmark supports it."""
    changed: Sequence[str] = ()
    """How these differ from what the preset or the method says, in words."""

    @property
    def root(self) -> Path:
        """The study's folder, absolute: workers have their own working directories."""
        return self.study.study_dir.absolute()

    @property
    def folder(self) -> StudyFolder:
        """The paths of everything in the study's folder."""
        return StudyFolder(self.root)

    @cached_property
    def identity(self) -> Json:
        """What makes the base model the one it is; its files are read once."""
        return identity_of(self.model)

    @cached_property
    def given(self) -> dict[Learned, Path | None]:
        """Vanilla and the references that somebody else taught, with their folders; None for the base model's."""
        if self.brought is None:
            return {}
        models = [("vanilla", self.brought.vanilla), *(("reference", model) for model in self.brought.references)]
        found: dict[Learned, Path | None] = {}
        for number, (kind, model) in enumerate(models):
            found[self._given(kind, identity_of(model), max(0, number - 1))] = model.path
        return found if self.brought.references else {**found, self._given("reference", self.identity, 0): None}

    @property
    def vanilla(self) -> Learned:
        """The model that is taught all people."""
        return next(iter(self.given), None) or self._learned("vanilla", None)

    def reference(self, ratio: int) -> Learned:
        """The first reference of a ratio: what an oracle may look at, and the control of searches of attacks."""
        return self.references(ratio)[0]

    def references(self, ratio: int) -> list[Learned]:
        """The models that are never taught what the forget request of a ratio covers, one for each seed."""
        if self.given:
            return [*self.given][1:]
        first = self._learned("reference", ratio)
        return [replace(first, seed=first.seed + i) for i in range(self.study.reference_seeds)]

    def baselines(self, ratio: int) -> list[Trial]:
        """Vanilla, then the references, as trials: no method, scored and attacked like any other."""
        models = [self.vanilla, *self.references(ratio)]
        return [Trial(model, NoMethod(), self.study.goal, ratio, model.seed) for model in models]

    def control(self, ratio: int) -> Trial:
        """The first reference as a trial: what recovery under attack is measured against."""
        return self.baselines(ratio)[1]

    def pool(self, ratio: int) -> list[Trial]:
        """Vanilla and a reference taught with the study's seed and each further one: what metrics are judged on."""
        seeds = [self.study.seed + i for i in range(1 + self.study.metric_seeds)]
        pair = self.baselines(ratio)[:2]
        return [replace(t, start=replace(t.start, seed=seed), seed=seed) for seed in seeds for t in pair]

    def _given(self, kind: str, identity: Json, number: int) -> Learned:
        """A model that is known by its content; nothing of it was taught here, so no part of it is named."""
        named: ModelKind = "vanilla" if kind == "vanilla" else "reference"
        base, seed = content_key(identity), self.study.seed + number
        return Learned(named, base, self.benchmark.fingerprint, None, None, Schedule(), (), seed)

    def _learned(self, kind: Literal["vanilla", "reference"], ratio: int | None) -> Learned:
        asked = Learned(
            kind=kind,
            base=content_key(self.identity),
            benchmark=self.benchmark.fingerprint,
            goal=None if ratio is None else self.study.goal,
            ratio=ratio,
            schedule=self.study.learn,
            parts=self.study.learn_parts,
            seed=self.study.seed,
        )
        return replace(asked, schedule=in_steps(asked.schedule, lessons_for(asked, self.benchmark)))


def label(t: Trial) -> str:
    """What a trial is called on the screen."""
    if not isinstance(t.method, NoMethod):
        return f"{t.name or name_of(t.method)} {t.ratio} %"
    return f"{t.start.kind} {t.ratio} %" + (f" seed {t.seed}" if t.start.kind == "reference" else "")


def identity_of(model: BaseModel) -> Json:
    """What makes a base model the one it is, wherever it lies: the content of its files, not its path.

    Of a weight file these are its size, its first and its last mebibyte: enough to tell a fine-tuned model from its
    base, without reading gigabytes at every start.
    """
    if model.path is None:
        return canonical(model)
    kinds = [sorted(model.path.glob(pattern)) for pattern in MODEL_FILES]
    files = {path.name: (_ends if path.suffix == ".safetensors" else file_digest)(path) for path in chain(*kinds)}
    settings = {name: value for name, value in canonical(model).items() if name not in (*PLACES, "attention")}
    if not settings.get("quantized"):  # a model that is not is the one it was before there was a choice
        settings.pop("quantized", None)
    return {**settings, "files": files}


def _ends(path: Path) -> str:
    size, part = path.stat().st_size, 2**20
    with path.open("rb") as file:
        head = file.read(part)
        file.seek(max(0, size - part))
        return hashlib.sha256(head + file.read() + str(size).encode()).hexdigest()


def print_plan(plan: Plan, measured: Iterable[str] = ()) -> None:
    """Print what will be done, stage by stage, how long it may take, and what can be `measured`, in given lines."""
    study, winners = plan.study, len(plan.study.methods) * len(plan.study.forget_ratios)
    earlier = winners_of(study)
    ratios = len(study.forget_ratios)
    references = ratios * study.references
    baselines = ratios + references  # vanilla is scored on the questions of each ratio
    trials, confirms = len(study.methods) * study.trials, winners * study.confirm_seeds
    racing = study.race > 1 and study.confirm_seeds > 0
    raced = winners * min(study.race + 1, study.trials // ratios) * study.confirm_seeds * racing
    attacked = winners * (1 + study.confirm_seeds) + baselines
    attacks, searched = attacked * len(study.attackers()), study.attack_defaults()
    hunted = winners * len(searched) * study.attack_trials
    kinds = " and ".join(f"{study.attack_trials} of {text}" for text in searched)
    rest = max(0, trials - winners) if study.robustness else 0
    taught = study.metric_seeds + ratios * max(0, 1 + study.metric_seeds - study.references)  # further models
    checked = 2 * ratios * (1 + study.metric_seeds) if study.metric_check else 0
    robust = f", each attacked with {study.robustness} (third objective: recovery)" if study.robustness else ""
    stages = [
        ("learn", _learning(plan)),
        *[("", line) for line in measured],
        ("search", f"{trials} trials: {study.trials} for each of {', '.join(study.methods)}{robust}"),
        *[("", line) for line in _search_lines(study)],
        *[("", line) for line in plan.changed],
        *[("", f"caution: {hidden}") for hidden in _hidden(study)],
        *[("", line) for line in (earlier.lines() if earlier else ())],
        *[("", line) for line in (plan.warm.lines(study.methods) if plan.warm else ())],
        *[
            (
                "race",
                f"the best {study.race} of each method and ratio, and the default, with {study.confirm_seeds} further "
                f"seeds: up to {raced} runs",
            )
        ]
        * racing,
        ("confirm", f"{study.confirm_seeds} further seeds of {winners} winners, as far as the race left them out"),
        ("", "winners and defaults are scored on the test half: what tuning gained"),
        *[("official", f"{confirms + winners + baselines} models scored by the benchmark authors' official protocol")]
        * study.released,
        *[("sequence", f"{winners} winners: sequential unlearning in {study.requests} requests")]
        * (study.requests > 1),
        (
            "attack",
            f"{attacks} attacks: {len(study.attackers())} on every seed of each winner, vanilla and the references",
        ),
        *[("", f"as many on every other trial on a Pareto front, up to {rest}")] * bool(rest),
        *[("", f"attack search: {hunted} trials, for each winner {kinds}")] * bool(hunted),
        *[("metrics", f"meta-evaluation: {checked} baseline models, plain, quantized and relearned")]
        * study.metric_check,
        *[("", f"{taught} of these models are taught for it with further seeds")] * bool(taught),
        ("report", f"{plan.folder.page}"),
        ("disk", disk.told(study, plan.model, plan.benchmark)),
        *[("tell", _tellable(plan, ratio)) for ratio in study.forget_ratios],
    ]
    console.print(f"Study {study.study_dir}: {study.model} on {study.benchmark}, goal {study.goal}, seed {study.seed}")
    for name, what in stages:
        console.print(f"  {name:<8} {what}", markup=False)
    runs = trials + max(confirms, raced) + winners * study.requests * (study.requests > 1)
    attacks += 2 * hunted  # the control is attacked with every proposal too
    if study.robustness:
        attacks += trials + confirms + baselines
    reports = confirms + winners + checked  # the defaults are as many as the winners
    learned = taught + (0 if plan.brought else 1 + references)
    console.print(f"  time     {_expected(study, learned, runs, reports, attacks + checked, rest)}")


def _search_lines(study: Study) -> list[str]:
    """How trials are proposed, and what ends one, or a search, early."""
    each = study.trials // len(study.forget_ratios)
    models = [model_for(study.sampler, earlier, study.startup_trials) for earlier in range(1, each)] or ["sobol"]
    words = {"sobol": "quasi-random (Sobol)", "random": "random", "tpe": "TPE", "gp": "GP", "nsga2": "NSGA-II"}
    drawn = f"proposals: the default, then {words[models[0]]}"
    if models[-1] != models[0]:
        drawn += f", from trial {models.index(models[-1]) + 2} at a ratio on {words[models[-1]]}"
    guard = f"whose utility is below {study.collapse_floor:g}"
    halved = study.early_stopping == "pareto" and not study.robustness
    ended = guard + " or that are behind most others" * halved
    rule = [f"trials {ended} after a third or two thirds of their steps end there"] * (study.early_stopping != "off")
    limits = [f"{study.budget_pflop:g} PFLOP"] * bool(study.budget_pflop)
    limits += [f"{study.budget_hours:g} hours of work"] * bool(study.budget_hours)
    budget = [f"no further trial of a method after {' or '.join(limits)}"] * bool(limits)
    return [drawn, *rule, *budget]


def _learning(plan: Plan) -> str:
    """Which models are taught, or brought by the user."""
    study = plan.study
    if plan.brought is None:
        return (
            f"{1 + len(study.forget_ratios) * study.references} models: vanilla, and for each of "
            f"{list(study.forget_ratios)} % of {_people(plan)} people {study.references} "
            f"reference{'s' * (study.references > 1)}{_epochs(plan)}"
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


def _expected(study: Study, models: int, trials: int, reports: int, attacks: int, rest: int) -> str:
    """The minutes that the work takes; `rest` trials may lie on a front and are then scored and attacked as well."""
    cost = study.cost
    if cost is None:
        return "unknown for this preset until the first trials have run"
    work = models * cost.learn + trials * cost.trial + reports * cost.report + attacks * cost.attack
    more = rest * (cost.report + len(study.attackers()) * cost.attack)
    least, most = ((cost.base + 60 + seconds / study.workers) / 60 for seconds in (work, work + more))
    minutes = f"{least:.0f} to {most:.0f}" if rest else f"{least:.0f}"
    return f"about {minutes} minutes from scratch on {study.workers} cores; work on disk is not repeated"
