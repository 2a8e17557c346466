"""A warm start: a search begins with what an earlier study, on another model, found.

Its winners are among the first trials; its finished trials are told to a sampler that models results, as far as they
predict the new ones (`study.engine.priors`). Both are read once, before any work, and stored with the study, which can
be continued and moved without the earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.contracts import Method
from study.core.errors import Damaged
from study.core.files import read_object
from study.core.hashing import Json, content_key
from study.core.layout import StudyFolder
from study.core.plugins import search_space
from study.core.records import MethodProposal, Observation, read_record, read_study, read_winners
from study.core.specs import name_in, parameters
from study.experiment.trial_spec import RATIO, Params
from study.metrics.objectives import ROBUST_DIRECTIONS, as_collapsed
from study.settings import Study

if TYPE_CHECKING:
    from analysis.study_folder import StudyResults

IDENTITY = ("model", "benchmark", "fingerprint", "goal", "forget_ratios", "forget_attributes", "learn", "learn_parts",
            "robustness", "seed")  # fmt: skip
"""The settings that identify a study, whatever was added to it and wherever it lies."""
IF_SET = ("vanilla", "reference", "measure", "scored_error")
"""Further ones, without which a study is identified as it was before there were these settings."""
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
    trials: tuple[Observation, ...] = ()
    """The finished trials at that ratio that this search could have proposed."""


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

    @property
    def trials(self) -> dict[str, dict[int, Sequence[Observation]]]:
        """The finished trials of the earlier study, by method and ratio of this one."""
        return {method: {ratio: warm.trials for ratio, warm in ratios.items()} for method, ratios in self.found.items()}

    def lines(self, methods: Sequence[str]) -> Iterator[str]:
        """What each method begins with, in words."""
        for method in methods:
            for ratio, warm in self.found[method].items():
                start = f"from the winner of {self.study} at {warm.ratio} %" if warm.params else "cold"
                told = f", and may tell its sampler of {len(warm.trials)} trials there" if warm.trials else ""
                yield f"{method} {ratio} % starts {start}{f' ({warm.note})' if warm.note else ''}{told}"

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
    winners, trials = earlier_winners(study.warm_start), earlier_trials(study.warm_start)
    found = {
        method: dict(
            _begin(
                _Space(method, default, unsupported.get(method, {})),
                study.forget_ratios,
                winners.get(method, {}),
                trials.get(method, {}),
                start.study,
            )
        )
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
        _record(folder, setting)
        raise ValueError(f"{setting}={root}: {folder.winners} is missing; run that study until its search has ended")
    return {
        method: {ratio: _params(root, method, trials[0], setting) for ratio, trials in ratios.items() if trials}
        for method, ratios in read_winners(folder).items()
    }


def _record(folder: StudyFolder, setting: str) -> dict[str, Json]:
    """What the study that a setting names says of itself. Raises `ValueError` if it is none."""
    try:
        return read_study(folder)
    except (FileNotFoundError, Damaged) as error:
        raise ValueError(f"{setting}={error}") from error


def _params(root: Path, method: str, trial: str, setting: str) -> Params:
    """The parameters of the first proposal of a trial, without the ratio, which is this study's to deal."""
    for path in StudyFolder(root).proposals(method):
        if (proposal := read_record(MethodProposal, path)).trial == trial:
            return {name: value for name, value in proposal.params.items() if name != RATIO}
    raise ValueError(
        f"{setting}={root}: no proposal in search/{method} led to its winner {trial}; copy the study's folder whole"
    )


def earlier_trials(root: Path) -> dict[str, dict[int, list[Observation]]]:
    """The trials of the search of a study that ended well or collapsed, by method and ratio."""
    from analysis.searched import searches  # a report's libraries, which only this and the report itself need
    from analysis.study_folder import read

    study = read(root)
    found: dict[str, dict[int, list[Observation]]] = {}
    for one in searches(study):
        lines = zip(one.trials.to_dict("records"), one.params, strict=True)
        values = [(params, _values(study, line)) for line, params in lines if not line["duplicate"]]
        found.setdefault(one.method, {})[one.ratio] = [Observation(params, known) for params, known in values if known]
    return found


