"""The search of a study as an Optuna storage: `mus export-optuna runs/<study> study.db`.

`optuna-dashboard sqlite:///study.db` shows it. Each method at each forget ratio is an Optuna study of its own, with all
its trials: those of the search in their order, then further seeds of the same settings. The study folder stays what a
search continues from; nothing is read back from the storage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import study_folder
from analysis.optuna_trials import directions, optuna_trial, quiet
from analysis.searched import Searched, searches
from analysis.study_folder import StudyResults
from analysis.trials import OBJECTIVES, columns, objectives_of, same_settings
from study.core.files import written

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial


def export(study: StudyResults, to: Path) -> dict[str, int]:
    """Write the storage, whole or not at all; returns the number of trials of each Optuna study.

    Raises `ValueError` if `to` exists or nothing has been proposed yet.
    """
    from optuna.storages import RDBStorage

    if to.exists():
        raise ValueError(f"{to} exists already: remove it, or name another file")
    found = {f"{one.method} {one.ratio} %": one for one in searches(study)}
    if not found:
        raise ValueError(f"{study.root} has no trials yet: run it until its search has begun")
    with quiet(), written(to) as draft:
        storage = RDBStorage(f"sqlite:///{draft.absolute()}")
        counts = {name: _add(study, one, name, storage) for name, one in found.items()}
        storage.engine.dispose()  # everything is in the file before it gets its name
    return counts


def _add(study: StudyResults, one: Searched, name: str, storage: RDBStorage) -> int:
    """Add one search; returns the number of its trials."""
    import optuna

    objectives = [name for name in columns(study, OBJECTIVES) if name != "distance"]
    told = optuna.create_study(study_name=name, storage=storage, directions=directions(objectives))
    told.set_metric_names(objectives)
    for key, value in {"study": study.name, "method": one.method, "ratio": one.ratio}.items():
        told.set_user_attr(key, value)
    trials = list(_trials(study, one, objectives))
    told.add_trials(trials)
    return len(trials)


def _trials(study: StudyResults, one: Searched, objectives: Sequence[str]) -> Iterator[FrozenTrial]:
    """The proposals of a search, then the runs of the same settings from further seeds."""
    for at, line in one.trials.iterrows():
        about = {name: bool(line[name]) for name in ("default", "warm", "duplicate")}
        attributes = _attributes(study, line["key"], line["state"]) | {"number": int(line["number"]), **about}
        yield optuna_trial(one, int(str(at)), objectives, attributes)
    for at in one.trials.index[~one.trials["duplicate"] & one.trials["key"].isin(study.trials)]:
        for key in same_settings(study, one.trials.loc[at, "key"])[1:]:
            state, values = study.trials[key].state, objectives_of(study, key, "select")[0]
            again = one.again(at, {"key": key, "state": state, **values})
            yield optuna_trial(again, 0, objectives, _attributes(study, key, state) | {"confirmation": True})


def _attributes(study: StudyResults, key: str, state: str) -> dict[str, Any]:
    """What is known of a trial besides its hyper-parameters and values."""
    record = study.trials.get(key)
    distance = objectives_of(study, key, "select")[0]["distance"] if record else float("nan")
    found: dict[str, Any] = {"key": key, "state": state}
    if record is not None:
        work = {} if record.work is None else {"flops": record.work}
        found |= {"seed": record.seed, "reason": record.reason, **work}
    if not pd.isna(distance):
        found["distance"] = distance
    for rung in record.rungs if record else ():
        found |= {f"rung_{rung.rung}_{name}": value for name, value in rung.objectives.items()}
        found[f"rung_{rung.rung}_step"] = rung.step
    return found


def main(arguments: list[str] | None = None) -> int:
    """Export and say how to look at it. Returns 0, or 2 if that cannot be done, with the reason."""
    parser = argparse.ArgumentParser(prog="mus export-optuna", description=__doc__)
    parser.add_argument("study", type=Path, help="the folder of the study, such as runs/tiny")
    parser.add_argument("to", type=Path, help="the SQLite file to write, such as study.db")
    asked = parser.parse_args(arguments)
    try:
        counts = export(study_folder.read(asked.study), asked.to)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, count in counts.items():
        print(f"{name}: {count} trials")
    print(f"{asked.to}: look at it with optuna-dashboard sqlite:///{asked.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
