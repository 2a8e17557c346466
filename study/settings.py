"""The settings of a study: every option of the command line, checked, and the plug-ins that it names."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Suppress, arg

from study.attacks.chain import Chain
from study.contracts import Attack, Method
from study.core.mirror import refuse_address
from study.core.plugins import check, find, known, known_spaces, use
from study.core.specs import adjusted, links, made, name_in, settings_in
from study.core.terms import EarlyStopping, Goal, Keep, Part, SamplerName, Tracker
from study.core.validation import not_negative
from study.training.schedule import Schedule

Fields = Mapping[str, Any]
"""What a preset sets of a method or an attack, by field name, so that its class need not be imported. A method is named
as on the command line: `vkd:variant=features` is what is set of that form, and `vkd` of all others."""
TRACKERS: Mapping[Tracker, str] = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
"""The package that each tracker needs."""
HEADINGS = {
    "study_dir": "Study",
    "model": "Model and data",
    "methods": "Methods, trials and seeds",
    "attacks": "Attacks",
    "warm_start": "Search",
    "learn": "Learning",
    "workers": "Machine",
}
"""The headings of the settings in help, each at the setting with which it begins."""
MOST_WHOLE = 2**53
"""Of seeds and counts: every program that reads JSON keeps such a number whole, and torch takes it as a seed."""
REFERENCES = ("none", "retrain")  # methods that are baselines: never searched, never ranked


@dataclass(frozen=True)
class Gate:
    """What learning must reach before anything is unlearned; published benchmarks often fail it unnoticed.

    The thresholds were chosen by trial on the tiny study. Forgetting can only be measured on what was known (0.9), and
    images that were not taught are harder (0.8). On 168 questions about twelve people the accuracy of a reference that
    guesses has a standard error of 0.03 if answers are independent and 0.13 if those about one person go together, so
    a smaller margin than 0.2 would reject sound references.
    """

    known: float = 0.90
    """Minimum accuracy of vanilla on multiple-choice questions about forget, retain and real people, with and without
    picture, where a lesson states the answer in that form."""
    test: float = 0.80
    """Minimum accuracy of vanilla on the test images of the forget people, which it was not taught."""
    blind: float = 0.20
    """Maximum by which the reference may exceed the blind level on images of the forget people. The blind level is the
    accuracy on grey pictures, or of guessing if that is higher."""
    base: float = 0.90
    """Minimum accuracy of vanilla, as a fraction of the base model's, on questions that no lesson teaches and the base
    model knows, such as those about celebrities."""


@dataclass(frozen=True)
class Cost:
    """Measured seconds of one unit of work on one worker, from which the plan estimates the time of a study."""

    base: float
    learn: float
    trial: float
    report: float
    attack: float


@dataclass(frozen=True, kw_only=True)
class Study:
    """Teach, unlearn, search, confirm, attack, report."""

    study_dir: Path = Path("runs/tiny")
    """Folder of the study; {model} in it stands for the name of the base model. Running it again with the same folder
    continues the study."""
    storage: str = ""
    """Address of a copy of that folder, such as s3://bucket/runs/mine: kept up to date, and fetched if the folder does
    not exist. Default: none."""
    plugins: tuple[str, ...] = ()
    """Packages with methods, attacks, models, benchmarks, spaces or sections of your own, such as my_package, or
    ./my_package for a folder. Default: those that are installed with an entry point."""
    model: Annotated[str, arg(aliases=["--base-model"])] = "tiny"
    """Base model: a folder such as /models/llava-7b, OWNER/NAME@COMMIT on the Hugging Face hub, or a file in
    study/base_models with its settings, such as tiny:seed=1 or hf:path=/models/llava-7b,dtype=bfloat16."""
    vanilla: str = ""
    """Your own model, fine-tuned from `model` and named like it, in place of one that the study teaches; the gate
    judges it by what the benchmark's lessons say. Default: vanilla is taught."""
    reference: tuple[str, ...] = ()
    """With `vanilla`, models fine-tuned like it on all but the forget people, of a single forget ratio. Default: the
    base model stands for the references, so that the forget gap is measured to it."""
    benchmark: str = "synthetic"
    """Benchmark: a file in study/benchmarks with its settings, such as synthetic:people=60 or mllmu:/data/MLLMU."""
    goal: Goal = "visual"
    """What must be forgotten: `visual`, the link from pictures to people (text about the same people stays), or
    `full`, pictures and text."""
    forget_ratios: tuple[int, ...] = (10, 15)
    """Percentages of the people to forget; each has Pareto fronts and winners of its own."""
    forget_attributes: tuple[str, ...] = ()
    """Attributes of the forget people to forget, such as residence occupation; their other attributes must stay.
    Default: all attributes."""
    methods: tuple[str, ...] = (
        *("vkd", "vkd:variant=features"),
        *("gradient_ascent", "gradient_difference", "kl_minimization", "npo", "prompting"),
    )
    """Methods to search: names of files in study/methods, optionally with fixed hyper-parameters, such as vkd, npo,
    npo:modality=text or npo:lora_rank=16,trains=llm; a fixed one is not searched. `all` stands for every method."""
    methods_from: str = ""
    """Earlier study, such as runs/x, whose methods are those of this one, each with its winner as default: that of the
    ratio nearest to the first of `forget_ratios`, or of RATIO in runs/x@RATIO. Default: none."""
    reference_seeds: int = 1
    """Seeds from which the references of each ratio are taught. The forget gap is measured against all of them, and the
    largest gap of one to the others is the noise floor; with one it is unknown."""
    trials: Annotated[int, arg(aliases=["--budget-trials"])] = 8
    """Trials per method, over all forget ratios."""
    confirm_seeds: int = 2
    """Further seeds with which each winner is run again."""
    released: bool = False
    """Official protocol: also score vanilla, the references and the winners with the prompts and parsing that the
    benchmark's authors released, to compare with published tables. The search never uses it."""
    metric_check: bool = True
    """Meta-evaluation: measure how well every metric tells vanilla from the references (faithfulness), and how it
    reacts to quantization and relearning (robustness)."""
    metric_seeds: int = 0
    """Further seeds with which vanilla and each reference are taught, as a larger pool of models for the
    meta-evaluation alone."""
    requests: int = 1
    """Sequential unlearning: the number of requests into which each winner's forget set is split, unlearned one after
    another; 1 leaves it out."""
    attacks: tuple[str, ...] = ("relearning",)
    """Attacks on every winner: names of files in study/attacks, optionally with settings. Slashes compose attacks, as
    in swap_back/quantization:format=nf4, where the second attacks the result of the first."""
    searched_attacks: tuple[str, ...] = ("relearning",)
    """Attack search: attacks whose settings are searched against each winner if `attack_trials` is above 0. The links
    of composed ones, such as swap_back/relearning, are searched together."""
    attack_trials: int = 0
    """Trials of the attack search for each winner and attack; 0 leaves it out."""
    attack_keeps: float = 0.5
    """Fraction of the retain accuracy of the attacked references (for the search attack: of the model before it) below
    which a model has collapsed under an attack: that nothing came back of it then says nothing."""
    equivalence_margin: float = 0.1
    """How near to the control's the gain of an attack must be, in probability, for a method to count as equivalent to
    retraining; also the least that must have been forgotten for a verdict."""
    robustness: str = ""
    """Search attack: a cheap attack on every trial, such as relearning:steps=10,people=0.5, whose recovery becomes the
    third objective of the search; the attacks above then run on whole Pareto fronts. Default: none."""
    warm_start: Path | None = None
    """Folder of an earlier study, on another model: the search tries its winners right after the defaults, and tells a
    sampler that models results of its finished trials, as far as these predict the new ones. Default: none."""
    seed: int = 0
    """Seed of learning, of the search and of the first run of each trial."""
    lookahead: int = 2
    """Trials of one method, or of one attack on one winner, that may be open at once. More keeps more workers busy,
    fewer let the sampler learn from more results."""
    sampler: SamplerName = "auto"
    """How trials are proposed: `sobol` (quasi-random), `random`, `tpe`, `gp` (Gaussian processes with expected
    hypervolume improvement), `nsga2`, or `auto`: sobol for the startup trials, then tpe."""
    startup_trials: int = 0
    """Trials of each method at each forget ratio, or of each attack on each winner, before the sampler models results,
    the default and, for auto, earlier ones that are told included. 0 for 48 of auto and 6 of tpe and gp."""
    scored_error: float = 0.0
    """Standard error, of each group's mean probability, up to which a trial of the search is asked about people to be
    kept: 0.03 takes 278 questions a group, 0 all. Winners are asked the whole test half."""
    early_stopping: EarlyStopping = "pareto"
    """What ends a trial after a third or two thirds of its steps: `collapse`, a utility below the floor; `pareto`, also
    being outside the best half (a third of many) or quarter of the trials there (not with --robustness); `off`."""
    collapse_floor: float = 0.5
    """Utility below which a trial has collapsed: half of what had to be kept is gone."""
    race: int = 2
    """Trials of each method and ratio, the best by one seed, that are run with further seeds, with the default, before
    a winner is named; who is significantly behind is dropped. 1 names the best by one seed."""
    budget_pflop: float = 0.0
    """Budget of each method's search in 10^15 counted operations (unlearning, rungs, scoring, search attack): no trial
    begins once it is used up. 0 for no limit but --trials."""
    budget_hours: float = 0.0
    """The same in hours of that work."""
    learn: Schedule = Schedule()
    """Schedule with which vanilla and the references are taught."""
    learn_parts: tuple[Part, ...] = ("projector", "llm")
    """Parts of the model that are taught."""
    gate: Gate = Gate()
    """Thresholds that learning must reach."""
    measure: Literal["all", "known"] = "all"
    """Which questions about what must go count: `all`, of which vanilla must know what the gate says, or those `known`
    to vanilla and to no reference, in a model that learned in part."""

    workers: int = 2
    """Jobs that run at once, on this machine or on the cluster."""
    gpus_per_trial: float = 0.0
    """GPUs per job. A fraction lets several jobs share one GPU; a whole number above 1 runs each job in that many
    processes, one per GPU, on one machine; 0 runs on the CPU."""
    workers_per_trial: int = 1
    """On the CPU, processes that do each job together: they share the rows of every batch and the questions. Results
    are the same up to float rounding, unless adapters are trained with dropout."""
    workers_per_model: int = 0
    """Processes, one per GPU if there are any, that teach each of vanilla and the references together, one model at a
    time; 0 for as many as do a job together."""
    sharded: bool = False
    """Shard weights, gradients and optimizer state over the processes of a job (FSDP2): for a model that no single GPU
    can hold or train."""
    threads: int = 1
    """Torch threads per process."""
    address: str = ""
    """Ray cluster to join, `auto` on its head node. Default: $RAY_ADDRESS, else a private Ray on this machine."""
    keep: Keep = "all"
    """Trials whose weights stay on disk: `all`, or `winners`, which deletes those of the others once they have lost.
    What is attacked, every record and all rows stay."""
    trackers: Annotated[tuple[Tracker, ...], arg(aliases=["--tracker"])] = ("tensorboard",)
    """Where the trials of searches are shown as well: `tensorboard` (files in the study's folder), `wandb` (Weights &
    Biases) and `mlflow`, which are extras to install. Nothing for none."""
    strict_data: bool = False
    """Refuse a dataset for every row that is not right, also where its authors' own code passes over it. Default: such
    rows are skipped, counted and listed."""
    strict_code: bool = False
    """Refuse to continue a study of which any result was computed by other code (its method or attack, or what all
    share: data, models, training, scoring) or other versions of libraries. Default: it continues, and the report counts
    the results of each."""
    price_per_gpu_hour: float = 0.0
    """Price of one GPU for an hour, in any currency, by which the plan tells what is left to pay. 0 tells nothing."""
    dry_run: bool = False
    """Print the plan and stop."""

    defaults: Annotated[Mapping[str, Fields], Suppress] = field(default_factory=dict)
    attack_grid: Annotated[Mapping[str, tuple[Fields, ...]], Suppress] = field(default_factory=dict)
    cost: Annotated[Cost | None, Suppress] = None

    def __post_init__(self) -> None:
        for name in (
            "reference_seeds",
            "trials",
            "lookahead",
            "race",
            "requests",
            "workers",
            "workers_per_trial",
            "threads",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use at least 1")
        refuse_address(self.study_dir)
        not_negative(
            self,
            *(
                "confirm_seeds",
                "startup_trials",
                "collapse_floor",
                "budget_pflop",
                "budget_hours",
                "metric_seeds",
                "attack_trials",
                "attack_keeps",
                "equivalence_margin",
                "gpus_per_trial",
                "workers_per_model",
                "price_per_gpu_hour",
                "scored_error",
                "seed",
            ),
        )
        for whole in fields(self):
            if isinstance(value := getattr(self, whole.name), int) and value > MOST_WHOLE:
                raise ValueError(f"{whole.name}={value}: use at most {MOST_WHOLE:,}")
        _check_processes(self)
        _check_brought(self)
        if self.metric_seeds and not self.metric_check:
            raise ValueError(
                f"metric_seeds={self.metric_seeds} are for the meta-evaluation alone: leave metric_check on, or use 0"
            )
        if not self.methods or not self.forget_ratios:
            raise ValueError("name at least one method and one forget ratio")
        for name in ("methods", "forget_ratios", "forget_attributes", "attacks", "searched_attacks", "reference"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)} names something twice: name each once")
        if self.trials < len(self.forget_ratios):
            raise ValueError(
                f"trials={self.trials} is fewer than one for each of {len(self.forget_ratios)} forget ratios"
            )
        if self.warm_start and self.trials < 2 * len(self.forget_ratios):
            raise ValueError(
                f"trials={self.trials} leaves no room for warm_start={self.warm_start}: the default and an earlier "
                f"winner at each of {len(self.forget_ratios)} forget ratios are {2 * len(self.forget_ratios)} trials"
            )
        if not self.learn_parts:
            raise ValueError("learn_parts is empty: name at least one part to teach")

    @property
    def processes(self) -> int:
        """The number of processes that do each job together."""
        return max(int(self.gpus_per_trial), self.workers_per_trial)

    @property
    def references(self) -> int:
        """The number of references of each ratio: those that are brought, or one for each seed."""
        return max(1, len(self.reference)) if self.vanilla else self.reference_seeds

    @property
    def teachers(self) -> int:
        """The number of processes that teach each model together."""
        return self.workers_per_model or self.processes

    def resolved(self) -> Study:
        """This study with `all` and the name of its folder spelled out, once its plug-ins can be found.

        Raises `ValueError` for an unknown name, with the nearest known one, and for a tracker that is not installed.
        """
        use(self.plugins)
        _check_trackers(self)
        searchable = tuple(name for name in known("methods") if name not in REFERENCES)
        asked = [name for text in self.methods for name in (searchable if text == "all" else (text,))]
        methods = tuple(dict.fromkeys(asked))
        for text in methods:
            check("methods", name_in(text), searchable)
        for link in itertools.chain.from_iterable(map(links, (*self.attacks, *filter(None, [self.robustness])))):
            check("attacks", name_in(link), known("attacks"))
        for text in self.searched_attacks:
            _check_searchable(text)
        return dataclasses.replace(self, methods=methods, study_dir=self._named_dir())

    def _named_dir(self) -> Path:
        """The study's folder with the name of the base model in place of `{model}`."""
        if not self.model:
            raise ValueError("model is empty: name a base model, as in --model /models/my-vlm")
        settings, folder = settings_in(self.model), self.model.partition(":")[2]
        named = settings.get("path") or settings.get("hub") or ("" if "=" in folder else folder)
        name = Path((named or name_in(self.model)).partition("@")[0]).name
        return Path(str(self.study_dir).replace("{model}", name))

    def method_defaults(self) -> dict[str, Method]:
        """The default of each method, where its search starts: the preset's, else the class's, with what was fixed.

        Raises `ValueError` for a setting that a method does not have, and for one that makes it an oracle.
        """
        found: dict[str, Method] = {}
        for text in self.methods:
            found[text] = made(find("methods", name_in(text)), self._preset_of(text), text)
            if found[text].oracle:
                raise ValueError(f"{text} uses the reference model, which no real request has: it cannot be ranked")
        return found

    def _preset_of(self, text: str) -> Fields:
        """What the preset sets of a method: of the form that `text` asks for, if it sets something of that apart."""
        mine = settings_in(text).items()
        forms = [t for t in self.defaults if name_in(t) == name_in(text) and settings_in(t).items() <= mine]
        return self.defaults[max(forms, key=len)] if forms else {}

    def attackers(self) -> tuple[Attack, ...]:
        """Every attack with every setting of the preset's grid, else with its own default, with what was fixed."""
        return tuple(dict.fromkeys(attack for text in self.attacks for attack in self.attacks_of(text)))

    def attack_defaults(self) -> dict[str, Attack]:
        """Where the search of each attack starts."""
        return {text: self.attacks_of(text)[0] for text in self.searched_attacks if self.attack_trials}

    def search_attack(self) -> Attack | None:
        """The attack on every trial, if robustness is an objective: the first of the preset's grid."""
        return self.attacks_of(self.robustness)[0] if self.robustness else None

    def attacks_of(self, text: str) -> tuple[Attack, ...]:
        """Every attack that `text` stands for: with each setting of the preset's grid, and those that it fixes."""
        several = links(text)
        if len(several) > 1:
            return tuple(Chain(chosen) for chosen in itertools.product(*map(self.attacks_of, several)))
        name = name_in(text)
        return tuple(adjusted(find("attacks", name)(**fields), text) for fields in self.attack_grid.get(name) or ({},))

    def preset_methods(self) -> dict[str, Method]:
        """The methods that the preset sets something of, whether they are searched or not."""
        return {text: made(find("methods", name_in(text)), fields, text) for text, fields in self.defaults.items()}

    def preset_attacks(self) -> dict[str, tuple[Attack, ...]]:
        """The attacks that the preset sets something of, with each of their settings."""
        return {name: tuple(find("attacks", name)(**fields) for fields in g) for name, g in self.attack_grid.items()}


