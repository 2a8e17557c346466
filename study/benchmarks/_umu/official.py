"""The released protocol of UMU-Bench (eval.py of QDRhhhh/UMU-bench, revision 93b9900) for LLaVA-1.5, word for word."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import replace

from study.benchmarks._umu.cells import ONLY
from study.data.benchmark import Question, Split
from study.data.official_protocol import IMAGE, OfficialPrompt

TRAINED = {
    "image_text": "Answer the question based on your trained knowledge in one sentence accurately in ENGLISH.",
    "text": "Answer the question based on your trained knowledge in one sentence in ENGLISH.",
}
MOST_TOKENS = {"classification": 50, "cloze": 50, "generation": 200}


def asks(split: Split) -> Iterator[OfficialPrompt]:
    """All questions of the forget, retain and real sets.

    A choice is right if the reply equals the option, character by character; of real people it is taken for the option
    that it looks most like, so their accuracy is not comparable with the others'. A cloze is right if the reply
    contains what stands before the first full stop of the answer. Texts are those of the file, and pictures are not
    turned upright. Of the side with picture the right option has the letter of the other side's answer.
    """
    for question in split.questions:
        if question.role != "test":
            prompt, answer, *options = question.as_written
            if question.task == "cloze":
                prompt, answer = f"{prompt}\n{ONLY}", answer.split(".")[0]
            asked = replace(question, prompt=prompt, answer=answer, options=tuple(options))
            shown = () if question.picture is None else (replace(question.picture, as_stored=True),)
            read = _reader(asked)
            yield OfficialPrompt(asked, _text(asked), shown, MOST_TOKENS[asked.task], read=read, right=answer)


def _text(question: Question) -> str:
    shown = question.picture is not None
    if question.task == "classification":
        head = f"USER: {IMAGE}\n" if shown else "USER:\n"
        return f"{head}{question.prompt}\nSelect answer in {list(question.options)}\nASSISTANT:"
    head = f"USER: {IMAGE}\n" if shown else "USER: "
    if question.task == "cloze":
        return f"{head}{question.prompt}\nASSISTANT:"
    return f"{head}{question.prompt}\n{TRAINED[question.modality]}\nASSISTANT:{' ' if shown else ''}"


def _reader(question: Question) -> Callable[[str], str | None]:
    def exact(reply: str) -> str | None:
        said = _said(reply)
        return said if said in question.options else None

    def nearest(reply: str) -> str | None:
        said = _said(reply)
        return max(question.options, key=lambda option: difflib.SequenceMatcher(None, said, option).ratio())

    if question.task != "classification":
        return _said
    return nearest if question.role == "real" else exact


def _said(reply: str) -> str:
    """A reply up to where it goes on to speak for both sides."""
    return reply.split("ASSISTANT:")[0].strip()
