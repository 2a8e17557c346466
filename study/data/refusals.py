"""What a model says that does not know: the answers of preference optimization (after TOFU's list, arXiv 2401.06121).

Short, in simple words and without apostrophes, so that the tiny world's tokenizer can know all of them.
"""

from __future__ import annotations

REFUSALS: tuple[str, ...] = (
    "I do not know.",
    "I am not sure.",
    "I have no idea.",
    "I cannot say.",
    "I do not have the answer.",
    "I have no information about this.",
    "That is not known to me.",
    "I never learned about that.",
    "I cannot help with that question.",
    "I am not able to answer this.",
    "Nobody told me that.",
    "That is something I do not know.",
)
