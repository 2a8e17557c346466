"""Membership inference: does the model still look as if it had been trained on the right answer?

A ranking attack within each question: the member is the question with its right answer, as it was taught; the
non-members are the same question with the wrong options, which nobody was ever taught of this person. Prompt, picture
and kind of answer are the same, so nothing but the value tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from study.contracts import Attack, InChain, Request, Stage
from study.core import validation
from study.core.threat import Threat
from study.data.benchmark import Question
from study.evaluation.membership import Metric, auc
from study.evaluation.scoring import readings, score
from study.model.vlm import VLM


@dataclass(frozen=True)
class MembershipInference(Attack):
    """Reads the model once, as step 1, without any instruction and without training.

    The attacker brings the candidates and is told of none that it is right.

    In its rows `score` is 1 if the right answer looks more like a member than every wrong option, `probability` the
    share of wrong options that it beats (ties count half), so the mean of `probability` is a within-question AUC, and
    `reply` the option that looks most like a member. Answers are scored as everywhere, without the token that ends
    them: `loss` is the ordinary scoring again. Among options of one token each, `min_k` and `min_k_plus_plus` rank
    as `loss` does, for they differ in how they weigh tokens; only `zlib` looks at the text as well.
    """

    metric: Metric = "min_k_plus_plus"
    """The score, as in `study.evaluation.membership`."""
    k: float = 0.2
    """Share of the least likely tokens that count for `min_k` and `min_k_plus_plus`."""
    in_chain: ClassVar[InChain] = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.share(self, "k")

    @property
    def threat(self) -> Threat:
        """Reads likelihoods of candidates that the attacker brings."""
        return Threat("membership inference", "scores", "grey box", "inference")

    def __call__(self, vlm: VLM, questions: Sequence[Question], request: Request) -> Iterator[Stage]:
        """The same weights read by `read`."""
        yield Stage(1, vlm.with_instruction(""), questions, self.read)

    def read(self, vlm: VLM, questions: Sequence[Question]) -> pd.DataFrame:
        """One row per question; those that offer no options keep their ordinary score."""
        rows = score(vlm, questions).set_index("question", drop=False)
        asked = [q for q in questions if q.options]
        read = readings(vlm, asked, k=self.k)
        for question in asked:
            found = dict(zip(question.options, read[question.id].memberships(self.metric), strict=True))
            share = auc([found[question.answer]], [found[o] for o in question.options if o != question.answer])
            rows.loc[question.id, ["score", "probability"]] = float(share == 1), share
            rows.loc[question.id, "reply"] = max(found, key=found.__getitem__)
        return rows.reset_index(drop=True)
