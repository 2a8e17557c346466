"""The figures of a paper, with what their captions say: drawn at the width they are printed in, all text in 8 pt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import comparison
from analysis.paper.latex import escaped
from analysis.plots import Plot
from analysis.sections import attacks, people, scores, worst_case
from analysis.study_folder import StudyResults
from analysis.style import COLUMN, TEXT, YARDSTICKS, legend, look, mark, panels, styled
from analysis.trials import objectives_of, winners
from study.core.files import written

POINTS = 8
"""Size of all text, in points of the printed page."""
ROWS = 3
"""Of curves in one figure, which is then seven inches high: a page has nine, and the caption stands below."""
CROWD = 3
"""Winners that are a crowd, if they lie within a `NEAR` part of the axes."""
NEAR = 0.3
INTERVALS = "95 % intervals over people and seeds"


class Drawn(NamedTuple):
    """A figure of the paper: what it shows, and the widths it is printed in."""

    plot: Plot
    widths: Sequence[float]

    def write(self, folder: Path, methods: Sequence[str]) -> list[Path]:
        """Draw it at each width into `figures/`; the paths."""
        paths = []
        for width in self.widths:
            path = folder / "figures" / f"{self.plot.name}_{'column' if width == COLUMN else 'text'}.pdf"
            with styled():
                figure = self.plot.draw(self.plot.data, methods)
                sized(figure, width)
                with written(path) as draft:
                    FigureCanvasPdf(figure).print_pdf(draft, metadata={"CreationDate": None})
            paths.append(path)
        return paths


def sized(figure: Figure, width: float) -> None:
    """Bring a figure to the width it is printed in, and all of its text to the size of the page."""
    figure.set_figwidth(width)
    for text in figure.findobj(Text):
        text.set_fontsize(POINTS)


def figures(study: StudyResults) -> list[Drawn]:
    """All that have something to show."""
    both, wide = (COLUMN, TEXT), (TEXT,)
    some = both if len(study.ratios) == 1 else wide
    drawn = [
        Drawn(Plot("trade_off", f"Forget gap and utility of the winner of each method on the test half, with "
                   f"{INTERVALS}; the ideal is the upper left corner. The reference lies at the noise floor, the "
                   "largest gap of one retraining to the others.", trade_off_data(study), draw_trade_off), some),
        Drawn(Plot("robustness", "Recovery above control under the worst attack, in probability of the right option, "
                   f"against the utility of the winner, on the test half, with {INTERVALS} that allow for the choice "
                   "of the attack. The ideal is 0 on the right; a cross marks points that say nothing about "
                   "robustness.", worst_case.against_utility_data(study), worst_case.draw_against_utility), some),
        Drawn(Plot("attacks", "Gain above control under each attack, in probability of the right option, on people and "
                   "facts that the attacker was not given, test half. Grey cells say nothing about robustness.",
                   attacks.heat_data(study), attacks.draw_heat), wide),
        *curves(attacks.curve_data(study)),
        Drawn(Plot("scores", f"Multiple-choice accuracy on the test half, with {INTERVALS}. Dashed: vanilla when all "
                   "pictures are grey.", scores.score_data(study), scores.draw_scores), wide),
        Drawn(Plot("people", "What each model still knows of every person to be forgotten, the mean over their "
                   "questions of the test half, seeds and tasks; a point is a person.", people.people(study),
                   people.draw), some),
    ]  # fmt: skip
    return [one for one in drawn if len(one.plot.data)]


def curves(data: pd.DataFrame) -> list[Drawn]:
    """What comes back step by step, in as many figures as it takes."""
    groups, several = attacks.curve_groups(data), data["ratio"].nunique() > 1
    each = ROWS * (1 if several else 2)  # panels of one ratio are two side by side
    parts = [groups[start : start + each] for start in range(0, len(groups), each)]
    drawn = []
    for number, part in enumerate(parts, 1):
        text = (
            "Accuracy on people and facts that the attacker was not given, after each step of the attack, test half. "
            f"Grey: the references under the same attack, with {INTERVALS}."
        )
        text += f" Part {number} of {len(parts)}." if len(parts) > 1 else ""
        mine = data[[pair in part for pair in zip(data["settings"], data["held_out"], strict=True)]]
        name = f"relearning_{number}" if number > 1 else "relearning"
        widths = (TEXT,) if several or len(part) > 1 else (COLUMN, TEXT)
        drawn.append(Drawn(Plot(name, text, mine, attacks.draw_curves), widths))
    return drawn


def caption(study: StudyResults, plot: Plot) -> str:
    """What a figure shows, then how many people, seeds and references stand behind it."""
    return f"{escaped(plot.caption)} {escaped(sample(study))}"


def sample(study: StudyResults) -> str:
    """`n = 12 people to be forgotten, 3 seeds of each winner, 3 references (forget ratio 20 %).`"""
    found = winners(study)
    parts = []
    for ratio in study.ratios:
        against = comparison.bench(study, ratio)
        seeds = sorted({int(seeds) for seeds in found.loc[found["ratio"] == ratio, "seeds"]})
        if against is not None and seeds:
            count = " to ".join(map(str, dict.fromkeys([seeds[0], seeds[-1]])))
            people, references = against.references.shape[:2]
            parts.append(
                f"{people} people to be forgotten, {count} seed{'s' * (seeds[-1] > 1)} of each winner, {references} "
                f"reference{'s' * (references > 1)} (forget ratio {ratio} %)"
            )
    return f"n = {'; '.join(parts)}." if parts else ""


def trade_off_data(study: StudyResults) -> pd.DataFrame:
    """Forget gap and utility of every winner and baseline on the test half, with intervals of the winners."""
    found = winners(study)
    lines: list[dict[str, Any]] = []
    for ratio in study.ratios:
        against = comparison.bench(study, ratio)
        if against is None:
            continue
        for _, line in found[found["ratio"] == ratio].dropna(subset=["distance"]).iterrows():
            model = comparison.model(study, line["method"], study.winners[line["method"], ratio], ratio)
            low, high = comparison.utility_of(model, against).interval()[1:] if model else (float("nan"),) * 2
            lines.append({"method": line["method"], "ratio": ratio, "kind": "method", "forget_gap": line["forget_gap"],
                          "gap_low": line["forget_gap_low"], "gap_high": line["forget_gap_high"],
                          "utility": line["utility"], "utility_low": low, "utility_high": min(1.0, high)})  # fmt: skip
        for kind in YARDSTICKS:
            for trial in study.yardsticks("vanilla" if kind == "vanilla" else "reference", ratio)[:1]:
                values, _ = objectives_of(study, trial.key, "report")
                floor = max(comparison.floor(study, ratio), default=0.0)
                gap = floor if kind == "reference" else values["forget_gap"]
                lines.append({"method": kind, "ratio": ratio, "kind": kind, "forget_gap": gap,
                              "utility": values["utility"]})  # fmt: skip
    return pd.DataFrame(lines)


def draw_trade_off(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A panel for each ratio, with an inset where winners crowd."""
    figure, axes = panels(data["ratio"], rows=1, height=2.4)
    for axis, (ratio, mine) in zip(axes[0], data.groupby("ratio"), strict=True):
        _winners(axis, mine, methods)
        axis.set(title=f"forget {ratio} %", xlabel="forget gap \u2193", xlim=(-0.02, None))
        if (crowd := _crowd(mine)) is not None:
            _inset(axis, mine, crowd, methods)
    axes[0][0].set_ylabel("utility \u2191")
    marks = [mark(kind, how) for kind, how in YARDSTICKS.items() if (data["kind"] == kind).any()]
    legend(figure, data.loc[data["kind"] == "method", "method"], methods, marks, lines=False)
    return figure


