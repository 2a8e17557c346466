"""What a study is asked to do: every setting of the command line, checked, and what it stands for."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Suppress, arg

from study.attacks.chain import Chain
from study.contracts import Attack, Method
from study.core.mirror import refuse_address
from study.core.plugins import check, find, known, known_spaces
from study.core.specs import adjusted, links, name_in
from study.core.terms import Goal, Part
from study.core.validation import not_negative
from study.training.schedule import Schedule

Fields = Mapping[str, Any]
"""What a preset sets of a method or an attack, by the names of its fields: its class is not imported for that."""
REFERENCES = ("none", "retrain")  # methods that are yardsticks: never searched, never ranked


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
    storage: str = ""
    """Where a copy of the folder is kept up to date, such as s3://bucket/runs/mine, and fetched from if the folder is
    not there. Default: nowhere."""
    model: Annotated[str, arg(aliases=["--base-model"])] = "tiny"
    """Base model: a folder such as /models/llava-7b, OWNER/NAME@COMMIT on the Hugging Face hub, or a file in
    study/base_models with its settings, such as tiny:seed=1 or hf:path=/models/llava-7b,dtype=bfloat16."""
    benchmark: str = "synthetic"
    """Benchmark: a file in study/benchmarks with its settings, such as synthetic:people=60 or mllmu:/data/MLLMU."""
    goal: Goal = "visual"
    """What must go: `visual`, that pictures tell who it is (text about the same people stays), or `full`, both."""
    forget_ratios: tuple[int, ...] = (10, 15)
    """Shares of the people to be forgotten, in percent; one Pareto front each."""
    forget_attributes: tuple[str, ...] = ()
    """What of these people is to be forgotten, such as residence occupation; the rest of them is to be kept. Default:
    everything."""
    methods: tuple[str, ...] = ("vkd", "gradient_ascent", "gradient_difference", "kl_minimization", "npo", "prompting")
    """Methods to search: files in study/methods, each with settings of its own if wanted, such as vkd, npo,
    npo:modality=text or npo:lora_rank=16,trains=llm; what is set is not searched. `all` stands for every one."""
    trials: int = 8
    """Trials per method, over all ratios."""
    confirm_seeds: int = 2
    """Further seeds on which each winner is re-run."""
    released: bool = False
    """Whether vanilla, the references and the winners are also scored by the released protocol of the benchmark's
    authors, whose numbers stand beside published tables; the search never is."""
    metric_check: bool = True
    """Whether every metric is checked: how well it tells vanilla from the references, and what rounding and relearning
    do to it."""
    metric_seeds: int = 0
    """Further seeds with which vanilla and each reference are taught, a pool for that check and for nothing else."""
    requests: int = 1
    """How many requests, one after another, each winner's forget set is cut into to see what later ones do to earlier
    ones; 1 leaves that out."""
    attacks: tuple[str, ...] = ("relearning",)
    """Attacks on every winner: files in study/attacks, with settings of their own if wanted; slashes compose, as in
    swap_back/quantization:format=nf4, where the second attacks what the first left."""
    searched_attacks: tuple[str, ...] = ("relearning",)
    """Attacks whose settings are searched against each winner, once `attack_trials` is set."""
    attack_trials: int = 0
    """Trials of that search for each winner; 0 leaves it out and runs the attacks as they are."""
    attack_keeps: float = 0.5
    """Least part of its accuracy on retained people that a model must keep under an attack for the attack to win."""
    robustness: str = ""
    """A cheap attack on every trial, such as relearning:steps=10,people=0.5: what it gets back is a third objective of
    the search, and the attacks above run on whole fronts. Default: none."""
    warm_start: Path | None = None
    """Folder of an earlier study, on another model: its winners are proposed after the defaults. Default: none."""
    seed: int = 0
    """Seed of learning, of the search and of the first run of each trial."""
    lookahead: int = 2
    """Proposals of one method open at once. More keeps more workers busy, less lets the sampler know more."""
    random_trials: int = 4
    """Trials of each method, defaults and earlier winners among them, before the sampler starts to model results."""
    learn: Schedule = Schedule()
    """How vanilla and the references are taught."""
    learn_parts: tuple[Part, ...] = ("projector", "llm")
    """Parts that are taught."""
    gate: Gate = Gate()
    """What learning must reach."""

    workers: int = 2
    """Jobs at once, on this machine or on the cluster."""
    gpus_per_trial: float = 0.0
    """GPUs of a job: in fractions if several jobs fit on one; more than 1 if processes are to do each job together, one
    a GPU, all on one machine; 0 runs on the CPU."""
    workers_per_trial: int = 1
    """On the CPU, processes that do each job together. They share the rows of every batch and the questions. What comes
    of it is the same to float rounding, unless adapters are trained with dropout."""
    workers_per_model: int = 0
    """Processes, one a GPU if there are any, that teach vanilla and each reference together, one model at a time; 0
    for as many as do a job together."""
    sharded: bool = False
    """Whether processes that do a job together each keep but a part of the weights, gradients and optimizer state
    (FSDP2): for a model that no single GPU can hold or train."""
    threads: int = 1
    """Torch threads per process."""
    address: str = ""
    """Ray cluster to join, `auto` on its head node. Default: $RAY_ADDRESS, else a private Ray on this machine."""
    dry_run: bool = False
    """Print the plan and stop."""

    defaults: Annotated[Mapping[str, Fields], Suppress] = field(default_factory=dict)
    attack_grid: Annotated[Mapping[str, tuple[Fields, ...]], Suppress] = field(default_factory=dict)
    cost: Annotated[Cost | None, Suppress] = None

    def __post_init__(self) -> None:
        for name in ("trials", "lookahead", "random_trials", "requests", "workers", "workers_per_trial", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use at least 1")
        refuse_address(self.study_dir)
        not_negative(
            self,
            *("confirm_seeds", "metric_seeds", "attack_trials", "attack_keeps", "gpus_per_trial", "workers_per_model"),
        )
        _check_processes(self)
        if self.metric_seeds and not self.metric_check:
            raise ValueError(f"metric_seeds={self.metric_seeds} serve the metric check alone: leave it on, or use 0")
        if not self.methods or not self.forget_ratios:
            raise ValueError("name at least one method and one forget ratio")
        for name in ("methods", "forget_ratios", "forget_attributes", "attacks", "searched_attacks"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)}: something is named twice")
        if self.trials < len(self.forget_ratios):
            raise ValueError(
                f"trials={self.trials} is less than one for each of {len(self.forget_ratios)} forget ratios"
            )
        if self.warm_start and self.trials < 2 * len(self.forget_ratios):
            raise ValueError(
                f"trials={self.trials} leaves no room for warm_start={self.warm_start}: the default and an earlier "
                f"winner at each of {len(self.forget_ratios)} forget ratios are {2 * len(self.forget_ratios)} trials"
            )
        if not self.learn_parts:
            raise ValueError("learn_parts is empty: something must be taught")

    @property
    def processes(self) -> int:
        """How many do each job together."""
        return max(int(self.gpus_per_trial), self.workers_per_trial)

    @property
    def teachers(self) -> int:
        """How many processes teach each model together."""
        return self.workers_per_model or self.processes

    def resolved(self) -> Study:
        """This study with `all` spelt out. Raises `ValueError` for a name that is none, with the nearest right one."""
        searchable = tuple(name for name in known("methods") if name not in REFERENCES)
        asked = [name for text in self.methods for name in (searchable if text == "all" else (text,))]
        methods = tuple(dict.fromkeys(asked))
        for text in methods:
            check("methods", name_in(text), searchable)
        for link in itertools.chain.from_iterable(map(links, (*self.attacks, *filter(None, [self.robustness])))):
            check("attacks", name_in(link), known("attacks"))
        searchable_attacks = tuple(name for name in known("attacks") if name in known_spaces())
        for text in self.searched_attacks:
            if len(links(text)) > 1:
                raise ValueError(f"searched_attacks: {text!r} is composed and has no search space; name single attacks")
            check("attacks that can be searched", name_in(text), searchable_attacks)
        return dataclasses.replace(self, methods=methods)

    def method_defaults(self) -> dict[str, Method]:
        """Where the search of each method starts: the preset's default, else the class's, with what was set.

        Raises `ValueError` for a setting that a method does not have, and for one that makes it an oracle.
        """
        found: dict[str, Method] = {}
        for text in self.methods:
            name = name_in(text)
            found[text] = adjusted(find("methods", name)(**self.defaults.get(name, {})), text)
            if getattr(found[text], "oracle", False):
                raise ValueError(f"{text} uses the reference model, which no real request has: it cannot be ranked")
        return found

    def attackers(self) -> tuple[Attack, ...]:
        """Every attack with every setting of the preset's grid, else with its own default, with what was set."""
        return tuple(dict.fromkeys(attack for text in self.attacks for attack in self.attacks_of(text)))

    def attack_defaults(self) -> dict[str, Attack]:
        """Where the search of each attack starts."""
        return {text: self.attacks_of(text)[0] for text in self.searched_attacks if self.attack_trials}

    def search_attack(self) -> Attack | None:
        """What every trial is attacked with, if robustness is an objective; of the preset's grid the first."""
        return self.attacks_of(self.robustness)[0] if self.robustness else None

    def attacks_of(self, text: str) -> tuple[Attack, ...]:
        """Every attack that `text` stands for: with each setting of the preset's grid, and what it sets itself."""
        several = links(text)
        if len(several) > 1:
            return tuple(Chain(chosen) for chosen in itertools.product(*map(self.attacks_of, several)))
        name = name_in(text)
        return tuple(adjusted(find("attacks", name)(**fields), text) for fields in self.attack_grid.get(name) or ({},))

    def preset_methods(self) -> dict[str, Method]:
        """The methods that the preset sets something of, whether they are searched or not."""
        return {name: find("methods", name)(**fields) for name, fields in self.defaults.items()}

    def preset_attacks(self) -> dict[str, tuple[Attack, ...]]:
        """The attacks that the preset sets something of, with each of their settings."""
        return {name: tuple(find("attacks", name)(**fields) for fields in g) for name, g in self.attack_grid.items()}


def _check_processes(study: Study) -> None:
    gpus, together = study.gpus_per_trial, study.teachers
    if gpus > 1 and not float(gpus).is_integer():
        raise ValueError(f"gpus_per_trial={gpus:g}: beyond one GPU a job has a process for each; use a whole number")
    if gpus and study.workers_per_trial > 1:
        raise ValueError(
            f"workers_per_trial={study.workers_per_trial} with gpus_per_trial={gpus:g}: each process has a GPU of its "
            f"own; set gpus_per_trial={study.workers_per_trial} and leave workers_per_trial out"
        )
    if together > 1 and 0 < gpus < 1:
        raise ValueError(
            f"workers_per_model={together} with gpus_per_trial={gpus:g}: each of these processes needs a GPU of its "
            "own; set gpus_per_trial to 1"
        )
    if study.sharded and together == 1:
        raise ValueError(
            "sharded spreads a model over several processes: set gpus_per_trial (on the CPU workers_per_trial) to at "
            "least 2, or workers_per_model to spread it while it learns alone"
        )
