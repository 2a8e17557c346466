"""Independent jobs: what is run again, what a device that is too small means, and when no further job begins."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from study.core.failures import Failure
from study.engine import jobs
from study.engine.jobs import Job, run_all

TOO_LARGE = Failure("out of memory (device)", "one row is too large", smallest=True)
SHORT = Failure("out of memory (device)", "short for now")
BUG = Failure("bug", "KeyError: 'a'")
LOST = Failure("worker lost", "gone")


class Lost(Exception):
    """A worker that is gone."""


class Ran:
    """Jobs on a stand-in for Ray, each with what its runs end in, in order; those that are not named end well."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ends: Mapping[str, Sequence[Failure | None]]) -> None:
        self.ends = {name: list(planned) for name, planned in ends.items()}
        self.begun: list[str] = []
        self.told: list[tuple[str, Failure | None]] = []
        self.noted: list[tuple[str, str]] = []
        ray = SimpleNamespace(
            exceptions=SimpleNamespace(RayError=Lost), wait=lambda running: (running[:1], running[1:]), get=self.get
        )
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setattr(jobs, "start", lambda: None)
        monkeypatch.setattr(jobs, "_Workers", lambda *_: self)

    def begin(self, job: Job) -> tuple[str, int]:
        self.begun.append(job.name)
        return job.name, len(self.begun)

    def end(self, reference: Any, *, keep: bool) -> None:
        pass

    def get(self, reference: tuple[str, int]) -> tuple[Failure | None, bool]:
        planned = self.ends.get(reference[0], [])
        failure = planned.pop(0) if planned else None
        if failure == LOST:
            raise Lost
        return failure, False

    def run(self, names: str, *, gpus: float = 1, noting: bool = True) -> dict[str, Failure]:
        def note(name: str, reason: str) -> bool:
            self.noted.append((name, reason))
            return noting

        asked = [Job(name, print, (), lambda reason, name=name: note(name, reason)) for name in names]  # type: ignore[misc]
        return run_all(asked, lambda job, failure: self.told.append((job.name, failure)), at_once=2, gpus=gpus)


@pytest.mark.parametrize("passing", [SHORT, TOO_LARGE, Failure("out of memory (host)", "killed"), LOST])
def test_what_may_pass_is_run_once_more(passing: Failure, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = Ran(monkeypatch, {"a": [passing, None]})
    assert ran.run("ab") == {}
    assert sorted(ran.begun) == ["a", "a", "b"]
    assert sorted(ran.told) == [("a", None), ("b", None)]


def test_what_does_not_pass_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = Ran(monkeypatch, {"a": [BUG], "b": [SHORT, SHORT], "c": [LOST, LOST]})
    found = ran.run("abc")
    assert {name: failure.kind for name, failure in found.items()} == {
        "a": "bug", "b": "out of memory (device)", "c": "worker lost",
    }  # fmt: skip
    assert sorted(ran.begun) == ["a", "b", "b", "c", "c"]
    assert ran.noted == []


def test_a_lost_worker_does_not_use_up_the_chance_of_a_full_device(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = Ran(monkeypatch, {"a": [LOST, SHORT, None]})
    assert ran.run("a") == {}
    assert ran.begun == ["a", "a", "a"]


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_a_device_that_is_too_small_is_a_result(gpus: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs it is too small for, the others are run."""
    ran = Ran(monkeypatch, {name: [TOO_LARGE, TOO_LARGE] for name in "abcd"})
    assert ran.run("abcde", gpus=gpus) == {}
    assert sorted(ran.noted) == [(name, "one row is too large") for name in "abcd"]
    assert {name for name, failure in ran.told if failure == TOO_LARGE} == set("abcd")
    assert ("e", None) in ran.told


@pytest.mark.parametrize(("gpus", "noting"), [(0.5, True), (1, False)], ids=["shared device", "nothing to record"])
def test_otherwise_it_is_an_accident(gpus: float, noting: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = Ran(monkeypatch, {name: [TOO_LARGE, TOO_LARGE] for name in "abcdefgh"})
    found = ran.run("abcdefgh", gpus=gpus, noting=noting)
    assert {*found.values()} == {TOO_LARGE}
    assert "h" not in ran.begun  # three in a row end the run
