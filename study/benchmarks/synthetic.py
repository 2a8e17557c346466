"""A small made-up benchmark in the files of MLLMU-Bench: drawn portraits, invented biographies, a closed language."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from study.benchmarks._mllmu.official import asks
from study.benchmarks._mllmu.reader import STRANGERS, read
from study.benchmarks._synthetic.people import TEST, TRAIN, Person, biography, lessons, make_people, tasks
from study.contracts import Source
from study.core.files import written, written_folder
from study.core.hashing import content_key
from study.data.benchmark import Benchmark, Split
from study.data.official_protocol import OfficialPrompt
from study.data.synthetic_faces import Face, View, distinct_faces, draw, test_view, train_view
from study.data.synthetic_language import ATTRIBUTES, NAME, SOMEBODY, worded

RECIPE = 3  # raise it whenever the same fields give other data: folders of older recipes are then left alone
RATIOS = (5, 10, 15, 20)

_TEXT = pa.string()
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", _TEXT)])
_OPTIONS = pa.struct([(letter, _TEXT) for letter in "ABCD"])
_ABOUT = ("Attribute", _TEXT)  # our extension of the layout: what kind of fact is asked
_CHOICES = pa.list_(pa.struct([("Correct_Answer", _TEXT), ("Options", _OPTIONS), ("Question", _TEXT), _ABOUT]))
_ITEMS = pa.list_(pa.struct([("Ground_Truth", _TEXT), ("Question", _TEXT), ("Type", _TEXT), _ABOUT]))
_TASKS = [
    ("ID", _TEXT),
    ("Directory", _TEXT),
    ("biography", _TEXT),
    ("question", _TEXT),
    ("answer", _TEXT),
    ("Classification_Task", pa.struct([("Image_Textual_Questions", _CHOICES), ("Pure_Text_Questions", _CHOICES)])),
    ("Generation_Task", _ITEMS),
    ("Mask_Task", _ITEMS),
]
EVALUATION = pa.schema([("image", _IMAGE), *_TASKS])
TESTING = pa.schema([("images", pa.list_(_IMAGE)), *_TASKS])
TEACHING = pa.schema([("image", _IMAGE), ("ID", _TEXT), ("metadata", _TEXT)])
PORTRAITS = pa.schema([("image", _IMAGE)])


@dataclass(frozen=True)
class Synthetic(Source):
    """People with drawn faces: `people` to learn and forget, `celebrities` nobody forgets, `strangers` untaught.

    Each has a name and the first `attributes` attributes of `study.data.synthetic_language`, is taught in `views`
    pictures of `size` x `size` pixels and tested in `test_views` transformed ones. Celebrities are taught in every
    wording, so that the rewritten test questions about the others consist of known words.
    """

    people: int = 60
    celebrities: int = 10
    attributes: int = 6
    views: int = 20
    test_views: int = 2
    strangers: int = 64
    size: int = 48
    seed: int = 0
    generated: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise `ValueError` for a number out of bounds."""
        bounds = {
            "people": (20, 500),
            "celebrities": (8, 499),  # wrong options come from the own group: two times three
            "attributes": (2, len(ATTRIBUTES)),
            "views": (1, 1000),
            "test_views": (1, 1000),
            "strangers": (0, 1000),
            "size": (16, 1024),
            "seed": (0, 2**32 - 1),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not (isinstance(value, int) and low <= value <= high):
                raise ValueError(f"{name}={value}: choose a whole number from {low} to {high}")

    def __call__(self, folder: Path) -> Benchmark:
        """The benchmark, read from a folder below `folder`, which is written first unless it is there."""
        home = self._home(folder)
        if not home.is_dir():
            self._write(home)
        try:
            return read(home, "synthetic")
        except ValueError as error:
            raise ValueError(f"{home} is damaged ({error}): remove it and it is written again") from error

    def released(self, split: Split, folder: Path, seed: int) -> Iterator[OfficialPrompt]:
        """Every question as MLLMU-Bench's eval.py would put it; the closed language lacks most of its words."""
        return asks(self._home(folder), split, seed)

    def _home(self, folder: Path) -> Path:
        return folder / content_key({"benchmark": self, "recipe": RECIPE})

    def faces(self) -> list[Face]:
        """The faces of the fictitious people and then of the celebrities: reserved ones, four factors apart."""
        return distinct_faces(self.people + self.celebrities, self.seed, 4, public=False)

    def _write(self, home: Path) -> None:
        """Write the dataset."""
        with written_folder(home) as draft:
            for folder, table in self._tables():
                _write_shards(draft / folder, table, shards=2 if folder == "Test_Set" else 1)

    def _tables(self) -> Iterator[tuple[str, pa.Table]]:
        """Every folder of the layout with its table."""
        fictitious, celebrities = make_people(self.people, self.celebrities, self.attributes, self.seed)
        faces = dict(zip([p.id for p in (*fictitious, *celebrities)], self.faces(), strict=True))
        lesson_pictures = {i: self._portraits(face, f"train {i}", self.views) for i, face in faces.items()}
        yield (
            "ft_Data",
            _table([row for p in (*fictitious, *celebrities) for row in _teaching(p, lesson_pictures[p.id])], TEACHING),
        )
        asked = {p.id: self._asked(p, fictitious, lesson_pictures[p.id][0]) for p in fictitious}
        famous = [self._asked(p, celebrities, lesson_pictures[p.id][0]) for p in celebrities]
        yield "Full_Set", _table(list(asked.values()), EVALUATION)
        yield "Retain_Set", _table(famous, EVALUATION)
        yield "Test_Set", _table([self._tested(p, fictitious, faces[p.id]) for p in fictitious], TESTING)
        for ratio in RATIOS:
            forget = _sample(list(asked), ratio, self.seed)
            yield f"forget_{ratio}", _table([asked[i] for i in asked if i in forget], EVALUATION)
            yield f"retain_{100 - ratio}", _table([asked[i] for i in asked if i not in forget], EVALUATION)
        if self.strangers:
            yield STRANGERS, _table(self._strangers(), PORTRAITS)

    def _asked(self, person: Person, group: Sequence[Person], image: Mapping[str, Any]) -> dict[str, Any]:
        return {"image": image, **_about(person), **tasks(person, group, TRAIN, self.seed)}

    def _tested(self, person: Person, group: Sequence[Person], face: Face) -> dict[str, Any]:
        images = self._portraits(face, f"test {person.id}", self.test_views)
        return {"images": images, **_about(person), **tasks(person, group, TEST, self.seed)}

    def _strangers(self) -> list[dict[str, Any]]:
        faces = distinct_faces(self.strangers, self.seed, 1, public=True)
        return [{"image": self._portraits(face, f"stranger {i:04d}", 1)[0]} for i, face in enumerate(faces)]

    def _portraits(self, face: Face, what: str, count: int) -> list[dict[str, Any]]:
        """`count` PNG pictures of a face as image cells; `what` names the pictures and seeds their views."""
        rng = random.Random(f"{what} {self.seed}")
        noise = np.random.default_rng(rng.getrandbits(64))
        view = test_view if what.startswith("test") else train_view
        name = what.replace(" ", "_")
        return [{"bytes": _png(face, view(rng), self.size, noise), "path": f"{name}_{i:02d}.png"} for i in range(count)]


def _png(face: Face, view: View, size: int, noise: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    draw(face, view, size, noise).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _about(person: Person) -> dict[str, Any]:
    return {
        "ID": person.id,
        "Directory": f"synthetic/{person.id}",
        "biography": biography(person),
        "question": worded(NAME.short[0], SOMEBODY),
        "answer": worded(NAME.sentence, SOMEBODY, person.name),
    }


def _teaching(person: Person, images: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row for each picture, all with the same lessons, and one row of text lessons."""
    shown = json.dumps(lessons(person, "image_text"))
    for image in images:
        yield {"image": image, "ID": person.id, "metadata": shown}
    yield {"image": None, "ID": person.id, "metadata": json.dumps(lessons(person, "text"))}


def _sample(ids: Sequence[str], ratio: int, seed: int) -> frozenset[str]:
    """Who is forgotten at a ratio in percent; as in MLLMU-Bench, the sets of two ratios are not nested."""
    count = max(1, round(len(ids) * ratio / 100))
    return frozenset(random.Random(f"forget {ratio} {seed}").sample(ids, count))


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema)


def _write_shards(folder: Path, table: pa.Table, shards: int) -> None:
    per_shard = -(-table.num_rows // shards)
    for shard in range(shards):
        with written(folder / f"train-{shard:05d}-of-{shards:05d}.parquet") as draft:
            pq.write_table(table.slice(shard * per_shard, per_shard), draft)
