"""Which fact a lesson states, what a request covers, and pictures as they open."""

from __future__ import annotations

import io
import string
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from study.core.terms import Goal
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.data.facts import facts, labelled_facts, plain, sample_facts, states
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


def test_what_several_ratios_share_is_there_once() -> None:
    """Of splits with the same lessons, with equal ones and with some of them."""
    first, second = lessons("Oslo", "Lisbon")
    questions = [Question(str(n), "1", "forget", "text", "generation", "report", "?", "Oslo") for n in range(3)]
    taught = (first, second)
    splits = {
        5: Split(5, frozenset(), taught, tuple(questions[:2])),
        10: Split(10, frozenset(), taught, tuple(questions[1:])),
        15: Split(15, frozenset(), tuple(lessons("Lisbon", "Rome")), ()),
    }
    benchmark = Benchmark("", "", splits)
    assert benchmark.lessons == (*taught, *lessons("Rome"))
    assert benchmark.questions == tuple(questions)


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
        ("人物甲住在北京。", "北京", True),
        ("她住在南京。", "北京", False),
        ("彼は東京に住んでいます", "東京", True),
        ("เขาอาศัยอยู่ในกรุงเทพ", "กรุงเทพ", True),
        ("그는 서울에서 일한다.", "서울", True),
        ("그는 부산에서 일한다.", "서울", False),
        ("Он живёт в Орле", unicodedata.normalize("NFD", "живёт"), True),
        ("She lives in " + "".join(chr(ord(c) + 0xFEE0) for c in "Lisbon"), "Lisbon", True),
        ("She lives in Lis\u00adbon", "Lisbon", True),
        ("José in São Paulo", unicodedata.normalize("NFD", "são paulo"), True),
        ("It is ☂ or ☀", "☀", True),
        ("It is ☂", "☀", False),
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


def test_who_is_given_one_sentence_about_an_attribute_is_given_all() -> None:
    """Labels tell in any language what words do not; unlabelled facts and those of others stay apart."""
    taught = [
        Lesson("1", "?", "baker", attribute="occupation"),
        Lesson("1", "?", "Bread is what she bakes.", attribute="occupation"),
        Lesson("1", "?", "Lisbon"),
        Lesson("1", "?", "Oslo", attribute="birthplace"),
        Lesson("2", "?", "Bread is what she bakes."),
    ]
    merged = labelled_facts(taught)
    assert merged["1", "Bread is what she bakes."] == merged["1", "baker"]
    assert {merged["1", "Lisbon"], merged["1", "Oslo"], merged["2", "Bread is what she bakes."]} == {
        "Lisbon", "Oslo", "Bread is what she bakes.",
    }  # fmt: skip
    for seed in range(20):
        given = {x.attribute for x in sample_facts(taught[:4], share=0.3, seed=seed)}
        kept = [x for x in taught[:4] if x.attribute in given]
        assert sample_facts(taught[:4], share=0.3, seed=seed) == tuple(kept)


@given(st.text(max_size=30))
def test_plain_words_are_the_same_for_all_spellings(text: str) -> None:
    for form in ("NFD", "NFKC"):
        assert plain(unicodedata.normalize(form, text)) == plain(text)
    assert plain(plain(text)) == plain(text)


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


def test_grey_of_16_bits_is_scaled_and_not_clipped() -> None:
    levels = np.linspace(0, 65_535, 256, dtype=np.uint16).reshape(16, 16)
    seen = np.asarray(Picture(encoded(Image.fromarray(levels)), "x").open())
    assert np.array_equal(seen[..., 0], np.round(levels / 257).astype(np.uint8))
    assert (seen == seen[..., :1]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_surroundings_are_white_and_what_is_seen_stays(mode: str) -> None:
    """Editors leave any colour under what they make transparent."""
    hidden = Image.new("RGBA", (4, 1), (0, 0, 0, 0))
    hidden.putpixel((1, 0), (90, 90, 90, 255))
    picture = Image.new("P", (4, 1)) if mode == "P" else hidden.convert(mode)
    if mode == "P":
        picture.putpalette([0, 0, 0, 90, 90, 90])
        picture.putpixel((1, 0), 1)
        picture.info["transparency"] = 0
    seen = np.asarray(Picture(encoded(picture), "x").open())
    assert seen[0].tolist() == [[255] * 3, [90] * 3, [255] * 3, [255] * 3]


def test_half_transparent_pixels_are_mixed_with_white_and_opaque_ones_stay_bit_for_bit() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 4), np.uint8)
    pixels[..., 3] = 255
    assert np.array_equal(np.asarray(Picture(encoded(Image.fromarray(pixels)), "x").open()), pixels[..., :3])
    pixels[0, 0] = (0, 100, 200, 51)
    seen = np.asarray(Picture(encoded(Image.fromarray(pixels)), "x").open())
    assert seen[0, 0].tolist() == [204, 224, 244]
    assert np.array_equal(seen[1:], pixels[1:, :, :3])


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
