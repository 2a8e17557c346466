"""Which fact a lesson states, what a request covers, and pictures as they open."""

from __future__ import annotations

import io
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from study.core.terms import Goal
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.data.facts import facts, states
from study.data.picture import Picture

WORDS = st.lists(st.sampled_from(["Lisbon", "lisbon", "Oslo", "in", "New", "York", "."]), min_size=1, max_size=4)
ANSWERS = st.lists(WORDS.map(" ".join), min_size=1, max_size=6)


def lessons(*answers: str, person: str = "1") -> list[Lesson]:
    return [Lesson(person, "?", answer) for answer in answers]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side), np.uint8))


@pytest.mark.parametrize(
    ("text", "fact", "expected"),
    [
        ("This person lives in Lisbon.", "Lisbon", True),
        ("this person lives in LISBON", "Lisbon.", True),
        ("Lisbon", "This person lives in Lisbon.", False),
        ("She has a party.", "art", False),
        ("New-York, of course", "new york", True),
        ("York New", "new york", False),
        ("Живёт в Москве.", "москве", True),
        ("STRASSE 5", "straße 5", True),
        ("Lisbon", "", False),
        ("", "Lisbon", False),
    ],
)
def test_a_text_states_a_fact_as_whole_words(text: str, fact: str, expected: bool) -> None:
    assert states(text, fact) == expected


@given(st.text(string.ascii_letters + " .", min_size=1), st.text(), st.text())
def test_a_text_states_what_it_is_put_together_of(fact: str, before: str, after: str) -> None:
    if any(c.isalnum() for c in fact):
        assert states(f"{before} {fact.upper()} {after}", fact)


def test_sentences_state_the_short_fact() -> None:
    found = facts(lessons("Lisbon", "This person lives in Lisbon.", "baker", "A baker in Lisbon!"))
    assert found == {
        ("1", "Lisbon"): "Lisbon",
        ("1", "This person lives in Lisbon."): "Lisbon",
        ("1", "baker"): "baker",
        ("1", "A baker in Lisbon!"): "baker",
    }


def test_facts_of_others_do_not_count() -> None:
    found = facts([*lessons("Lisbon"), *lessons("In Lisbon.", person="2")])
    assert found == {("1", "Lisbon"): "Lisbon", ("2", "In Lisbon."): "In Lisbon."}


def test_punctuation_does_not_make_an_answer_longer() -> None:
    found = facts(lessons("Oslo.........", "in Oslo"))
    assert set(found.values()) == {"Oslo........."}


@given(ANSWERS)
def test_a_fact_is_an_answer_that_is_stated_and_states_no_other(answers: list[str]) -> None:
    found = facts(lessons(*answers))
    assert {answer for _, answer in found} == set(answers)
    kept = set(found.values())
    for (_, answer), fact in found.items():
        assert fact in answers
        assert fact == answer or states(answer, fact)
        assert found["1", fact] == fact
    for fact in kept:
        assert not any(states(fact, other) for other in kept - {fact})


# ---- what a request covers -------------------------------------------------------------------------------------------
def test_the_visual_goal_leaves_texts_alone() -> None:
    picture = Picture(b"x", "here")
    split = Split(5, frozenset({"1"}), (), ())
    cases: list[tuple[str, Picture | None, Goal, bool]] = [
        ("1", picture, "visual", True),
        ("1", None, "visual", False),
        ("1", picture, "full", True),
        ("1", None, "full", True),
        ("2", picture, "full", False),
        ("2", None, "visual", False),
    ]
    for person, shown, goal, expected in cases:
        assert split.is_forgotten(Lesson(person, "?", "!", shown), goal) == expected


def test_real_people_are_those_asked_as_real() -> None:
    def question(person: str, role: str) -> Question:
        return Question("i", person, role, "text", "cloze", "select", "?", "!")  # type: ignore[arg-type]

    split = Split(5, frozenset({"1"}), (), (question("1", "forget"), question("8", "real"), question("9", "real")))
    assert split.real_people == {"8", "9"}


def test_an_unknown_ratio_lists_those_there_are(benchmark: Benchmark) -> None:
    assert benchmark.split(10) is benchmark.splits[10]
    with pytest.raises(ValueError, match=r"forget ratio 7: benchmark synthetic has 5, 10, 15"):
        benchmark.split(7)


# ---- pictures --------------------------------------------------------------------------------------------------------
def test_a_picture_is_its_bytes_wherever_it_lies() -> None:
    one, same, other = (
        Picture(b"a", "x.parquet row 1"),
        Picture(b"a", "y.parquet row 2"),
        Picture(b"b", "x.parquet row 1"),
    )
    assert one == same
    assert len({one, same, other}) == 2
    assert one.key == same.key != other.key


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA"])
def test_every_mode_opens_as_rgb(mode: str) -> None:
    picture = Picture(encoded(Image.new(mode, (4, 3))), "here")
    picture.check()
    opened = picture.open()
    assert (opened.mode, opened.size) == ("RGB", (4, 3))


def test_a_picture_is_turned_upright() -> None:
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    opened = Picture(encoded(image, "JPEG", exif=exif, quality=95), "here").open()
    assert opened.size == (20, 40)
    pixels = np.asarray(opened).astype(int)
    assert [pixels[y, 10].argmax() for y in (5, 35)] == [2, 0]  # blue was left and is now above


def test_a_truncated_picture_passes_the_check_of_its_header_only() -> None:
    picture = Picture(encoded(noise(64))[:900], "row 3")
    picture.check()
    with pytest.raises(ValueError, match=r"row 3: the image is damaged .* replace or remove it"):
        picture.open()


@given(st.data())
def test_a_damaged_picture_opens_or_is_named(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))
    whole = bytearray(encoded(noise(16), kind))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=3)):
        whole[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(whole)))
    picture = Picture(bytes(whole[:cut]), "row 3")
    try:
        outcome = f"row 3: {picture.open().mode}"
    except ValueError as error:
        outcome = str(error)
    assert outcome.startswith("row 3: ")
