"""The questions that a trial of the search is asked: all about what must go, and some about what must stay."""

from __future__ import annotations

import math
from collections import Counter

import pandas as pd
import pytest

from study.data.benchmark import Benchmark, Question
from study.experiment.scored_sample import scored_sample
from study.experiment.trial import validation_questions
from study.metrics.objectives import forget_groups, keep_groups, utility
from tests.helpers.rows import row


@pytest.fixture
def asked(benchmark: Benchmark) -> list[Question]:
    return validation_questions(benchmark.split(15).questions, "visual")


def test_without_an_error_everything_is_asked(asked: list[Question]) -> None:
    assert scored_sample(asked, "visual", 0.0) == asked
    assert scored_sample(asked, "visual", 0.001) == asked  # more than there are


@pytest.mark.parametrize("error", [0.05, 0.1, 0.2])
def test_what_must_go_is_asked_whole_and_the_rest_as_far_as_needed(asked: list[Question], error: float) -> None:
    found, wanted = scored_sample(asked, "visual", error), math.ceil((0.5 / error) ** 2)
    groups = forget_groups("visual")
    assert found == [q for q in asked if q in set(found)]
    there, kept = (Counter((q.role, q.modality) for q in some) for some in (asked, found))
    each = max(Counter((q.role, q.modality, q.person) for q in asked).values())
    for group, count in there.items():
        if group in groups:
            assert kept[group] == count
        else:
            assert min(count, wanted) <= kept[group] <= min(count, wanted + each)


def test_people_are_asked_about_whole_and_evenly_spaced(asked: list[Question]) -> None:
    found = scored_sample(asked, "visual", 0.1)
    of = {q.person for q in found if q.role == "retain" and q.modality == "text"}
    everybody = sorted({q.person for q in asked if q.role == "retain" and q.modality == "text"})
    assert 1 < len(of) < len(everybody)
    assert [q for q in asked if q.person in of and q.role == "retain" and q.modality == "text"] == [
        q for q in found if q.role == "retain" and q.modality == "text"
    ]
    assert max(of) > everybody[len(everybody) // 2]  # not the first few


def test_utility_compares_with_vanilla_on_the_questions_that_were_asked() -> None:

    def rows(probabilities: dict[str, float]) -> pd.DataFrame:
        return pd.DataFrame(
            row(role=role, modality=modality, task="classification", probability=p) | {"question": f"{role} {name}"}
            for role, modality in keep_groups("visual")
            for name, p in probabilities.items()
        )

    vanilla = rows({"a": 0.8, "b": 0.2})
    assert utility(rows({"a": 0.4}), vanilla, "visual") == pytest.approx(0.5)
    assert utility(rows({"a": 0.4, "b": 0.1}), vanilla, "visual") == pytest.approx(0.5)
    assert utility(rows({"a": 0.8}), vanilla, "visual") == pytest.approx(1.0)
