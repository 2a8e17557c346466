"""Figures as inline SVG: the trade-off, whose points say on hover which trial they are and lead to it; loss curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from functools import lru_cache
from html import escape
from typing import NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import MaxNLocator

from analysis import naming
from analysis.style import YARDSTICKS, Look, look

WIDTH, HEIGHT = 720, 400
"""Of a panel, in CSS pixels where there is room for them."""
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 30, 44
"""What is left around the axes for their labels."""
TICKS = 6
WIDER = 28
"""More of it beside a loss, whose numbers have a sign and more digits than shares."""
MOST = 200
"""Points of a curve: of a longer one each is the mean of some steps."""
SCALE = 2.2
"""Pixels for a point of the size of a marker on paper."""


class Drawing(NamedTuple):
    """A figure that lies in no file: its caption and markup."""

    caption: str
    markup: Markup


class Axis(NamedTuple):
    """Values along one side of a panel, as pixels."""

    low: float
    high: float
    begin: float
    end: float
    whole: bool = False
    """Whether only whole numbers are written beside it."""

    def at(self, value: float) -> float:
        """Where a value lies."""
        return self.begin + (self.end - self.begin) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values that lie on it."""
        locator = MaxNLocator(TICKS, steps=[1, 2, 5, 10], integer=self.whole)
        return [float(tick) for tick in locator.tick_values(self.low, self.high) if self.low <= tick <= self.high]


def trade_off(data: pd.DataFrame, methods: Sequence[str]) -> str:
    """Forget gap against utility, a panel for each ratio: the data of the figure of the same name."""
    panels = "".join(_panel(mine, int(str(ratio)), methods) for ratio, mine in data.groupby("ratio"))
    there = [method for method in methods if (data["method"] == method).any()]
    entries = {**{naming.method(m): look(m, methods) for m in there}, **YARDSTICKS}
    key = "".join(
        f'<li><svg viewBox="-7 -7 14 14" aria-hidden="true">{_shape(how, 0, 0)}</svg>{escape(name)}</li>'
        for name, how in entries.items()
    )
    ring = '<svg viewBox="-9 -9 18 18" aria-hidden="true"><circle class="ring" r="7"/></svg>winner'
    return f'{panels}<ul class="key">{key}<li>{ring}</li></ul>'


def _panel(data: pd.DataFrame, ratio: int, methods: Sequence[str]) -> str:
    x = Axis(0.0, max(0.1, 1.04 * float(data["forget_gap"].max())), LEFT, WIDTH - RIGHT)
    low = float(data["utility"].min())
    y = Axis(min(low - 0.04 * (1 - low), 0.9), 1.02, HEIGHT - BOTTOM, TOP)
    frame = _frame(x, y, "forget gap \u2193", "utility \u2191", f"forget {ratio} %, validation half")
    drawn = "".join([*frame, *_fronts(data, x, y, methods), *_points(data, x, y, methods)])
    name = f"Forget gap against utility at forget ratio {ratio} %"
    return f'<svg class="live" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{name}">{drawn}</svg>'


def loss_curve(losses: Sequence[float], rungs: Sequence[int]) -> Drawing:
    """The loss of a training over its steps, with a line at each step after which the model was scored."""
    chunk = math.ceil(len(losses) / MOST)
    points = [(min(at + chunk, len(losses)), statistics.fmean(losses[at : at + chunk]))
              for at in range(0, len(losses), chunk)]  # fmt: skip
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    room = 0.05 * (high - low) or 0.5  # of a constant loss: any axis that shows it
    x = Axis(0.0, float(len(losses)), LEFT + WIDER, WIDTH - RIGHT, whole=True)
    y = Axis(low - room, high + room, HEIGHT - BOTTOM, TOP)
    lines = "".join(f'<path class="rung" d="M{x.at(rung):.1f} {y.begin}V{y.end}"/>' for rung in rungs)
    course = "L".join(f"{x.at(step):.1f} {y.at(loss):.1f}" for step, loss in points)
    drawn = f'{"".join(_frame(x, y, "step", "loss", ""))}{lines}<path class="curve" d="M{course}"/>'
    each = "Loss of every step" if chunk == 1 else f"Loss, each point the mean of {chunk} steps"
    said = ", with a line at each rung." if rungs else "."
    markup = f'<svg class="live small" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{each}">{drawn}</svg>'
    return Drawing(f"{each}{said}", Markup(markup))