def _winners(axis: Axes, data: pd.DataFrame, methods: Sequence[str], *, bars: bool = True) -> None:
    for _, line in data.iterrows():
        how, (x, y) = look(line["method"], methods), (line["forget_gap"], line["utility"])
        if line["kind"] == "method" and bars:
            axis.plot([line["gap_low"], line["gap_high"]], [y, y], color=how.color, linewidth=0.9)
            axis.plot([x, x], [line["utility_low"], line["utility_high"]], color=how.color, linewidth=0.9)
        axis.plot(x, y, marker=how.marker, linestyle="", color=how.color, markersize=how.size + 1, mec="white", mew=0.4,
                  zorder=3)  # fmt: skip


def _crowd(data: pd.DataFrame) -> pd.DataFrame | None:
    """The winners around the nearest to the ideal point, if they are a crowd and others are far."""
    mine = data[data["kind"] == "method"]
    if len(mine) < CROWD:
        return None
    nearest = mine.iloc[int(np.hypot(mine["forget_gap"], 1 - mine["utility"]).argmin())]
    spans = {name: data[name].max() - data[name].min() for name in ("forget_gap", "utility")}
    near = [(mine[name] - nearest[name]).abs() <= NEAR * span for name, span in spans.items()]
    crowd = mine[near[0] & near[1]]
    return crowd if len(crowd) >= CROWD and spans["utility"] > 0 else None


def _inset(axis: Axes, data: pd.DataFrame, crowd: pd.DataFrame, methods: Sequence[str]) -> None:
    """The crowd once more, larger, where the panel is empty: on the lower right."""
    inset = axis.inset_axes((0.55, 0.17, 0.43, 0.42))
    _winners(inset, data, methods, bars=False)
    for name, limits in (("forget_gap", inset.set_xlim), ("utility", inset.set_ylim)):
        low, high = float(crowd[name].min()), float(crowd[name].max())
        room = max(0.3 * (high - low), 0.01)
        limits(low - room, high + room)
    inset.locator_params(nbins=2)
    axis.indicate_inset_zoom(inset, edgecolor="#555555", linewidth=0.6)
