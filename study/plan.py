"""A study made concrete before any work: plug-ins found, data read, settings compared with those on disk."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Literal, Never

from study.cluster import PROJECT
from study.contracts import BaseModel, Learned, Request, Source, Trial, changed_parts
from study.hub import MODEL_FILES
from study.methods.none import NoMethod
from study.plugins import name_of, search_space
from study.questions import HALVES, MODALITIES, ROLES, Benchmark, Half, Modality, Role, Split
from study.released import Released
from study.sequence import in_turn
from study.settings import Study
from study.specs import links, name_in, parameters, pinned, plugin
from study.store import Folder, Json, canonical, content_key, file_digest, read_json, write_json
from study.trial import holds_out
from study.warm_start import WarmStart, warm_start

RUNTIME = (
    *(
        "study_dir",
        "storage",
        "workers",
        "gpus_per_trial",
        "workers_per_trial",
        "workers_per_model",
        "sharded",
        "threads",
        "address",
    ),
    *("dry_run", "cost"),
)
"""Settings that change no result but for rounding, and for the draws of adapter dropout where processes share a job."""
PLACES = ("path", "train_split", "hub", "revision")
"""Where a benchmark or a base model lies; what it is, its fingerprint says, or its files."""
GROWING = (
    *("methods", "trials", "confirm_seeds", "defaults", "requests", "released", "metric_check", "metric_seeds"),
    *("attacks", "attack_grid", "searched_attacks", "attack_trials"),
)
"""Settings that add work to a study without changing what it holds."""
PACKAGES = ("torch", "transformers", "peft", "ray", "optuna", "pandas", "numpy", "tokenizers", "pillow")


class Refused(Exception):
    """The study cannot be run as asked; the message says what to change."""


class Failed(Exception):
    """The study cannot go on; the message says what failed, with the numbers."""


@dataclass(frozen=True)
class Plan:
    """A study made concrete: its plug-ins, what is learned and the yardstick trials of each ratio."""

    study: Study
    model: BaseModel
    source: Source
    benchmark: Benchmark
    warm: WarmStart | None = None
    """What the search begins with; None if it begins cold."""

    @property
    def root(self) -> Path:
        """The study's folder, absolute: workers have their own working directories."""
        return self.study.study_dir.absolute()

    @property
    def folder(self) -> Folder:
        """Where everything lies."""
        return Folder(self.root)

    @cached_property
    def identity(self) -> Json:
        """What makes the base model the one it is; its files are read once."""
        return _identity(self.model)

    @property
    def vanilla(self) -> Learned:
        """The model that was taught everybody."""
        return self._learned("vanilla", None)

    def reference(self, ratio: int) -> Learned:
        """The model that was never taught what a ratio's request covers."""
        return self._learned("reference", ratio)

    def yardsticks(self, ratio: int) -> tuple[Trial, Trial]:
        """Vanilla and the reference as trials: no method, scored and attacked like any other."""
        goal, seed = self.study.goal, self.study.seed
        return (
            Trial(self.vanilla, NoMethod(), goal, ratio, seed),
            Trial(self.reference(ratio), NoMethod(), goal, ratio, seed),
        )

    def pool(self, ratio: int) -> list[Trial]:
        """The yardsticks as taught with the study's seed and each further one: what the metrics are checked on."""
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


def prepared(study: Study, data: Path) -> Plan:
    """Find everything that can be wrong before a model is loaded; `data` is where made benchmarks are kept.

    Raises `Refused` or `ValueError` that names the value and the remedy.
    """
    _check_writable(study.study_dir.absolute())
    model, source = plugin("models", study.model), plugin("benchmarks", study.benchmark)
    study.attackers()
    study.search_attack()
    _check_released(study, source)
    _check_spaces(study)
    _check_quantized(study, model)
    benchmark = source(data).narrowed(study.forget_attributes)
    for ratio in study.forget_ratios:
        _check_questions(benchmark.split(ratio))
        in_turn(benchmark.split(ratio), study.goal, study.requests)
        _check_lessons(benchmark.split(ratio), study)
        _check_search_attack(benchmark.split(ratio), study)
    if hasattr(model, "path"):
        model = replace(model, path=model(data), hub="", revision="")  # asked of the hub once
    warm = warm_start(study, Folder(study.study_dir.absolute()).settings)
    plan = Plan(study, model, source, benchmark, warm)
    _check_settings(plan)
    if not plan.folder.settings.exists():  # a study that began has decoded them all before
        for picture in benchmark.pictures():
            picture.open().close()
    return plan


