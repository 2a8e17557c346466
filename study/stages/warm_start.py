"""A warm start: the winners of an earlier study, on another model, are among the first trials of a search.

They are read once, before any work, and stored with the study, which can be continued and moved without the earlier
one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from study.contracts import Method
from study.core.files import read_json
from study.core.hashing import Json, content_key
from study.core.layout import StudyFolder
from study.core.plugins import search_space
from study.core.records import MethodProposal, read_record
from study.core.specs import name_in, parameters
from study.experiment.trial_spec import RATIO, Params
from study.settings import Study

IDENTITY = ("model", "benchmark", "fingerprint", "goal", "forget_ratios", "forget_attributes", "learn", "learn_parts",
            "robustness", "seed")  # fmt: skip
"""The settings that identify a study, whatever was added to it and wherever it lies."""
Choices = Mapping[str, Collection[str]]
"""Some choices of a method, by hyper-parameter."""


@dataclass(frozen=True)
class Warm:
    """The parameters of the second trial of a method at a ratio; without any the search starts cold."""

    params: Params = field(default_factory=dict)
    ratio: int | None = None
    """The ratio of the earlier study at which these won."""
    note: str = ""
    """Why it starts cold, or what differs from the earlier study."""


@dataclass(frozen=True)
class WarmStart:
    """The earlier study, by name and by what it is, and what was found there by method and ratio in percent."""

    study: str
    key: str
    found: Mapping[str, Mapping[int, Warm]] = field(default_factory=dict)

    @property
    def params(self) -> dict[str, dict[int, Params]]:
        """The parameters to begin with, by method and ratio; nothing where the search begins cold."""
        return {
            method: {ratio: warm.params for ratio, warm in ratios.items() if warm.params}
            for method, ratios in self.found.items()
        }

    def lines(self, methods: Sequence[str]) -> Iterator[str]:
        """What each method begins with, in words."""
        for method in methods:
            for ratio, warm in self.found[method].items():
                start = f"from the winner of {self.study} at {warm.ratio} %" if warm.params else "cold"
                yield f"{method} {ratio} % starts {start}{f' ({warm.note})' if warm.note else ''}"

    @property
    def record(self) -> Json:
        """As it is written down."""
        found = {m: {str(ratio): asdict(warm) for ratio, warm in ratios.items()} for m, ratios in self.found.items()}
        return {"study": self.study, "key": self.key, "found": found}


def warm_start(
    study: Study, defaults: Mapping[str, Method], unsupported: Mapping[str, Choices], settings: Path
) -> WarmStart | None:
    """What the search of a study begins with; `settings` is where it is written down once the study has begun.

    `unsupported` are choices that cannot be done on its benchmark, by method.

    A study that has begun keeps what it took from the earlier one, even if that has changed or gone since; only
    methods that were added are looked up. Raises `ValueError` with the remedy where the earlier one is needed and holds
    no winners.
    """
    if study.warm_start is None:
        return None
    held = _held(settings)
    start = _known(study.warm_start, held)
    kept = held.found if held and held.key == start.key else {}
    if all(method in kept for method in study.methods):
        return WarmStart(start.study, start.key, kept)
    winners = earlier_winners(study.warm_start)
    found = {
        method: {
            ratio: _begin(method, default, unsupported.get(method, {}), ratio, winners.get(method, {}), start.study)
            for ratio in study.forget_ratios
        }
        for method, default in defaults.items()
        if method not in kept
    }
    return WarmStart(start.study, start.key, {**kept, **found})


def earlier_winners(root: Path, setting: str = "warm_start") -> dict[str, dict[int, Params]]:
    """The parameters of the proposal that led to each winner of a study, by method and ratio in percent.

    Raises `ValueError` that says what is missing, of the study that a setting names.
    """
    folder = StudyFolder(root)
    if not folder.winners.exists():
        raise ValueError(f"{setting}={root}: {folder.winners} is missing; run that study until its search has ended")
    return {
        method: {int(ratio): _params(root, method, chosen["trials"][0], setting) for ratio, chosen in ratios.items()}
        for method, ratios in read_json(folder.winners).items()
    }


def _params(root: Path, method: str, trial: str, setting: str) -> Params:
    """The parameters of the first proposal of a trial, without the ratio, which is this study's to deal."""
    for path in StudyFolder(root).proposals(method):
        if (proposal := read_record(MethodProposal, path)).trial == trial:
            return {name: value for name, value in proposal.params.items() if name != RATIO}
    raise ValueError(
        f"{setting}={root}: no proposal in search/{method} led to its winner {trial}; copy the study's folder whole"
    )


def _begin(
    method: str, default: Method, unsupported: Choices, ratio: int, there: Mapping[int, Params], study: str
) -> Warm:
    """The winner of the nearest ratio, of two equally near ones the smaller, as far as it fits.

    A choice of it that cannot be done here is the default's.
    """
    from search_spaces import fitted  # Optuna takes half a second to import

    if not there:
        return Warm(note=f"{study} has no winner of {method}")
    nearest = min(there, key=lambda other: (abs(other - ratio), other))
    won, start = there[nearest], parameters(default)
    changed = {name: start[name] for name, value in won.items() if value in unsupported.get(name, ())}
    params, note = fitted(search_space(name_in(method)).space, default, {**won, **changed})
    told = [f"{name}={value}, not {won[name]}, which these data do not support" for name, value in changed.items()]
    return Warm(params, nearest, ", ".join([*told, *filter(None, [note])]))


def _held(settings: Path) -> WarmStart | None:
    """What a study that has begun took; nothing if it has not begun, or began cold."""
    record = (read_json(settings) if settings.exists() else {}).get("warm_start")
    if not record:
        return None
    found = {m: {int(ratio): Warm(**warm) for ratio, warm in there.items()} for m, there in record["found"].items()}
    return WarmStart(record["study"], record["key"], found)


def _known(source: Path, held: WarmStart | None) -> WarmStart:
    """Which study `source` is, without its winners: the one that is held if it is the same, or has gone from there."""
    path = StudyFolder(source).settings
    if not path.exists():
        if held and held.study == source.name:
            return held
        raise ValueError(f"warm_start={source} is not a study: it has no {path.name}; name a folder such as runs/tiny")
    record = read_json(path)
    key = content_key({name: record["settings"].get(name) for name in IDENTITY})
    return held if held and held.key == key else WarmStart(record["name"], key)