def _check_trackers(study: Study) -> None:
    for tracker in study.trackers:
        if find_spec(TRACKERS[tracker]) is None:
            raise ValueError(
                f"trackers={tracker}: {TRACKERS[tracker]} is not installed; pip install "
                f"'mllm-unlearning-study[{tracker}]', or leave it out"
            )


def _check_searchable(text: str) -> None:
    """An attack, or one link of composed ones, must have a search space; other links stay as they are set."""
    names = {name_in(link) for link in links(text)}
    for name in names:
        check("attacks", name, known("attacks"))
    if not names & set(known_spaces()):
        searchable = ", ".join(name for name in known("attacks") if name in known_spaces() and name != "chain")
        raise ValueError(f"searched_attacks: nothing of {text!r} can be searched; name at least one of {searchable}")


def _check_brought(study: Study) -> None:
    """Models that are brought are not taught, and a reference is one of a single forget request."""
    if study.reference and not study.vanilla:
        raise ValueError("reference without vanilla: models taught by others are compared with their own vanilla")
    if len(study.reference) > 0 and len(study.forget_ratios) > 1:
        ratios = " ".join(map(str, study.forget_ratios))
        raise ValueError(
            f"reference with forget_ratios={ratios}: which people these models never saw is said by a single ratio"
        )
    if study.vanilla and study.metric_seeds:
        raise ValueError(
            f"metric_seeds={study.metric_seeds} with vanilla={study.vanilla}: further seeds would be taught, and your "
            "model's lessons and schedule are not known; leave one of them out"
        )


def _check_processes(study: Study) -> None:
    gpus, together = study.gpus_per_trial, study.teachers
    if gpus > 1 and not float(gpus).is_integer():
        raise ValueError(f"gpus_per_trial={gpus:g}: above 1, a job has one process per GPU; use a whole number")
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
            "sharded needs several processes: set gpus_per_trial (on the CPU workers_per_trial) to at least 2, or "
            "workers_per_model to shard a model only while it is taught"
        )
