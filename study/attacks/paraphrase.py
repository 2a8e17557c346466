"""The question in other words: is the knowledge gone, or only the reply to the wordings that were unlearned?

Rephrased questions are an attack of UnLOK-VQA (arXiv 2505.01456) and the multi-prompt attack of VLM-UnL-Attack (arXiv
2605.26992). Here no language model rewrites: wordings come from the dataset or are rules (`study.data.wordings`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from study.contracts import Attack, Request, Stage
from study.core import validation
from study.data.benchmark import Question
from study.data.wordings import HELD_OUT, Wording, Wordings
from study.model.vlm import VLM


@dataclass(frozen=True)
class Paraphrase(Attack):
    """Asks every question in other wordings, by default in those that no method may train on. Needs no model.

    Each wording is a stage of its own, in the order in which they are named: whoever asks can ask in each and keep the
    one that works. A mean over wordings would hide the one that a defence overlooked.
    """

    wording: tuple[Wording, ...] = HELD_OUT
    """`dataset`: what the dataset asks of the same attribute in other words, best a wording that this person was never
    taught in. `completion` and `cloze`: the beginning of a sentence that is said of several people, and a sentence with
    a blank that this person was never taught, for the same answer. Else, and where the dataset has none, the question
    in a frame, which is English; the tiny model knows the words of the frames that are held out and of no other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.each_once(self, "wording")

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """Ask in each wording."""
        known = Wordings(request.split)
        for step, wording in enumerate(self.wording, 1):
            yield Stage(step, vlm, [replace(q, prompt=known.worded(q, wording)) for q in questions])
