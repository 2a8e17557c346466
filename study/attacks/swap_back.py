"""Swap-back: put the public model's eyes back, or its output head. No training, no data, one copy.

Vision towers and projectors of open models are public. A method that made only these forget left the facts where they
were, in the language model: VL-Eraser reports that such unlearning barely holds after the original layers are reloaded.
So is the head that turns the last hidden state into words, with the norm before it, and adapters leave both alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from study.attacks._weights import check_parts
from study.contracts import Attack, Request, Stage
from study.core.errors import Refused
from study.core.terms import Part
from study.data.benchmark import Question
from study.model.delta import apply_delta
from study.model.families import output_head
from study.model.vlm import VLM

PUBLIC: tuple[Part, ...] = ("vision", "projector")
"""What knows facts only together with the LLM, so that the public one may bring them back."""


@dataclass(frozen=True)
class SwapBack(Attack):
    """Copies parts of the base model, or its head, over the model's, as step 1, and drops an instruction.

    Exact where learning froze the part: then it is the learned model's own again, bit for bit. A part that learning
    trained is put back to before anybody was learned, so what it knew of them is lost too.
    """

    parts: tuple[Part, ...] = ("vision",)
    """Vision, projector or both; none if the head alone is put back."""
    head: bool = False
    """Whether the final norm and the output head are put back too, and with it embeddings that are tied to it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.head:
            check_parts(self.parts)
        if "llm" in self.parts:
            raise ValueError(
                f"parts={self.parts}: the base model's llm never knew the people, so putting it back brings nothing "
                "back; name vision, projector or both, or none and head=true"
            )

    @property
    def changes(self) -> tuple[Part, ...]:
        """The parts that are written to; the head is the LLM's."""
        return (*self.parts, "llm") if self.head else self.parts

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """The model with what is the base model's."""
        vlm.check_changeable(self.changes)
        base = request.base()
        head = _head(base) if self.head else ()
        wanted = {
            name: weight
            for name, weight in base.model.named_parameters()
            if base.part_of(name) in self.parts or any(weight is own for own in head)
        }
        apply_delta(vlm, wanted)
        yield Stage(1, vlm.with_instruction(""), questions)


def _head(vlm: VLM) -> tuple[Tensor, ...]:
    """What turns the last layer's output into words: the weights of the final norm and of the output head.

    Raises `Refused` if the LLM has no such norm.
    """
    norm = getattr(vlm.model.get_submodule(vlm.prefixes["llm"]), "norm", None)
    if norm is None:
        raise Refused(f"head=true: the LLM of {type(vlm.model).__name__} has no final norm called norm; set head=false")
    return (*norm.parameters(), *output_head(vlm.model).parameters())
