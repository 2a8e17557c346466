"""The records of a study: a class for each kind, used to write and to read its JSON file.

They are of what ends learning, trials, proposals, attacks, sequences and the meta-evaluation, of a run's plan and its
check of the base model, of races, winners and what vanilla knows; the rest is plain JSON.
The fields of a class are the keys of its JSON. Records are read strictly: missing fields, unknown fields and values of
another type are errors that name the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from study.core.errors import Damaged
from study.core.failures import FailureKind, Refusal
from study.core.files import read_json, read_object, write_json
from study.core.hashing import Json
from study.core.layout import StudyFolder, record_beside
from study.core.provenance import Origin
from study.core.terms import Attention, Dtype, Goal, Part, Quantized
from study.core.threat import Threat

TrialState = Literal["complete", "diverged", "failed", "collapsed", "stopped"]
"""How a trial ended; one without a record is `unfinished`, whatever accident it met. It `failed` where the method said
that it cannot be done, or the device was too small. At a rung it `collapsed` (its utility fell below the floor) or was
`stopped` (others were ahead)."""
AttackState = Literal["complete", "failed", "unfinished"]
"""The state of an attack: its rows exist, it cannot be done, or it has not been run to the end."""
ModelKind = Literal["vanilla", "reference"]
WORK = ("unlearn_flops", "rung_flops", "flops")
"""The work of a trial in its record: of unlearning, of scoring on the way, and of scoring at the end."""
SPARSE = {"stored": "if set"}
"""Of a field that is left out of the file if it has its default."""
FROM_PATH = {"stored": "never"}
"""Of a field that is read from the path of the file, not from its content."""


@dataclass(frozen=True)
class Start:
    """The learned model that a trial starts from."""

    kind: ModelKind
    key: str


@dataclass(frozen=True)
class RungScore:
    """The objectives of a trial on a sample of the validation half while it was trained."""

    rung: int
    """From 1."""
    step: int
    """The number of steps done."""
    forget_gap: float
    utility: float

    @property
    def objectives(self) -> dict[str, float]:
        """As those of a trial that has ended."""
        return {"forget_gap": self.forget_gap, "utility": self.utility}


@dataclass(frozen=True)
class TrialRecord:
    """A trial that has ended (trial.json). A measured amount is an entry of `cost` and needs no field of its own."""

    key: str
    state: TrialState
    method: str
    ratio: int
    seed: int
    goal: Goal
    start: Start
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    """Why it ended in another state than `complete`."""
    failure: Refusal = field(default="", metadata=SPARSE)
    """The kind of that reason, if it `failed`."""
    instruction: str = ""
    """The text in front of every prompt, if that is the result of the method."""
    chunks: int = 1
    processes: int = 1
    cost: Mapping[str, float] = field(default_factory=dict)
    rungs: tuple[RungScore, ...] = field(default=(), metadata=SPARSE)
    """What it scored on the way; empty for a trial that nobody watched, or that trains nothing."""
    origin: Origin | None = field(default=None, metadata=SPARSE)
    """What computed it; None where the record is from before this was written down, as for all that follow."""

    @property
    def work(self) -> float | None:
        """Operations of unlearning, of scoring on the way and at the end; None where they were not counted."""
        return math.fsum(self.cost.get(name, 0.0) for name in WORK) if "unlearn_flops" in self.cost else None

    @property
    def kind(self) -> Literal["method", ModelKind]:
        """`vanilla` or `reference` for the identity method on that model, else `method`."""
        return "method" if self.method != "none" else self.start.kind

    @property
    def label(self) -> str:
        """The name under which tables and figures show the trial."""
        return self.method if self.kind == "method" else self.kind


@dataclass(frozen=True)
class LearnedRecord:
    """A model whose learning has ended: what determines it, and how it was taught."""

    key: str
    kind: ModelKind
    base: str
    benchmark: str
    goal: Goal | None
    ratio: int | None
    schedule: Mapping[str, Any]
    parts: tuple[Part, ...]
    seed: int
    sha256: Mapping[str, str]
    """The digest of each weight file."""
    seconds: float
    chunks: int = 1
    processes: int = 1
    dtype: Dtype = "float32"
    attention: Attention = "sdpa"
    quantized: Quantized = ""
    type: Literal["Learned"] = "Learned"
    origin: Origin | None = field(default=None, metadata=SPARSE)

    @property
    def brought(self) -> bool:
        """Whether somebody else taught it: no part of it is known to have been trained."""
        return not self.parts


@dataclass(frozen=True)
class Proposal:
    """One set of parameters proposed by a search; several proposals may be the same job."""

    number: int
    params: Mapping[str, Any]
    trial: str
    """The key of the job."""
    priors: int = field(default=0, kw_only=True, metadata=SPARSE)
    """The trials of an earlier study that its sampler was told of beside those of its own."""


@dataclass(frozen=True)
class MethodProposal(Proposal):
    """A trial proposed by the search of a method."""

    ratio: int
    default: bool | None = field(default=None, metadata=SPARSE)
    """Whether it is the default; None if the file does not say."""
    warm: bool = field(default=False, metadata=SPARSE)
    """Whether it is the winner of an earlier study."""
    method: str = field(default="", metadata=FROM_PATH)


@dataclass(frozen=True)
class Observation:
    """A finished trial of an earlier study."""

    params: Mapping[str, Any]
    """As it was proposed, without the ratio."""
    values: Mapping[str, float]
    """Its objectives by name; those at its last rung if it collapsed there."""


@dataclass(frozen=True)
class AttackProposal(Proposal):
    """An attack on a trial, proposed by the attack search."""

    attack: str
    """The key of the attack, under which its rows are stored."""
    target: str = field(default="", metadata=FROM_PATH)
    search: str = field(default="", metadata=FROM_PATH)


@dataclass(frozen=True)
class AttackRecord:
    """One attack on one trial: its settings and, if it has ended, its outcome."""

    attack: str
    settings: Mapping[str, Any]
    failed: str | None = field(default=None, metadata=SPARSE)
    """Why it cannot be done."""
    failure: Refusal = field(default="", metadata=SPARSE)
    """The kind of that reason."""
    diverged: str | None = field(default=None, metadata=SPARSE)
    """Why it ended early, with the recovery until then as its result. Empty if it did not."""
    seconds: float | None = field(default=None, metadata=SPARSE)
    chunks: int | None = field(default=None, metadata=SPARSE)
    changes: tuple[Part, ...] | None = field(default=None, metadata=SPARSE)
    """The parts of the model that it may write to; None where the record is from before this was written down."""
    threat: Threat | None = field(default=None, metadata=SPARSE)
    """The attacker that it stands for; None where the record is from before this was written down."""
    flops: float | None = field(default=None, metadata=SPARSE)
    """Floating-point operations of the attacker, without those of scoring; None where they were not counted."""
    score_flops: float | None = field(default=None, metadata=SPARSE)
    """Those of scoring the stages, with what an attack computes to read the answers in its own way."""
    origin: Origin | None = field(default=None, metadata=SPARSE)

    @property
    def work(self) -> float:
        """Operations of the attacker and of scoring; 0 where they were not counted."""
        return (self.flops or 0.0) + (self.score_flops or 0.0)

    @property
    def weights(self) -> bool:
        """Whether it may change weights: an attack on the input alone cannot ruin a model."""
        return self.changes is None or bool(self.changes)

    @property
    def reason(self) -> str:
        """Why it failed or ended early, or nothing."""
        return self.failed or self.diverged or ""


@dataclass(frozen=True)
class SequenceRecord:
    """A method applied to several requests, one after another."""

    people: tuple[tuple[str, ...], ...]
    """The people of each request."""
    diverged: str
    """The request at which it ended early, and why; empty if it did not."""
    seconds: float
    chunks: int = 1


@dataclass(frozen=True)
class MetaEvaluationRecord:
    """One model of the meta-evaluation, scored in one state."""

    state: Literal["plain", "quantized", "relearned"]
    ratio: int
    seed: int
    knows: bool
    """Whether it was taught what the other models of the pool have not seen."""
    settings: Mapping[str, Any] | None
    failed: str
    attack: str = ""
    seconds: float = 0.0
    short: str | None = field(default=None, metadata=SPARSE)
    """Where it falls short of the gate; empty if it passes, None if it was not judged."""


@dataclass(frozen=True)
class FailureRecord:
    """A job that did not end in the last run: it has no result yet, and the same command tries it again."""

    stage: str
    job: str
    kind: FailureKind
    message: str
    trace: str = field(default="", metadata=SPARSE)
    """The file that has the whole traceback, beside this one."""


@dataclass(frozen=True)
class PlannedStage:
    """One stage of the plan of a study."""

    stage: str
    jobs: int
    """As many as there can be: fewer are run where some repeat others or drop out."""
    seconds: float | None = None
    """Of one job, as far as was known when the run began."""
    flops: float | None = None
    """Of one job, where nothing but its operations tells how long it takes: none has ended, and the preset measured
    none."""


@dataclass(frozen=True)
class PlanRecord:
    """What the run that began last was to do."""

    stages: tuple[PlannedStage, ...]
    taught: tuple[str, ...]
    """The keys of the models that it teaches."""
    seed: int
    workers: int
    """Jobs at once."""


@dataclass(frozen=True)
class BaseCheckRecord:
    """What trying out the base model found."""

    subject: str
    """A digest of what was tried."""
    checks: Mapping[str, tuple[str, ...]]
    """Of each check by its name, how it ended and a note."""


@dataclass(frozen=True)
class WinnerRecord:
    """The winner of a method at a ratio (an entry of winners.json)."""

    trials: tuple[str, ...]
    """The key of the trial that was selected, then those of its confirmations; empty if none could be."""


@dataclass(frozen=True)
class RaceRun:
    """One contender of a race."""

    trial: str
    distances: tuple[float, ...]
    """To the ideal point, on the validation half, for each seed."""


@dataclass(frozen=True)
class RaceRecord:
    """A race of the best few trials of a method at a ratio (an entry of race.json)."""

    method: str
    ratio: int
    runs: tuple[RaceRun, ...]
    best: str
    racing: tuple[str, ...] = field(default=(), metadata=SPARSE)
    """Who was left at the end; empty where the record is from before this was written down."""


@dataclass(frozen=True)
class KnownRecord:
    """What vanilla knows of what must go at a ratio (an entry of unknown.json)."""

    dropped: tuple[str, ...]
    """The questions that it does not know, which do not count."""
    questions: int
    of_questions: int
    people: int
    """Of whom a choice is known in each half of the questions."""
    of_people: int
    tellable: float | None
    """The recovery that a verdict can tell from none; None where there are too few people for any."""


Record = TypeVar("Record")


def write_record(path: Path, record: Any) -> None:
    """Write a record as JSON, whole or not at all."""
    write_json(path, to_json(record))


def to_json(record: Any) -> Json:
    """The JSON of a record."""
    values = {f: getattr(record, f.name) for f in fields(record) if _stored(f) != "never"}
    kept = {f.name: value for f, value in values.items() if _stored(f) != "if set" or value != f.default}
    return {name: _plain(value) for name, value in kept.items()}


def _plain(value: Any) -> Json:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return to_json(value) if is_dataclass(value) else value


def read_record(kind: type[Record], path: Path, **from_path: str) -> Record:
    """Read a record; `from_path` are the fields that its path determines.

    Raises `Damaged` that names the file and the field if it is not one.
    """
    try:
        found: Record = _parsed(kind, read_json(path), from_path)
    except _Misfit as error:
        raise _damaged(path, str(error)) from error
    return found


def read_winners(folder: StudyFolder) -> dict[str, dict[int, tuple[str, ...]]]:
    """The trials of each winner, by method and ratio in percent; empty before the search has ended."""
    found: dict[str, dict[int, WinnerRecord]] = _read(Mapping[str, Mapping[int, WinnerRecord]], folder.winners)
    return {method: {ratio: won.trials for ratio, won in ratios.items()} for method, ratios in found.items()}


def read_near(folder: StudyFolder) -> dict[int, dict[str, tuple[str, ...]]]:
    """The retained people nearest to the forget people, by ratio in percent and by what they are near in."""
    found: dict[int, dict[str, tuple[str, ...]]] = _read(Mapping[int, Mapping[str, tuple[str, ...]]], folder.near)
    return found


def read_known(folder: StudyFolder) -> dict[int, KnownRecord]:
    """What vanilla knows, by ratio in percent, where only that counts."""
    found: dict[int, KnownRecord] = _read(Mapping[int, KnownRecord], folder.unknown)
    return found


def read_races(folder: StudyFolder) -> list[RaceRecord]:
    """The race of each method at each ratio; none before they have ended."""
    found: dict[str, RaceRecord] = _read(Mapping[str, RaceRecord], folder.race)
    return list(found.values())


def _read(wanted: Any, path: Path) -> Any:
    """A JSON object as a mapping of a type; empty if there is no such file. Raises `Damaged` that names the file."""
    content = read_object(path) if path.exists() else {}
    try:
        return _fitted(wanted, content)
    except (_Misfit, TypeError) as error:
        raise _damaged(path, str(error) or "is not what a study writes there") from error


def _damaged(path: Path, misfit: str) -> Damaged:
    return Damaged(
        f"{path} {misfit}: it is damaged or of another version; remove it and run the study again to rebuild it"
    )


def read_study(folder: StudyFolder) -> dict[str, Json]:
    """What a study says of itself: its settings, and what it was begun with.

    Raises `FileNotFoundError` with the remedy if the folder is no study, and `Damaged` if its file is not a study's.
    """
    path = folder.settings
    if not path.is_file():
        raise FileNotFoundError(f"{folder.root} is not a study: it has no {path.name}; name a folder such as runs/tiny")
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise Damaged(
            f"{path} is not what a study writes, which has its settings",
            "name a folder such as runs/tiny, put it back from a copy, or remove it and run the same command again",
        )
    return content


def existing(kind: type[Record], path: Path) -> Record | None:
    """The record at `path`, or None without one. It is read once, and again if the file is replaced."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return None
    wanted: Any = kind  # to mypy, a class that is given by a type variable cannot be hashed
    found: Record = _as_it_is(wanted, path, there.st_ino, there.st_mtime_ns)
    return found


