"""Methods from an earlier study: its winners are the defaults, so that every search starts at one and around it.

Unlike a warm start this moves the ranges that follow a default, those of the schedule. As with pasted winners, only
what was searched is taken over; all else is the preset's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from study.contracts import Method
from study.core.files import read_object
from study.core.hashing import Json
from study.core.layout import StudyFolder
from study.core.specs import adjusted, name_in, spelled
from study.experiment.trial_spec import Params
from study.settings import Study
from study.stages.warm_start import earlier_winners
from study.training.schedule import STEPS


@dataclass(frozen=True)
class Winner:
    """What one method starts from: the hyper-parameters that won at a ratio of the earlier study."""

    ratio: int
    params: Params


@dataclass(frozen=True)
class EarlierWinners:
    """The earlier study by name, and the winner that each of its methods starts from."""

    study: str
    winners: Mapping[str, Winner]
    asked: int | None = None
    """The ratio whose winners were asked for; None for the nearest."""

    def lines(self) -> Iterator[str]:
        """Where each search starts, in words."""
        for method, winner in self.winners.items():
            yield f"{method} starts from the winner of {self.study} at {winner.ratio} %"

    @property
    def record(self) -> Json:
        """As it is written down."""
        return {
            "study": self.study,
            "asked": self.asked,
            "winners": {method: vars(winner) for method, winner in self.winners.items()},
        }


def with_earlier_winners(study: Study) -> Study:
    """The study with the methods of the one that `methods_from` names, the winner of each as its default.

    Raises `ValueError` with the remedy if that study has no such winners.
    """
    found = winners_of(study)
    if found is None:
        return study
    defaults = dict(study.defaults)
    for method, winner in found.winners.items():
        preset = replace(study, methods=(method,)).method_defaults()[method]
        default = adjusted(preset, spelled(name_in(method), _one_length(winner.params, preset)))
        defaults[method] = dict(vars(default))
    return replace(study, methods=tuple(found.winners), defaults=defaults)


def _one_length(params: Params, preset: Method) -> Params:
    """A winner in steps where the preset counts epochs, or the reverse, without the other length."""
    if preset.schedule is not None and "steps" in params and preset.schedule.epochs:
        return {"epochs": 0.0, **params}
    if preset.schedule is not None and "epochs" in params:
        return {**params, "steps": STEPS}
    return params


def winners_of(study: Study) -> EarlierWinners | None:
    """What `methods_from` names; None if it names nothing.

    A study whose search has begun keeps what it took, even if the earlier one has changed since; before that, only if
    the earlier one has gone. Raises `ValueError` if other winners are asked for than it keeps.
    """
    if not study.methods_from:
        return None
    folder, ratio = _parsed(study.methods_from)
    mine = StudyFolder(study.study_dir)
    held = (read_object(mine.settings) if mine.settings.exists() else {}).get("methods_from")
    if held and held["study"] == folder.name and (mine.proposals() or not StudyFolder(folder).winners.exists()):
        if held.get("asked", ratio) != ratio:  # a study begun by an earlier version does not say what was asked for
            kept = f"@{held['asked']}" if held["asked"] else " without a ratio"
            raise ValueError(
                f"methods_from={study.methods_from}: this study began with {folder.name}{kept}; ask so again"
            )
        won = {method: Winner(**winner) for method, winner in held["winners"].items()}
        return EarlierWinners(held["study"], won, ratio)
    there = {method: won for method, won in earlier_winners(folder, "methods_from").items() if won}
    wanted = study.forget_ratios[0] if ratio is None else ratio
    nearest = {method: min(won, key=lambda r: (abs(r - wanted), r)) for method, won in there.items()}
    if missing := [method for method, at in nearest.items() if ratio is not None and at != ratio]:
        ratios = sorted(set().union(*there.values()))
        raise ValueError(
            f"methods_from={study.methods_from}: no winner of {', '.join(missing)} at {ratio} %; that study has "
            f"{', '.join(map(str, ratios))} %"
        )
    if not nearest:
        raise ValueError(f"methods_from={study.methods_from}: no method of that study has a winner")
    return EarlierWinners(folder.name, {method: Winner(at, there[method][at]) for method, at in nearest.items()}, ratio)


def _parsed(text: str) -> tuple[Path, int | None]:
    """FOLDER, or FOLDER@RATIO."""
    folder, at, ratio = text.rpartition("@")
    return (Path(folder), int(ratio)) if at and ratio.isdecimal() else (Path(text), None)
