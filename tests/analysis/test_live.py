"""Drawings without files: what is drawn is where the numbers say."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from analysis.live import BOTTOM, HEIGHT, LEFT, MOST, RIGHT, TOP, WIDER, WIDTH, Drawing, loss_curve


def points(drawn: Drawing) -> list[tuple[float, float]]:
    """The points of the curve, in pixels."""
    found = re.search('class="curve" d="M([^"]+)"', drawn.markup)
    assert found
    return [(float(x), float(y)) for x, y in (point.split() for point in found[1].split("L"))]


def test_a_short_curve_has_every_step() -> None:
    drawn = loss_curve([3.0, 1.0, 2.0], rungs=[1, 2])
    (first, high), (second, low), (third, middle) = points(drawn)
    assert TOP < high < middle < low < HEIGHT - BOTTOM
    assert middle == pytest.approx((high + low) / 2, abs=0.1)
    begin = LEFT + WIDER
    wide = WIDTH - begin - RIGHT
    assert [first, second, third] == pytest.approx([begin + wide * step / 3 for step in (1, 2, 3)], abs=0.1)
    rungs = re.findall(r'class="rung" d="M([\d.]+)', drawn.markup)
    assert [float(x) for x in rungs] == [first, second]
    assert drawn.caption == "Loss of every step, with a line at each rung."
    assert re.findall('text-anchor="middle">(\\d[^<]*)<', drawn.markup) == ["0", "1", "2", "3"]  # there is no half step


@pytest.mark.parametrize("losses", [[float(n % 2) for n in range(10 * MOST)], [0.5] * (10 * MOST - 3)])
def test_a_long_curve_has_means(losses: Sequence[float]) -> None:
    """Alternating losses have a constant mean; the last of the points may stand for fewer steps."""
    drawn = loss_curve(losses, rungs=[])
    found = points(drawn)
    assert len(found) == MOST
    assert len({y for _, y in found}) == 1
    assert found[-1][0] == WIDTH - RIGHT
    assert drawn.caption == "Loss, each point the mean of 10 steps."
