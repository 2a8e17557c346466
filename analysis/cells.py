"""A table that is ready to print, and how a cell is written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from study.core.files import written

NOTHING = "n/a"


class Table(NamedTuple):
    """One table: its file name, heading, what to say about it, all its numbers, and what is shown of them."""

    name: str
    title: str
    note: str
    raw: pd.DataFrame
    shown: pd.DataFrame

    def write(self, folder: Path) -> None:
        """Write all numbers as CSV and what is shown as LaTeX (needs the booktabs package)."""
        with written(folder / f"{self.name}.csv") as draft:
            self.raw.to_csv(draft, index=False)
        with written(folder / f"{self.name}.tex") as draft:
            draft.write_text(self.shown.to_latex(index=False, escape=True), encoding="utf-8")


def number(value: float, digits: int = 3) -> str:
    """A number as text, or `NOTHING` for NaN."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def interval(mean: float, low: float, high: float) -> str:
    """`0.62 [0.55, 0.70]`, or the number alone where there is no interval."""
    if math.isnan(mean) or math.isnan(low):
        return number(mean, 2)
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def parameters(text: str) -> str:
    """Hyper-parameters in JSON as `name value, name value`, nested ones flattened, without the names of types."""
    return ", ".join(f"{name} {value}" for name, value in _flat(json.loads(text)) if name != "type")


def _flat(values: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            shown = f"{value:.4g}" if isinstance(value, float) else value
            yield name.replace("_", " "), " + ".join(map(str, value)) if isinstance(value, list) else shown


def with_interval(raw: pd.DataFrame, name: str, *, bare: bool = False) -> pd.Series[str]:
    """A column of numbers with their ends, as text; `bare` if the ends are just called low and high."""
    ends = ["low", "high"] if bare else [f"{name}_low", f"{name}_high"]
    texts = [interval(*map(float, values)) for values in raw[[name, *ends]].itertuples(index=False)]
    return pd.Series(texts, index=raw.index, dtype=str)