@lru_cache(maxsize=2**16)  # several times as many as the trials and proposals of the longest searches
def _as_it_is(kind: Any, path: Path, *version: int) -> Any:
    return read_record(kind, path)


def state_of_attack(rows: Path) -> AttackState:
    """The state of the attack with its rows at `rows`."""
    if rows.exists():
        return "complete"
    record = record_beside(rows)
    return "failed" if record.exists() and read_record(AttackRecord, record).failed is not None else "unfinished"


class _Misfit(Exception):
    """Why the content of a file is not the expected record: the end of a sentence that begins with the file."""


def _parsed(kind: Any, content: Json, given: Mapping[str, str]) -> Any:
    if not isinstance(content, dict):
        raise _Misfit(f"holds no {kind.__name__} but {content!r:.40}")
    stored = {f.name: f for f in fields(kind) if _stored(f) != "never"}
    if unknown := sorted(content.keys() - stored.keys()):
        raise _Misfit(f"has a field {unknown[0]!r} that no {kind.__name__} has")
    for name, one in stored.items():
        if name not in content and one.default is MISSING and one.default_factory is MISSING:
            raise _Misfit(f"lacks the field {name!r} of a {kind.__name__}")
    types = _types(kind)
    values = {}
    for name, value in content.items():
        try:
            values[name] = _fitted(types[name], value)
        except TypeError:
            raise _Misfit(f"has {name}={value!r:.40}, which is no {_named(types[name])}") from None
    return kind(**values, **given)


