"""Every metric from rows, against numbers by hand, brute force and values that scipy gave."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study import write_docs
from study.core.rows import ROW_COLUMNS
from study.metrics import registry
from study.metrics.formulas import (
    average,
    bounded,
    contraharmonic,
    harmonic,
    jensen_shannon,
    jensen_shannon_of_profiles,
    kolmogorov_smirnov,
    truth_ratio_forget,
    truth_ratio_utility,
)
from study.metrics.registry import METRICS, paired, utility_parts
from tests.helpers.rows import row

INF = math.inf
SHARES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8)


def measured(rows: pd.DataFrame, reference: pd.DataFrame | None = None) -> dict[str, float]:
    """Every metric of one run by its name."""
    found: dict[str, float] = {}
    for metric in METRICS:
        if isinstance(metric, registry.Comparison):
            found[metric.name] = math.nan if reference is None else metric.value(rows, reference)
        else:
            found[metric.name] = metric.value(rows)
    return found


# ---- formulas ------------------------------------------------------------------------------------------------------
def test_truth_ratios_in_both_orientations() -> None:
    """R wrong over right: 0 knows, 1 cannot tell, 4 is sure of the wrong one."""
    ratios = np.array([0.0, 0.25, 1.0, 4.0, INF])
    assert truth_ratio_forget(ratios).tolist() == [0.0, 0.25, 1.0, 0.25, 0.0]
    assert truth_ratio_utility(ratios).tolist() == [1.0, 0.75, 0.0, 0.0, 0.0]
    assert bounded(ratios).tolist() == pytest.approx([0.0, 0.2, 0.5, 0.8, 1.0])
    inverse = np.array([INF, 4.0, 1.0, 0.25, 0.0])
    assert truth_ratio_forget(inverse).tolist() == truth_ratio_forget(ratios).tolist()


def test_what_is_not_a_number_stays_so() -> None:
    for function in (truth_ratio_forget, truth_ratio_utility, bounded):
        assert np.isnan(function([math.nan])).all()


def test_means_by_hand() -> None:
    assert harmonic([0.5, 1.0]) == pytest.approx(2 / 3)
    assert harmonic([0.5, 0.0]) == 0.0
    assert math.isnan(harmonic([]))
    assert math.isnan(harmonic([0.5, math.nan, 0.0]))
    assert contraharmonic(0.2, 0.6) == pytest.approx(0.4 / 0.8)
    assert contraharmonic(0.0, 0.0) == 0.0
    assert math.isnan(contraharmonic(math.nan, 0.5))
    assert math.isnan(average([]))


@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_the_worse_modality_pulls(a: float, b: float) -> None:
    """Of two shares, the contraharmonic mean lies above the middle by as much as the harmonic one below."""
    assert contraharmonic(a, b) - (a + b) / 2 == pytest.approx((a + b) / 2 - harmonic([a, b]), abs=1e-12)


# ---- distances -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("first", "second", "statistic", "p"),
    [  # scipy.stats.ks_2samp of scipy 1.17.1
        ([0.1, 0.4, 0.7], [0.2, 0.3, 0.9, 0.95], 0.5, 0.6571428571428571),
        (list(range(8)), [x + 4.5 for x in range(8)], 0.625, 0.08702408702408701),
        (list(range(50)), list(range(50, 90)), 1.0, 3.340520538602392e-26),
    ],
)
def test_kolmogorov_smirnov_is_that_of_scipy(
    first: list[float], second: list[float], statistic: float, p: float
) -> None:
    assert kolmogorov_smirnov(first, second) == pytest.approx((statistic, p), rel=1e-12)
    assert kolmogorov_smirnov(second, first) == pytest.approx((statistic, p), rel=1e-12)


def largest_gap(first: list[float], second: list[float]) -> float:
    """The statistic by its definition."""
    both = first + second
    return max(
        abs(sum(x <= at for x in first) / len(first) - sum(x <= at for x in second) / len(second)) for at in both
    )


@given(st.integers(1, 4), st.integers(1, 5), st.randoms())
def test_the_p_value_is_the_share_of_orders(n: int, m: int, random: Random) -> None:
    """All ways to give n of n + m places to the first sample, counted one by one."""
    places = [float(x) for x in range(n + m)]
    first = sorted(random.sample(places, n))
    found = kolmogorov_smirnov(first, [x for x in places if x not in first])
    assert found.statistic == pytest.approx(largest_gap(first, [x for x in places if x not in first]))
    gaps = [largest_gap(list(c), [x for x in places if x not in c]) for c in itertools.combinations(places, n)]
    assert found.p == pytest.approx(np.mean([gap >= found.statistic - 1e-9 for gap in gaps]))


def test_the_same_sample_is_at_no_distance() -> None:
    assert kolmogorov_smirnov([0.1, 0.1, 2.0, INF], [0.1, 0.1, 2.0, INF]) == (0.0, 1.0)
    assert jensen_shannon([0.1, 0.1, 1.0], [0.1, 0.1, 1.0]) == 0.0


def test_nobody_has_no_distance() -> None:
    for first, second in (([], [1.0]), ([1.0], []), ([], [])):
        assert all(math.isnan(value) for value in kolmogorov_smirnov(first, second))
        assert math.isnan(jensen_shannon(first, second))
        assert math.isnan(jensen_shannon_of_profiles(first, second))


def test_jensen_shannon_by_hand() -> None:
    """(1, 0) and (1/2, 1/2): H(3/4, 1/4) - H(1/2, 1/2) / 2 bits; cells without a common one are at distance 1."""
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert jensen_shannon([0.1, 0.1], [0.1, 0.9]) == pytest.approx(math.sqrt(entropy - 0.5))
    assert jensen_shannon([0.1, 0.2], [0.8, 1.0]) == pytest.approx(1.0)


@given(SHARES, SHARES)
def test_jensen_shannon_is_a_distance(first: list[float], second: list[float]) -> None:
    found = jensen_shannon(first, second)
    assert 0.0 <= found <= 1.0 + 1e-12
    assert found == pytest.approx(jensen_shannon(second, first[::-1]))


def test_the_released_distance_is_blind_to_scale() -> None:
    """The first is from scipy 1.17.1; the others show the defect, which `jensen_shannon` does not have."""
    assert jensen_shannon_of_profiles([0.1, 0.2, 0.7, 0.4], [0.3, 0.3, 0.1, 0.9]) == pytest.approx(0.3671963686998152)
    assert jensen_shannon_of_profiles([0.1, 0.2, 0.3], [0.2, 0.4, 0.6]) == pytest.approx(0.0, abs=1e-7)
    assert jensen_shannon([0.1, 0.2, 0.3], [0.2, 0.4, 0.6]) > 0.5
    assert jensen_shannon_of_profiles([1.0, 0.0], [0.0, 1.0]) == pytest.approx(math.sqrt(math.log(2)))


@pytest.mark.parametrize(
    ("first", "second"), [([1.0], [1.0, 2.0]), ([INF], [1.0]), ([0.0], [1.0]), ([1.0], [math.nan])]
)
def test_profiles_that_cannot_be_compared(first: list[float], second: list[float]) -> None:
    assert math.isnan(jensen_shannon_of_profiles(first, second))


# ---- rows ----------------------------------------------------------------------------------------------------------
def rows(*lines: Mapping[str, object]) -> pd.DataFrame:
    """Rows of one person on the forget set, with picture, named in turn."""
    usual = {"person": "p", "role": "forget", "modality": "image_text", "task": "classification"}
    return pd.DataFrame([row(**{**usual, "question": f"q{n}", **line}) for n, line in enumerate(lines)]).astype(
        ROW_COLUMNS
    )


def test_means_take_their_task_and_what_has_a_value() -> None:
    found = measured(
        rows(
            {"score": 1.0, "probability": 0.8, "likelihood": 0.5, "truth_ratio": 0.25, "exposure": 2.0},
            {"score": 0.0, "probability": 0.2, "likelihood": 0.1, "truth_ratio": 2.0, "exposure": 0.0},
            {"task": "cloze", "score": 1.0, "refused": True, "rouge_l": 0.9},
            {"task": "generation", "score": 0.4, "rouge_l": 0.4, "rouge_l_recall": 0.8, "bleu": 0.1, "likelihood": 0.3},
            {"task": "generation", "score": 0.6, "rouge_l": 0.6, "exact_match": 0.5, "parsed": False},
        )
    )
    expected = {
        "accuracy": 0.5, "cloze": 1.0, "probability": 0.5, "likelihood": 0.3, "truth_ratio_forget": (0.25 + 0.5) / 2,
        "truth_ratio_utility": 0.75 / 2, "exposure": 1.0, "rouge_l": 0.5, "rouge_l_recall": 0.8, "bleu": 0.1,
        "exact_match": 0.5, "refused": 1 / 3, "unparsable": 1 / 5,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert math.isnan(found["rouge_1"])
    assert math.isnan(found["member_zlib"])


@pytest.mark.parametrize("name", [name for name in ROW_COLUMNS if name.startswith("member_") or name in
                                  ("rouge_1", "rouge_2", "rouge_l", "rouge_l_recall", "bleu", "exact_match",
                                   "exposure", "likelihood")])  # fmt: skip
def test_columns_have_their_own_mean(name: str) -> None:
    """Each is read from its own column and no other."""
    found = measured(rows(*({"task": "generation", name: value} for value in (0.2, 0.4))))
    numbers = {key for key, value in found.items() if value == pytest.approx(0.3)}
    assert numbers == {name}


def test_models_are_compared_with_the_reference() -> None:
    mine = rows(*({"truth_ratio": value} for value in (0.1, 0.4, 7.0)))
    its = rows(*({"truth_ratio": value} for value in (0.2, 0.3, 9.0, 9.5)))
    found = measured(mine, its)
    assert found["ks"] == pytest.approx(0.5)
    assert found["forget_quality"] == pytest.approx(0.6571428571428571)
    assert found["js"] == pytest.approx(jensen_shannon([r / (1 + r) for r in (0.1, 0.4, 7.0)],
                                                       [r / (1 + r) for r in (0.2, 0.3, 9.0, 9.5)]))  # fmt: skip
    same = measured(mine, mine.iloc[::-1])
    assert (same["ks"], same["forget_quality"], same["js"], same["js_released"]) == (0.0, 1.0, 0.0, 0.0)
    assert all(math.isnan(measured(mine)[name]) for name in ("ks", "forget_quality", "js", "js_released"))


def test_the_released_distance_pairs_questions() -> None:
    """Whatever the order of the rows, and only those that both have."""
    mine = rows(*({"truth_ratio": value} for value in (0.1, 0.2, 0.7, 0.4, 9.0)))
    its = rows(*({"truth_ratio": value} for value in (0.3, 0.3, 0.1, 0.9))).sample(frac=1.0, random_state=1)
    assert measured(mine, its)["js_released"] == pytest.approx(0.3671963686998152)


def test_facts_are_paired_across_modalities() -> None:
    """Home is right both ways, work only with picture, age neither way; without a fact or a partner none."""
    lines = [("home", 1.0, 1.0), ("work", 1.0, 0.0), ("age", 0.0, 0.0)]
    asked: list[dict[str, object]] = []
    for fact, pictured, text in lines:
        asked += [{"fact": fact, "score": pictured}, {"fact": fact, "score": text, "modality": "text"}]
    asked += [{"fact": "", "score": 1.0}, {"fact": "", "score": 1.0, "modality": "text"}]
    asked += [{"fact": "home", "person": "q", "score": 1.0}, {"fact": "home", "role": "test", "score": 1.0}]
    asked += [{"fact": "home", "task": "cloze", "score": 1.0}]
    found = measured(rows(*asked))
    assert len(paired(rows(*asked))) == 3
    assert (found["all_modal_accuracy"], found["all_modal_error"]) == pytest.approx((1 / 3, 1 / 3))
    assert math.isnan(measured(rows({"score": 1.0}))["all_modal_accuracy"])


def test_replies_are_neither_right_nor_wrong() -> None:
    asked = [{"task": "generation", "fact": "f", "score": 1.0, "modality": name} for name in ("image_text", "text")]
    assert len(paired(rows(*asked))) == 1
    assert math.isnan(measured(rows(*asked))["all_modal_accuracy"])


def test_rouge_of_both_modalities() -> None:
    """a = .2, b = .6."""
    usual: dict[str, object] = {"task": "generation"}
    found = measured(rows({**usual, "rouge_l": 0.1}, {**usual, "rouge_l": 0.3},
                          {**usual, "rouge_l": 0.6, "modality": "text"}))  # fmt: skip
    assert found["rlf"] == pytest.approx((0.04 + 0.36) / 0.8)
    assert found["rlr"] == pytest.approx(2 * 0.12 / 0.8)
    assert math.isnan(measured(rows({**usual, "rouge_l": 0.1}))["rlf"])


def test_model_utility_by_hand() -> None:
    """Retain: likelihood of answers, real: of options; what is to be forgotten is no part of it."""
    asked: list[dict[str, object]] = [
        {"role": "retain", "task": "generation", "likelihood": 0.5, "rouge_l_recall": 1.0, "truth_ratio": 0.5},
        {"role": "retain", "likelihood": 0.9, "probability": 0.9},
        {"role": "real", "modality": "text", "probability": 0.25, "likelihood": 0.9},
        {"task": "generation", "likelihood": 0.0, "rouge_l_recall": 0.0},
    ]
    parts = utility_parts(rows(*asked))
    assert parts == {
        "retain image_text likelihood": 0.5, "retain image_text rouge_l_recall": 1.0,
        "retain image_text truth_ratio": 0.5, "real text probability": 0.25,
    }  # fmt: skip
    assert measured(rows(*asked))["model_utility"] == pytest.approx(4 / (2 + 1 + 2 + 4))
    assert math.isnan(measured(rows(asked[-1]))["model_utility"])


def test_no_rows_have_no_metric() -> None:
    nothing = rows({}).head(0)
    assert all(math.isnan(value) for value in measured(nothing, nothing).values())


# ---- what is said of them ------------------------------------------------------------------------------------------
def test_the_page_is_up_to_date() -> None:
    """`python -m study.write_docs` writes it."""
    assert (write_docs.DOCS / "metrics.md").read_text(encoding="utf-8") == write_docs.metrics_page()


def test_every_metric_has_one_line_on_the_page() -> None:
    page = (write_docs.DOCS / "metrics.md").read_text(encoding="utf-8")
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert page.count(f"\n| `{metric.name}` | ") == 1
        assert all((metric.formula, metric.range, metric.better, metric.source))
    assert all(line.count("|") == 7 for line in page.splitlines() if line.startswith("|"))


def test_every_number_of_a_row_is_in_a_metric() -> None:
    read = {metric.column for metric in METRICS if isinstance(metric, registry.Mean)}
    numbers = {name for name, kind in ROW_COLUMNS.items() if kind == "float64"} | {"refused", "parsed"}
    assert read == numbers


@given(SHARES)
def test_proportional_profiles_are_at_no_distance(profile: list[float]) -> None:
    doubled = [3.0 * share for share in profile]
    if sum(profile) > 1e-100:
        assert jensen_shannon_of_profiles(profile, doubled) == pytest.approx(0.0, abs=1e-7)
