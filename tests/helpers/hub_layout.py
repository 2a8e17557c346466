"""MLLMU-Bench as the hub has it, but small: what its files lack, and how untidy they are."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from study.benchmarks.synthetic import Synthetic

Cells = dict[str, Any]
UNTIDY = {"Residence": " Residence:", "Occupation": "Occupation: "}
"""Keys of biographies as some rows of the published files spell them."""
ABSENT = "None of these"


def as_on_the_hub(folder: Path, source: Synthetic) -> Path:
    """The files of a synthetic benchmark without what we add to the published layout; the folder to read.

    Lessons stand beside a picture, several for each, and none is about celebrities. Nothing is labelled, there are no
    strangers, biographies have untidy keys, the column `Directory` is missing, and some choices have five options, of
    which the fifth may be right.
    """
    source(folder)
    (home,) = folder.iterdir()
    shutil.rmtree(home / "Strangers")
    known = {row["ID"] for row in _rows(home, "Full_Set")}
    for place in home.iterdir():
        _rewrite(place, _lesson if place.name == "ft_Data" else _asked)
    taught = home / "ft_Data"
    _rewrite(taught, lambda number, row: row if row["image"] is not None and row["ID"] in known else None)
    return home


def coloured(home: Path, size: int) -> None:
    """Four fields of colour, with noise, in place of every portrait: what a tower without training tells apart."""
    for place in home.iterdir():
        _rewrite(place, lambda _, row: _recoloured(row, size))


def _recoloured(row: Cells, size: int) -> Cells:
    for cell in row["images"] if "images" in row else [row["image"]]:
        colours, noise = random.Random(row["ID"]), random.Random(cell["path"])
        plain = Image.new("RGB", (2, 2))
        plain.putdata([tuple(colours.randrange(256) for _ in range(3)) for _ in range(4)])
        grain = Image.frombytes("RGB", (size, size), noise.randbytes(3 * size * size))
        kept = io.BytesIO()
        Image.blend(plain.resize((size, size), Image.Resampling.NEAREST), grain, 0.1).save(kept, "PNG")
        cell["bytes"] = kept.getvalue()
    return row


def _rows(home: Path, folder: str) -> list[Cells]:
    return [row for file in sorted((home / folder).iterdir()) for row in pq.read_table(file).to_pylist()]


def _rewrite(place: Path, change: Callable[[int, Cells], Cells | None]) -> None:
    """Every row of a folder as `change` makes it, which is given its number in its file; those that it drops go."""
    for file in place.iterdir():
        rows = [change(number, row) for number, row in enumerate(pq.read_table(file).to_pylist())]
        pq.write_table(pa.Table.from_pylist([row for row in rows if row is not None]), file)


def _lesson(number: int, row: Cells) -> Cells:
    pairs = [{"Question": item["Question"], "Answer": item["Answer"]} for item in json.loads(row["metadata"])]
    return {**row, "metadata": json.dumps(pairs)}


def _asked(number: int, row: Cells) -> Cells:
    about = {UNTIDY.get(key, key): value for key, value in json.loads(row["biography"]).items()}
    unlabelled: Cells = {column: _unlabelled(row[column]) for column in ("Generation_Task", "Mask_Task")}
    choices = {kind: _unlabelled(items) for kind, items in row["Classification_Task"].items()}
    for items in choices.values():
        _with_a_fifth(items[0], right=number % 2 == 1)
    kept = {column: value for column, value in row.items() if column != "Directory"}
    return {**kept, **unlabelled, "biography": json.dumps(about), "Classification_Task": choices}


def _unlabelled(items: list[Cells]) -> list[Cells]:
    return [{key: value for key, value in item.items() if key != "Attribute"} for item in items]


def _with_a_fifth(choice: Cells, *, right: bool) -> None:
    """A choice with an option E, which is the right one or one more that is wrong."""
    options, letter = choice["Options"], choice["Correct_Answer"]
    if not right:
        options["E"] = ABSENT
        return
    options["E"], options[letter] = options[letter], ABSENT
    choice["Correct_Answer"] = "E"
