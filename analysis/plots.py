"""A figure of the report as a value: its data, how they are drawn, and where the drawing lies."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from analysis.style import DPI, styled
from analysis.tables import as_csv, keep
from study.core.files import written

SCREEN = 115
"""CSS pixels for an inch of a figure: two paper columns fill a screen well."""
DIGEST = "Digest"
"""The entry of a PNG that says what was drawn, and by which code."""


class Embedded(NamedTuple):
    """A figure as the page shows it."""

    name: str
    caption: str
    source: str
    width: int
    live: Markup
    """What the page shows in its place, if anything: markup that can be asked."""


class Plot(NamedTuple):
    """One figure: its file name, caption, data and how to draw them."""

    name: str
    caption: str
    data: pd.DataFrame
    draw: Callable[[pd.DataFrame, Sequence[str]], Figure]
    live: Callable[[pd.DataFrame, Sequence[str]], str] | None = None
    """The same as markup for the page."""

    def write(self, folder: Path, methods: Sequence[str]) -> list[Path]:
        """Write its data as a table and draw it as PNG and PDF; the paths of all three.

        It is drawn once for both, and not at all if the files were drawn from the same data by the same code.
        """
        png, pdf = self._png(folder), self._png(folder).with_suffix(".pdf")
        table = folder / "tables" / f"figure_{self.name}.csv"
        data = as_csv(self.data)
        keep(table, data)
        digest = hashlib.sha256("\n".join([_code(), *methods, data]).encode()).hexdigest()
        if not (pdf.exists() and _digest(png) == digest):
            with styled():
                figure = self.draw(self.data, methods)
                _print(figure, png, pdf, digest)
        return [png, pdf, table]

    def embedded(self, folder: Path, methods: Sequence[str]) -> Embedded:
        """The PNG that was written, for the page, and what is shown in its place."""
        if self.live:
            return Embedded(self.name, self.caption, "", 0, Markup(self.live(self.data, methods)))
        content = self._png(folder).read_bytes()
        width = int.from_bytes(content[16:20], "big") * SCREEN // DPI  # PNG specification, 11.2.2: IHDR
        source = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
        return Embedded(self.name, self.caption, source, width, Markup())

    def _png(self, folder: Path) -> Path:
        return folder / "figures" / f"{self.name}.png"


def _print(figure: Figure, png: Path, pdf: Path, digest: str) -> None:
    """Write a figure as PNG, which says what was drawn, and as PDF."""
    # half a second of imports, once something is drawn
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    figure.set_dpi(DPI)
    with written(png) as draft:
        FigureCanvasAgg(figure).print_png(draft, metadata={DIGEST: digest})
    figure.set_layout_engine("none")  # laid out once, for both files
    with written(pdf) as draft:
        FigureCanvasPdf(figure).print_pdf(draft, metadata={"CreationDate": None})


def _digest(png: Path) -> str:
    """What a PNG says it was drawn from; nothing if it is not there, damaged or does not say."""
    try:
        with Image.open(png) as image:
            return str(image.info.get(DIGEST, ""))
    except OSError:
        return ""


@cache
def _code() -> str:
    """A digest of all code that draws."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(mpl.__version__.encode() + b"".join(file.read_bytes() for file in files)).hexdigest()
