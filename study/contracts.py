"""What a plug-in owes, and the trial that puts plug-ins together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

from study.core.terms import Goal, Part
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.data.picture import Picture

if TYPE_CHECKING:  # the command line is read, and its help shown, without the libraries that models need
    import pandas as pd
    from torch import Tensor

    from study.model.vlm import VLM

Material = Literal["all", "image_text", "text"]
"""Which lessons a method trains on: all that the request holds, or those with, or without, a picture."""


class BaseModel(Protocol):
    """A model before any study touched it: a frozen dataclass that can be called."""

    def __call__(self, folder: Path) -> Path:
        """The Hugging Face folder of the model, made under `folder` first if it has to be made."""
        ...


class Source(Protocol):
    """Where a benchmark comes from: a frozen dataclass that can be called."""

    def __call__(self, folder: Path) -> Benchmark:
        """Read the benchmark, written under `folder` first if it has to be made."""
        ...

    def __hash__(self) -> int:
        """Equal sources are read once per process."""
        ...


@dataclass(frozen=True)
class Request:
    """A forget request: all that an unlearner may use besides the model.

    `base`, `reference` and `start` load other models on demand, each time anew. The reference is what perfect
    unlearning would give, so a method that uses it is an oracle and can never be ranked; `start` is the learned model
    that the trial begins with. `adapter` says whether the trial's method trains adapters in place of weights.
    """

    split: Split
    goal: Goal
    strangers: tuple[Picture, ...] = field(repr=False)
    seed: int
    cache: Path
    base: Callable[[], VLM] = field(repr=False)
    reference: Callable[[], VLM] = field(repr=False)
    start: Callable[[], Mapping[str, Tensor]] = field(repr=False)
    adapter: bool = False

    @cached_property
    def forget(self) -> tuple[Lesson, ...]:
        """The lessons to be forgotten."""
        return tuple(lesson for lesson in self.split.lessons if self.split.is_forgotten(lesson, self.goal))

    @cached_property
    def retain(self) -> tuple[Lesson, ...]:
        """The lessons to be kept that a method may train on: all others, but for those of the real people."""
        real = self.split.real_people
        return tuple(
            lesson
            for lesson in self.split.lessons
            if lesson.person not in real and not self.split.is_forgotten(lesson, self.goal)
        )

    def only(self, modality: Material) -> Request:
        """The same request with the lessons of one modality (unimodal and multimodal unlearning of MLLMU-Bench).

        Raises `ValueError` if none that is to be forgotten is left.
        """
        if modality == "all":
            return self
        lessons = tuple(x for x in self.split.lessons if (x.picture is None) == (modality == "text"))
        narrowed = replace(self, split=replace(self.split, lessons=lessons))
        if not narrowed.forget:
            raise ValueError(
                f"modality={modality!r}: under the goal {self.goal!r} no such lesson is to be forgotten; choose "
                "modality='all', or the goal 'full'"
            )
        return narrowed


class Method(Protocol):
    """An unlearning method: a frozen dataclass of its hyper-parameters that can be called."""

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Unlearn in place, or return another model. The weights are the caller's to restore."""
        ...


Reading: TypeAlias = "Callable[[VLM, Sequence[Question]], pd.DataFrame]"
"""How rows are got out of a model: one per question, with the columns of `study.core.rows.ROW_COLUMNS`."""


class Stage(NamedTuple):
    """A moment of an attack at which the model is scored: by asking it, or by a reading of the attack's own."""

    step: int
    vlm: VLM
    questions: Sequence[Question]
    read: Reading | None = None


InChain = Literal["first", "last"]
"""Where alone an attack may stand among composed ones: first, if it needs the weights as the method left them; last, if
it reads the model its own way. A class variable `in_chain` says so; without it an attack may stand anywhere."""


class Attack(Protocol):
    """An attempt to get the forgotten back: it may change the model, the questions, or both."""

    def given(self, request: Request) -> tuple[Lesson, ...]:
        """The lessons the attacker is handed; only what they do not state counts as recovered."""
        ...

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """Attack, yielding the stages to be scored; the first is step 0, the model as it was found."""
        ...


def changed_parts(plugin: object) -> frozenset[Part]:
    """The parts that a method or an attack may write to: what its `changes` says, else its `trains` or its `parts`.

    Composed attacks change what any of them does.
    """
    said = next((getattr(plugin, name) for name in ("changes", "trains", "parts") if hasattr(plugin, name)), ())
    return frozenset(said).union(*map(changed_parts, getattr(plugin, "links", ())))
