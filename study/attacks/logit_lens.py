"""Logit lens: the answer read off before the last layers of the language model have had their say.

Unlearning that only learns to hide an answer at the end leaves it readable on the way there (nostalgebraist 2020;
as an attack Patil et al., arXiv 2309.17410, and Łucki et al., arXiv 2409.18025).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from study.contracts import Attack, InChain, Request, Stage
from study.core.errors import Refused
from study.core.threat import Threat
from study.data.benchmark import Question
from study.evaluation.scoring import score
from study.model.vlm import VLM


@dataclass(frozen=True)
class LogitLens(Attack):
    """Asks, as step 1, a model whose language model ends early: its final norm and head follow at once.

    The attacker has the weights and no fact. No instruction is put in front. One depth is one attack: which one reveals
    most is for the reader of the report to see, because an attacker who takes the best of several needs questions to
    choose by.
    """

    keep: int = -1
    """Layers of the language model that are kept; below 0, how many of the last are taken out."""
    in_chain: ClassVar[InChain] = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep == 0:
            raise ValueError("keep=0: keep at least 1 layer, or take out at least 1 with a number below 0")

    @property
    def threat(self) -> Threat:
        """Reads the language model before its end."""
        return Threat(capability="internals", knowledge="white box")

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """The same weights read by `read`.

        Raises `Refused` if the language model has not as many layers.
        """
        self._kept(vlm)
        yield Stage(1, vlm.with_instruction(""), questions, self.read)

    def read(self, vlm: VLM, questions: Sequence[Question]) -> pd.DataFrame:
        """The ordinary rows of a model without its last layers, which are put back before this returns."""
        with _shortened(vlm, self._kept(vlm)):
            return score(vlm, questions)

    def _kept(self, vlm: VLM) -> int:
        there = len(_language_model(vlm).layers)
        kept = self.keep if self.keep > 0 else there + self.keep
        if not 1 <= kept <= there:
            raise Refused(f"keep={self.keep}: the language model has {there} layers, of which 1 to {there} can stay")
        return kept


def _language_model(vlm: VLM) -> Any:
    return vlm.model.get_submodule(vlm.prefixes["llm"])


@contextmanager
def _shortened(vlm: VLM, kept: int) -> Iterator[None]:
    """While the block lasts the language model has its first `kept` layers only; no weight is copied or touched."""
    llm = _language_model(vlm)
    layers = llm.layers
    llm.layers = layers[:kept]
    try:
        yield
    finally:
        llm.layers = layers
