"""Trackers: Ray's own logger callbacks, shown each job of a search as its hyper-parameters and its objectives."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.logger import LoggerCallback

from study.core.terms import Tracker

PROJECT = "mllm-unlearning-study"
"""Under which project or experiment the trials of all studies are found, unless the environment names another."""
DATABASE = "mlflow.db"
"""MLflow 3 writes no plain folders any more, but an SQLite database, through the packages that Optuna brings."""
PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class Shown:
    """A job as a logger callback of Ray's sees it: in place of one of Tune's trials, whose settings are objects."""

    trial_id: str
    name: str
    config: Mapping[str, Any]
    logs: Path
    experiment_dir_name: str
    """The group of the run."""

    @property
    def evaluated_params(self) -> dict[str, Any]:
        """The hyper-parameters."""
        return dict(self.config)

    @property
    def local_path(self) -> str:
        """Where its files go."""
        return str(self.logs / self.name.replace("/", " then "))

    def init_local_path(self) -> None:
        """Make that folder."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __hash__(self) -> int:
        return hash(self.trial_id)

    def __str__(self) -> str:
        return self.name


class Tracking(Callback):
    """Hands what happens on to a logger callback of Ray's. One that fails is left out: it must not end a search."""

    def __init__(self, logger: LoggerCallback, logs: Path, group: str, tell: Callable[[str], None]) -> None:
        self.logger: LoggerCallback | None = logger
        self.logs, self.group, self.tell = logs, group, tell

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it, and nobody reads that

    def setup(self, *arguments: Any, **info: Any) -> None:
        """Begin."""
        with self._forgiven() as logger:
            logger.setup(*arguments, **info)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A job begins."""
        with self._forgiven() as logger:
            logger.log_trial_start(self._shown(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A job has told its objectives."""
        plain = {name: value for name, value in result.items() if isinstance(value, PLAIN)}
        with self._forgiven() as logger:
            logger.log_trial_result(iteration, self._shown(trial), plain)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A job has ended."""
        with self._forgiven() as logger:
            logger.log_trial_end(self._shown(trial), failed=False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A job has failed."""
        with self._forgiven() as logger:
            logger.log_trial_end(self._shown(trial), failed=True)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """The search has ended."""
        with self._forgiven() as logger:
            logger.on_experiment_end(trials, **info)

    def _shown(self, trial: Any) -> Any:
        search, place = trial.config["search"], trial.config["place"]
        proposal = search.proposal(*place)
        config = {"search": place[0], **(proposal.params if proposal else {})}
        return Shown(trial.trial_id, trial.config["label"], config, self.logs, self.group)

    @contextmanager
    def _forgiven(self) -> Iterator[LoggerCallback]:
        if self.logger is None:
            yield LoggerCallback()
            return
        try:
            yield self.logger
        except Exception as error:  # a server that does not answer, a missing key, a full disk
            self.tell(f"{type(self.logger).__name__} is left out from here on: {type(error).__name__}: {error}")
            self.logger = None


def trackers(
    asked: Sequence[Tracker], folder_of: Callable[[Tracker], Path], group: str, tell: Callable[[str], None]
) -> list[Tracking]:
    """The callbacks of a search; `folder_of` says where the files of each go, `tell` is told if one fails."""
    return [Tracking(_logger(one, folder_of(one), group), folder_of(one), group, tell) for one in asked]


def _logger(tracker: Tracker, folder: Path, group: str) -> LoggerCallback:
    """Ray's logger callback for a tracker."""
    if tracker == "wandb":
        from ray.air.integrations.wandb import WandbLoggerCallback

        class Wandb(WandbLoggerCallback):
            """Its processes change to the folders of their jobs, which Tune makes for trials of its own."""

            def log_trial_start(self, trial: Any) -> None:
                trial.init_local_path()
                super().log_trial_start(trial)

        return Wandb(project=os.environ.get("WANDB_PROJECT_NAME", PROJECT), group=group)
    if tracker == "mlflow":
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # else it tells of the tables that it makes
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        folder.mkdir(parents=True, exist_ok=True)
        where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute()}/{DATABASE}"
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        return MLflowLoggerCallback(tracking_uri=where, experiment_name=name, tags={"study": group})
    from ray.tune.logger import TBXLoggerCallback

    return TBXLoggerCallback()
