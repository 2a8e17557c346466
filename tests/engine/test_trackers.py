"""Ray's logger callbacks are shown jobs as hyper-parameters and objectives; one that fails ends no search."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.air.integrations import mlflow, wandb
from ray.tune.logger import LoggerCallback
from tensorboardX.proto.event_pb2 import Event  # type: ignore[import-untyped]

from study.engine import trackers
from study.engine.trackers import Tracking
from study.presets import PRESETS


def tune_trial(label: str = "swap_back/relearning on vkd 10 %", number: int = 1) -> Any:
    """A trial of Tune's as `study.engine.tune_runner` makes them: its settings are objects."""
    params = {"1.swap_back.parts": "vision", "2.relearning.steps": 40}
    search = SimpleNamespace(proposal=lambda *place: SimpleNamespace(params=params))
    config = {"search": search, "job": object(), "place": ("vkd", number), "label": label}
    return SimpleNamespace(trial_id=f"id{number}", config=config)


RESULT = {"forget_gap": 0.25, "utility": 0.5, "training_iteration": 1, "config": object(), "pid": 3}


class Noting(LoggerCallback):
    """Keeps what it is told."""

    def __init__(self, fails_at: str = "") -> None:
        self.told: list[tuple[str, Any]] = []
        self.fails_at = fails_at

    def _note(self, what: str, told: Any) -> None:
        if what == self.fails_at:
            raise OSError("no server")
        self.told.append((what, told))

    def log_trial_start(self, trial: Any) -> None:
        self._note("start", (str(trial), trial.evaluated_params))

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self._note("result", (str(trial), result))

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self._note("end", (str(trial), failed))


def run(tracking: Tracking, trial: Any) -> None:
    tracking.setup()
    tracking.on_trial_start(0, [], trial)
    tracking.on_trial_result(0, [], trial, dict(RESULT))
    tracking.on_trial_complete(0, [], trial)


def test_a_job_is_shown_by_its_name_and_hyper_parameters(tmp_path: Path) -> None:
    noting = Noting()
    run(Tracking(noting, tmp_path, "mine", print), tune_trial())
    name = "swap_back/relearning on vkd 10 %"
    params = {"search": "vkd", "1.swap_back.parts": "vision", "2.relearning.steps": 40}
    shown = {name: value for name, value in RESULT.items() if name != "config"}
    assert noting.told == [("start", (name, params)), ("result", (name, shown)), ("end", (name, False))]


def test_a_tracker_that_fails_is_left_out_once(tmp_path: Path) -> None:
    said: list[str] = []
    noting = Noting(fails_at="result")
    tracking = Tracking(noting, tmp_path, "mine", said.append)
    for number in (1, 2):
        run(tracking, tune_trial(number=number))
    assert [what for what, _ in noting.told] == ["start"]
    assert said == ["Noting is left out from here on: OSError: no server"]


def test_tensorboard_finds_a_folder_for_each_trial(tmp_path: Path) -> None:
    (tracking,) = trackers.trackers(["tensorboard"], tmp_path.joinpath, "mine", pytest.fail)
    assert pickle.loads(pickle.dumps(tracking)) is not None  # as Tune does
    run(tracking, tune_trial())
    (events,) = (tmp_path / "tensorboard").rglob("events.out.*")
    assert events.parent.name == "swap_back then relearning on vkd 10 %"
    tags = {value.tag: value.simple_value for event in read(events) for value in event.summary.value}
    assert tags["ray/tune/forget_gap"] == 0.25
    assert tags["ray/tune/utility"] == 0.5


def read(path: Path) -> list[Event]:
    """The events of a file: length, checksum, event, checksum."""
    data, events = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return events


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_told_before_any_work(tracker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    study = dataclasses.replace(PRESETS["smoke"][1], trackers=(tracker,))
    monkeypatch.setattr("study.settings.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=rf"trackers={tracker}: {tracker} is not installed; pip install '.*\[{tracker}\]'"
    ):
        study.resolved()


def test_a_run_of_wandb_begins_in_a_folder_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process changes to the folder of its job. (That a search ends in runs of W&B was seen offline.)"""
    begun: list[str] = []

    def begin(_: object, trial: Any, *arguments: Any, **settings: Any) -> None:
        assert Path(trial.local_path).is_dir()
        begun.append(settings["name"])

    monkeypatch.setattr(wandb, "wandb", object())  # the package itself is an extra
    monkeypatch.setattr(wandb, "_clean_log", lambda config: config)  # which looks for its pictures
    monkeypatch.setattr(wandb.WandbLoggerCallback, "_start_logging_actor", begin)
    (tracking,) = trackers.trackers(["wandb"], tmp_path.joinpath, "mine", pytest.fail)
    tracking.on_trial_start(0, [], tune_trial())
    assert begun == ["swap_back/relearning on vkd 10 %"]


def test_mlflow_writes_a_database_into_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As MLflow 3 refuses plain folders. (What it writes was seen with `mlflow-skinny`.)"""
    given: dict[str, Any] = {}
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow, "MLflowLoggerCallback", lambda **settings: given.update(settings))
    trackers.trackers(["mlflow"], tmp_path.joinpath, "mine", pytest.fail)
    assert given["tracking_uri"] == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert (tmp_path / "mlflow").is_dir()
