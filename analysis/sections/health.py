"""Health checks of the search, and the numbers behind them."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis import naming
from analysis.health import CHANCE, Edge, Settings, checks, ends, learned, spread
from analysis.searched import Searched, searches
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.tables import Table, number

COLUMNS = ["method", "ratio", "trials", "hyperparameters", "lost", "nearest_first", "nearest_later", "noise", "runs",
           "spread", "ends"]  # fmt: skip


def parts(study: StudyResults) -> Iterator[Part]:
    """What stands out, in sentences, then the numbers of every search."""
    if not searches(study):
        return
    yield from sentences(study) or [well(study)]
    yield health_table(study)


def sentences(study: StudyResults) -> list[str]:
    """What stands out: the terminal shows the same."""
    return checks(searches(study), _settings(study))


def well(study: StudyResults) -> str:
    """What is said where nothing stands out; that it learned only where the test says so."""
    has_learned = learned(searches(study)).p < CHANCE
    return (
        f"All is well as far as these checks can see: the search {'learned from its results, ' * has_learned}lost few "
        "trials, stayed inside its ranges, is larger than the noise of seeds, and had enough trials for its "
        "hyper-parameters."
    )


def _settings(study: StudyResults) -> Settings:
    most = max((len(one.trials) for one in searches(study)), default=0)
    return Settings(int(study.settings.get("trials", most)), max(1, len(study.ratios)))


def health_table(study: StudyResults) -> Table:
    """One line for each search."""
    raw = pd.DataFrame(map(_line, searches(study)), columns=COLUMNS)
    shown = pd.DataFrame({
        "forget %": raw["ratio"], "method": raw["method"].map(naming.method), "trials": raw["trials"],
        "hyper-parameters": raw["hyperparameters"], "without a usable model": raw["lost"],
        "nearest of the first": raw["nearest_first"].map(number), "of the later": raw["nearest_later"].map(number),
        "noise of seeds": raw["noise"].map(number), "spread of the better half": raw["spread"].map(number),
        "at an end of its range": raw["ends"],
    })  # fmt: skip
    return Table(
        "health", "The search in numbers",
        "On the validation half. Nearest: the least distance to the ideal point of the trials that were given or drawn "
        "before the search models results, and of those proposed from results. Whether later ones are nearer is tested "
        f"over all searches together (at {CHANCE:.0%}). Noise: the standard deviation of the distance between seeds of "
        "equal settings. Spread: that of one seed of the better half of the trials. At an end: how many of the best "
        "quarter of the trials lie within a tenth of a range of its end, where chance alone would put fewer.",
        raw, shown, folded=True,
    )  # fmt: skip


def _line(one: Searched) -> dict[str, object]:
    later = one.scored["number"] >= one.startup
    return {
        "method": one.method, "ratio": one.ratio, "trials": len(one.trials), "hyperparameters": len(one.space),
        "lost": len(one.lost), "nearest_first": one.scored.loc[~later, "distance"].min(),
        "nearest_later": one.scored.loc[later, "distance"].min(), "noise": one.noise, "runs": one.seeds,
        "spread": spread(one), "ends": ", ".join(map(_end, ends(one))),
    }  # fmt: skip


def _end(edge: Edge) -> str:
    return f"{naming.words(edge.name)} {'upper' if edge.upper else 'lower'} {edge.there} of {edge.best}"


SECTION = Section("Health of the search", 12, parts)
