"""What vanilla knows and no reference does: planted rows, known counts."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from study.core.terms import Group
from study.metrics.known import counted, unknown
from tests.helpers.rows import row

GROUPS: list[Group] = [("forget", "image_text"), ("test", "image_text")]


def rows(**chances: float) -> pd.DataFrame:
    """One choice for each name, asked about the person and in the half that it says, such as a_select."""
    return pd.DataFrame([
        row(question=name, person=name[0], role="forget", modality="image_text", task="classification",
            half=name[2:].rstrip("0123456789"), probability=chance)
        for name, chance in chances.items()
    ])  # fmt: skip


VANILLA = rows(a_select=0.6, b_select=0.4, c_select=0.9)


def test_a_question_is_known_above_what_the_references_know_of_such_questions() -> None:
    """They know 0.3 of these on average: a question that one has guessed right is no reason to leave it out."""
    lucky = rows(a_select=0.9, b_select=0.0, c_select=0.0)
    assert unknown(VANILLA, [lucky], GROUPS) == {"b_select"}
    assert unknown(VANILLA, [lucky, rows(a_select=0.0, b_select=0.0, c_select=0.9)], GROUPS) == {"b_select"}
    assert unknown(VANILLA, [lucky], GROUPS, margin=0.5) == {"a_select", "b_select"}
    assert unknown(VANILLA, [rows(a_select=0.1, b_select=0.1, c_select=0.1)], GROUPS) == frozenset()


def test_what_three_references_all_know_can_be_told_without_being_taught() -> None:
    told = rows(a_select=0.6, b_select=0.0, c_select=0.0)
    assert unknown(VANILLA, [told, told], GROUPS) == frozenset()
    assert unknown(VANILLA, [told, told, told], GROUPS) == {"a_select"}
    luckless = rows(a_select=0.3, b_select=0.0, c_select=0.0)
    assert unknown(VANILLA, [told, told, luckless], GROUPS) == frozenset()


def test_what_has_no_number_is_not_known() -> None:
    vanilla = rows(a_select=0.9, b_select=math.nan)
    assert unknown(vanilla, [rows(a_select=0.1, b_select=0.1)], GROUPS) == {"b_select"}


def test_open_questions_count_by_their_likelihood_and_other_groups_not_at_all() -> None:
    def made(likelihood: float, retained: float) -> pd.DataFrame:
        return pd.DataFrame([
            row(question="open", role="test", modality="image_text", task="cloze", likelihood=likelihood),
            row(question="kept", role="retain", modality="image_text", task="classification", probability=retained),
        ])  # fmt: skip

    assert unknown(made(0.6, 0.3), [made(0.3, 0.3)], GROUPS) == frozenset()
    assert unknown(made(0.4, 0.9), [made(0.3, 0.1)], GROUPS) == {"open"}


@pytest.mark.parametrize(
    ("dropped", "expected"),
    [
        (set(), (5, 5, 2, 2)),
        ({"a_select2"}, (4, 5, 2, 2)),
        ({"a_report"}, (4, 5, 1, 2)),  # what is known of a person must show in both halves
        ({"a_report", "b_select"}, (3, 5, 0, 2)),
    ],
)
def test_people_are_known_by_a_question_in_each_half(dropped: set[str], expected: tuple[int, ...]) -> None:
    vanilla = rows(a_select=0.9, a_select2=0.9, a_report=0.9, b_select=0.9, b_report=0.9)
    assert counted(vanilla, dropped, GROUPS) == expected
