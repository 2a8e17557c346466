"""A small folder in the layout of MLLMU-Bench with what real ones have: odd orders, spaces, pictures that lie."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from study.benchmarks.synthetic import EVALUATION, TEACHING, TESTING

Cells = dict[str, Any]
FICTITIOUS = ("006", "004", "005", "002", "001", "003")
"""In the order of Full_Set."""
FORGET = ("002", "005", "001")
RETAIN = ("003", "006", "004")
CELEBRITIES = ("901", "003", "902", "001")
"""Two of them have the IDs of others."""
CITIES = ("Lima ", " Zürich", "東京", "Cairo", "Oslo", "Rome")
RATIO = 50


def mllmu(root: Path) -> Path:
    """Six people, of whom three are forgotten, and four celebrities."""
    asked = {id: {"image": picture(f"{id} 0"), **_row(id)} for id in (*FICTITIOUS, "901", "902")}
    famous = [{**asked[id], **_row(f"{id} famous"), "ID": id} for id in CELEBRITIES]
    tested = [
        {"images": [picture(f"{id} test {i}") for i in range(1 + int(id) % 3)], **_row(f"{id} test"), "ID": id}
        for id in sorted(FICTITIOUS)
    ]
    taught = [
        {"image": asked[id]["image"], "ID": id, "metadata": json.dumps([{"Question": "Who?", "Answer": id}])}
        for id in FICTITIOUS
    ]
    tables: dict[str, tuple[Sequence[Cells], pa.Schema]] = {
        "Full_Set": ([asked[id] for id in FICTITIOUS], EVALUATION),
        "Retain_Set": (famous, EVALUATION),
        "Test_Set": (tested, TESTING),
        f"forget_{RATIO}": ([asked[id] for id in FORGET], EVALUATION),
        f"retain_{100 - RATIO}": ([asked[id] for id in RETAIN], EVALUATION),
        "ft_Data": (taught, TEACHING),
    }
    for folder, (rows, schema) in tables.items():
        (root / folder).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), root / folder / "train-00000-of-00001.parquet")
    return root


def _row(name: str) -> Cells:
    rng = random.Random(name)
    choices = {
        column: [_choice(f"{name} {column} {i}", rng) for i in range(3)]
        for column in ("Image_Textual_Questions", "Pure_Text_Questions")
    }
    return {
        "ID": name, "Directory": "", "biography": "{}", "question": "", "answer": "", "Classification_Task": choices,
        "Generation_Task": list(_items(f"{name} tells", rng, 2)),
        "Mask_Task": list(_items(f"{name} was in __", rng, 3)),
    }  # fmt: skip


def _choice(name: str, rng: random.Random) -> Cells:
    options = dict(zip("ABCD", rng.sample(CITIES, 4), strict=True))
    return {"Correct_Answer": rng.choice("ABCD"), "Options": options, "Question": f" Where is {name}?  "}


def _items(name: str, rng: random.Random, count: int) -> Iterator[Cells]:
    for i in range(count):
        for kind in ("Pure_Text", "Image_Textual"):
            yield {"Ground_Truth": rng.choice(CITIES), "Question": f"{name}, {kind} {i} ", "Type": kind}


def picture(name: str) -> Cells:
    """Noise; some are stored lying on their side, some have hidden colour, some sixteen bits of grey."""
    data, kind = random.Random(name).randbytes(4 * 6 * 4), len(name) + int(name[:3])
    mode, size = (("RGB", 3), ("RGBA", 4), ("I;16", 2))[kind % 3]
    image = Image.frombytes(mode, (6, 4), data[: 24 * size])
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    return {"bytes": buffer.getvalue(), "path": f"{name}.png"}
