"""Rows of a dataset's parquet files, read strictly: whatever is wrong names its file, row and ID."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from study.benchmarks._shared.defects import Tolerated, count_row, needed, one_row
from study.benchmarks._shared.links import followed, whole_of
from study.core.errors import Damaged
from study.core.files import is_pointer, visible
from study.core.hashing import file_digest
from study.data.facts import folded
from study.data.picture import Picture

MOST_CHARACTERS = 100_000
"""Of one text: far more than a question or an answer of a usable dataset has."""
MOST_BYTES = 100_000_000
"""Of one picture: far more than one of a camera has."""
LETTERS = ("A", "B", "C", "D")
"""Of the options of a choice."""
MOST_UNPACKED = 2**30
"""Bytes that a file may unpack to whatever its size: they fit into memory."""
MOST_PACKED = 100
"""How many times as large a larger one may become: texts grow to about ten times, pictures not at all."""
Cells = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One row of a file and where it is from. `number` counts from 0 within the file."""

    file: str
    number: int
    cells: Cells = field(repr=False)
    id: str = ""

    def __str__(self) -> str:
        return f"{self.file}, row {self.number}" + (f", ID {self.id}" if self.id else "")

    def error(self, problem: str, remedy: str = "repair or remove the row") -> ValueError:
        """The exception for something wrong in this row."""
        return ValueError(f"{self}: {problem}; {remedy}")

    def odd(self, problem: str, remedy: str = "repair or remove the row") -> Tolerated:
        """The exception for something wrong that the authors' loader passes over."""
        return Tolerated(f"{self}: {problem}; {remedy}")

    def identified(self) -> Row:
        """The row with its ID as text; a number gets the three digits of MLLMU-Bench. Raises `ValueError` if empty."""
        value = self.cells["ID"]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        try:
            name = f"{value:03d}" if isinstance(value, int) else text(value, self, "ID")
        except Tolerated as error:  # nobody can tell whose row it is
            raise ValueError(str(error)) from error
        return replace(self, id=name)


def folder_files(root: Path, folder: str, dataset: str) -> list[Path]:
    """The parquet shards of one folder, in order; `dataset` is what to download on the hub where one is missing.

    Raises `ValueError` if the folder or a shard is missing.
    """
    files = visible(root / folder, "*.parquet")
    if not files:
        raise ValueError(
            f"{root / folder}: no such folder or no parquet file in it; download the whole dataset "
            f"(huggingface-cli download {dataset} --repo-type dataset) and give its folder"
        )
    top = (root / Path(folder).parts[0] if "/" in folder else root).resolve()
    within = whole_of(top, snapshot=top.parent.name == "snapshots")
    for file in files:
        followed(file, str(file), within)
        shards = re.search(r"-of-(\d+)$", file.stem)
        if shards and int(shards[1]) != len(files):
            raise ValueError(
                f"{root / folder}: {len(files)} files, but {file.name} is one of {int(shards[1])}; "
                "download the missing files or remove the foreign ones"
            )
    return files


def _check_unpacked(file: Path, name: str, said: Any) -> None:
    """Raise `ValueError` for a small file that unpacks to a large one; `said` are its metadata."""
    size = file.stat().st_size
    unpacked = sum(said.row_group(number).total_byte_size for number in range(said.num_row_groups))
    if unpacked > max(MOST_UNPACKED, MOST_PACKED * size):
        raise ValueError(
            f"{name}: {size:,} bytes that unpack to {unpacked:,}, more than pictures and texts do: the file is damaged "
            "or hostile; download it again"
        )


def rows(root: Path, folder: str, columns: tuple[str, ...], dataset: str) -> Iterator[Row]:
    """The rows of a folder with the columns asked for: `image|images` is either, `biography?` may be absent.

    ID is filled if asked.

    Raises `ValueError` for a damaged file, a missing column and a folder without rows.
    """
    empty = True
    for file in folder_files(root, folder, dataset):
        name = file.relative_to(root).as_posix()
        try:
            parquet = pq.ParquetFile(file)
            _check_unpacked(file, name, parquet.metadata)
            wanted = _columns(name, parquet.schema_arrow.names, columns, dataset)
            number = 0
            for batch in parquet.iter_batches(batch_size=32, columns=wanted):
                for cells in batch.to_pylist():
                    row, number, empty = Row(name, number, cells), number + 1, False
                    count_row()
                    with one_row():
                        yield row.identified() if "ID" in wanted else row
        except (pa.ArrowException, OSError) as error:
            remedy = "download it again"
            if is_pointer(file):
                remedy = f"it is the pointer of git-lfs: run `git lfs pull` there, or {remedy}"
            raise ValueError(f"{name}: damaged or not a parquet file ({error}); {remedy}") from error
    if empty:
        raise ValueError(f"{folder}: the split has no rows; download it again")


def unique(found: Iterable[Row]) -> Iterator[Row]:
    """The rows as they come, of each ID the first: the authors' code takes the rows of a dataset one by one."""
    places: dict[str, str] = {}
    for row in found:
        with one_row():
            if row.id in places:
                raise row.odd(f"the same ID as in {places[row.id]}", "remove one of them")
            places[row.id] = str(row)
            yield row


