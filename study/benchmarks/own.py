"""Somebody's own people as a benchmark: a table, pictures, and who asked to be forgotten (docs/own-data.md)."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from study.benchmarks._own.people import Person, attributes, read_forget, read_people
from study.benchmarks._own.questions import lessons, pools, questions
from study.benchmarks._own.wordings import read_wordings
from study.benchmarks._shared.defects import one_row, reading
from study.benchmarks._shared.links import whole_of
from study.benchmarks._shared.text_files import Files
from study.contracts import Source
from study.core.hub import folder as folder_of
from study.core.terms import Role
from study.data.benchmark import Benchmark, Question, Split
from study.data.picture import Picture

RECIPE = 2  # raise it whenever the same files give other lessons or questions
STRANGERS = "strangers"


@dataclass(frozen=True)
class Own(Source):
    """A folder with people.csv (or people.jsonl) and images/, of this machine or of the hub.

    People in forget.txt are forgotten, at the ratio that they are in percent of all but the real ones; without the
    file, people at random at each of the `ratios`. Who has the role `real` stands for what the base model knows by
    itself: no method trains on them. If nobody has, `real_share` percent of the others, drawn by `seed`, are set aside
    for it. Real people are taught like the rest unless `teach_real` is false.
    """

    path: Path = Path()
    """The folder."""
    hub: str = ""
    """Instead of a folder, the name of a dataset on the Hugging Face hub."""
    revision: str = ""
    """Its commit."""
    ratios: tuple[int, ...] = (5, 10, 15)
    """Forget ratios in percent, where there is no forget.txt."""
    real_share: int = 10
    """Percent of the people that are set aside as real, where nobody has that role."""
    teach_real: bool = True
    """Whether real people are taught; false if the base model does know them."""
    seed: int = 0
    """Of what is drawn: who is forgotten and who is set aside."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a number out of bounds."""
        for ratio in self.ratios:
            if not 1 <= ratio <= 99:
                raise ValueError(f"ratios: {ratio}; choose whole numbers of percent from 1 to 99")
        if not self.ratios or not 1 <= self.real_share <= 50:
            raise ValueError(f"ratios={self.ratios}, real_share={self.real_share}: name a ratio, and 1 to 50 percent")

    def __call__(self, folder: Path) -> Benchmark:
        """The benchmark; nothing is kept in `folder`. Raises `ValueError` naming what is wrong, file and line."""
        root = folder_of(self.path, self.hub, self.revision, "dataset")
        files = Files(root, whole_of(root, snapshot=bool(self.hub)))
        with reading() as found:
            benchmark = self._read(files)
        return found.of(benchmark)

    def _read(self, files: Files) -> Benchmark:
        people = read_people(files)
        wordings = read_wordings(files, attributes(people))
        real, requests = self._requests(people, read_forget(files, people))
        drawn = pools(people)
        taught = tuple(x for p in people if self.teach_real or p.id not in real for x in lessons(p, wordings))
        strangers = tuple(_strangers(files, people)) if files.has(STRANGERS) else ()

        @cache
        def asked(person: str, role: Role) -> tuple[Question, ...]:
            return tuple(questions(by_id[person], role, wordings, drawn))

        by_id = {person.id: person for person in people}
        return Benchmark(
            name="own",
            fingerprint=self._fingerprint(files.digests),
            splits={
                ratio: Split(
                    ratio,
                    forget,
                    taught,
                    tuple(q for role, ids in _roles(by_id, forget, real) for id in ids for q in asked(id, role)),
                )
                for ratio, forget in requests.items()
            },
            strangers=strangers,
        )

    def _requests(
        self, people: Sequence[Person], listed: frozenset[str]
    ) -> tuple[frozenset[str], dict[int, frozenset[str]]]:
        """Who is real, and who is to be forgotten at each ratio. Raises `ValueError` if nobody is left to be kept."""
        real = frozenset(p.id for p in people if p.real) or self._set_aside({p.id for p in people} - listed)
        others = sorted({p.id for p in people} - real)
        if listed:
            requests = {min(99, max(1, round(100 * len(listed) / len(others)))): listed}
        else:
            requests = {ratio: self._sample(others, ratio) for ratio in self.ratios}
        if not real or any(len(forget) >= len(others) for forget in requests.values()):
            raise ValueError(
                f"{len(people)} people: some must be forgotten, some retained and some real; add people, or take some "
                f"off forget.txt or the role real, which {len(real)} have"
            )
        return real, requests

    def _set_aside(self, people: Iterable[str]) -> frozenset[str]:
        ids = sorted(people)
        count = min(len(ids), max(1, round(len(ids) * self.real_share / 100)))
        return frozenset(random.Random(f"real {self.seed}").sample(ids, count))

    def _sample(self, ids: Sequence[str], ratio: int) -> frozenset[str]:
        """Who is forgotten at a ratio; as in MLLMU-Bench, the sets of two ratios are not nested."""
        count = min(len(ids), max(1, round(len(ids) * ratio / 100)))
        return frozenset(random.Random(f"forget {ratio} {self.seed}").sample(ids, count))

    def _fingerprint(self, digests: Mapping[str, str]) -> str:
        """Twelve hexadecimal digits of all files that were read and of the settings, wherever the files lie."""
        settings = [RECIPE, self.ratios, self.real_share, self.teach_real, self.seed]
        return hashlib.sha256(json.dumps([settings, sorted(digests.items())]).encode()).hexdigest()[:12]


def _strangers(files: Files, people: Iterable[Person]) -> Iterator[Picture]:
    """Pictures of people who are nowhere else: a copy of somebody's would be taught as nobody's."""
    places = {picture.key: picture.where for person in people for picture in (*person.taught, *person.held_out)}
    for _, picture in files.pictures(STRANGERS):
        with one_row():
            if picture.key in places:
                raise ValueError(f"{picture.where}: the same picture as {places[picture.key]}; remove one of them")
            yield picture


def _roles(everybody: Iterable[str], forget: frozenset[str], real: frozenset[str]) -> list[tuple[Role, list[str]]]:
    ids = sorted(everybody)
    return [
        ("forget", [id for id in ids if id in forget]),
        ("test", [id for id in ids if id in forget]),
        ("retain", [id for id in ids if id not in forget | real]),
        ("real", [id for id in ids if id in real]),
    ]
