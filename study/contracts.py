"""The bases of base models, benchmarks, methods and attacks, and the request that methods and attacks receive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Never, Self, TypeAlias, cast

from study.core.errors import Refused
from study.core.terms import Attention, Dtype, Goal, Held, Part, Quantized, Task
from study.core.threat import Threat
from study.core.validation import check_literals
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.data.picture import Picture
from study.training.schedule import Schedule

if TYPE_CHECKING:  # help and errors of the command line need no model libraries
    import pandas as pd
    from torch import Tensor

    from study.model.vlm import VLM

Material = Literal["all", "image_text", "text"]
"""Which lessons a method trains on: all that the request holds, or those with, or without, a picture."""


class BaseModel(ABC):
    """A model before learning: a frozen dataclass that can be called."""

    path: Path | None = None
    """The folder of the model; None if it is generated."""
    hub: str = ""
    """The repository that it is downloaded from; empty if it is generated or on this disk."""
    dtype: Dtype | Literal[""] = "float32"
    """The type of its weights; empty if that is not known yet."""
    attention: Attention = "sdpa"
    """How attention is computed."""
    quantized: Quantized = ""
    """The format of the LLM's linear layers once learning is over; empty for `dtype`."""

    @property
    def parameters(self) -> Mapping[Part, int]:
        """The parameters of each part of a model that is generated; empty if it does not say."""
        return {}

    @property
    def recipe(self) -> int:
        """The version of how a generated model is made: raised whenever the same settings make another one."""
        return 1

    @property
    def special_tokens(self) -> frozenset[str]:
        """The texts that its tokenizer reads as something else than text, such as the placeholder of a picture."""
        return frozenset()

    def at(self, folder: Path) -> Self:
        """The same, with `folder` for its path: where it was found."""
        found: Any = self  # a dataclass, as all of them are
        return cast("Self", replace(found, path=folder))

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that its tokenizer cannot write without its token for what it does not know."""
        return []

    @abstractmethod
    def __call__(self, folder: Path) -> Path:
        """The Hugging Face folder of the model, generated under `folder` if need be."""


class Source(ABC):
    """The source of a benchmark: a frozen dataclass that can be called. Equal ones are read once per process."""

    train_split: Path = Path()
    """A folder with lessons that replace the benchmark's own, if there is one."""
    generated: ClassVar[bool] = False
    """Whether its pictures are drawn and not brought: a plan then does not check that they decode."""

    @abstractmethod
    def __call__(self, folder: Path) -> Benchmark:
        """Read the benchmark; one that is generated is first written under `folder`."""


@dataclass(frozen=True)
class Request:
    """A forget request: all that an unlearner may use besides the model.

    `base`, `reference` and `start` load other models on demand, each time anew. Of the base model the tensors are what
    is wanted: it stays in main memory and is not quantized. The reference is what perfect
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

        Raises `Refused` if none that is to be forgotten is left.
        """
        if modality == "all":
            return self
        lessons = tuple(x for x in self.split.lessons if (x.picture is None) == (modality == "text"))
        narrowed = replace(self, split=replace(self.split, lessons=lessons))
        if not narrowed.forget:
            raise Refused(
                f"modality={modality!r}: under the goal {self.goal!r} no such lesson is to be forgotten; choose "
                "modality='all', or the goal 'full'"
            )
        return narrowed


def without_models(split: Split, goal: Goal, seed: int = 0) -> Request:
    """A forget request to look at its lessons and questions: it can load no model."""

    def nobody() -> Never:
        raise AssertionError("no model is loaded to look at lessons")

    return Request(split, goal, (), seed, Path(), nobody, nobody, nobody)


class _Plugin:
    """The base of methods and attacks. Each is a frozen dataclass of its settings that can be called.

    The attributes of a base are defaults; a plug-in overrides one with a field or a property of that name.
    """

    trains: tuple[Part, ...] = ()
    """Parts that are trained."""
    schedule: Schedule | None = None
    """The schedule of its training, if it trains."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a setting that is none of its choices; a plug-in with more checks calls this first."""
        check_literals(self)

    @property
    def changes(self) -> tuple[Part, ...]:
        """The parts that it may write to."""
        return self.trains


class Need(NamedTuple):
    """Choices of a setting that need something of a benchmark, and what to choose where that is missing."""

    values: tuple[str, ...]
    otherwise: str


class Method(_Plugin, ABC):
    """An unlearning method."""

    needs_strangers: ClassVar[Mapping[str, Need]] = {}
    """By setting, what needs pictures of strangers, which few benchmarks have."""
    modality: Material = "all"
    """The lessons it trains on: all, or those with (`image_text`) or without (`text`) a picture."""

    @property
    def oracle(self) -> bool:
        """Whether it uses the reference model, which does not exist in practice: an oracle is never ranked."""
        return False

    @property
    def holds(self) -> Held:
        """What it holds while it trains, for the estimate of its memory."""
        return "nothing"

    @property
    def trains_adapters(self) -> bool:
        """Whether it trains adapters in place of weights."""
        return self.schedule is not None and self.schedule.lora_rank > 0

    @abstractmethod
    def __call__(self, vlm: VLM, request: Request) -> VLM:
        """Unlearn in place, or return another model. The weights are the caller's to restore."""


Reading: TypeAlias = "Callable[[VLM, Sequence[Question]], pd.DataFrame]"
"""Scores questions on a model: one row per question, with the columns of `study.core.rows.ROW_COLUMNS`."""


class Stage(NamedTuple):
    """A point of an attack at which the model is scored: by questions, or by a function `read` of the attack.

    Step 0 is the model before the attack. Its rows are on disk, so no attack yields it.
    """

    step: int
    vlm: VLM
    questions: Sequence[Question]
    read: Reading | None = None


InChain = Literal["anywhere", "first", "last"]
"""Where an attack may stand among composed ones: `first` alone if it needs the weights as the method left them, `last`
alone if it reads the model its own way."""


class Attack(_Plugin, ABC):
    """An attempt to recover what was unlearned: it may change the model, the questions, or how answers are read."""

    in_chain: ClassVar[InChain] = "anywhere"
    parts: tuple[Part, ...] = ()
    """Parts that are changed without training."""

    @property
    def changes(self) -> tuple[Part, ...]:
        """The parts that it may write to."""
        return (*self.trains, *self.parts)

    @property
    def asks(self) -> tuple[Task, ...]:
        """The tasks of the questions about what was to be forgotten that it is scored by."""
        return ("classification",)

    @property
    def threat(self) -> Threat:
        """The attacker that it stands for: by default told by what it trains or writes to."""
        if not self.changes:
            return Threat()
        return Threat("data extraction", "model control", "white box", "fine-tuning" if self.trains else "deployment")

    def given(self, request: Request) -> tuple[Lesson, ...]:
        """The lessons that the attacker receives, by default none; only what they do not state counts as recovered."""
        return ()

    @abstractmethod
    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """Attack, yielding at least one stage to be scored; steps rise from 1. The weights are the caller's."""
