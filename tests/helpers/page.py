"""Reports for tests that read their words and tables: drawing the figures takes nearly all of the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from analysis import report
from analysis.plots import Plot
from analysis.tables import as_csv, keep


@contextmanager
def dots() -> Iterator[None]:
    """Within the block a report has its tables, and a dot in place of every figure."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Plot, "write", _dotted)
        yield


def page_of(*studies: Path) -> str:
    """The HTML that a report of these studies writes, with dots for figures."""
    with dots():
        return report.build(*studies).page.read_text(encoding="utf-8")


def _dotted(plot: Plot, folder: Path, methods: Sequence[str]) -> list[Path]:
    paths = [folder / "figures" / f"{plot.name}.{kind}" for kind in ("png", "pdf")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1, 1)).save(path)
    table = folder / "tables" / f"figure_{plot.name}.csv"
    keep(table, as_csv(plot.data))
    return [*paths, table]
