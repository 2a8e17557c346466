"""Parts of a report as files and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from analysis.plots import Plot
from analysis.sections import Part
from analysis.tables import Pairs, Table, keep


class Block(NamedTuple):
    """A part of a section as the page shows it."""

    kind: str
    content: Any


def write(
    template: str,
    page: Path,
    sections: Sequence[tuple[str, Sequence[Part]]],
    methods: Sequence[str],
    links: Mapping[str, str],
    **values: Any,
) -> set[Path]:
    """Write the page, and beside it `tables/` and `figures/`; the paths of their files.

    The section without a title is the box on top. A cell of a table that is a key of `links` leads to its value.
    """
    folder = page.parent
    kept = {path for _, parts in sections for part in parts for path in _write(part, folder, methods)}
    shown = [(title, list(_blocks(parts, folder))) for title, parts in sections]
    filled = [(title, blocks) for title, blocks in shown if blocks]
    keep(page, read_template(template).render(sections=filled, links=links, **values))
    return kept


def _write(part: Part, folder: Path, methods: Sequence[str]) -> Iterator[Path]:
    """Write the files of a part; their paths."""
    if isinstance(part, Table):
        yield from part.write(folder / "tables")
    elif isinstance(part, Plot) and not part.data.empty:
        yield from part.write(folder, methods)


def _blocks(parts: Iterable[Part], folder: Path) -> Iterator[Block]:
    """The parts that the page shows: all that are not empty."""
    for part in parts:
        if isinstance(part, str):
            yield Block("sentence", part)
        elif isinstance(part, Pairs):
            yield Block("pairs", part)
        elif isinstance(part, Table):
            if not part.shown.empty:
                yield Block("table", part)
        elif not part.data.empty:
            yield Block("figure", part.embedded(folder))


def read_template(name: str) -> jinja2.Template:
    """A template of the report, by its path within this package."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(name)
