"""One self-contained HTML page of a study, with its tables as CSV and LaTeX and its figures as PNG and PDF."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from analysis import (
    attacks,
    cells,
    figures,
    metric_check,
    present,
    robustness,
    sequences,
    table,
    warm_start,
    worst_case,
)
from analysis.answer import answer
from analysis.folder import Study, read
from analysis.robustness import VERDICTS
from study.core.files import written
from study.metrics.objectives import BROKEN

SCREEN = 115
"""CSS pixels for an inch of a figure: two paper columns fill a screen well."""


class Outcome(NamedTuple):
    """The HTML page, and for a terminal the winners and the worst attack on each: every cell is ready to print."""

    page: Path
    winners: pd.DataFrame
    recovery: pd.DataFrame


def build(root: Path, cold: Path | None = None) -> Outcome:
    """Write `report/` anew from what is on disk; `cold` is the same study begun without a warm start.

    Raises `FileNotFoundError` if `root` is no study and `ValueError` that names a damaged file.
    """
    study = read(root, cold)
    warm_start.check(study)
    won, recovered = table.winners(study), robustness.recovery(study)
    tables = present.every(study, won, recovered)
    folder = root / "report"
    for entry in tables.values():
        entry.write(folder / "tables")
    drawn = figures.save(study, folder / "figures")
    for figure in drawn:
        with written(folder / "tables" / f"figure_{figure.plot.name}.csv") as draft:
            figure.data.to_csv(draft, index=False)
    page = _template().render(**_facts(study), tables=tables, figures={d.plot.name: _image(d) for d in drawn},
                              answer=answer(study, won, recovered, worst_case.table(study)),
                              in_turn=sequences.said(study), trusted=metric_check.said(study),
                              verdicts=VERDICTS)  # fmt: skip
    with written(folder / "report.html") as draft:
        draft.write_text(page, encoding="utf-8")
    shown = tables["winners"].shown.drop(columns=["when selected", "retain kept"], errors="ignore")
    return Outcome(folder / "report.html", shown.astype(str), present.worst(recovered).astype(str))


def _facts(study: Study) -> dict[str, Any]:
    trials = table.trials(study)
    overhead = trials.loc[trials["kind"] == "method", "overhead_seconds"].astype(float).dropna()
    return {
        "name": study.name, "goal": study.goal, "ratios": study.ratios, "git": study.record.get("git") or "unknown",
        "attributes": study.forget_attributes,
        "settings": _entries(study.settings), "versions": _entries(study.record.get("versions") or {}),
        "finished": int((trials["state"] == "complete").sum()), "trials": len(trials),
        "overhead": cells.number(float(overhead.median()), 2), "overhead_trials": len(overhead),
        "keeps": attacks.keeps(study), "broken": BROKEN, "smallest_gap": robustness.SMALLEST_GAP,
        "robustness": (study.settings.get("robustness") or {}).get("attack", ""),
    }  # fmt: skip


def _entries(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in sorted(values.items())}
    return [(name.replace("_", " "), value) for name, value in shown.items()]


def _image(drawn: figures.Drawn) -> dict[str, str | int]:
    content = drawn.png.read_bytes()
    width = int.from_bytes(content[16:20], "big") * SCREEN // figures.DPI  # PNG specification, 11.2.2: IHDR
    source = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
    return {"caption": drawn.plot.caption, "source": source, "width": width}


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.jinja")