def _fitted(wanted: Any, value: Json) -> Any:
    """A value of JSON as a type. Raises `TypeError` if it does not fit."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if is_dataclass(wanted):
        return _parsed(wanted, value, {})
    if origin in (Union, UnionType):
        return None if value is None else _fitted(next(one for one in inner if one is not NoneType), value)
    if origin is Mapping and isinstance(value, dict):
        return {_key(inner[0], name): _fitted(inner[1], one) for name, one in value.items()}
    if origin is tuple and isinstance(value, list):
        return tuple(_fitted(inner[0], one) for one in value)
    if wanted is Any or (value in inner if origin is Literal else origin is None and _is(wanted, value)):
        return value
    raise TypeError


def _key(wanted: type, name: str) -> str | int:
    """A name of JSON as a key, which may be a number. Raises `TypeError` if it is to be one and is not."""
    if wanted is int and not name.isdecimal():
        raise TypeError
    return int(name) if wanted is int else name


def _is(wanted: type, value: Json) -> bool:
    """Whether a plain value is of a type: JSON's true is not a number, and its 1 may stand for 1.0."""
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    return isinstance(value, (int, float) if wanted is float else wanted)


def _stored(one: Field[Any]) -> str:
    return str(one.metadata.get("stored", "always"))


def _named(wanted: Any) -> str:
    if get_origin(wanted) is Literal:
        return " or ".join(map(repr, get_args(wanted)))
    return wanted.__name__ if isinstance(wanted, type) else str(wanted).replace("typing.", "")


@cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
