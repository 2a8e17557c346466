"""The files of somebody's own dataset, read strictly: tables line by line, pictures, and nothing outside the folder."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from study.benchmarks._shared.defects import one_row
from study.benchmarks._shared.links import followed
from study.data.picture import Picture

IMAGES = (".png", ".jpg", ".jpeg", ".webp")
MOST_BYTES = 100_000_000
"""Of one file: far more than a table or a picture of a usable dataset takes; a wrong file is refused, not read."""
MOST_NAMED = 100
"""Characters of a header that an error repeats: a table without one begins with somebody's data."""
MOST_CHARACTERS = 1000
"""Of one cell: far more than a value or a question; a missing quotation mark would make one cell of a whole file."""


@dataclass(frozen=True)
class Line:
    """One line of a table: its cells by column, without empty ones. `number` counts from 1, as editors do."""

    file: str
    number: int
    cells: Mapping[str, str] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.file}, line {self.number}"

    def error(self, problem: str, remedy: str) -> ValueError:
        """The exception for something wrong in this line."""
        return ValueError(f"{self}: {problem}; {remedy}")


@dataclass(frozen=True)
class Files:
    """A folder and what has been read of it. Nothing outside of the folder `within` is opened, whatever links say."""

    root: Path
    within: Path
    digests: dict[str, str] = field(default_factory=dict, repr=False)

    def read(self, name: str) -> bytes:
        """The content of a file. Raises `ValueError` naming it if it lies outside, is no file or is too large."""
        path = self.root / name
        real = followed(path, name, self.within)
        if not real.is_file():
            raise ValueError(f"{name}: no such file in {self.root}")
        if (size := real.stat().st_size) > MOST_BYTES:
            raise ValueError(f"{name}: {size:,} bytes, at most {MOST_BYTES:,} are read; make it smaller")
        data = real.read_bytes()
        self.digests[unicodedata.normalize("NFC", name)] = hashlib.sha256(data).hexdigest()
        return data

    def has(self, name: str) -> bool:
        """Whether there is a file or folder of this name."""
        return (self.root / name).exists()

    def misnamed(self, name: str) -> list[str]:
        """The files that are called like one that is not there, but for the case of letters and the ending."""
        there = (path.name for path in self.root.iterdir() if path.is_file())
        stem = Path(name).stem
        return [] if self.has(name) else sorted(other for other in there if Path(other).stem.casefold() == stem)

    def text(self, name: str) -> str:
        """The text of a file in UTF-8, with or without the mark that spreadsheets put before it."""
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise ValueError(
                f"{name}, line {line}: not UTF-8; save it as CSV UTF-8, or as plain text in UTF-8"
            ) from error

    def table(self, name: str, needed: Sequence[str] = ()) -> list[Line]:
        """The lines of a .csv or .jsonl file. Lines that hold nothing are passed over.

        Raises `ValueError` for a table that is no table, or a .csv file without a column that is `needed`; a single
        line that cannot be read is a defect of its own.
        """
        text = self.text(name)
        lines = _objects(name, text) if name.endswith(".jsonl") else _records(name, text, needed)
        found = [line for line in lines if line.cells]
        if not found:
            raise ValueError(f"{name}: it holds no line; see docs/own-data.md for an example")
        return found

    def pictures(self, folder: str) -> Iterator[tuple[str, Picture]]:
        """The pictures in `folder` with whose they are: `folder/<owner>.png`, or all that lie in `folder/<owner>/`.

        In the order of their names; hidden files are passed over. What is no picture is a defect of its own.
        """
        for path in _entries(self.root / folder):
            inner = _entries(path) if path.is_dir() else [path]
            for file in inner:
                with one_row():
                    owner = path.name if path.is_dir() else path.stem
                    yield tidy(owner), self._picture(file)

    def _picture(self, path: Path) -> Picture:
        name = path.relative_to(self.root).as_posix()
        if path.is_dir():
            raise ValueError(f"{name}: a folder within that of a person; move its pictures up, or remove it")
        if path.suffix.lower() not in IMAGES:
            raise ValueError(f"{name}: not one of {', '.join(IMAGES)}; convert or remove it")
        picture = Picture(self.read(name), name)
        picture.check()
        return picture


