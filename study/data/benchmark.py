"""Lessons, questions, and the benchmark that contains them. No weights and no torch."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from study.core.terms import Goal, Half, Modality, Role, Task
from study.data.picture import Picture

MOST_TOLD = 5
"""Skipped rows that a line of a plan names: study.json has all."""


@dataclass(frozen=True)
class Lesson:
    """One question with its answer that a model is taught, or unlearns; a lesson without picture is text.

    `attribute` is the kind of fact, such as "residence", or "" where the dataset does not say; `where` is its place in
    the dataset, for error messages.
    """

    person: str
    prompt: str
    answer: str
    picture: Picture | None = field(default=None, repr=False)
    attribute: str = ""
    where: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True)
class Question:
    """One question that is scored. `options` is empty unless the task is classification; `attribute` as in `Lesson`.

    The role `spared` is for questions about forget people whose attribute must stay (`Split.narrowed`). `paraphrased`
    is the answer in other words and `perturbed` are wrong answers in the form of the right one, both as in TOFU (arXiv
    2401.06121); `keywords` must appear in a free reply (FIUBench); questions of both modalities about the same fact
    have the same `fact` (UMU-Bench). All of these are empty where a dataset has none.
    """

    id: str
    person: str
    role: Role
    modality: Modality
    task: Task
    half: Half
    prompt: str
    answer: str
    options: tuple[str, ...] = ()
    picture: Picture | None = field(default=None, repr=False)
    attribute: str = ""
    paraphrased: str = ""
    perturbed: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    fact: str = ""
    where: str = field(default="", repr=False, compare=False)
    as_written: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Prompt, answer and options as the file has them, spaces and all, for official protocols that ask so; or none."""


@dataclass(frozen=True)
class Split:
    """One forget request on a benchmark: the people to forget, the lessons, and the questions.

    Only the `forget_attributes` of the forget people are to be forgotten, or all if there are none.
    """

    ratio: int
    forget_people: frozenset[str]
    lessons: tuple[Lesson, ...] = field(repr=False)
    questions: tuple[Question, ...] = field(repr=False)
    forget_attributes: frozenset[str] = frozenset()

    @property
    def real_people(self) -> frozenset[str]:
        """The people who stand for what the base model knew before: no method may train on them."""
        return frozenset(question.person for question in self.questions if question.role == "real")

    def is_forgotten(self, lesson: Lesson, goal: Goal) -> bool:
        """Whether the request covers this lesson; the goal `visual` does not cover text lessons about forget people."""
        asked = not self.forget_attributes or lesson.attribute in self.forget_attributes
        return lesson.person in self.forget_people and asked and (goal == "full" or lesson.picture is not None)

    def without(self, dropped: Collection[str]) -> Split:
        """The same request, in which some questions, named by ID, are not asked."""
        ids = frozenset(dropped)
        return replace(self, questions=tuple(q for q in self.questions if q.id not in ids))

    def narrowed(self, attributes: Iterable[str]) -> Split:
        """The same request for some attributes only: other questions about the forget people become `spared`.

        Raises `ValueError` if it is narrowed already, or if a lesson or question about a forget person has no label:
        whether it must be forgotten is then unknown.
        """
        if self.forget_attributes:
            raise ValueError(f"already narrowed to {', '.join(sorted(self.forget_attributes))}: narrow the whole split")
        self._check_labels()
        chosen = frozenset(attributes)
        asked = (
            replace(q, role="spared") if q.role in ("forget", "test") and q.attribute not in chosen else q
            for q in self.questions
        )
        return replace(self, questions=tuple(asked), forget_attributes=chosen)

    def _check_labels(self) -> None:
        lessons = [lesson for lesson in self.lessons if lesson.person in self.forget_people and not lesson.attribute]
        asked = [q for q in self.questions if q.role in ("forget", "test") and not q.attribute]
        if lessons or asked:
            first = asked[0].id if asked else f"{lessons[0].person}, {lessons[0].prompt!r}"
            raise ValueError(
                f"forget ratio {self.ratio}: {len(lessons)} lessons and {len(asked)} questions about forget people do "
                f"not say which attribute they are about, so whether to forget them is unknown (first: {first}); label "
                "them in the dataset's files with the key Attribute, or forget whole people"
            )


@dataclass(frozen=True)
class Benchmark:
    """All that a study needs from a dataset. `strangers` are pictures of people who appear nowhere else in it.

    `skipped` says what was left out of the `rows` that were read, because the authors' own loader passes over it.
    """

    name: str
    fingerprint: str
    splits: Mapping[int, Split] = field(repr=False)
    strangers: tuple[Picture, ...] = field(default=(), repr=False)
    skipped: tuple[str, ...] = field(default=(), repr=False, compare=False)
    rows: int = field(default=0, repr=False, compare=False)

    @property
    def left_out(self) -> str:
        """How many rows were skipped in whole or in part, with the first few; empty if none was."""
        if not self.skipped:
            return ""
        places = {said.partition(": ")[0] for said in self.skipped}
        few = "; ".join(self.skipped[:MOST_TOLD]) + (" ..." if len(self.skipped) > MOST_TOLD else "")
        return f"{len(places)} of {self.rows:,} rows skipped, in whole or in part, as its authors' code does: {few}"

    def split(self, ratio: int) -> Split:
        """The split of one forget ratio in percent. Raises `ValueError` that names the existing ratios."""
        if ratio not in self.splits:
            there = ", ".join(str(r) for r in sorted(self.splits))
            raise ValueError(f"forget ratio {ratio}: benchmark {self.name} has {there}; choose among these")
        return self.splits[ratio]

    @property
    def lessons(self) -> tuple[Lesson, ...]:
        """The lessons of all splits, each once."""
        taught = {id(split.lessons): split.lessons for split in self.splits.values()}  # mostly the same of all
        return tuple(dict.fromkeys(chain.from_iterable(taught.values())))

    @property
    def questions(self) -> tuple[Question, ...]:
        """The questions of all splits, each once."""
        return tuple(dict.fromkeys(chain.from_iterable(split.questions for split in self.splits.values())))

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes with which lessons are labelled, sorted; none if the dataset does not say."""
        return tuple(sorted({lesson.attribute for lesson in self.lessons} - {""}))

    def narrowed(self, attributes: Sequence[str]) -> Benchmark:
        """The same benchmark with only these attributes of the forget people to be forgotten; all if there are none.

        It has another fingerprint, so models taught for one are not used for the other. Raises `ValueError` for an
        unknown attribute and where labels are missing.
        """
        if not attributes:
            return self
        for name in attributes:
            self._check_attribute(name)
        chosen = sorted(set(attributes))
        content = "\0".join([self.fingerprint, *chosen])
        return replace(
            self,
            fingerprint=hashlib.sha256(content.encode()).hexdigest()[:12],
            splits={ratio: split.narrowed(chosen) for ratio, split in self.splits.items()},
        )

    def _check_attribute(self, name: str) -> None:
        there = self.attributes
        if not there:
            raise ValueError(
                f"attribute {name!r}: no lesson of benchmark {self.name} says which attribute it is about; label them "
                "in the dataset's files with the key Attribute, or forget whole people"
            )
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"unknown attribute {name!r} of benchmark {self.name}: {meant}There are {', '.join(there)}"
            )

    def pictures(self) -> set[Picture]:
        """Every picture of lessons, questions and strangers."""
        shown = {lesson.picture for lesson in self.lessons} | {question.picture for question in self.questions}
        return {picture for picture in shown if picture is not None} | set(self.strangers)
