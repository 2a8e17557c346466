"""What came back, against sums by hand; only what was held out counts."""

from __future__ import annotations

import pandas as pd
import pytest

from study.core.rows import ROW_COLUMNS
from study.metrics.recovery import above_control, kept


def rows(*lines: tuple[str, str, str, int, float, float]) -> pd.DataFrame:
    """Rows of (role, half, held out, step, probability, score)."""
    names = ("role", "half", "held_out", "step", "probability", "score")
    frame = pd.DataFrame([dict(zip(names, line, strict=True)) for line in lines])
    return frame.reindex(columns=list(ROW_COLUMNS))


MINE = rows(
    ("forget", "select", "person", 0, 0.2, 0), ("forget", "select", "fact", 0, 0.4, 0),
    ("forget", "select", "", 0, 0.0, 0), ("forget", "report", "fact", 0, 1.0, 0),
    ("forget", "select", "person", 5, 0.9, 1), ("forget", "select", "fact", 5, 0.7, 1),
    ("forget", "select", "", 5, 1.0, 1), ("forget", "report", "fact", 5, 0.5, 0),
    ("forget", "select", "person", 2, 0.0, 0),
    ("retain", "select", "person", 0, 0.9, 1), ("retain", "select", "person", 0, 0.9, 1),
    ("retain", "select", "person", 5, 0.9, 1), ("retain", "select", "person", 5, 0.1, 0),
    ("real", "select", "person", 5, 0.1, 0),
)  # fmt: skip
CONTROL = rows(("forget", "select", "fact", 0, 0.1, 0), ("forget", "select", "fact", 5, 0.3, 0))


def test_recovery_is_the_gain_above_that_of_the_control() -> None:
    """(.9 + .7) / 2 - (.2 + .4) / 2 = .5 of the model less .3 - .1 of the control, from first to last step."""
    assert above_control(MINE, CONTROL, "select") == pytest.approx(0.5 - 0.2)
    assert above_control(MINE, MINE, "select") == 0.0
    assert above_control(MINE, MINE.assign(probability=0.5), "report") == pytest.approx(-0.5)


def test_what_is_kept_is_a_part_of_what_there_was() -> None:
    assert kept(MINE, "select") == 0.5
    assert kept(MINE.assign(score=0.0), "select") == 0.0


def test_an_attacker_who_has_everything_is_refused() -> None:
    given = MINE.assign(held_out="")
    with pytest.raises(ValueError, match="given every fact about all people"):
        above_control(given, CONTROL, "select")


def test_both_are_read_at_the_last_step_that_both_were_taken_to() -> None:
    """A control that broke at step 5 was attacked for five steps: so long is what it is compared with."""
    lines = [("forget", "select", "person", step, 0.1 + 0.02 * step, 0) for step in (0, 5, 40)]
    whole = rows(*lines)
    assert above_control(whole, whole, "select") == 0.0
    assert above_control(whole, whole[whole["step"] <= 5], "select") == 0.0
    assert above_control(whole[whole["step"] <= 5], whole, "select") == 0.0