def label(t: Trial) -> str:
    """What a trial is called on the screen."""
    return f"{t.start.kind if isinstance(t.method, NoMethod) else t.name or name_of(t.method)} {t.ratio} %"


def _check_released(study: Study, source: Source) -> None:
    """Not every benchmark has a protocol of its authors, and none knows of requests for single attributes."""
    if study.released and not isinstance(source, Released):
        raise Refused(f"benchmark {study.benchmark}: its authors' protocol is not known; leave --released out")
    if study.released and study.forget_attributes:
        raise Refused("--released with --forget-attributes: published protocols ask about whole people; leave one out")


def _check_spaces(study: Study) -> None:
    """What a method is set to must be something its search space could propose."""
    from search_spaces import refusal  # Optuna takes half a second to import

    for text, default in {**study.method_defaults(), **study.attack_defaults()}.items():
        name = name_in(text)
        if reason := refusal(search_space(name).space, default, parameters(default)):
            raise Refused(f"{text}: outside of search_spaces/{name}.py ({reason}); choose a value inside, or widen it")


def _check_quantized(study: Study, model: BaseModel) -> None:
    """An LLM that is held in codes is frozen: nothing that is tried on it may change it."""
    quantized = getattr(model, "quantized", "")
    if not quantized:
        return
    if study.sharded:
        raise Refused(
            f"sharded with quantized={quantized} of the base model: sharding spreads weights over processes, and codes "
            "are none; leave one of them out"
        )
    wrong = list(dict.fromkeys(_changing_llm(study)))
    if wrong:
        raise Refused(
            f"quantized={quantized} of the base model freezes its llm, which would be changed by {', '.join(wrong)}; "
            "set them so, as in relearning:trains=vision+projector, leave them out, or leave quantized out"
        )


def _changing_llm(study: Study) -> Iterator[str]:
    """The methods and attacks of a study that may write to the LLM, each with what to set so that it does not."""
    methods = ((f"method {text}", default) for text, default in study.method_defaults().items())
    suite = ((f"attack {link}", a) for text in study.attacks for link in links(text) for a in study.attacks_of(link))
    searched = study.search_attack()
    cheap = ((f"robustness {study.robustness}", link) for link in getattr(searched, "links", [searched]) if searched)
    for told, tried in chain(methods, suite, cheap):
        if "llm" in changed_parts(tried):
            yield f"{told} (set {_sparing_llm(tried)})"
    for text, default in study.attack_defaults().items():
        free = {"trains", "parts"} & parameters(default).keys() - pinned(default, text).keys()
        if free or "llm" in changed_parts(default):
            yield f"searched attack {text} (set {_sparing_llm(default)})"


def _sparing_llm(tried: object) -> str:
    """The setting with which a method or an attack leaves the LLM alone."""
    name = "trains" if hasattr(tried, "trains") else "parts"
    parts = getattr(tried, name)
    if getattr(tried, "head", False) and "llm" not in parts:
        return "head=false"
    return f"{name}={'+'.join(part for part in parts if part != 'llm') or 'vision'}"


def _check_lessons(split: Split, study: Study) -> None:
    """A method that trains on one modality needs something to forget in it."""
    request = _request(split, study)
    for text, default in study.method_defaults().items():
        try:
            request.only(getattr(default, "modality", "all"))
        except ValueError as error:
            raise Refused(f"{text}: {error}") from error


def _check_search_attack(split: Split, study: Study) -> None:
    """What comes back can be an objective only where the attacker is not given everything."""
    attacker, asked = study.search_attack(), f"robustness={study.robustness!r} at forget ratio {split.ratio}"
    try:
        fits = attacker is None or holds_out(attacker, _request(split, study))
    except ValueError as error:
        raise Refused(f"{asked}: {error}") from error
    if not fits:
        raise Refused(f"{asked}: the attacker is given every fact that half of the questions ask for; hold some out")


def _request(split: Split, study: Study) -> Request:
    """The forget request of a ratio, to look at its lessons and questions."""

    def nobody() -> Never:
        raise AssertionError("no model is loaded to look at lessons")

    return Request(split, study.goal, (), study.seed, Path(), nobody, nobody, nobody)


