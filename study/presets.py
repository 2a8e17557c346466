"""Named studies: every setting of a study, its default and its unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Suppress

from study.attacks.relearning import Relearning
from study.contracts import Attack, Method
from study.methods.gradient_ascent import GradientAscent
from study.methods.gradient_difference import GradientDifference
from study.methods.kl_minimization import KLMinimization
from study.methods.npo import NPO
from study.methods.prompting import Prompting
from study.methods.vkd import VKD
from study.plugins import Kind, check, find, known
from study.questions import Goal
from study.training import Schedule
from study.vlm import Part

REFERENCES = ("none",)  # methods that are yardsticks: never searched, never ranked


@dataclass(frozen=True)
class Gate:
    """What learning must reach before anything is unlearned; published benchmarks often fail it unnoticed."""

    known: float = 0.90
    """Least accuracy of vanilla on classification of forget, retain and real people, with and without picture."""
    test: float = 0.80
    """Least accuracy of vanilla on the test views of the forget people."""
    blind: float = 0.20
    """Most by which the reference may beat the blind level on the pictures of the forget people: the accuracy on grey
    pictures, or of guessing if that is higher (a grey picture is one guess for all, so it is a noisy estimate)."""


@dataclass(frozen=True)
class Cost:
    """Seconds that one unit of work takes on one worker, measured; what the plan's expected time is made of."""

    base: float
    learn: float
    trial: float
    report: float
    attack: float


@dataclass(frozen=True, kw_only=True)
class Study:
    """Teach, unlearn, search, confirm, attack, report."""

    study_dir: Path = Path("runs/tiny")
    """Where the study is kept. Running it again with the same folder continues."""
    model: str = "tiny"
    """Base model: a file in study/models with its settings, such as tiny, tiny:seed=1 or llava:/models/llava-7b."""
    benchmark: str = "synthetic"
    """Benchmark: a file in study/benchmarks with its settings, such as synthetic:people=60 or mllmu:/data/MLLMU."""
    goal: Goal = "visual"
    """What must go: `visual`, that pictures tell who it is (text about the same people stays), or `full`, both."""
    forget_ratios: tuple[int, ...] = (10, 15)
    """Shares of the people to be forgotten, in percent; one Pareto front each."""
    methods: tuple[str, ...] = ("vkd", "gradient_ascent", "gradient_difference", "kl_minimization", "npo", "prompting")
    """Methods to search: names of files in study/methods, or `all`."""
    trials: int = 8
    """Trials per method, over all ratios."""
    confirm_seeds: int = 2
    """Further seeds on which each winner is re-run."""
    attacks: tuple[str, ...] = ("relearning",)
    """Attacks on every winner: names of files in study/attacks."""
    seed: int = 0
    """Seed of learning, of the search and of the first run of each trial."""
    lookahead: int = 2
    """Proposals of one method open at once. More keeps more workers busy, less lets the sampler know more."""
    random_trials: int = 4
    """Trials of each method, the defaults among them, before the sampler starts to model the results."""
    learn: Schedule = Schedule()
    """How vanilla and the references are taught."""
    learn_parts: tuple[Part, ...] = ("projector", "llm")
    """Parts that are taught."""
    gate: Gate = Gate()
    """What learning must reach."""

    workers: int = 2
    """Jobs at once, on this machine or on the cluster."""
    gpus_per_trial: float = 0.0
    """GPUs of a job, in fractions if several fit on one; 0 runs on the CPU."""
    threads: int = 1
    """Torch threads per process."""
    address: str = ""
    """Ray cluster to join, `auto` on its head node. Default: $RAY_ADDRESS, else a private Ray on this machine."""
    dry_run: bool = False
    """Print the plan and stop."""

    defaults: Annotated[Mapping[str, Method], Suppress] = field(default_factory=dict)
    attack_grid: Annotated[Mapping[str, tuple[Attack, ...]], Suppress] = field(default_factory=dict)
    cost: Annotated[Cost | None, Suppress] = None

    def __post_init__(self) -> None:
        for name in ("trials", "lookahead", "random_trials", "workers", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use at least 1")
        if self.confirm_seeds < 0 or self.gpus_per_trial < 0:
            raise ValueError("confirm_seeds and gpus_per_trial must not be negative")
        if not self.methods or not self.forget_ratios:
            raise ValueError("name at least one method and one forget ratio")
        for name in ("methods", "forget_ratios", "attacks"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)}: something is named twice")
        if self.trials < len(self.forget_ratios):
            raise ValueError(
                f"trials={self.trials} is less than one for each of {len(self.forget_ratios)} forget ratios"
            )
        if not self.learn_parts:
            raise ValueError("learn_parts is empty: something must be taught")

    def resolved(self) -> Study:
        """This study with `all` spelt out. Raises `ValueError` for a name that is none, with the nearest right one."""
        searchable = tuple(name for name in known("methods") if name not in REFERENCES)
        methods = searchable if self.methods == ("all",) else self.methods
        for name in methods:
            check("methods", name, searchable)
        for name in self.attacks:
            check("attacks", name, known("attacks"))
        return dataclasses.replace(self, methods=methods)

    def method_defaults(self) -> dict[str, Method]:
        """Where the search of each method starts: the preset's default, else the class's."""
        return {name: self.defaults.get(name) or find("methods", name)() for name in self.methods}

    def attackers(self) -> tuple[Attack, ...]:
        """Every attack with every setting of the preset's grid, else with its own default."""
        return tuple(a for name in self.attacks for a in self.attack_grid.get(name) or (find("attacks", name)(),))