def _frame(x: Axis, y: Axis, below: str, beside: str, above: str) -> Iterator[str]:
    """Grid and numbers of two axes, what is measured along them, and a heading."""
    for tick in x.ticks():
        yield f'<path class="grid" d="M{x.at(tick):.1f} {y.begin}V{y.end}"/>'
        yield f'<text x="{x.at(tick):.1f}" y="{y.begin + 18}" text-anchor="middle">{tick:g}</text>'
    for tick in y.ticks():
        yield f'<path class="grid" d="M{x.begin} {y.at(tick):.1f}H{x.end}"/>'
        yield f'<text x="{x.begin - 8}" y="{y.at(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
    yield f'<text x="{(x.begin + x.end) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{below}</text>'
    middle = (y.begin + y.end) / 2
    yield f'<text transform="rotate(-90 14 {middle})" x="14" y="{middle}" text-anchor="middle">{beside}</text>'
    yield f'<text x="{(x.begin + x.end) / 2}" y="16" text-anchor="middle">{above}</text>'


def _fronts(data: pd.DataFrame, x: Axis, y: Axis, methods: Sequence[str]) -> Iterator[str]:
    """The front of each method as steps; in three objectives it is no line."""
    if "recovery" in data:
        return
    for method, mine in data[data["front"] & (data["kind"] == "method")].groupby("method"):
        points = mine.sort_values(["forget_gap", "utility"])
        first, *rest = ((x.at(gap), y.at(used)) for gap, used in zip(points["forget_gap"], points["utility"],
                                                                       strict=True))  # fmt: skip
        steps = "".join(f"H{right:.1f}V{up:.1f}" for right, up in rest)
        color = look(str(method), methods).color
        yield f'<path class="front" stroke="{color}" d="M{first[0]:.1f} {first[1]:.1f}{steps}"/>'


def _points(data: pd.DataFrame, x: Axis, y: Axis, methods: Sequence[str]) -> Iterator[str]:
    """Every model as a link to its trial, those that matter last, on top of the others."""
    for _, line in data.sort_values(["winner", "front"], kind="stable").iterrows():
        how, strong = look(str(line["method"]), methods), line["front"] or line["kind"] != "method"
        at = x.at(line["forget_gap"]), y.at(line["utility"])
        ring = f'<circle class="ring" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="10"/>' if line["winner"] else ""
        shape = _shape(how, *at, classes="mark" if strong else "mark faint")
        yield f'<a href="#{anchor(line["key"])}"><title>{escape(_said(line))}</title>{shape}{ring}</a>'


def _said(line: pd.Series) -> str:
    numbers = [f"{naming.words(name)} {line[name]:.3f}" for name in ("forget_gap", "utility", "recovery")
               if name in line]  # fmt: skip
    marks = ["winner"] * bool(line["winner"]) + ["on the front"] * bool(line["front"])
    return f"{naming.method(line['method'])}, {', '.join([*numbers, *marks])} ({line['key']})"


def anchor(key: str) -> str:
    """Where the page tells of a trial."""
    return f"trial-{key}"


def _shape(how: Look, x: float, y: float, classes: str = "mark") -> str:
    color = 'class="ink {}"' if how is YARDSTICKS["vanilla"] else f'class="{{}}" fill="{how.color}"'
    return f'<path {color.format(classes)} transform="translate({x:.1f} {y:.1f})" d="{_outline(how)}"/>'


@lru_cache(maxsize=64)
def _outline(how: Look) -> str:
    """The outline of a marker, as matplotlib draws it."""
    style = MarkerStyle(how.marker)
    path = style.get_path().transformed(style.get_transform())
    parts = [np.asarray(part) for part in path.to_polygons(closed_only=False)]
    size = SCALE * how.size
    return "".join(f"M{'L'.join(f'{size * px:.1f} {-size * py:.1f}' for px, py in part)}Z" for part in parts)
