"""Texts against texts: by hand, by the published code where its numbers are to stay, by tables of what is said."""

from __future__ import annotations

import math
import unicodedata
from typing import Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from study.data.refusals import REFUSALS
from study.metrics.text import (
    SAID_ANYWHERE,
    SAID_FIRST,
    Rouge,
    bleu,
    contains,
    exact_match,
    first_letter,
    is_refusal,
    rouge,
    words,
)

RIGHT = "This person lives in Rome."
ASCII = st.text(st.characters(max_codepoint=127), max_size=40)
OPTIONS = ("Lisbon", "York", "New York", "Paris")


# ---- ROUGE ---------------------------------------------------------------------------------------------------------
def test_rouge_by_hand() -> None:
    """Five words each, all the same; pairs "this person", "person lives"; in order "this person lives"."""
    assert rouge("in Rome this person lives", RIGHT) == pytest.approx((1.0, 3 / 4, 3 / 5, 3 / 5))


def test_recall_counts_the_answer_and_f1_both() -> None:
    """All 5 words of the answer are in a reply of 10."""
    found = rouge("I think that perhaps this person lives in Rome today", RIGHT)
    assert found.rouge_l_recall == 1.0
    assert found.rouge_l == pytest.approx(2 * 5 / (10 + 5))


def test_words_are_stemmed_and_order_counts() -> None:
    assert rouge("persons lived", "live person happily").rouge_1 == pytest.approx(2 * 2 / (2 + 3))
    assert rouge("persons lived", "live person happily").rouge_l == pytest.approx(2 * 1 / (2 + 3))


@given(ASCII, ASCII)
def test_numbers_of_the_field_stay(reply: str, answer: str) -> None:
    """In ASCII they are those of rouge-score itself, apart from texts that are the same."""
    assume(answer.strip() and reply.casefold().split() != answer.casefold().split())
    published = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(answer, reply)
    expected = [published[kind].fmeasure for kind in ("rouge1", "rouge2", "rougeL")]
    assert rouge(reply, answer) == (*expected, published["rougeL"].recall)


@pytest.mark.parametrize(
    "text", ["It's Rome \N{EM DASH} snake_case", "\N{LEFT DOUBLE QUOTATION MARK}Rome\N{EURO SIGN}"]
)
def test_signs_outside_ascii_change_nothing(text: str) -> None:
    """Only letters call for another tokenizer."""
    published = RougeScorer(["rougeL"], use_stemmer=True).score("case of Rome", text)["rougeL"]
    assert rouge(text, "case of Rome").rouge_l == published.fmeasure > 0


