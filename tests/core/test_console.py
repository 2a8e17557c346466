"""Progress: what is done, and how long the rest takes if it goes on so."""

from __future__ import annotations

import time

import pytest

from study.core.console import Stage, console, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still unless a test moves it."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1.0 min"), (900, "15 min"), (3600, "1.0 h"), (90_000, "25 h")],
)
def test_a_duration_is_told_in_its_largest_unit(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_the_rest_takes_as_long_as_what_is_done(clock: list[float]) -> None:
    with console.capture() as printed, Stage("search", 4) as stage:
        clock[0] += 60
        stage.advance("one")
        clock[0] += 30
        stage.advance("two")
        stage.advance("the last", 2)
    assert printed.get().splitlines()[1:4] == [
        "search: 1/4 one, 3.0 min left",
        "search: 2/4 two, 1.5 min left",
        "search: 4/4 the last",
    ]


@pytest.mark.parametrize(("later", "told"), [(None, ""), (600.0, ", 10 min until the end of the study")])
def test_what_follows_is_told_once_it_is_known(clock: list[float], later: float | None, told: str) -> None:
    with console.capture() as printed, Stage("search", 2, later=lambda: later) as stage:
        clock[0] += 2
        stage.advance("one")
    assert f"search: 1/2 one, 2 s left{told}\n" in printed.get()
