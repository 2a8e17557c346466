"""The search of a study as an Optuna storage: Optuna opens it, and all trials are there with what is known of them."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from study.core.files import read_json, write_json
from study.export_optuna import main
from tests.helpers.planted import Model, Planter, plant

RATE = {"name": "FloatDistribution", "attributes": {"low": 1e-4, "high": 1e-2, "log": True, "step": None}}
LAYERS = {"name": "CategoricalDistribution", "attributes": {"choices": ["all", "last"]}}


def exported(root: Path, to: Path) -> dict[str, list[FrozenTrial]]:
    assert main([str(root), str(to)]) == 0
    storage = optuna.storages.RDBStorage(f"sqlite:///{to}")
    names = optuna.get_all_study_names(storage)
    found = {name: optuna.load_study(study_name=name, storage=storage).get_trials() for name in names}
    storage.engine.dispose()
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A search whose trials ended in every way, with a duplicate and an unfinished one, and two seeds of its winner."""
    planter = Planter(tmp_path / "study")
    planter.study(["npo"], [20])
    planter.yardsticks(20, attacked=False)
    states = ["complete", "complete", "diverged", "failed", "collapsed", "stopped", "complete"]
    keys = [
        planter.trial("npo", 20, Model(forget=0.5, test=0.5) if state == "complete" else None, state=state, rate=n)
        for n, state in enumerate(states)
    ]
    planter.trial("npo", 20, Model(forget=0.4, test=0.4), seed=1, rate=1)
    for number, key in enumerate([*keys, keys[1], "unfinished"]):
        params = {"learning_rate": 1e-3, "forget_ratio": 20, **({"layers": "last"} if number == 1 else {})}
        proposal = {"number": number, "ratio": 20, "params": params, "trial": key, "default": number == 0}
        write_json(
            planter.root / "search" / "npo" / f"{number:04d}.json", proposal | ({"warm": True} if number == 6 else {})
        )
    settings = planter.root / "study.json"
    write_json(settings, {**read_json(settings), "spaces": {"npo": {"learning_rate": RATE, "layers": LAYERS}}})
    write_json(planter.root / "winners.json", {"npo": {"20": {"trials": [keys[1]]}}})
    rungs = [{"rung": n, "step": 10 * n, "forget_gap": 0.5 / n, "utility": 0.4} for n in (1, 2)]
    record = planter.root / "trials" / keys[4] / "trial.json"
    write_json(record, {**read_json(record), "rungs": rungs})
    return planter.root


@pytest.mark.slow
def test_every_trial_is_there_with_its_state(root: Path, tmp_path: Path) -> None:
    [(name, trials)] = exported(root, tmp_path / "study.db").items()
    assert name == "npo 20 %"
    ended, early = [TrialState.COMPLETE] * 2, [TrialState.FAIL] * 2 + [TrialState.PRUNED] * 2
    later = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.RUNNING, TrialState.COMPLETE]
    assert [t.state for t in trials] == [*ended, *early, *later]
    assert [t.user_attrs["state"] for t in trials[2:6]] == ["diverged", "failed", "collapsed", "stopped"]
    assert [t.user_attrs.get("number") for t in trials] == [*range(9), None]


@pytest.mark.slow
def test_values_and_what_is_known_of_a_trial(root: Path, tmp_path: Path) -> None:
    trials = exported(root, tmp_path / "study.db")["npo 20 %"]
    assert trials[1].values == pytest.approx([0.2, 1.0])
    assert trials[1].params == {"learning_rate": 1e-3, "layers": "last"}
    assert trials[1].distributions["learning_rate"] == optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
    about = trials[1].user_attrs
    assert (about["seed"], about["default"], about["warm"], about["duplicate"], about["flops"]) == (
        0, False, False, False, 9.5e9,
    )  # fmt: skip
    assert about["distance"] == pytest.approx(0.2)
    assert trials[0].user_attrs["default"]
    assert trials[6].user_attrs["warm"]
    assert trials[7].user_attrs["duplicate"]
    assert trials[2].user_attrs["reason"] == "loss is NaN"
    assert trials[7].values == trials[1].values
    again = trials[9]  # the winner from another seed
    assert again.params == trials[1].params
    assert (again.user_attrs["seed"], again.user_attrs["confirmation"]) == (1, True)
    assert again.values == pytest.approx([0.1, 1.0])


def test_what_a_trial_scored_on_the_way(root: Path, tmp_path: Path) -> None:
    trials = exported(root, tmp_path / "study.db")["npo 20 %"]
    rungs = {name: value for name, value in trials[4].user_attrs.items() if name.startswith("rung_")}
    assert rungs == {
        "rung_1_step": 10, "rung_1_forget_gap": 0.5, "rung_1_utility": 0.4,
        "rung_2_step": 20, "rung_2_forget_gap": 0.25, "rung_2_utility": 0.4,
    }  # fmt: skip
    assert not any(name.startswith("rung_") for t in trials if t.number != 4 for name in t.user_attrs)


@pytest.mark.slow
def test_each_method_and_ratio_is_a_study_with_directions(tmp_path: Path) -> None:
    """Every proposal and every further seed is counted once."""
    root = plant(tmp_path / "study", ratios=(10, 15))
    found = exported(root, tmp_path / "study.db")
    assert len(found) == 2 * 5 + 2
    assert {name: len(trials) for name, trials in found.items()} == {
        name: 1 if name.startswith("failing") else 4 for name in found
    }
    study = optuna.load_study(study_name="idle 15 %", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert study.directions == [optuna.study.StudyDirection.MINIMIZE, optuna.study.StudyDirection.MAXIMIZE]
    assert study.metric_names == ["forget_gap", "utility"]
    assert study.user_attrs == {"study": "planted", "method": "idle", "ratio": 15}
    assert [t.number for t in study.best_trials]


@pytest.mark.slow
def test_what_cannot_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is overwritten, and a folder without trials leaves no file."""
    there = tmp_path / "there.db"
    there.write_text("mine")
    root = plant(tmp_path / "study", ratios=(10,))
    assert main([str(root), str(there)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert there.read_text() == "mine"
    Planter(tmp_path / "begun").study(["npo"], [20])
    assert main([str(tmp_path / "begun"), str(tmp_path / "new.db")]) == 2
    assert "has no trials yet" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "new.db")]) == 2
    assert "is not a study" in capsys.readouterr().err
    assert not (tmp_path / "new.db").exists()
