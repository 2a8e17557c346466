"""What it bought a search to begin at the winners of an earlier study, on the half of the questions that selects.

Within the study this is the earlier winner beside the default. What a search without it would have needed only such a
search can tell: `Study.cold`, the same study begun cold.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis import words
from analysis.cells import NOTHING, Table, number
from analysis.folder import Study
from analysis.table import NAN, proposals

NEAR = 0.01
"""A distance to the ideal this close to the winner's is as good as the winner's."""
SAME = ("model", "benchmark", "fingerprint", "goal", "forget_ratios", "forget_attributes", "robustness", "attack_keeps",
        "learn", "learn_parts", "seed", "lookahead", "random_trials")  # fmt: skip
"""The settings that make a search what it is."""
COLUMNS = ["method", "ratio", "begins", "default_distance", "warm_distance", "gain", "winner_distance", "reached",
           "trials"]  # fmt: skip
COLD_COLUMNS = ["cold_winner_distance", "cold_reached", "cold_trials"]


def check(study: Study) -> None:
    """Raise `ValueError` if the study that is compared is not the same one begun cold."""
    if study.cold is None:
        return
    if not study.record.get("warm_start"):
        raise ValueError(f"--cold {study.cold.root}: {study.root} began cold itself; leave --cold out")
    if study.cold.record.get("warm_start"):
        raise ValueError(f"--cold {study.cold.root} was itself begun with --warm-start; name one that was not")
    ours, theirs = study.settings, study.cold.settings
    other = [name for name in SAME if ours.get(name) != theirs.get(name)]
    starts, cold_starts = ours.get("defaults") or {}, theirs.get("defaults") or {}
    other += [f"defaults.{name}" for name in sorted({*starts} & {*cold_starts}) if starts[name] != cold_starts[name]]
    if other:
        raise ValueError(f"--cold {study.cold.root} is another study than {study.root}: {', '.join(other)} differ")


def best(study: Study) -> pd.DataFrame:
    """The least distance to the ideal after each proposal of each method and ratio, in the order of proposals.

    Columns method, ratio, trials (1, 2, ...), distance; it is NaN until a first proposal ended well.
    """
    found = proposals(study).sort_values(["method", "ratio", "number"]).astype({"distance": float})
    groups = found.groupby(["method", "ratio"])
    least = groups["distance"].cummin()
    distance = least.groupby([found["method"], found["ratio"]]).ffill()
    return found[["method", "ratio"]].assign(trials=groups.cumcount() + 1, distance=distance).reset_index(drop=True)


def table(study: Study) -> pd.DataFrame:
    """One line for each method and ratio of a study that was begun warm; none of any other.

    `reached` is the number of proposals at that ratio after which the best distance was within `NEAR` of the winner's;
    `cold_reached` the same of `Study.cold`, for the same distance: NaN if it never was.
    """
    start = study.record.get("warm_start") or {"found": {}}
    after, after_cold = best(study), best(study.cold) if study.cold else None
    lines = []
    for method in (name for name in study.methods if name in start["found"]):
        for ratio, warm in sorted(start["found"][method].items(), key=lambda item: int(item[0])):
            mine = _of(after, method, int(ratio))
            line = {"method": method, "ratio": int(ratio), "begins": _begins(start["study"], warm),
                    **_guesses(study, method, int(ratio)), **_reached(mine, _last(mine))}  # fmt: skip
            if after_cold is not None:
                theirs = _reached(_of(after_cold, method, int(ratio)), _last(mine))
                line |= {f"cold_{name}": value for name, value in theirs.items()}
            lines.append(line)
    return pd.DataFrame(lines, columns=[*COLUMNS, *(COLD_COLUMNS if study.cold else [])])


def every(study: Study) -> list[Table]:
    """The table of a study that was begun warm; nothing of any other."""
    raw = table(study)
    if raw.empty:
        return []
    names = [name for name in raw.columns if name.endswith(("distance", "gain"))]
    counts = [name for name in raw.columns if name.endswith("reached")]
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(words.method), "begins": raw["begins"],
        **{name.replace("_", " "): raw[name].map(number) for name in names},
        **{name.replace("_", " "): _counted(raw, name) for name in counts},
    })  # fmt: skip
    note = (
        "Distances to the ideal on the select half, one seed. Gain: how much nearer the earlier winner is than the "
        f"default before anything is searched. Reached: the proposal by which the search was within {NEAR} of its "
        "winner. "
    )
    note += (
        f"Cold: the same search without the earlier winners, {study.cold.name}; reached there is for the same distance."
        if study.cold
        else "What a search without the earlier winners would have needed this study cannot tell; run one and compare "
        "with python -m analysis STUDY --cold THAT_ONE."
    )
    return [Table("warm_start", "What the warm start bought", note, raw, shown)]


def _of(after: pd.DataFrame, method: str, ratio: int) -> pd.DataFrame:
    return after[(after["method"] == method) & (after["ratio"] == ratio)]


def _last(after: pd.DataFrame) -> float:
    """The best distance of all."""
    return float(after["distance"].iloc[-1]) if len(after) else NAN


def _reached(after: pd.DataFrame, target: float) -> dict[str, float]:
    """The best distance of a search, after how many proposals it was as good as `target`, and how many there were."""
    there = after.loc[after["distance"] <= target + NEAR, "trials"]
    reached = float(there.min()) if len(there) else NAN
    return {"winner_distance": _last(after), "reached": reached, "trials": len(after)}


def _guesses(study: Study, method: str, ratio: int) -> dict[str, float]:
    """The distance of the default and of the earlier winner, NaN for one that is not there or did not end well."""
    found = proposals(study).set_index(["method", "number"])["distance"]
    mine = [p for p in study.proposals if (p.method, p.ratio) == (method, ratio)]
    default = next((float(found[method, p.number]) for p in mine if p.default), NAN)
    warm = next((float(found[method, p.number]) for p in mine if p.warm), NAN)
    return {"default_distance": default, "warm_distance": warm, "gain": default - warm}


def _begins(study: str, warm: dict[str, Any]) -> str:
    note = f" ({warm['note']})" if warm["note"] else ""
    return f"as it won in {study} at {warm['ratio']} %{note}" if warm["params"] else f"cold{note}"


def _counted(raw: pd.DataFrame, name: str) -> list[str]:
    """`3 of 8`, or that it never was."""
    counts = raw[[name, name.replace("reached", "trials")]].itertuples(index=False)
    return [NOTHING if pd.isna(at) else f"{at:.0f} of {trials}" for at, trials in counts]
