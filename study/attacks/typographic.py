"""Words in the picture: the person's name, or any other hint, stands beside the face.

Models for images and text trust what is written in a picture (typographic attacks: Goh et al., Distill 2021). As with
`name_hint`, whoever is told the name may answer from what text taught, which the goal `visual` leaves untouched: only
the gain above the reference under the same words says that the face still meant something.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from study.attacks._names import SLOT, known_names, lessons_on_names
from study.contracts import Attack, Request, Stage
from study.core.threat import Threat
from study.data.benchmark import Lesson, Question
from study.data.image_edits import encoded, shown_instead, with_text
from study.data.picture import Picture
from study.model.vlm import VLM

Place = Literal["above", "below"]


@dataclass(frozen=True)
class Typographic(Attack):
    """Writes a text above or below the face in every picture; the question stays in words. Needs no model.

    Letters are as in `figstep`, which writes the question. The tiny model cannot read: on it this measures what a
    smaller face costs.
    """

    text: str = "{name}"
    """What is written. With {name} the attacker has to know who it is: the name is what the person's lessons labelled
    with the attribute "name" state, and pictures of others than the forget people whose name is nowhere stay."""
    place: Place = "below"
    """Where it stands: above or below the face."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.text.strip():
            raise ValueError(f"text={self.text!r}: say what is written, {SLOT} for the name")

    @property
    def threat(self) -> Threat:
        """Knows the name, if that is written."""
        return Threat(knowledge="grey box" if SLOT in self.text else "black box")

    def given(self, request: Request) -> tuple[Lesson, ...]:
        """The names, if they are written: questions that ask for them do not count."""
        return lessons_on_names(request) if SLOT in self.text else ()

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """Ask about the pictures with the text. Raises `ValueError` if a forget person's name is not labelled."""
        texts = self._texts(questions, request)
        changed = {
            q.picture: self._written(q.picture, texts[q.person], vlm.side)
            for q in {q.picture: q for q in questions if q.person in texts}.values()
            if q.picture is not None
        }
        own = vlm.forgetful()  # pictures that nobody asks about again are not kept
        yield Stage(1, own, shown_instead(questions, changed))

    def _texts(self, questions: Sequence[Question], request: Request) -> dict[str, str]:
        """What is written beside each person."""
        if SLOT not in self.text:
            return {q.person: self.text for q in questions}
        return {person: self.text.replace(SLOT, name) for person, name in known_names(questions, request).items()}

    def _written(self, picture: Picture, text: str, side: int) -> Picture:
        return encoded(with_text(picture.open(), text, side, self.place), f"{picture.where}, {text}")