def _values(study: StudyResults, line: Mapping[Hashable, Any]) -> dict[str, float]:
    """The objectives of a trial, at its last rung if it collapsed there; none if it ended otherwise."""
    record = study.trials.get(line["key"])
    if record and record.state == "collapsed" and record.rungs:
        return as_collapsed(record.rungs[-1].objectives, robust="recovery" in line)
    known = {name: float(line[name]) for name in ROBUST_DIRECTIONS if name in line}
    return {} if any(map(math.isnan, known.values())) else known


@dataclass(frozen=True)
class _Space:
    """What can be proposed of a method around its default."""

    method: str
    default: Method
    unsupported: Choices

    def supports(self, params: Params) -> bool:
        """Whether the data support all choices."""
        return not any(value in self.unsupported.get(name, ()) for name, value in params.items())

    def could_propose(self, params: Params) -> bool:
        """Whether these are parameters of a trial."""
        from search_spaces import refusal  # with Optuna, which help and refused settings do without

        return self.supports(params) and not refusal(self._space, self.default, params)

    def fitted(self, params: Params) -> tuple[Params, str]:
        """What of a winner can be proposed, with the default's choice for one that the data do not support, and what
        to say of it."""
        from search_spaces import fitted  # with Optuna, which help and refused settings do without

        start = parameters(self.default)
        changed = {name: start[name] for name, value in params.items() if not self.supports({name: value})}
        found, note = fitted(self._space, self.default, {**params, **changed})
        told = [
            f"{name}={value}, not {params[name]}, which these data do not support" for name, value in changed.items()
        ]
        return found, ", ".join([*told, *filter(None, [note])])

    @property
    def _space(self) -> Callable[..., Any]:
        return search_space(name_in(self.method)).space  # type: ignore[no-any-return]


def _begin(
    space: _Space,
    ratios: Sequence[int],
    winners: Mapping[int, Params],
    trials: Mapping[int, Sequence[Observation]],
    study: str,
) -> Iterator[tuple[int, Warm]]:
    """The winner and the trials of the nearest ratio, of two equally near ones the smaller, as far as they fit."""
    for ratio in ratios:
        if not winners:
            yield ratio, Warm(note=f"{study} has no winner of {space.method}")
            continue
        nearest = min(winners, key=lambda other: (abs(other - ratio), other))
        fitting = tuple(one for one in trials.get(nearest, ()) if space.could_propose(one.params))
        params, note = space.fitted(winners[nearest])
        yield ratio, Warm(params, nearest, note, fitting)


def _held(settings: Path) -> WarmStart | None:
    """What a study that has begun took; nothing if it has not begun, or began cold."""
    record = (read_object(settings) if settings.exists() else {}).get("warm_start")
    if not record:
        return None
    found = {m: {int(ratio): _warm(**warm) for ratio, warm in there.items()} for m, there in record["found"].items()}
    return WarmStart(record["study"], record["key"], found)


def _warm(trials: Sequence[Json] = (), **rest: Any) -> Warm:
    """As it was written down, before trials were, too."""
    return Warm(**rest, trials=tuple(Observation(**one) for one in trials))


def _known(source: Path, held: WarmStart | None) -> WarmStart:
    """Which study `source` is, without its winners: the one that is held if it is the same, or has gone from there."""
    folder = StudyFolder(source)
    if not folder.settings.exists() and held and held.study == source.name:
        return held
    record = _record(folder, "warm_start")
    settings = record["settings"]
    known = {name: settings.get(name) for name in IDENTITY}
    further = {name: settings[name] for name in IF_SET if settings.get(name)}
    key = content_key({**known, **further})
    before = content_key(known)  # as a study holds that began before there was `IF_SET`
    return held if held and held.key in (key, before) else WarmStart(record["name"], key)