def tidy(text: str) -> str:
    """A text in composed characters (NFC) with single spaces: equal on every system that may have written it."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def label(text: str) -> str:
    """The name of a column, or of an attribute, as it is compared: lower case, underscores for spaces."""
    return "_".join(tidy(text).casefold().split())


def _entries(folder: Path) -> list[Path]:
    return sorted(
        (path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: tidy(path.name)
    )


def _records(name: str, text: str, needed: Sequence[str]) -> Iterator[Line]:
    """The lines of a CSV file. Some spreadsheets write semicolons or tabs: then most are in the header, unquoted."""
    head = text.partition("\n")[0]
    if head.lower().startswith("sep="):
        raise ValueError(
            f"{name}, line 1: {head.strip()!r} is a note to a spreadsheet, not the columns; remove the line"
        )
    separators = re.sub('"[^"]*"', "", head)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=separators.count), strict=True)
    header: list[str] = []
    before = 0
    try:
        for cells in reader:
            number, before = before + 1, reader.line_num  # quoted texts may run over several lines
            if not header:
                header = _header(f"{name}, line 1", _ended(cells))
                _check_needed(name, header, needed)
            elif any(cell.strip() for cell in cells):
                with one_row():
                    yield _record(name, number, header, cells)
    except csv.Error as error:
        raise ValueError(f"{name}, line {reader.line_num}: not CSV ({error}); save it again as CSV UTF-8") from error


def _check_needed(name: str, header: Sequence[str], needed: Sequence[str]) -> None:
    if lacking := [column for column in needed if column not in header]:
        raise ValueError(
            f"{name}, line 1: no column {lacking[0]!r}, only {', '.join(header)[:MOST_NAMED]}; the first line names "
            f"the columns, separated by commas: {', '.join(needed)} and the others"
        )


def _header(where: str, cells: list[str]) -> list[str]:
    """The columns as labels: lower case, underscores for spaces."""
    header = [label(cell) for cell in cells]
    if "" in header:
        raise ValueError(f"{where}: column {header.index('') + 1} has no name; name or remove it")
    if double := [column for column in header if header.count(column) > 1]:
        raise ValueError(f"{where}: two columns are called {double[0]!r}; rename or remove one")
    return header


def _ended(cells: list[str], columns: int = 0) -> list[str]:
    """The cells without the empty ones behind the last of the columns, which spreadsheets write where cells were."""
    filled = (place for place, cell in enumerate(cells, 1) if cell.strip())
    return cells[: max(columns, *filled, 0)]


def _record(name: str, number: int, header: list[str], written: list[str]) -> Line:
    line, cells = Line(name, number, {}), _ended(written, len(header))
    if len(cells) != len(header):
        more = len(cells) > len(header)
        remedy = "put quotes around texts with commas" if more else "write a cell for every column, empty or not"
        raise line.error(f"{len(cells)} cells, but the header has {len(header)}", remedy)
    return _line(line, zip(header, cells, strict=True))


def _objects(name: str, text: str) -> Iterator[Line]:
    for number, written in enumerate(text.split("\n"), 1):
        if written.strip():
            with one_row():
                yield _object(Line(name, number, {}), written)


def _object(line: Line, written: str) -> Line:
    try:
        pairs = json.loads(
            written, object_pairs_hook=lambda found: found, parse_constant=_no_number, parse_int=str
        )  # a number of any length is a text
    except (ValueError, RecursionError) as error:
        raise line.error(f"not JSON ({error})", "write one object a line") from error
    if not written.lstrip().startswith("{"):
        raise line.error(f"{written[:40]!r} is no object", 'write {"id": ..., "name": ..., ...}')
    for key, value in pairs:
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            raise line.error(f"{key} is {json.dumps(value)[:40]}", "write one text or number")
    header = _header(str(line), [key for key, _ in pairs])
    return _line(line, zip(header, ("" if value is None else str(value) for _, value in pairs), strict=True))


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _line(line: Line, cells: Iterable[tuple[str, str]]) -> Line:
    """The line with its cells tidied. Raises `ValueError` for one that is too long or holds what no text should."""
    found: dict[str, str] = {}
    for column, cell in cells:
        if any(unicodedata.category(c) in ("Cc", "Cs") and not c.isspace() for c in cell):
            raise line.error(f"{column} holds a control character ({cell[:40]!r})", "remove it")
        if len(cell) > MOST_CHARACTERS:
            raise line.error(f"{column} has {len(cell):,} characters", f"at most {MOST_CHARACTERS:,} are read")
        if text := tidy(cell):
            found[column] = text
    return Line(line.file, line.number, found)
