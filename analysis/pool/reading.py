"""Several finished studies of the same settings as one set of numbers: a line for each study, ratio and method.

Reading and checking; the arithmetic is `study.metrics.worlds`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import comparison
from analysis.sections import _worst_attack
from analysis.study_folder import StudyResults, read
from analysis.trials import objectives_of, search_attack, winners
from study.core.records import ModelKind
from study.metrics.worlds import Statement, by_world

FREE = ("seed", "benchmark.seed")
"""Settings in which pooled studies may differ; how and where a study runs is no setting of its result."""
MEASURES = ("forget_gap", "utility", "distance")
RECOVERY = "recovery"
"""Under the worst attack on the winner of each study, above control."""
COLUMNS = ["study", "world", "ratio", "method", "key", *MEASURES, "collapsed", "people_variance", "seeds_variance",
           RECOVERY, "attack", "verdict"]  # fmt: skip
WORLD_COLUMNS = ["study", "world", "seed", "revision", "ratio", "noise_floor", "vanilla"]


def studies(roots: Sequence[Path]) -> list[StudyResults]:
    """The studies to be pooled.

    Raises `FileNotFoundError` for a folder that is no study, and `ValueError` that says what is unfinished, named
    twice, or set differently.
    """
    places = [root.resolve() for root in roots]
    if twice := [str(root) for root, place in zip(roots, places, strict=True) if places.count(place) > 1]:
        raise ValueError(f"{twice[0]} is named twice: a study counts once; leave one out")
    found = [read(root) for root in roots]
    for study in found:
        if missing := next(_missing(study), ""):
            raise ValueError(f"{study.root} is unfinished: {missing}; run the study again to finish it")
    for study in found[1:]:
        if other := list(_other(found[0].settings, study.settings)):
            raise ValueError(
                f"{study.root} is another study than {found[0].root}: {', '.join(other)} differ; only the seeds of "
                "the study and of the benchmark may"
            )
    return found


def world(study: StudyResults) -> str:
    """The world of a study: the seed of its benchmark, or the fingerprint of data that has none."""
    benchmark = study.settings.get("benchmark")
    seed = benchmark.get("seed") if isinstance(benchmark, Mapping) else None
    return str(study.settings.get("fingerprint", "")) if seed is None else f"seed {seed}"


def lines(found: Sequence[StudyResults]) -> pd.DataFrame:
    """One line for each winner of each study, on the test half, the mean over its seeds.

    `people_variance` and `seeds_variance` are of its distance, as its own people and seeds tell; NaN with too few
    people, and where robustness is an objective, whose spread over people is not known. `recovery` is NaN and the
    verdict is `not attacked` where no attack on it can be compared with one on a reference.
    """
    return pd.DataFrame([line for study in found for line in _lines(study)], columns=COLUMNS)


def worlds(found: Sequence[StudyResults]) -> pd.DataFrame:
    """One line for each study and ratio: its noise floor, and how far vanilla is from the ideal point."""
    return pd.DataFrame(
        [
            {"study": str(study.root), "world": world(study), "seed": study.settings.get("seed"),
             "revision": study.record.get("git") or "", "ratio": ratio,
             "noise_floor": max(comparison.floor(study, ratio), default=math.nan), "vanilla": _vanilla(study, ratio)}
            for study in found for ratio in study.ratios
        ],
        columns=WORLD_COLUMNS,
    )  # fmt: skip


def by_method(table: pd.DataFrame) -> Iterator[tuple[int, str, pd.DataFrame]]:
    """The lines of each method at each ratio."""
    for (ratio, method), mine in table.groupby(["ratio", "method"]):
        yield int(str(ratio)), str(method), mine


def vanilla(found: Sequence[StudyResults]) -> dict[int, float]:
    """The distance of vanilla at each ratio, the mean over worlds."""
    table = worlds(found)
    return {
        int(str(ratio)): float(by_world(mine["vanilla"], mine["world"]).mean())
        for ratio, mine in table.groupby("ratio")
    }


def distances(table: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """For each ratio the distance by world (lines) and method (columns), of methods with a winner in every world."""
    found = {}
    for ratio, mine in table.groupby("ratio"):
        by_method = {str(m): by_world(own["distance"], own["world"]) for m, own in mine.groupby("method")}
        everywhere = {name: own for name, own in by_method.items() if len(own) == table["world"].nunique()}
        found[int(str(ratio))] = pd.DataFrame(everywhere)
    return found


def statements(study: StudyResults) -> list[Statement]:
    """What a study says of its nearest usable winner and each other one, if the nearest improves on vanilla."""
    won, found = winners(study), []
    for ratio, mine in won.groupby("ratio"):
        usable = mine[~mine["broken"].astype(bool)].dropna(subset=["distance"]).sort_values(["distance", "method"])
        if usable.empty or usable["distance"].iloc[0] >= _vanilla(study, int(str(ratio))):
            continue
        best, *others = usable[["method", "tied"]].itertuples(index=False, name=None)
        found += [Statement(int(str(ratio)), best[0], method, bool(tied)) for method, tied in others]
    return found


def _lines(study: StudyResults) -> Iterator[dict[str, Any]]:
    place = {"study": str(study.root), "world": world(study)}
    worst = _worst_attack.table(study).set_index("key")
    for _, won in winners(study).dropna(subset=["distance"]).iterrows():
        yield {
            **place, **{name: won[name] for name in ("ratio", "method", "key", *MEASURES)},
            "collapsed": bool(won["broken"]), **_variances(study, str(won["method"]), int(won["ratio"])),
            **_attacked(worst, str(won["key"])),
        }  # fmt: skip


def _attacked(worst: pd.DataFrame, key: str) -> dict[str, Any]:
    """What the worst attack on a winner has shown."""
    if key not in worst.index:
        return {RECOVERY: math.nan, "attack": "", "verdict": "not attacked"}
    [line] = worst.loc[[key]].to_dict("records")
    return {RECOVERY: line["above_control"], "attack": line["settings"], "verdict": line["verdict"]}


def _variances(study: StudyResults, method: str, ratio: int) -> dict[str, float]:
    against = comparison.bench(study, ratio)
    model = comparison.model(study, method, study.winners[method, ratio], ratio)
    if against is None or model is None or search_attack(study):
        return {}
    found = comparison.distance_of(model, against)
    if not found.known:
        return {}
    return {
        "people_variance": math.fsum(part.variance for part in found.people),
        "seeds_variance": math.fsum(part.variance for part in found.seeds),
    }


def _vanilla(study: StudyResults, ratio: int) -> float:
    found = study.yardsticks("vanilla", ratio)
    return objectives_of(study, found[0].key, "report")[0]["distance"] if found else math.nan


def _missing(study: StudyResults) -> Iterator[str]:
    """What a study lacks of the numbers that are pooled."""
    asked = study.settings
    wanted: dict[ModelKind, int] = {"vanilla": 1, "reference": int(asked.get("reference_seeds", 1))}
    for ratio in study.ratios:
        for kind, count in wanted.items():
            scored = comparison.rows_of(study, study.yardsticks(kind, ratio))
            if len(scored) < count:
                yield f"{len(scored)} of {count} models of {kind} scored at {ratio} %"
    for method in asked.get("methods", []):
        ended = [p for p in study.proposals if p.method == method and p.trial in study.trials]
        if len(ended) < int(asked.get("trials", 0)):
            yield f"{len(ended)} of {asked['trials']} trials of {method} done"
    if not study.folder.winners.exists():
        yield "no winners selected"
    for (method, ratio), keys in study.winners.items():
        done = [key for key in keys if _is_done(study, key)]
        seeds = 1 + int(asked.get("confirm_seeds", 0))
        if len(done) < seeds:
            yield f"{len(done)} of {seeds} seeds of the winner of {method} scored at {ratio} %"


def _is_done(study: StudyResults, key: str) -> bool:
    """Whether a seed of a winner was scored on the test half, or has none because it diverged or failed."""
    trial = study.trials.get(key)
    return trial is not None and (trial.state != "complete" or study.rows(key, "report") is not None)


def _other(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    """The names of the settings that make two studies different ones."""
    same_data = _leaf(a, "benchmark.seed") == _leaf(b, "benchmark.seed")
    for name in _differences(a, b):
        if name not in FREE and (name != "fingerprint" or same_data):
            yield name


def _leaf(settings: Mapping[str, Any], name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _differences(a: Any, b: Any, name: str = "") -> Iterator[str]:
    """The dotted names of the leaves at which two JSON values differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            yield from _differences(a.get(key), b.get(key), f"{name}.{key}".lstrip("."))
    elif a != b:
        yield name


def revisions(studies: Sequence[StudyResults]) -> list[str]:
    """The revisions of this project that made the studies."""
    return sorted({str(study.record.get("git") or "") for study in studies})
