"""UMU-Bench's own numbers: facts that a model has in both modalities, or in none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis import naming
from analysis.sections import Part, Section
from analysis.study_folder import StudyResults, benchmark_kind
from analysis.tables import Table, number
from study.metrics.formulas import average
from study.metrics.umu_table import umu_scores


def parts(study: StudyResults) -> Iterator[Part]:
    """The table, of a study of UMU-Bench that was scored by its official protocol."""
    if len(raw := scores(study)):
        yield Table(
            "umu", "Both modalities, as UMU-Bench reports them",
            "Protocol: official, mean over seeds. A pair is one fact asked with a picture and without: % of pairs with "
            "both replies right, and with both wrong. ROUGE-L: mean over pairs of (a² + b²) / (a + b) of the forget "
            "set and of 2ab / (a + b) of the others, a and b those of the two replies.",
            raw, _shown(raw),
        )  # fmt: skip


def scores(study: StudyResults) -> pd.DataFrame:
    """One line for each model and set, each number the mean over seeds; none of another benchmark."""
    lines: list[dict[str, Any]] = []
    for ratio in study.ratios if benchmark_kind(study.settings) == "Umu" else ():
        for label, members in study.labelled(ratio):
            runs = (study.rows(trial.key, "released") for trial in members)
            found = [umu_scores(rows) for rows in runs if rows is not None and len(rows)]
            for name in found[0] if found else ():
                means = {key: average([one[name][key] for one in found]) for key in found[0][name]}
                lines.append({"ratio": ratio, "method": label, "set": name, "seeds": len(found), **means})
    return pd.DataFrame(lines)


def _shown(raw: pd.DataFrame) -> pd.DataFrame:
    shares = [str(name) for name in raw if "both" in str(name)]
    return pd.DataFrame([
        {"forget %": line["ratio"], "method": naming.method(line["method"]), "set": line["set"],
         **{f"{name} %": number(100.0 * line[name], 1) for name in shares}, "ROUGE-L": number(line["ROUGE-L"])}
        for _, line in raw.iterrows()
    ])  # fmt: skip


SECTION = Section("UMU-Bench", 82, parts)