def plugin(kind: Kind, text: str) -> Any:
    """The model or benchmark that a setting names: NAME, NAME:PATH or NAME:FIELD=VALUE,FIELD=VALUE.

    Raises `ValueError` for an unknown name or field, with the nearest right one, for a path that is missing or not
    wanted, and for a value that does not fit.
    """
    name, _, rest = text.partition(":")
    found = find(kind, name)
    fields = {field.name: field for field in dataclasses.fields(found)}
    if "path" in fields:
        if not rest:
            raise ValueError(f"{text!r}: {name} needs a folder, write {name}:PATH")
        return found(path=Path(rest).expanduser().absolute())  # workers have their own working directories
    values: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        check(f"settings of {name}", key, tuple(fields))
        wanted: Any = type(fields[key].default)
        try:
            values[key] = wanted(value)
        except ValueError as error:
            raise ValueError(f"{text!r}: {key}={value} is not a {wanted.__name__}") from error
    return found(**values)


def _tiny() -> Study:
    def schedule(rate: float, steps: int, pictures: int = 6, texts: int = 1) -> Schedule:
        return Schedule(steps=steps, learning_rate=rate, pictures=pictures, texts=texts, beta2=0.98)

    def relearn(rate: float) -> Schedule:
        return Schedule(steps=40, learning_rate=rate, pictures=6, decay="constant", beta2=0.98)

    return Study(
        learn=Schedule(
            steps=540,
            learning_rate=3e-3,
            pictures=26,
            lessons_per_picture=5,
            texts=3,
            lessons_per_text=12,
            warmup=40,
            decay="cosine",
            beta2=0.98,
            weight_decay=0.01,
        ),
        defaults={
            "vkd": VKD(schedule=dataclasses.replace(schedule(2e-3, 300, pictures=12, texts=0), lessons_per_picture=2)),
            "gradient_ascent": GradientAscent(schedule=schedule(5e-4, 40)),
            "gradient_difference": GradientDifference(schedule=schedule(5e-4, 60)),
            "kl_minimization": KLMinimization(schedule=schedule(5e-4, 60)),
            "npo": NPO(schedule=schedule(5e-4, 60)),
            "prompting": Prompting(),
        },
        attack_grid={
            "relearning": (
                Relearning(people=1.0, facts=0.3, trains=("vision", "projector"), schedule=relearn(1e-3)),
                Relearning(people=1.0, facts=0.3, schedule=relearn(5e-4)),
                Relearning(people=0.5, facts=1.0, schedule=relearn(5e-4)),
            )
        },
        cost=Cost(base=60, learn=75, trial=7, report=3, attack=2.5),
    )


def _smoke() -> Study:
    """Every stage in a minute: a model too small to learn, a gate that lets it pass."""
    few = Schedule(steps=2, learning_rate=1e-3, pictures=2, lessons_per_picture=2)
    return Study(
        study_dir=Path("runs/smoke"),
        model="tiny:steps=0,width=32,layers=2",
        benchmark="synthetic:people=20,celebrities=8,views=2,strangers=8",
        methods=("vkd", "gradient_ascent"),
        trials=4,
        random_trials=3,
        confirm_seeds=1,
        learn=dataclasses.replace(few, steps=4, texts=1),
        gate=Gate(known=0.0, test=0.0, blind=1.0),
        defaults={"vkd": VKD(schedule=few), "gradient_ascent": GradientAscent(schedule=few)},
        attack_grid={"relearning": (Relearning(score_at=(1, 2), schedule=few),)},
    )


def _llava_1_5_7b() -> Study:
    """LLaVA-1.5-7B on MLLMU-Bench with the schedules that the benchmark's authors publish (one GPU per trial)."""
    unlearn = Schedule(steps=100, learning_rate=2e-5, pictures=4, lessons_per_picture=4, precision="bfloat16")
    return Study(
        study_dir=Path("runs/llava_1_5_7b"),
        model="llava:models/llava-1.5-7b-hf",
        benchmark="mllmu:data/MLLMU-Bench",
        forget_ratios=(5, 10, 15),
        trials=24,
        random_trials=8,
        gpus_per_trial=1,
        learn=Schedule(steps=2500, learning_rate=2e-5, pictures=4, lessons_per_picture=4, precision="bfloat16"),
        defaults={
            "vkd": VKD(schedule=unlearn),
            "gradient_ascent": GradientAscent(schedule=unlearn),
            "gradient_difference": GradientDifference(schedule=unlearn),
            "kl_minimization": KLMinimization(schedule=unlearn),
            "npo": NPO(schedule=unlearn),
        },
    )


PRESETS: dict[str, tuple[str, Study]] = {
    "tiny": ("The embedded default: fictitious people, a 0.6 M parameter LLaVA, two CPU cores.", _tiny()),
    "smoke": ("Every stage in a minute, to see that an installation works; its numbers mean nothing.", _smoke()),
    "llava_1_5_7b": ("LLaVA-1.5-7B and MLLMU-Bench from local folders, GPUs.", _llava_1_5_7b()),
}