def _check_questions(split: Split) -> None:
    """Every group that is measured needs a question of a choice to select by and one to report."""
    there = {(q.role, q.modality, q.half) for q in split.questions if q.task == "classification"}
    for role in ROLES:
        for modality in MODALITIES:
            if _may_lack(split, role, modality, there):
                continue
            for half in HALVES:
                if (role, modality, half) not in there:
                    raise Refused(
                        f"forget ratio {split.ratio}: no {modality} classification question about {role} people falls "
                        f"into the half that is to {half}; each person needs at least two in every modality"
                    )


def _may_lack(split: Split, role: Role, modality: Modality, there: Set[tuple[Role, Modality, Half]]) -> bool:
    """Whether a group may be empty: nothing is spared where all goes; an attribute may be asked of pictures only."""
    if not split.forget_attributes or role == "spared":
        return role == "spared"
    return role in ("forget", "test") and modality == "text" and ("spared", "text", "select") in there


def _check_writable(root: Path) -> None:
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    if not there.is_dir():
        raise Refused(f"study folder {root}: {there} is a file; choose another --study-dir")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Refused(f"study folder {root}: {there} cannot be written; choose another --study-dir")


def _identity(model: BaseModel) -> Json:
    """What makes a base model the one it is, wherever it lies: the content of its files, not its path.

    Of a weight file these are its size, its first and its last mebibyte: enough to tell a fine-tuned model from its
    base, without reading gigabytes at every start.
    """
    folder: Path | None = getattr(model, "path", None)
    if folder is None:
        return canonical(model)
    kinds = [sorted(folder.glob(pattern)) for pattern in MODEL_FILES]
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


def _settings(plan: Plan) -> Json:
    settings = {k: v for k, v in canonical(plan.study).items() if k not in RUNTIME and k != "type"}
    attacker = plan.study.search_attack()
    return {
        **settings,
        "model": plan.identity,
        "benchmark": {k: v for k, v in canonical(plan.source).items() if k not in PLACES},
        "fingerprint": plan.benchmark.fingerprint,
        "warm_start": f"{plan.warm.study} ({plan.warm.key})" if plan.warm else None,
        "robustness": {} if attacker is None else {"attack": plan.study.robustness, "key": content_key(attacker)},
    }


def _check_settings(plan: Plan) -> None:
    """Refuse a folder that holds a study with other settings, field by field."""
    if not plan.folder.settings.exists():
        return
    before, now = read_json(plan.folder.settings)["settings"], _settings(plan)
    changed = [
        f"  {name}: {a} there, {b} asked"
        for name, a, b in _differences(before, now)
        if name.split(".")[0] not in GROWING
    ]
    changed += [f"  {name}: {a} there, {b} asked; a study can only grow" for name, a, b in _shrunk(before, now)]
    changed += [
        f"  {name}: another default there"
        for name in sorted({*before["defaults"]} & {*now["defaults"]})
        if before["defaults"][name] != now["defaults"][name]
    ]
    if changed:
        raise Refused(
            "\n".join(
                [
                    f"{plan.root} holds a study with other settings:",
                    *changed,
                    "give those, or choose another --study-dir",
                ]
            )
        )


def _shrunk(before: Json, now: Json) -> Iterator[tuple[str, Json, Json]]:
    """The growing settings that ask for less than there is."""
    for name in ("trials", "confirm_seeds", "attack_trials", "metric_seeds"):
        if now[name] < before.get(name, 0):
            yield name, before[name], now[name]
    for name in ("methods", "attacks", "searched_attacks"):
        if not set(before.get(name, ())) <= set(now[name]):
            yield name, " ".join(before[name]), " ".join(now[name])


def _differences(a: Json, b: Json, name: str = "") -> Iterator[tuple[str, Json, Json]]:
    """The leaves at which two JSON values differ, as (dotted name, one, other)."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from _differences(a.get(key), b.get(key), f"{name}.{key}".lstrip("."))
    elif a != b:
        yield name, a, b


def settle(plan: Plan) -> None:
    """Write down what this study is."""
    names = {"name": plan.study.study_dir.name, "settings": _settings(plan), "git": _revision()}
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    warm = {} if plan.warm is None else {"warm_start": plan.warm.record}
    write_json(plan.folder.settings, {**names, **warm, "versions": versions})


def _revision() -> str:
    """The git revision of this project, with a plus sign if files differ from it; empty without git or checkout."""

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)
        except OSError:  # no git on this machine
            return ""
        return done.stdout.strip()

    return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
