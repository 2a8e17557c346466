"""A study made concrete: plug-ins, learned models, baselines."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

from study.contracts import BaseModel, Method, Source
from study.core.files import visible
from study.core.hashing import Json, canonical, content_key, file_digest
from study.core.hub import MODEL_FILES
from study.core.layout import StudyFolder
from study.core.plugins import name_of
from study.core.records import ModelKind
from study.core.terms import Group
from study.data.benchmark import Benchmark
from study.data.taught import Taught
from study.experiment.trial_spec import Learned, Trial, lessons_for
from study.methods.none import NoMethod
from study.settings import Study
from study.stages.brought import Brought
from study.stages.disk import Space, space_of
from study.stages.methods_from import EarlierWinners, winners_of
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
    def taught(self) -> dict[int, dict[Group, Taught]]:
        """What lessons teach of each group, by ratio, as far as `study.stages.measurable.teaching` was asked: it takes
        seconds on thousands of lessons, and several stages ask."""
        return {}

    @cached_property
    def operations(self) -> dict[str, float]:
        """Of one job of each stage, as far as `study.stages.outlay` was asked."""
        return {}

    @cached_property
    def methods_from(self) -> EarlierWinners | None:
        """The earlier study whose winners are the defaults of this one, if any; read once for a plan."""
        return winners_of(self.study)

    @cached_property
    def identity(self) -> Json:
        """What makes the base model the one it is; its files are read once."""
        return identity_of(self.model)

    @cached_property
    def space(self) -> Space:
        """What the study needs of its disk, and what it has: to find that reads a model and looks at every file."""
        return space_of(self.study, self.model, self.benchmark)

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
        if not asked.schedule.epochs:
            return asked
        return replace(asked, schedule=in_steps(asked.schedule, lessons_for(asked, self.benchmark)))


def label(t: Trial) -> str:
    """What a trial is called on the screen."""
    if not isinstance(t.method, NoMethod):
        return f"{t.name or name_of(t.method)} {t.ratio} %"
    return f"{t.start.kind} {t.ratio} %" + (f" seed {t.seed}" if t.start.kind == "reference" else "")


def identity_of(model: BaseModel) -> Json:
    """What makes a base model the one it is, wherever it lies: the content of its files, not its path; of one that is
    generated, its settings and its recipe.

    Of a weight file these are its size, its first and its last mebibyte: enough to tell a fine-tuned model from its
    base, without reading gigabytes at every start.
    """
    if model.path is None:
        return {**canonical(model), "recipe": model.recipe}
    kinds = [visible(model.path, pattern) for pattern in MODEL_FILES]
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
