"""A study made concrete (plug-ins, learned models, baselines), and its plan, printed before anything is done."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

from study.contracts import BaseModel, Source
from study.core.console import console
from study.core.hashing import Json, canonical, content_key, file_digest
from study.core.hub import MODEL_FILES
from study.core.layout import StudyFolder
from study.core.plugins import name_of
from study.data.benchmark import Benchmark
from study.experiment.trial_spec import Learned, Trial
from study.methods.none import NoMethod
from study.settings import Study
from study.stages.warm_start import WarmStart

PLACES = ("path", "train_split", "hub", "revision")
"""Settings that say where a benchmark or a base model lies. Its fingerprint, or its files, say what it is."""


@dataclass(frozen=True)
class Plan:
    """A study made concrete: its plug-ins, the models to be taught and the baseline trials of each ratio."""

    study: Study
    model: BaseModel
    source: Source
    benchmark: Benchmark
    warm: WarmStart | None = None
    """What the search starts with from an earlier study; None if it starts cold."""

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

    @property
    def vanilla(self) -> Learned:
        """The model that is taught all people."""
        return self._learned("vanilla", None)

    def reference(self, ratio: int) -> Learned:
        """The model that is never taught what the forget request of a ratio covers."""
        return self._learned("reference", ratio)

    def yardsticks(self, ratio: int) -> tuple[Trial, Trial]:
        """Vanilla and the reference as trials: no method, scored and attacked like any other."""
        goal, seed = self.study.goal, self.study.seed
        return (
            Trial(self.vanilla, NoMethod(), goal, ratio, seed),
            Trial(self.reference(ratio), NoMethod(), goal, ratio, seed),
        )

    def pool(self, ratio: int) -> list[Trial]:
        """The baselines taught with the study's seed and each further one: the models of the meta-evaluation."""
        seeds = [self.study.seed + i for i in range(1 + self.study.metric_seeds)]
        pairs = self.yardsticks(ratio)
        return [replace(t, start=replace(t.start, seed=seed), seed=seed) for seed in seeds for t in pairs]

    def _learned(self, kind: Literal["vanilla", "reference"], ratio: int | None) -> Learned:
        return Learned(
            kind=kind,
            base=content_key(self.identity),
            benchmark=self.benchmark.fingerprint,
            goal=None if ratio is None else self.study.goal,
            ratio=ratio,
            schedule=self.study.learn,
            parts=self.study.learn_parts,
            seed=self.study.seed,
        )


def label(t: Trial) -> str:
    """The name of a trial on the screen."""
    return f"{t.start.kind if isinstance(t.method, NoMethod) else t.name or name_of(t.method)} {t.ratio} %"


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


def print_plan(plan: Plan) -> None:
    """Print what will be done, stage by stage, and how long it may take."""
    study, winners = plan.study, len(plan.study.methods) * len(plan.study.forget_ratios)
    models, ratios = 1 + len(study.forget_ratios), len(study.forget_ratios)
    trials, confirms = len(study.methods) * study.trials, winners * study.confirm_seeds
    attacks, searched = (winners + 2 * ratios) * len(study.attackers()), study.attack_defaults()
    hunted = winners * len(searched) * study.attack_trials
    people = len({lesson.person for split in plan.benchmark.splits.values() for lesson in split.lessons})
    rest = max(0, trials - winners) if study.robustness else 0
    taught = study.metric_seeds * models  # with further seeds
    checked = 2 * ratios * (1 + study.metric_seeds) if study.metric_check else 0
    robust = f", each attacked with {study.robustness} (third objective: recovery)" if study.robustness else ""
    stages = [
        (
            "learn",
            f"{models} models: vanilla and one reference for each of {list(study.forget_ratios)} % of {people} people",
        ),
        ("search", f"{trials} trials: {study.trials} for each of {', '.join(study.methods)}{robust}"),
        *[("", line) for line in (plan.warm.lines(study.methods) if plan.warm else ())],
        ("confirm", f"{confirms} runs: {study.confirm_seeds} further seeds of {winners} winners"),
        *[("official", f"{confirms + winners + 2 * ratios} models scored by the benchmark authors' official protocol")]
        * study.released,
        *[("sequence", f"{winners} winners: sequential unlearning in {study.requests} requests")]
        * (study.requests > 1),
        ("attack", f"{attacks} attacks: {len(study.attackers())} on each winner, vanilla and reference"),
        *[("", f"as many on every other trial on a Pareto front, up to {rest}")] * bool(rest),
        *[("", f"attack search: {hunted} trials of {', '.join(searched)}, {study.attack_trials} for each winner")]
        * bool(hunted),
        *[("metrics", f"meta-evaluation: {checked} baseline models, plain, quantized and relearned")]
        * study.metric_check,
        *[("", f"{taught} of these models are taught for it with further seeds")] * bool(taught),
        ("report", f"{plan.folder.page}"),
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
    """The minutes that the work takes; `rest` trials may lie on a front and are then scored and attacked as well."""
    cost = study.cost
    if cost is None:
        return "unknown for this preset until the first trials have run"
    work = models * cost.learn + trials * cost.trial + reports * cost.report + attacks * cost.attack
    more = rest * (cost.report + len(study.attackers()) * cost.attack)
    least, most = ((cost.base + 60 + seconds / study.workers) / 60 for seconds in (work, work + more))
    minutes = f"{least:.0f} to {most:.0f}" if rest else f"{least:.0f}"
    return f"about {minutes} minutes from scratch on {study.workers} cores; work on disk is not repeated"
