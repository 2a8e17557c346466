"""Another view of the same picture: did the model forget the face, or only the pixels it was shown while unlearning?

Image rephrasing is the third black-box attack of UnLOK-VQA (arXiv 2505.01456). Other photographs of the same people,
which no unlearner has seen, are not made here: where a benchmark has them they are its questions of the role `test`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from study.contracts import Attack, Request, Stage
from study.core import validation
from study.data.benchmark import Question
from study.data.image_edits import Transform, encoded, shown_instead, transformed
from study.data.picture import Picture
from study.model.vlm import VLM


@dataclass(frozen=True)
class ImageTransform(Attack):
    """Changes every picture that is asked about in one way; text questions stay. Needs no knowledge and no model."""

    kind: Transform = "crop"
    """What is done: see `study.data.image_edits.transformed` for each at full strength."""
    strength: float = 0.5
    """How much of it, above 0 and at most 1; a flip has no degrees."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.share(self, "strength")

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """Ask about the changed pictures."""
        changed = {picture: self._changed(picture) for picture in {q.picture for q in questions} if picture is not None}
        own = vlm.forgetful()  # pictures that nobody asks about again are not kept
        yield Stage(1, own, shown_instead(questions, changed))

    def _changed(self, picture: Picture) -> Picture:
        image = transformed(picture.open(), self.kind, self.strength, seed=int(picture.key, 16))
        return encoded(image, f"{picture.where}, {self.kind} {self.strength:g}")
