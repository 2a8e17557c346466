"""Recovery against the attacker's budget: the share of the forget people given, and the steps taken."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import naming
from analysis.plots import Plot
from analysis.sections import Part, Section, _attack_suite, _recovery
from analysis.sections._attack_suite import Attacked, above, attacked, levels_of
from analysis.sections._levels import gain_of
from analysis.sections._recovery import BASELINES, HELD_OUT
from analysis.study_folder import StudyResults
from analysis.style import GREY, INK, MARKERS, grid
from analysis.tables import Table, two, with_interval

COLUMNS = ["method", "ratio", "share", "who", "step", "gain", "low", "high", "people"]
CONTROL: Any = (0, (3, 1.5))
"""The dashes of the control."""
SHARES = "viridis_r"
"""The colour map of the shares: even steps of lightness, so that it can be read in black and white."""


def parts(study: StudyResults) -> Iterator[Part]:
    """The figure, and the attack gain by share where several were tried."""
    shown = family(study)
    named = _attack_suite.suite(study)[next(iter(shown.values()))] if shown else ""
    without_share = ", ".join(part for part in named.split(", ") if not re.fullmatch(r"(.* )?people [\d.]+", part))
    yield Plot(
        "recovery_budget",
        "Recovery against the attacker's budget: what the probability of the right option gained on held-out people "
        "and facts (test half) after so many steps, by the share of the forget people that the attacker was given. "
        "Dashed: the references under the same attack (control). What is gained above them is recovery. The attack: "
        f"{without_share}.",
        budget(study),
        draw_budget,
    )
    if len(shown) > 1:
        yield by_share_table(study)


@lru_cache(maxsize=4)
def family(study: StudyResults) -> Mapping[float, str]:
    """The attacks of several steps that differ in nothing but the share of people given, by that share.

    Where there are several families it is that of the most shares, then that of the largest gain above control on the
    validation half.
    """
    found: dict[str, dict[float, str]] = {}
    for key, (kind, settings) in _attack_suite.tellings(study).items():
        flat = naming.leaves(settings)
        shares = [name for name in flat if name.split()[-1] == "people"]
        if len(shares) == 1 and _courses(study, key):
            rest = sorted((name, repr(value)) for name, value in flat.items() if name != shares[0])
            found.setdefault(repr((kind, rest)), {})[float(flat[shares[0]])] = key
    ranked = sorted(found.items(), key=lambda one: (-len(one[1]), -_strongest(study, list(one[1].values())), one[0]))
    return dict(sorted(ranked[0][1].items())) if ranked else {}


def budget(study: StudyResults) -> pd.DataFrame:
    """The gain with its interval at every step, of each winner and its control, for each share of people given."""
    lines = []
    for share, key in family(study).items():
        for case, control in _courses(study, key):
            for who, one in (("method", case), ("control", control)):
                place = {"method": case.label, "ratio": case.ratio, "share": share, "who": who}
                lines += [{**place, **point} for point in _points(one)]
    return pd.DataFrame(lines, columns=COLUMNS)


def by_share_table(study: StudyResults) -> Table:
    """The attack gain of each winner by the share of the forget people that the attacker was given."""
    shares = {key: share for share, key in family(study).items()}
    both, each = _recovery.pooled_groups(study), _recovery.recovery(study)
    lines = pd.concat([both, each[(each["held_out"] == "seen") & ~each["attack"].isin(both["attack"])]])
    lines = lines[lines["attack"].isin(shares) & ~lines["method"].isin(BASELINES)]
    raw = lines.assign(share=lines["attack"].map(shares)).sort_values(["ratio", "method", "share"])
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(naming.method),
        "given": raw["share"].map(_given),
        "on": raw["held_out"].map({"both": "held out", "seen": "given"}), "step": raw["step"],
        "AG": with_interval(raw, "attack_gain"), "AG of control": raw["control_attack_gain"].map(two),
        "above control": with_interval(raw, "above_control"), "verdict": raw["verdict"],
    })  # fmt: skip
    return Table(
        "attack_gain", "Attack gain by the share of the forget people given",
        "AG (attack gain): accuracy after minus before, with 95 % intervals over people and seeds; papers give no "
        "formula, so this definition is ours. It is of what the attacker was not given, or, where that is nothing, of "
        "what was given, which says that the attack works and nothing of memory. Above control is in probability.",
        raw, shown,
    )  # fmt: skip


def _courses(study: StudyResults, attack: str) -> list[tuple[Attacked, Attacked]]:
    """The winners that met an attack of several steps, each with the references that did."""
    met = [
        case for case in attacked(study) if case.attack == attack and any(len(one) > 1 for one in case.gains["select"])
    ]
    controls = {case.ratio: case for case in met if case.label == "reference"}
    mine = [case for case in met if case.label not in BASELINES and case.ratio in controls]
    held = [(case, controls[case.ratio]) for case in mine if levels_of(case, HELD_OUT)]
    return held or [(case, controls[case.ratio]) for case in mine]


def _strongest(study: StudyResults, attacks: Sequence[str]) -> float:
    """The largest gain above control on the validation half, of any winner at any step."""
    pairs = [pair for key in attacks for pair in _courses(study, key)]
    found = [float(above(case, control, "select").max()) for case, control in pairs]
    return max((gain for gain in found if not math.isnan(gain)), default=-1.0)


def _points(case: Attacked) -> Iterator[dict[str, Any]]:
    """The gain at each step that any seed was taken to, over the seeds that were."""
    found = levels_of(case, HELD_OUT)
    if found is None:
        return
    for step in found.steps[1:]:
        values, people = found.ends(step, found.judged)
        value, low, high = gain_of(values, "seed").interval()
        yield {"step": step, "gain": value, "low": low, "high": high, "people": len(people)}


def draw_budget(data: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """A small panel for each winner; a line for each share of people given, the control's dashed."""
    order = {method: place for place, method in enumerate(methods)}
    cases = sorted(set(zip(data["ratio"], data["method"], strict=True)), key=lambda c: (c[0], order[c[1]]))
    shares = sorted(data["share"].unique())
    figure, axes = grid(len(cases), 1.45, "attack steps", "gain (probability)")
    for axis, (ratio, method) in zip(axes, cases, strict=True):
        mine = data[(data["ratio"] == ratio) & (data["method"] == method)]
        for place, share in enumerate(shares):
            _lines(axis, mine[mine["share"] == share].sort_values("step"), place, len(shares))
        axis.axhline(0, color=GREY, linewidth=0.6)
        axis.set_title(naming.wrapped(f"{naming.method(method)}, {ratio} %", 26), fontsize=7)
        axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    marks = [
        Line2D([], [], color=_color(n, len(shares)), marker=MARKERS[n], markersize=3.5, label=f"given {_given(share)}")
        for n, share in enumerate(shares)
    ]
    dark = GREY if len(shares) == 1 else INK
    control = Line2D([], [], color=dark, linestyle=CONTROL, linewidth=0.9, label="references (control)")
    figure.legend(handles=[*marks, control], loc="outside lower center", ncols=5, handlelength=2.4)
    return figure


def _lines(axis: Axes, mine: pd.DataFrame, place: int, of_all: int) -> None:
    """A share's line of the winner and of the control, with intervals where there is but one share."""
    own = _color(place, of_all)
    looks = {"control": (GREY if of_all == 1 else own, CONTROL, 2.2), "method": (own, "-", 3.5)}
    for who, (color, dashes, size) in looks.items():
        part = mine[mine["who"] == who]
        value, low, high = ([0.0, *part[name]] for name in ("gain", "low", "high"))
        steps = [0, *part["step"]]
        axis.plot(steps, value, color=color, linestyle=dashes, linewidth=1.1, marker=MARKERS[place], markersize=size)
        if of_all == 1:
            axis.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)


def _given(share: float) -> str:
    return f"{100 * share:g} % of the people"


def _color(place: int, of_all: int) -> Any:
    return mpl.colormaps[SHARES](0.25 + 0.65 * (place / (of_all - 1) if of_all > 1 else 0.5))


SECTION = Section("Recovery against the attacker's budget", 25, parts)