@pytest.mark.parametrize(
    ("reply", "answer", "expected"),
    [
        ("Живёт в городе Москве", "Живёт в Москве", (6 / 7, 2 / 5, 6 / 7, 1.0)),
        ("東京都", "東京", (4 / 5, 2 / 3, 4 / 5, 1.0)),
        ("She lives in 東京", "東京", (2 * 2 / (5 + 2), 2 * 1 / (4 + 1), 2 * 2 / (5 + 2), 1.0)),
        ("cafés", "café", (1.0, 0.0, 1.0, 1.0)),
        ("Осло", "Живёт в Москве", (0.0, 0.0, 0.0, 0.0)),
        ("Oslo", "Москва", (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_other_scripts_are_counted_by_hand(reply: str, answer: str, expected: tuple[float, ...]) -> None:
    assert rouge(reply, answer) == pytest.approx(expected)


@pytest.mark.parametrize("forms", [("NFC", "NFC"), ("NFD", "NFD"), ("NFC", "NFD"), ("NFD", "NFC")])
def test_the_spelling_of_accents_makes_no_difference(
    forms: tuple[Literal["NFC", "NFD"], Literal["NFC", "NFD"]],
) -> None:
    reply, answer = map(unicodedata.normalize, forms, ("Müller cook", "Müller baker"))
    assert rouge(reply, answer) == (0.5, 0.0, 0.5, 0.5)


@given(st.text(min_size=1, max_size=30))
def test_equal_texts_score_one_in_any_script(text: str) -> None:
    assume(text.strip())
    assert rouge(f"  {unicodedata.normalize('NFD', text)}\n", text) == Rouge(1.0, 1.0, 1.0, 1.0)


@given(st.text(max_size=30), st.text(min_size=1, max_size=30))
def test_rouge_is_a_share(reply: str, answer: str) -> None:
    assume(answer.strip())
    assert all(0.0 <= value <= 1.0 for value in rouge(reply, answer))


@pytest.mark.parametrize("reply", ["", " \n", "..."])
@pytest.mark.parametrize("answer", [RIGHT, "Живёт в Москве"])
def test_an_empty_reply_scores_nothing(reply: str, answer: str) -> None:
    assert rouge(reply, answer) == (0.0, 0.0, 0.0, 0.0)
    assert bleu(reply, answer) == 0.0
    assert not contains(reply, answer)


@pytest.mark.parametrize("answer", ["", " "])
def test_an_empty_answer_is_an_error(answer: str) -> None:
    for compare in (rouge, bleu, contains):
        with pytest.raises(ValueError, match=rf"{answer!r}.*give the question an answer"):
            compare("Rome", answer)
    with pytest.raises(ValueError, match="no reply can be compared"):
        exact_match("Rome", ["Rome", answer])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Straße naïve_x 12!", ["strasse", "naïve", "x", "12"]),
        ("東京abc京", ["東", "京", "abc", "京"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("cafe\u0301", ["café"]),
        ("\u0301 a", ["a"]),
        ("می\N{ZERO WIDTH NON-JOINER}روم", ["می\N{ZERO WIDTH NON-JOINER}روم"]),
        ("", []),
    ],
)
def test_words_of_any_script(text: str, expected: list[str]) -> None:
    """Marks stay with what they are on; a mark on nothing is nothing."""
    assert words(text) == expected


# ---- BLEU, keywords, cloze -----------------------------------------------------------------------------------------
def test_bleu_by_hand() -> None:
    """Precisions 5/6, 3/5, 1/4 and, as no four words agree, 0.1 of 3; as long as the answer."""
    expected = (5 / 6 * 3 / 5 * 1 / 4 * 0.1 / 3) ** 0.25
    assert bleu("the cat sat on the mat", "the cat is on the mat") == pytest.approx(expected)


def test_a_short_reply_has_a_lower_bleu() -> None:
    """Both words are right, there are no three or four, and the reply is 2 of 3 words long."""
    assert bleu("the cat", "the cat sat") == pytest.approx((1 * 1 * 0.1 * 0.1) ** 0.25 * math.exp(1 - 3 / 2))
    assert bleu("a b c d e", "a b c d e") == 1.0
    assert bleu("Москва и река Нева", "Москва и река Нева") == 1.0
    assert bleu("THE CAT SAT ON", "the cat sat on") == 0.0


@pytest.mark.parametrize(
    ("reply", "keywords", "expected"),
    [
        ("She was born in ROME in 1980.", ["Rome", "1980", "doctor"], 2 / 3),
        ("Cafe\u0301", ["café"], 1.0),
        ("", ["Rome"], 0.0),
    ],
)
def test_exact_match_is_the_share_of_keywords(reply: str, keywords: list[str], expected: float) -> None:
    assert exact_match(reply, keywords) == pytest.approx(expected)


def test_without_keywords_there_is_no_exact_match() -> None:
    assert math.isnan(exact_match("Rome", []))


@pytest.mark.parametrize(
    ("reply", "answer", "expected"),
    [
        ("Lisbon", "Lisbon", True),
        ("She lives in LISBON, I think.", " Lisbon ", True),
        ("Lisb", "Lisbon", False),
        ("Живёт в городе москве.", "Москве", True),
        ("Hauptstrasse 5", "Hauptstraße 5", True),
        ("Sa\u0303o Paulo", "São Paulo", True),
    ],
)
def test_a_cloze_is_right_when_the_reply_contains_the_answer(reply: str, answer: str, expected: bool) -> None:
    assert contains(reply, answer) == expected


# ---- refusals ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "reply",
    [
        *REFUSALS,
        "I don't know.",
        "i don\N{RIGHT SINGLE QUOTATION MARK}t know who that is",
        "Sorry, I can't help with that.",
        "I'm sorry, but I cannot identify people.",
        "As an AI language model, I have no access to this.",
        "Well, the place cannot be determined from the picture.",
        "Her name is Ana, but I do not know where she lives.",
        "I cannot see it",
    ],
)
def test_refusals_are_told(reply: str) -> None:
    assert is_refusal(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Lisbon",
        "She says I cannot swim.",
        "He is sorry for his sister.",
        "Sorrypolis",
        "The village of Unable is in Kent.",
        "She does not know him.",
        "You don't know her: she is a doctor.",
    ],
)
def test_answers_are_no_refusals(reply: str) -> None:
    assert not is_refusal(reply)


@pytest.mark.parametrize("phrase", [*SAID_ANYWHERE, *SAID_FIRST])
def test_every_phrase_is_found(phrase: str) -> None:
    assert is_refusal(f"{phrase.upper()}, she said.")
    assert is_refusal(f"Hm. {phrase}!") == (phrase in SAID_ANYWHERE)


# ---- choices -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("reply", "expected"),
    [("B", "B"), ("b) Oslo", "B"), (" c", "C"), ("Answer: B", "A"), ("(a)", None), ("E", None), ("", None)],
)
def test_the_first_letter_is_read_as_released(reply: str, expected: str | None) -> None:
    assert first_letter(reply, "ABCD") == expected
