"""LaTeX: text that it prints as it stands, and tables whose numbers stand under each other."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Sequence
from typing import Literal, NamedTuple

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\u2191": r"$\uparrow$", "\u2193": r"$\downarrow$",
    "\u00d7": r"$\times$", "\u2021": r"\ddag{}", "\u25cb": r"$\circ$", "\u00b2": r"$^2$", "<": r"$<$", ">": r"$>$",
}  # fmt: skip
ARROWS = {"up": r" $\uparrow$", "down": r" $\downarrow$", "": ""}
LOST = "--"
"""A number that is not there."""
LONG = 48
"""Characters of a cell of text above which it is broken into lines: beside numbers it would not fit the page."""
BROKEN = "2.8in"
"""The width of such a cell, near that of `LONG` characters."""


def escaped(text: str) -> str:
    """Text as LaTeX prints it; what its usual fonts lack is a question mark."""
    signs = (SPECIAL.get(sign, sign) for sign in unicodedata.normalize("NFC", text))
    return "".join(" " if unicodedata.category(s[0]) == "Cc" else s if ord(s[0]) < 0x180 else "?" for s in signs)


class Number(NamedTuple):
    """A number of a table, with its bounds if it has any."""

    value: float
    low: float = math.nan
    high: float = math.nan
    best: bool = False
    tied: bool = False
    """Whether it cannot be told from the best."""

    def printed(self, digits: int) -> tuple[str, str]:
        """The number, and its bounds in brackets."""
        if math.isnan(self.value):
            return LOST, ""
        text = f"{self.value:z.{digits}f}".replace("-", "\u2212")
        text = f"$-${text[1:]}" if text.startswith("\u2212") else text
        marked = rf"\textbf{{{text}}}" if self.best else rf"\underline{{{text}}}" if self.tied else text
        bounds = "" if math.isnan(self.low) else f"$[{self.low:z.{digits}f}, {self.high:z.{digits}f}]$"
        return marked, bounds


class Column(NamedTuple):
    """A column of a table: its heading, the direction in which it is better, and a cell for each line."""

    heading: str
    cells: Sequence[str | Number]
    better: Literal["up", "down", ""] = ""
    digits: int = 2
    group: str = ""
    """The heading over several columns that follow each other."""

    @property
    def numbers(self) -> bool:
        """Whether it has numbers, which are all printed with the same digits."""
        return any(isinstance(cell, Number) for cell in self.cells)

    @property
    def bounds(self) -> bool:
        """Whether some of its numbers have bounds, which then stand in a column of their own."""
        return any(isinstance(cell, Number) and not math.isnan(cell.low) for cell in self.cells)


class Floating(NamedTuple):
    """A table of the paper."""

    name: str
    caption: str
    columns: Sequence[Column]
    rules: Sequence[int] = ()
    """The lines above which there is a rule."""
    wide: bool = False
    """Whether it spans both columns of the text."""

    def tex(self) -> str:
        """The whole environment, with caption and label."""
        kind = "table*" if self.wide else "table"
        body = "\n".join(self._lines())
        return (
            f"\\begin{{{kind}}}[t]\n\\centering\\small\\setlength{{\\tabcolsep}}{{3pt}}\n"
            f"\\caption{{{self.caption}}}\n\\label{{tab:{self.name}}}\n"
            f"\\begin{{tabular}}{{@{{}}{self._kinds()}@{{}}}}\n\\toprule\n{self._groups()}{self._head()} \\\\\n"
            f"\\midrule\n{body}\n"
            f"\\bottomrule\n\\end{{tabular}}\n\\end{{{kind}}}\n"
        )

    def _kinds(self) -> str:
        return "".join("r@{\\,}l" if c.bounds else "r" if c.numbers else "l" for c in self.columns)

    def _groups(self) -> str:
        """The line of the headings over several columns, with a rule under each; nothing without any."""
        cells, rules, at = [], "", 1
        for group, members in itertools.groupby(self.columns, key=lambda column: column.group):
            width = sum(1 + column.bounds for column in members)
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escaped(group)}}}")
            rules += rf"\cmidrule(lr){{{at}-{at + width - 1}}}" if group else ""
            at += width
        return f"{' & '.join(cells)} \\\\\n{rules}\n" if rules else ""

    def _head(self) -> str:
        heads = [f"{escaped(c.heading)}{ARROWS[c.better]}" for c in self.columns]
        return " & ".join(rf"\multicolumn{{2}}{{c}}{{{head}}}" if c.bounds else head
                          for c, head in zip(self.columns, heads, strict=True))  # fmt: skip

    def _lines(self) -> list[str]:
        lines = []
        for at, cells in enumerate(zip(*(c.cells for c in self.columns), strict=True)):
            printed: list[str] = []
            for column, cell in zip(self.columns, cells, strict=True):
                if isinstance(cell, str):
                    printed += [_text(cell)] + [""] * column.bounds
                else:
                    number, bounds = cell.printed(column.digits)
                    printed += [number, rf"{{\scriptsize{bounds}}}" if bounds else ""] if column.bounds else [number]
            lines.append(("\\midrule\n" if at in self.rules else "") + " & ".join(printed) + r" \\")
        return lines


def best(values: Sequence[float], better: Literal["up", "down", ""]) -> int | None:
    """The place of the best number; none where no direction is better or there is nothing to compare."""
    known = [(value, at) for at, value in enumerate(values) if not math.isnan(value)]
    if not better or len(known) < 2:
        return None
    return (max(known, key=lambda pair: pair[0]) if better == "up" else min(known))[1]


def _text(cell: str) -> str:
    return escaped(cell) if len(cell) <= LONG else rf"\parbox[t]{{{BROKEN}}}{{\raggedright {escaped(cell)}\strut}}"