def picture(value: object, row: Row, pictures: dict[str, Picture]) -> Picture:
    """The picture of an image cell `{bytes, path}`; equal ones share their bytes through `pictures`.

    Raises `ValueError` if it is too large, and `Tolerated` if there is none or its header does not open.
    """
    if not (data := stored(value)):
        raise row.odd("the image is missing", "embed its bytes in the parquet file or remove the row")
    if len(data) > MOST_BYTES:
        raise row.error(f"the image has {len(data):,} bytes", f"at most {MOST_BYTES:,} are read")
    found = Picture(data, str(row))
    if found.key not in pictures:
        try:
            found.check()
        except Damaged as error:
            raise Tolerated(str(error)) from error
        pictures[found.key] = found
    return pictures[found.key]


def stored(value: object) -> bytes:
    """The bytes of an image cell, `{bytes, path}` or bytes alone; empty if it has none."""
    data = value.get("bytes") if isinstance(value, Mapping) else value
    return data if isinstance(data, bytes) else b""


def needed_picture(value: object, row: Row, pictures: dict[str, Picture]) -> Picture:
    """As `picture`, where there is no other row or picture for what is taught or asked with it."""
    with needed():
        return picture(value, row, pictures)


def no_picture(value: object) -> bool:
    """Whether an image cell is empty on purpose: None, or a struct of nothing but None."""
    return value is None or (isinstance(value, Mapping) and all(part is None for part in value.values()))


def text(value: object, row: Row, what: str) -> str:
    """The stripped text of a cell; numbers are text too. Raises `ValueError` if it is empty or no text."""
    number = isinstance(value, int | float) and value == value  # NaN is not equal to itself
    found = str(value).strip() if number or isinstance(value, str) else ""
    if not found:
        raise row.odd(f"{what} is empty or no text ({short(value)})")
    if len(found) > MOST_CHARACTERS or "\0" in found:
        what += f" has {len(found):,} characters" if len(found) > MOST_CHARACTERS else " holds a NUL character"
        raise row.error(what, f"at most {MOST_CHARACTERS:,} are read, and none that is no text")
    return found


def texts(value: object, row: Row, what: str) -> tuple[str, ...]:
    """A cell's list of texts; a single text is a list of one. Raises `ValueError` if there is none or one is empty."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise row.error(f"{what} is {short(value)}, not a list of texts")
    return tuple(text(item, row, f"{what} {index}") for index, item in enumerate(items))


def mapping(value: object, row: Row, what: str) -> Cells:
    """A cell that is a dict. Raises `ValueError` if it is not."""
    if not isinstance(value, Mapping):
        raise row.error(f"{what} is {short(value)}, not a dict")
    return value


def options(given: Cells, letters: Sequence[str], row: Row, what: str) -> dict[str, str]:
    """The options of a choice by letter. Raises `Tolerated` if one is empty or two are the same."""
    found = {letter: text(given.get(letter), row, f"{what}: option {letter}") for letter in letters}
    if len(set(map(folded, found.values()))) < len(letters):
        raise row.odd(f"{what}: two options are the same among {list(found.values())}")
    return found


def short(value: object) -> str:
    """A value as an error message shows it."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def fingerprint(root: Path, files: Iterable[Path]) -> str:
    """Twelve hexadecimal digits of the names and contents of all files that are read."""
    return digest({path.relative_to(root).as_posix(): file_digest(path) for path in files})


def digest(files: Mapping[str, str]) -> str:
    """Twelve hexadecimal digits of files, given the digest of each by its name."""
    content = "".join(f"{name}\0{files[name]}\n" for name in sorted(files))
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def nobody(people: Iterable[str], problem: str, remedy: str) -> None:
    """Raise `ValueError` that names some of these people unless there are none."""
    some = sorted(people)
    if some:
        few = ", ".join(islice(some, 5)) + (" ..." if len(some) > 5 else "")
        raise ValueError(f"{len(some)} {problem} ({few}): {remedy}")


def _columns(name: str, there: list[str], wanted: tuple[str, ...], dataset: str) -> list[str]:
    found = []
    for column in wanted:
        either = [c for c in column.removesuffix("?").split("|") if c in there]
        if not either and column.endswith("?"):
            continue
        if not either:
            raise ValueError(
                f"{name}: no column {column!r}, it has {', '.join(there)}; "
                f"is this the right folder of {dataset}? Download it again"
            )
        found.append(either[0])
    return found


def forget_ratios(root: Path) -> list[int]:
    """The forget ratios X in percent of which there are a folder forget_X and its retain_(100-X), as MLLMU-Bench has.

    Raises `ValueError` if there is none.
    """
    named = (re.fullmatch(r"forget_(\d{1,2})", path.name) for path in root.iterdir())
    found = sorted(int(match[1]) for match in named if match and (root / pair(int(match[1]))[1]).is_dir())
    if not found:
        raise ValueError(
            f"{root}: no pair of folders forget_X and retain_(100-X); download e.g. forget_5 and retain_95"
        )
    return found


def pair(ratio: int) -> tuple[str, str]:
    """The folders of a forget ratio: who is forgotten, and who is retained."""
    return f"forget_{ratio}", f"retain_{100 - ratio}"
