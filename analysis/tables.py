"""A table that is ready to print, and how a cell is written."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from study.core.files import written

NOTHING = "n/a"
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How cells begin that spreadsheets compute."""


TONES = {
    "good": ("equivalent to retraining", "no more than retraining", "like retraining"),
    "bad": ("came back", "collapsed", "collapsed under attack", "not unlearned"),
    "open": ("cannot tell", "tied", "too few people", "no control", "not attacked", "rebound from overshoot",
             "only the control fell"),
}  # fmt: skip
"""Words of the columns `verdict` and `mark` that a reader should see at once: they speak for the model, against it, or
leave something open."""


def tone(word: str) -> str:
    """The tone of a verdict; nothing for one that says what a line is."""
    return next((tone for tone, words in TONES.items() if word in words), "")


class Table(NamedTuple):
    """One table: its file name, heading, note, all its numbers, and those that are shown.

    One without a name has no files: its numbers are in those of others.
    """

    name: str
    title: str
    note: str
    raw: pd.DataFrame
    shown: pd.DataFrame
    folded: bool = False
    """Whether the page shows it only when the reader unfolds it."""

    def write(self, folder: Path) -> list[Path]:
        """Write all numbers as CSV and what is shown as LaTeX (needs the booktabs package); their paths."""
        if not self.name:
            return []
        csv, tex = folder / f"{self.name}.csv", folder / f"{self.name}.tex"
        keep(csv, as_csv(self.raw))
        keep(tex, _each_text(self.shown, _printable).to_latex(index=False, escape=True))
        return [csv, tex]


def as_csv(frame: pd.DataFrame) -> str:
    """A table as CSV of which no cell is a formula: a spreadsheet would compute what begins like one."""
    return _each_text(frame, _no_formula).to_csv(index=False)


def _each_text(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with every text in it changed, headings too; numbers stay what they are."""
    changed = frame.set_axis([change(str(name)) for name in frame.columns], axis=1)
    for place, kind in enumerate(frame.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            cells = frame.iloc[:, place]
            changed.isetitem(place, cells.map(lambda cell: change(cell) if isinstance(cell, str) else cell).array)
    return changed


def _no_formula(text: str) -> str:
    """A quote in front of what a spreadsheet takes for a formula, unless it is a number."""
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(FORMULA) else text
    return text


def _printable(text: str) -> str:
    """A space for every control character: LaTeX stops at them."""
    return "".join(" " if unicodedata.category(sign) == "Cc" else sign for sign in text)


def keep(path: Path, text: str) -> None:
    """Write a text file unless it holds that text already."""
    content = text.encode("utf-8")
    if path.exists() and path.read_bytes() == content:
        return
    with written(path) as draft:
        draft.write_bytes(content)


class Pasted(NamedTuple):
    """Text to be copied as it stands."""

    text: str


class Pairs(NamedTuple):
    """Names with a text for each, without numbers: definitions, settings."""

    title: str
    entries: Sequence[tuple[str, str]]


def number(value: float | None, digits: int = 3) -> str:
    """A number as text, 0 without a sign, or `NOTHING` for NaN and for None, as which JSON has it."""
    return NOTHING if value is None or math.isnan(value) else f"{value:z.{digits}f}"


def interval(mean: float | None, low: float | None, high: float | None) -> str:
    """`0.62 [0.55, 0.70]`, or the number alone where there is no interval."""
    value, *bounds = map(two, (mean, low, high))
    return value if NOTHING in (value, *bounds) else f"{value} [{', '.join(bounds)}]"


def parameters(text: str) -> str:
    """Hyper-parameters in JSON as `name value, name value`, nested ones flattened, without the names of types."""
    return ", ".join(f"{name} {value}" for name, value in _flat(json.loads(text)) if name != "type")


def two(value: float | None) -> str:
    """A number with two digits."""
    return number(value, 2)


def whole(value: float | None) -> str:
    """A count as text."""
    return number(value, 0)


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
