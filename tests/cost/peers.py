"""What other tools' promises of continuing hold when their state is damaged: `python -m tests.cost.peers`.

docs/reliability.md copies what it prints. Each fault is one that a killed process or a full disk leaves behind.
"""

from __future__ import annotations

import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any


def _last_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1][:90]}"


def optuna_journal(place: Path) -> str:
    """A journal of four trials whose last line is torn, opened and continued."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    path = place / "journal.log"

    def study() -> Any:
        storage = JournalStorage(JournalFileBackend(str(path)))
        return optuna.create_study(storage=storage, study_name="x", load_if_exists=True)

    def objective(trial: Any) -> float:
        return float(trial.suggest_float("x", 0, 1))

    study().optimize(objective, n_trials=4)
    path.write_bytes(path.read_bytes()[:-20])
    try:
        study().optimize(objective, n_trials=1)
        return f"goes on with {len(study().trials)} trials"
    except Exception as error:
        return f"cannot go on ({_last_line(error)})"


def tune_restore(damage: Callable[[Path], None], place: Path) -> str:
    """Four finished trials of Ray Tune whose state is damaged, restored and fitted again."""
    from ray import tune

    def trial(config: dict[str, Any]) -> None:
        tune.report({"loss": config["x"]})

    def fitted() -> Any:
        return tune.Tuner(
            trial,
            param_space={"x": tune.grid_search([1, 2, 3, 4])},
            run_config=tune.RunConfig(name="x", storage_path=str(place), verbose=0),
        )

    fitted().fit()
    damage(place / "x")
    try:
        found = tune.Tuner.restore(str(place / "x"), trial).fit()
    except Exception as error:
        return f"cannot be restored ({_last_line(error)})"
    known = sum("loss" in (found[number].metrics or {}) for number in range(len(found)))
    return f"is restored without an error, with {known} of 4 finished trials"


def _empty_tuner(folder: Path) -> None:
    (folder / "tuner.pkl").write_bytes(b"")


def _torn_state(folder: Path) -> None:
    for path in folder.glob("experiment_state-*.json"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def main() -> int:
    """Print each fault and what comes of it."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    damages = {"an empty tuner.pkl": _empty_tuner, "a torn experiment_state": _torn_state}
    said = []
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        place = Path(folder)
        said.append(f"Optuna {version('optuna')}, a journal with a torn last line: {optuna_journal(place)}")
        for number, (name, damage) in enumerate(damages.items()):
            (place / str(number)).mkdir()
            said.append(f"Ray Tune {version('ray')}, {name}: {tune_restore(damage, place / str(number))}")
    ray.shutdown()
    print("\n".join(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
