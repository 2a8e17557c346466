"""Parts of a report as files and as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from analysis.live import Drawing
from analysis.plots import Plot
from analysis.sections import Fold, Part
from analysis.tables import Pairs, Pasted, Table, keep, tone

HERE = Path(__file__).parent


class Unfolded(NamedTuple):
    """What a fold hides, as the page shows it."""

    anchor: str
    title: str
    parts: Sequence[Block]
    record: str


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
    shown = [(title, list(_blocks(parts, folder, methods))) for title, parts in sections]
    filled = [(title, blocks) for title, blocks in shown if blocks]
    style, script = (Markup((HERE / f"page.{end}").read_text(encoding="utf-8")) for end in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    text = read_template(template).render(
        sections=filled, links=links, style=style, script=script, script_digest=f"sha256-{digest}", tone=tone, **values
    )
    keep(page, text)
    return kept


def _write(part: Part, folder: Path, methods: Sequence[str]) -> Iterator[Path]:
    """Write the files of a part; their paths."""
    if isinstance(part, Table):
        yield from part.write(folder / "tables")
    elif isinstance(part, Plot) and not part.data.empty:
        yield from part.write(folder, methods)
    elif isinstance(part, Fold):
        for inner in part.parts:
            yield from _write(inner, folder, methods)


def _blocks(parts: Iterable[Part], folder: Path, methods: Sequence[str]) -> Iterator[Block]:
    """The parts that the page shows: all that are not empty."""
    for part in parts:
        if isinstance(part, str):
            yield Block("sentence", part)
        elif isinstance(part, Pairs):
            yield Block("pairs", part)
        elif isinstance(part, Pasted):
            yield Block("pasted", part.text)
        elif isinstance(part, Drawing):
            yield Block("drawing", part)
        elif isinstance(part, Fold):
            yield Block(
                "fold", Unfolded(part.anchor, part.title, list(_blocks(part.parts, folder, methods)), part.record)
            )
        elif isinstance(part, Table):
            if not part.shown.empty:
                yield Block("table", part)
        elif not part.data.empty:
            yield Block("figure", part.embedded(folder, methods))


def read_template(name: str) -> jinja2.Template:
    """A template of the report, by its path within this package."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["anchor"] = _anchor
    return environment.get_template(name)


def _anchor(title: str) -> str:
    """What a link to a section names: its title without what links cannot have."""
    return re.sub("[^a-z0-9]+", "-", title.lower()).strip("-") or "answer"
