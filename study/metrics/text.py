"""What a reply is worth beside the right answer, and what it says: functions of texts alone.

ROUGE and BLEU are the published ones (rouge-score with its stemmer, nltk), so the field's numbers stay for English.
Case and the spelling of accents (NFC) make no difference anywhere but in BLEU.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from functools import cache
from typing import Any, NamedTuple

from study.data.facts import plain, states
from study.data.refusals import REFUSALS
from study.data.segmentation import segmented


class Rouge(NamedTuple):
    """ROUGE of a reply with the answer, each in [0, 1]: F1 of words, of pairs and of the longest common subsequence."""

    rouge_1: float
    rouge_2: float
    rouge_l: float
    rouge_l_recall: float


# ---- likeness ------------------------------------------------------------------------------------------------------
def rouge(reply: str, answer: str) -> Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L, stemmed (Lin 2004, as in MLLMU-Bench), with the recall of ROUGE-L (TOFU).

    Texts that are equal but for case and spaces score 1 in any script and an empty reply 0. Where there are letters
    outside ASCII, which the published tokenizer drops, both texts are read by `words`. Raises `ValueError` if the
    answer is empty.
    """
    _check(answer)
    if _folded(reply).split() == _folded(answer).split():
        return Rouge(1.0, 1.0, 1.0, 1.0)
    reply, answer = (unicodedata.normalize("NFC", text) for text in (reply, answer))
    foreign = any(not c.isascii() and c.isalnum() for c in reply + answer)
    found = _scorer(foreign).score(answer, reply)
    one, two, longest = (float(found[kind].fmeasure) for kind in _KINDS)
    return Rouge(one, two, longest, float(found["rougeL"].recall))


def published_rouge(reply: str, answer: str) -> Rouge:
    """ROUGE as rouge-score has it with its stemmer, which drops letters outside ASCII: for published numbers."""
    found = _scorer(False).score(answer, reply)
    one, two, longest = (float(found[kind].fmeasure) for kind in _KINDS)
    return Rouge(one, two, longest, float(found["rougeL"].recall))


def words(text: str) -> list[str]:
    """The words of a text in any script, case folded; single characters where a script puts no space between words."""
    return segmented(_folded(text))


def bleu(reply: str, answer: str) -> float:
    """BLEU-4 of words between spaces, smoothed by method 1 of Chen & Cherry (2014), in [0, 1], as in MLLMU-Bench.

    Case counts, and equal texts of fewer than four words stay below 1. Raises `ValueError` if the answer is empty.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu  # nltk imports scipy.stats

    _check(answer)
    return float(sentence_bleu([answer.split()], reply.split(), smoothing_function=SmoothingFunction().method1))


def exact_match(reply: str, keywords: Collection[str]) -> float:
    """The share of the keywords that the reply contains (FIUBench, arXiv 2411.03554); NaN without keywords."""
    if not keywords:
        return float("nan")
    return sum(contains(reply, keyword) for keyword in keywords) / len(keywords)


def contains(reply: str, answer: str) -> bool:
    """Whether the answer stands anywhere in the reply, even within a word: how a cloze is marked in MLLMU-Bench.

    Raises `ValueError` if the answer is empty.
    """
    _check(answer)
    return _folded(answer.strip()) in _folded(reply)


# ---- refusals ------------------------------------------------------------------------------------------------------
SAID_ANYWHERE = (
    *REFUSALS, "I don't know", "I'm not sure", "I am unable to", "I'm unable to", "I'm not able to answer",
    "I don't have the answer", "I don't have any information", "I do not have any information",
    "I don't have information", "I do not have information", "I don't have access", "I do not have access",
    "cannot answer", "can't answer", "cannot be determined", "cannot provide", "can't provide", "cannot help with",
    "can't help with", "cannot assist", "can't assist", "cannot identify", "can't identify", "not able to identify",
    "no information available",
)  # fmt: skip
SAID_FIRST = ("I cannot", "I can't", "I won't", "I'm sorry", "I am sorry", "Sorry", "As an AI", "Unable to")


def is_refusal(reply: str) -> bool:
    """Whether a reply says, in English, that it will not or cannot answer, even if it guesses all the same.

    It does if it contains one of `SAID_ANYWHERE` or begins with one of `SAID_FIRST`, as whole words whatever the case
    and the kind of apostrophe.
    """
    begun = f" {plain(reply)} "
    first = any(begun.startswith(f" {plain(phrase)} ") for phrase in SAID_FIRST)
    return first or any(states(reply, phrase) for phrase in SAID_ANYWHERE)


# ---- choices -------------------------------------------------------------------------------------------------------
def first_letter(reply: str, letters: Collection[str]) -> str | None:
    """The first character of a reply in upper case if it is one of `letters`: how MLLMU-Bench reads a choice.

    It takes "Answer: B" and "A person of note" for an A.
    """
    letter = reply.strip()[:1].upper()
    return letter if letter in set(letters) else None


# ---- texts ---------------------------------------------------------------------------------------------------------
_KINDS = ("rouge1", "rouge2", "rougeL")


@cache
def _scorer(foreign: bool) -> Any:
    """The published scorer, or the same with `words` where there are letters that its tokenizer drops."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(_KINDS, tokenizer=_Words()) if foreign else RougeScorer(_KINDS, use_stemmer=True)


class _Words:
    """`words`, stemmed as rouge-score stems: those of more than three characters."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stemmer = PorterStemmer()

    def tokenize(self, text: str) -> list[str]:
        """The stems of a text."""
        return [self.stemmer.stem(word) if len(word) > 3 else word for word in words(text)]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def _check(answer: str) -> None:
    if not answer.strip():
        raise ValueError(
            f"the right answer is {answer!r}: no reply can be compared with it; give the question an answer"
        )
