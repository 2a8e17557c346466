"""Texts of a dataset that a tokenizer reads as something else: special tokens, and words that it does not know."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence

from study.data.benchmark import Benchmark


def special_tokens_in(benchmark: Benchmark, tokens: Collection[str]) -> list[str]:
    """Where lessons or questions hold one of the `tokens`, a sentence for each place, token and kind of text.

    A placeholder of a picture in a question without one makes the model look for a picture; one that ends a turn cuts
    the question or answer off. Scores then differ without a word.
    """
    written = [token for token in tokens if token.strip()]
    if not written:
        return []
    found = re.compile("|".join(map(re.escape, sorted(written, key=len, reverse=True))))
    seen: dict[str, None] = {}
    for where, what, text in _texts(benchmark):
        for match in found.finditer(text):
            begin = max(0, match.start() - 20)
            seen[
                f"{where}: {what} holds {match[0]!r}, which is a token of the model and no text "
                f"({text[begin : match.end() + 20]!r}); write it in another way or remove it"
            ] = None
    return list(seen)


def unknown_words_in(benchmark: Benchmark, unknown: Callable[[Sequence[str]], Collection[str]]) -> list[str]:
    """Where lessons or questions hold what a model cannot write, a sentence for each place; `unknown` says which do.

    Of a name without tokens all that is taught and asked is the same token, so that nobody can be told apart.
    """
    every = list(_texts(benchmark))
    wrong = set(unknown(list(dict.fromkeys(text for _, _, text in every))))
    return [
        f"{where}: {what} holds words that the model's tokenizer does not know ({text[:60]!r})"
        for where, what, text in every
        if text in wrong
    ]


def _texts(benchmark: Benchmark) -> Iterator[tuple[str, str, str]]:
    """Every text that a model is shown, with its place and what it is."""
    for lesson in benchmark.lessons:
        where = lesson.where or f"lesson about {lesson.person}"
        yield from ((where, "a question", lesson.prompt), (where, "an answer", lesson.answer))
    for question in benchmark.questions:
        where = question.where or f"question {question.id}"
        yield where, "a question", question.prompt
        yield from ((where, "an answer", text) for text in (question.answer, question.paraphrased))
        yield from ((where, "an option", text) for text in (*question.options, *question.perturbed))
