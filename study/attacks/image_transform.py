"""Other views of the same picture: did the model forget the face, or only the pixels it was shown while unlearning?

Image rephrasing is the third black-box attack of UnLOK-VQA (arXiv 2505.01456). Other photographs of the same people,
which no unlearner has seen, are not made here: where a benchmark has them they are its questions of the role `test`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from study.contracts import Attack, Request, Stage
from study.core import validation
from study.data.benchmark import Question
from study.data.image_edits import Transform, encoded, shown_instead, transformed
from study.data.picture import Picture
from study.model.vlm import VLM


@dataclass(frozen=True)
class ImageTransform(Attack):
    """Changes every picture that is asked about; text questions stay. Needs no knowledge and no model.

    Each kind of change is a stage of its own, in the order in which they are named: a defence that is keyed on one
    property of pictures, such as their brightness, is exposed by one of them and not by their mean.
    """

    kind: tuple[Transform, ...] = get_args(Transform)
    """What is done, each by itself: see `study.data.image_edits.transformed` for each at full strength."""
    strength: float = 0.5
    """How much of it, above 0 and at most 1; a flip has no degrees."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.each_once(self, "kind")
        validation.share(self, "strength")

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """Ask about the changed pictures, one kind of change after another."""
        pictures = {q.picture for q in questions if q.picture is not None}
        for step, kind in enumerate(self.kind, 1):
            changed = {picture: self._changed(picture, kind) for picture in pictures}
            own = vlm.forgetful()  # pictures that nobody asks about again are not kept
            yield Stage(step, own, shown_instead(questions, changed))

    def _changed(self, picture: Picture, kind: Transform) -> Picture:
        image = transformed(picture.open(), kind, self.strength, seed=int(picture.key, 16))
        return encoded(image, f"{picture.where}, {kind} {self.strength:g}")
