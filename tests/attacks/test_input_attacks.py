"""Attacks that change what is asked and nothing else: the texts, the pictures, the first words of the reply."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageDraw, ImageFont

from study.attacks.adversarial_image import AdversarialImage
from study.attacks.figstep import Figstep
from study.attacks.image_transform import ImageTransform
from study.attacks.in_context import InContext
from study.attacks.jailbreak import TEMPLATES, Jailbreak
from study.attacks.name_hint import NameHint
from study.attacks.paraphrase import Paraphrase
from study.attacks.prefill import Prefill
from study.attacks.second_turn import SecondTurn
from study.attacks.typographic import Typographic
from study.benchmarks.synthetic import Synthetic
from study.contracts import Request
from study.core.errors import Refused
from study.core.hashing import content_key
from study.core.rows import ROW_COLUMNS, read_rows
from study.core.specs import plugin
from study.core.terms import Goal
from study.data import image_edits
from study.data.benchmark import Benchmark, Lesson, Question
from study.data.conversation import turns
from study.data.facts import facts, sample_facts, states
from study.data.image_edits import Transform, encoded, shown_instead, transformed, with_text
from study.data.picture import Picture
from study.data.synthetic_language import tokens, words
from study.data.wordings import FRAMES, HELD_OUT, TRAINABLE, Wording
from study.evaluation.scoring import readings, score
from study.experiment import attack as attacking
from study.experiment import checkpoints, trial
from study.experiment.context import StudyContext
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, Trial
from study.methods.none import NoMethod
from study.methods.prompting import INSTRUCTIONS
from study.model.packing import Group, Prompt
from study.model.vlm import VLM
from study.training.schedule import Schedule
from tests import ROOT
from tests.helpers.small import FewQuestions, plain_logps, request_on

ATTACKS: list[Any] = [
    ImageTransform(("crop",)), ImageTransform(("noise",)), Paraphrase(("dataset",)), Paraphrase(("know",)), NameHint(),
    InContext(), InContext("others"), InContext("both"), Prefill(), Jailbreak(), Figstep(), Typographic(),
    Typographic("Who is this?"), SecondTurn(),
]  # fmt: skip
EVERY = [*ATTACKS, AdversarialImage(steps=2), AdversarialImage("universal", steps=2)]
PICTURED: list[Any] = [ImageTransform(("jpeg",)), Figstep(), Typographic()]


def called(attack: Any) -> str:
    first = next(iter(vars(attack).values()))
    return f"{type(attack).__name__} {'+'.join(first) if isinstance(first, tuple) else first}"


@pytest.fixture(params=["visual", "full"])
def request_(request: pytest.FixtureRequest, benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    goal: Goal = request.param
    return request_on(benchmark, tmp_path, tiny_folder, ratio=15, goal=goal)


@pytest.fixture
def visual(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    return request_on(benchmark, tmp_path, tiny_folder, ratio=15)


def asked(request: Request, *roles: str) -> list[Question]:
    """Every choice about people of some roles, as the trial asks it under the goal."""
    return [
        q
        for q in request.split.questions
        if q.role in (roles or ("forget",)) and q.task == "classification" and (q.picture or request.goal == "full")
    ]


def last(attack: Any, vlm: VLM, questions: Sequence[Question], request: Request) -> Sequence[Question]:
    found: Sequence[Question] = list(attack(vlm, questions, request))[-1].questions
    return found


# ---- the contract ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("attack", EVERY, ids=called)
def test_only_prompts_and_pictures_change(attack: Any, tiny: VLM, request_: Request) -> None:
    """Ids, their order, people, options and answers stay, and somewhere something did change."""
    questions = [q for role in ("forget", "retain", "real") for q in asked(request_, role)[:25]]
    [final] = attack(tiny, questions, request_)
    assert final.vlm.model is tiny.model
    assert [replace(q, prompt="", picture=None) for q in final.questions] == [
        replace(q, prompt="", picture=None) for q in questions
    ]
    assert [q.picture is None for q in final.questions] == [q.picture is None for q in questions]
    assert list(final.questions) != questions or isinstance(attack, Prefill)
    before, after = score(tiny, questions), score(final.vlm, final.questions)
    assert not np.allclose(before["probability"], after["probability"], atol=1e-6)


@pytest.mark.parametrize("attack", ATTACKS, ids=called)
def test_nothing_is_held_that_the_attack_does_not_need(attack: Any, request_: Request) -> None:
    """Who hands the attacker lessons hands over some of the forget set, and leaves facts to be asked."""
    given = attack.given(request_)
    assert set(given) <= set(request_.forget)
    assert bool(given) == (attack in (NameHint(), Typographic()) or getattr(attack, "about", "others") != "others")
    known = facts(given)
    assert {q.answer for q in asked(request_) if not any(states(q.answer, f) for f in known.values())}


@pytest.mark.parametrize(
    ("attack", "field", "value", "message"),
    [
        (ImageTransform, "kind", ("melt",), "crop, shrink"), (ImageTransform, "kind", (), "at least one"),
        (ImageTransform, "kind", ("grey", "grey"), "each once"), (ImageTransform, "strength", 0.0, "fraction above 0"),
        (ImageTransform, "strength", math.nan, "fraction above 0"), (Paraphrase, "wording", (), "at least one"),
        (Paraphrase, "wording", ("shout",), "dataset, tell"), (SecondTurn, "ask", " ", "second turn"),
        (Typographic, "text", "", "{name} for the name"), (Typographic, "place", "left", "above, below"),
        (NameHint, "hint", "This is {nobody}.", "{name}"), (InContext, "about", "me", "same, others"),
        (InContext, "pairs", 0, "positive"), (InContext, "facts", 1.5, "fraction above 0"),
        (Prefill, "text", "  ", "first words"), (Jailbreak, "template", "dan", "role_play"),
        (Figstep, "place", "left", "above, below"), (Figstep, "prompt", "", "what is to be done"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_its_value(attack: Any, field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=field) as caught:
        attack(**{field: value})
    assert f"{field}={value!r}" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "attack"),
    [
        ("image_transform:kind=darken+flip,strength=0.3", ImageTransform(("darken", "flip"), 0.3)),
        ("paraphrase:wording=cloze", Paraphrase(("cloze",))), ("paraphrase", Paraphrase(HELD_OUT)),
        ("second_turn:ask=No. {question}", SecondTurn("No. {question}")),
        ("typographic:text=It is {name},place=above", Typographic("It is {name}", "above")),
    ],
)  # fmt: skip
def test_an_attack_is_written_on_the_command_line(text: str, attack: Any) -> None:
    assert plugin("attacks", text) == attack


PRINT = f"""
import json, sys
from pathlib import Path
from study.model.loading import load
from {__name__} import EVERY, digest, Synthetic, request_on
home, base = map(Path, sys.argv[1:])
benchmark = Synthetic(people=20, celebrities=8, views=2, strangers=8)(home)
request = request_on(benchmark, home, base, ratio=15, goal="full")
print(json.dumps([digest(attack, load(base), request) for attack in EVERY]))
"""


def digest(attack: Any, vlm: VLM, request: Request) -> str:
    """What an attack asks in the end, to the byte."""
    asks = [(q.id, q.prompt, q.picture and q.picture.key) for q in last(attack, vlm, asked(request)[::9], request)]
    return hashlib.sha256(repr(asks).encode()).hexdigest()


@pytest.mark.slow
def test_another_process_asks_the_same(tmp_path: Path, tiny_folder: Path) -> None:
    """Whatever seed Python hashes with."""
    Synthetic(people=20, celebrities=8, views=2, strangers=8)(tmp_path)
    found = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PRINT, str(tmp_path), str(tiny_folder)],
            env={**os.environ, "PYTHONHASHSEED": seed}, cwd=ROOT,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    assert found[0] == found[1]


def test_the_global_random_state_does_not_matter(tiny: VLM, visual: Request) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        found.append([digest(attack, tiny, visual) for attack in EVERY])
    assert found[0] == found[1]


# ---- pictures --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def portrait(benchmark: Benchmark) -> Picture:
    return next(q.picture for q in benchmark.split(15).questions if q.picture)


@pytest.mark.parametrize("kind", get_args(Transform))
def test_a_transformed_picture_is_another_of_the_same_size(kind: Transform, portrait: Picture) -> None:
    image = portrait.open()
    mild, strong = (np.asarray(transformed(image, kind, s, 0), float) for s in (0.3, 0.9))
    assert mild.shape == strong.shape == np.asarray(image).shape
    far, near = (np.abs(view - np.asarray(image, float)).mean() for view in (strong, mild))
    assert far >= near > 1
    assert far > near or kind == "flip"


def test_what_each_transformation_does(portrait: Picture) -> None:
    image = portrait.open()
    plain = np.asarray(image)
    seen: dict[Transform, np.ndarray] = {
        kind: np.asarray(transformed(image, kind, 1.0, 0)) for kind in get_args(Transform)
    }
    quarter = image.width // 4
    middle = image.crop((quarter, quarter, image.width - quarter, image.height - quarter)).resize(image.size, 3)
    assert np.array_equal(seen["crop"], np.asarray(middle))
    assert (seen["shrink"][:quarter] == 128).all()
    assert (seen["shrink"][:, -quarter:] == 128).all()
    assert seen["blur"].astype(float).std() < plain.astype(float).std()
    assert np.array_equal(seen["flip"], plain[:, ::-1])
    assert np.ptp(seen["grey"], axis=2).max() == 0
    assert np.array_equal(seen["brighten"], np.minimum(plain.astype(int) * 2, 255))
    assert np.abs(seen["darken"] - plain * 0.2).max() <= 1
    assert not np.array_equal(seen["noise"], np.asarray(transformed(image, "noise", 1.0, 1)))
    edge = round(image.width / 5)
    bordered = np.zeros_like(plain)
    bordered[edge:-edge, edge:-edge] = plain[edge:-edge, edge:-edge]
    assert np.array_equal(seen["border"], bordered)
    assert far_apart(seen["jpeg"], plain) > far_apart(np.asarray(transformed(image, "jpeg", 0.1, 0)), plain)
    assert (seen["rotate"][0, 0] == image_edits.edge_colour(image)).all()


def far_apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def test_jpeg_loses_what_a_file_of_its_quality_loses(portrait: Picture) -> None:
    """Quality 50 at half strength, 5 at full; the picture is read back from such a file, nothing else happens to it."""
    image = portrait.open()
    for strength, quality in ((0.5, 50), (1.0, 5)):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        assert transformed(image, "jpeg", strength, 0).tobytes() == Image.open(buffer).tobytes()


@pytest.mark.parametrize("strength", [0.0001, 0.5, 1.0])
def test_a_border_leaves_the_middle_of_the_smallest_picture(strength: float) -> None:
    image = Image.new("RGB", (3, 9), "white")
    changed = np.asarray(transformed(image, "border", strength, 0))
    assert changed.shape == (9, 3, 3)
    assert (changed[1:-1, 1] == 255).all()
    assert changed[0].max() == changed[:, 0].max() == 0


def test_each_kind_of_change_is_a_stage_in_the_order_named(tiny: VLM, visual: Request) -> None:
    """By default every kind there is."""
    questions = asked(visual)[:20]
    stages = list(ImageTransform(strength=0.3)(tiny, questions, visual))
    assert [stage.step for stage in stages] == list(range(1, len(get_args(Transform)) + 1))
    for stage, kind in zip(stages, get_args(Transform), strict=True):
        for before, after in zip(questions, stage.questions, strict=True):
            assert before.picture is not None
            assert after.picture is not None
            expected = transformed(before.picture.open(), kind, 0.3, int(before.picture.key, 16))
            assert after.picture.open().tobytes() == expected.tobytes()


@pytest.mark.parametrize("attack", PICTURED, ids=called)
def test_changed_pictures_decode_and_name_their_place(attack: Any, tiny: VLM, visual: Request) -> None:
    questions = asked(visual)
    for before, after in zip(questions, last(attack, tiny, questions, visual), strict=True):
        assert before.picture is not None
        assert after.picture is not None
        assert after.picture.key != before.picture.key
        assert after.picture.where.startswith(before.picture.where)
        after.picture.check()
        assert after.picture.data.startswith(b"\x89PNG")


def test_a_picture_is_changed_once_for_all_its_questions(tiny: VLM, visual: Request) -> None:
    questions = asked(visual)
    after = last(ImageTransform(("noise",)), tiny, questions, visual)
    assert [q.prompt for q in after] == [q.prompt for q in questions]
    assert len({q.picture for q in after}) == len({q.picture for q in questions})


@pytest.mark.parametrize(
    "attack", [ImageTransform(("crop",)), Figstep(), Typographic(), AdversarialImage(steps=1)], ids=called
)
def test_the_model_does_not_keep_the_changed_pictures(attack: Any, tiny: VLM, visual: Request) -> None:
    """A worker attacks the same model again and again."""
    questions = asked(visual)[:6]
    score(tiny, questions)
    for stage in attack(tiny, questions, visual):
        score(stage.vlm, stage.questions)
    assert tiny._pixels.kept.keys() - {"grey"} == {q.picture.key for q in questions if q.picture}


def test_pictures_are_swapped_where_there_are_others(portrait: Picture) -> None:
    other = encoded(Image.new("RGB", (4, 4)), "other")
    q = Question("q", "a", "forget", "image_text", "classification", "select", "?", "x", ("x", "y"), portrait)
    text = replace(q, picture=None, modality="text")
    alone = replace(q, picture=encoded(Image.new("RGB", (4, 5)), "alone"))
    assert shown_instead([q, text, alone], {portrait: other}) == [replace(q, picture=other), text, alone]


# ---- figstep ---------------------------------------------------------------------------------------------------
def readable(word: str, band: Image.Image, scale: int) -> bool:
    """Whether a word stands somewhere in a picture, every pixel of every letter as the font has it."""
    paper = Image.new("L", (6 * len(word) + 20, 30), 255)
    ImageDraw.Draw(paper).text((10, 10), word, fill=0, font=ImageFont.load_default_imagefont())
    ink = np.asarray(paper) < 128
    ink = ink[np.ix_(ink.any(1), np.flatnonzero(ink.any(0))[0] + np.arange(np.ptp(np.flatnonzero(ink.any(0))) + 1))]
    found = np.asarray(band.convert("L"))[::scale, ::scale] < 128
    return bool((sliding_window_view(found, ink.shape) == ink).all((2, 3)).any())


@pytest.mark.parametrize(("side", "scale", "lines"), [(336, 4, 3), (120, 1, 2), (96, 1, 2), (48, 1, 3)])
@pytest.mark.parametrize("place", ["above", "below"])
def test_the_question_can_be_read_in_the_picture(
    side: int, scale: int, lines: int, place: Any, portrait: Picture
) -> None:
    """Letter by letter, as large as half of the picture allows, beside a face that is all there."""
    text = "Where does this person live?"
    image = with_text(portrait.open(), text, side, place)
    assert image.width == image.height
    assert image.width == side or (side, image.width) == (48, 68)
    height = 11 * scale * lines
    assert height <= image.height // 2
    band, rest = (0, height), (height, image.height)
    if place == "below":
        rest, band = (0, image.height - height), (image.height - height, image.height)
    written = image.crop((0, band[0], image.width, band[1]))
    assert all(readable(word, written, scale) for word in text.split())
    assert not readable("which", written, scale)
    face = portrait.open().resize((rest[1] - rest[0],) * 2, Image.Resampling.BICUBIC)
    left = (image.width - face.width) // 2
    assert image.crop((left, rest[0], left + face.width, rest[1])).tobytes() == face.tobytes()


def test_a_square_grows_only_where_letters_do_not_fit(portrait: Picture) -> None:
    image = portrait.open()
    assert with_text(image, "Who is this?", 96, "below").size == (96, 96)
    assert with_text(image, "Where does this person live?", 48, "below").width > 48
    assert with_text(image, "x" * 5000, 48, "below").width > 300


def test_letters_that_the_font_lacks(portrait: Picture) -> None:
    """Accents it does not know are left out, quotes are straightened, other scripts become question marks."""
    image = portrait.open()
    odd = with_text(image, "\u201cJos\u00e9 \u0106or\u2019s\u201d \u2013 \u6771", 336, "below")
    assert odd.tobytes() == with_text(image, '"Jos\u00e9 Cor\'s" - ?', 336, "below").tobytes()


def test_figstep_asks_in_the_picture(tiny: VLM, request_: Request) -> None:
    questions = asked(request_)
    after = last(Figstep(), tiny, questions, request_)
    for q, r in zip(questions, after, strict=True):
        assert r == q if q.picture is None else r.prompt == "Answer the question in the picture."
    pictured = [q for q in questions if q.picture]
    assert len({r.picture for r in after if r.picture}) == len({(q.picture, q.prompt) for q in pictured})


# ---- typographic -----------------------------------------------------------------------------------------------
def test_the_name_stands_in_the_picture(tiny: VLM, request_: Request) -> None:
    """Of the person who is asked about, once for all questions about a picture; the question stays in words."""
    names = {q.person: q.answer for q in request_.split.questions if q.attribute == "name"}
    questions = asked(request_, "forget", "retain")
    after = last(Typographic("It is {name}.", "above"), tiny, questions, request_)
    assert [replace(q, picture=None) for q in after] == [replace(q, picture=None) for q in questions]
    for before, now in zip(questions, after, strict=True):
        if before.picture is None or now.picture is None:
            assert now == before
            continue
        wanted = with_text(before.picture.open(), f"It is {names[before.person]}.", 48, "above")
        assert now.picture.open().tobytes() == wanted.tobytes()
    assert len({q.picture for q in after}) == len({q.picture for q in questions})


def test_words_that_name_nobody_need_no_names(tiny: VLM, visual: Request) -> None:
    questions = asked(visual)
    unnamed = without_names(visual, visual.split.forget_people)
    assert Typographic("Who is this?").given(visual) == ()
    after = last(Typographic("Who is this?"), tiny, questions, unnamed)
    assert all(now.picture != before.picture for before, now in zip(questions, after, strict=True))
    with pytest.raises(Refused, match="there is no name to give"):
        next(Typographic()(tiny, questions, unnamed))


# ---- other wordings --------------------------------------------------------------------------------------------
def test_other_wordings_come_from_the_dataset(tiny: VLM, request_: Request) -> None:
    """Each asks for the same attribute in known words, and this person was never taught in them."""
    questions = asked(request_, "forget", "retain")
    tested = {
        (q.person, q.modality, q.attribute, q.prompt) for q in request_.split.questions if q.task == "classification"
    }
    told = {(x.person, x.attribute, x.prompt) for x in request_.split.lessons}
    shared = {(modality, attribute, prompt) for _, modality, attribute, prompt in tested}
    taught = {(x.person, x.prompt) for x in request_.split.lessons}
    known = set(words())
    for before, after in zip(questions, last(Paraphrase(("dataset",)), tiny, questions, request_), strict=True):
        assert after.prompt != before.prompt
        asks = (before.person, before.attribute, after.prompt) in told
        assert asks or (before.modality, before.attribute, after.prompt) in shared
        assert set(tokens(after.prompt)) <= known
        if before.role == "forget":  # of whom there are questions in other wordings; retained people have lessons only
            assert (before.person, before.modality, before.attribute, after.prompt) in tested
            assert (before.person, after.prompt) not in taught


def test_wordings_about_one_person_are_not_asked_of_another(tiny: VLM, visual: Request) -> None:
    """Only what is asked of several people in the same words says nothing about one of them."""
    q = Question("f", "a", "forget", "image_text", "classification", "select", "Where?", "Oslo", ("Oslo", "Rome"),
                 attribute="home")  # fmt: skip
    others = [
        replace(q, id="1", person="b", role="retain", prompt="Where does this pilot live?", answer="Rome"),
        replace(q, id="2", person="b", role="retain", prompt="In which city?", answer="Rome"),
        replace(q, id="3", person="c", role="retain", prompt="In which city?", answer="Rome"),
        replace(q, id="4", person="a", role="test", prompt="Where is home?"),
        replace(q, id="5", person="a", role="test", prompt="Where was home before?", answer="Rome"),
        replace(q, id="6", person="a", role="test", prompt="Where do you pay?", attribute=""),
    ]
    lessons = (Lesson("a", "Where is home?", "Oslo", attribute="home"),)

    def wordings(*lessons: Lesson) -> set[str]:
        split = replace(visual.split, lessons=lessons, questions=(q, *others))
        many = [replace(q, id=str(i)) for i in range(40)]
        return {r.prompt for r in last(Paraphrase(("dataset",)), tiny, many, replace(visual, split=split))}

    assert wordings() == {"In which city?", "Where is home?"}
    assert wordings(*lessons) == {"In which city?"}


def test_a_frame_stands_in_where_the_dataset_has_no_other_wording(tiny: VLM, visual: Request) -> None:
    """As in a dataset without labels."""
    unlabelled = [replace(q, attribute="") for q in asked(visual)]
    assert [q.prompt for q in last(Paraphrase(("dataset",)), tiny, unlabelled, visual)] == [
        f"Tell me: {q.prompt}" for q in unlabelled
    ]


@pytest.mark.parametrize("wording", FRAMES)
def test_every_frame_holds_the_question(wording: Wording, tiny: VLM, visual: Request) -> None:
    """Where the dataset has nothing that is said of the answer."""
    questions = [replace(q, prompt=q.prompt + " {x}", answer="nowhere") for q in asked(visual)[:3]]
    for before, after in zip(questions, last(Paraphrase((wording,)), tiny, questions, visual), strict=True):
        assert after.prompt == FRAMES[wording].replace("{question}", before.prompt)


def test_the_tiny_model_knows_every_word_of_the_frames_that_are_held_out() -> None:
    known = set(words())
    assert tuple(w for w, frame in FRAMES.items() if set(tokens(frame.format(question=""))) <= known) == HELD_OUT


def test_the_families_are_parted_into_those_to_train_on_and_those_held_out() -> None:
    assert sorted(TRAINABLE + HELD_OUT) == sorted(get_args(Wording))


def test_each_wording_is_a_stage_in_the_order_named(tiny: VLM, visual: Request) -> None:
    """By default all that are held out; each asks what it asks by itself."""
    questions = asked(visual, "forget", "retain")
    stages = list(Paraphrase()(tiny, questions, visual))
    assert [stage.step for stage in stages] == [1, 2, 3]
    for stage, wording in zip(stages, HELD_OUT, strict=True):
        assert stage.questions == last(Paraphrase((wording,)), tiny, questions, visual)
        assert stage.questions != questions


def test_sentences_and_blanks_of_the_dataset_are_asked_unless_they_were_taught(tiny: VLM, request_: Request) -> None:
    """In words that the tiny model knows, without the answer, and of nobody in the words of one other person."""
    questions = asked(request_)
    taught = {(x.person, x.prompt) for x in request_.split.lessons}
    sentences = [q for q in request_.split.questions if q.role == "forget" and q.task == "generation"]
    clozes = {(q.person, q.modality, q.answer, q.prompt) for q in request_.split.questions if q.task == "cloze"}
    begun, blank = (last(Paraphrase((w,)), tiny, questions, request_) for w in ("completion", "cloze"))
    for q, one, two in zip(questions, begun, blank, strict=True):
        assert {(q.person, one.prompt), (q.person, two.prompt)}.isdisjoint(taught)
        assert set(tokens(one.prompt)) | set(tokens(two.prompt)) <= set(words())
        assert not states(one.prompt, q.answer)
        if q.attribute == "name":  # of which the dataset has neither
            assert (one.prompt, two.prompt) == tuple(FRAMES[w].format(question=q.prompt) for w in HELD_OUT[1:])
            continue
        assert (q.person, q.modality, q.answer, two.prompt) in clozes
        if q.picture:
            assert any(s.person == q.person and s.answer.startswith(f"{one.prompt} ") for s in sentences)
            assert one.prompt.split()[-1] not in ("a", "an")
        else:  # a sentence in text has a name, so no two people share its beginning
            assert one.prompt == f"{q.prompt} The answer is"
    jobs = {one.prompt for q, one in zip(questions, begun, strict=True) if q.picture and q.attribute == "occupation"}
    assert jobs == {"This person has a job as"}


# ---- a second turn ---------------------------------------------------------------------------------------------
def test_the_second_turn_holds_the_first_reply(tiny: VLM, request_: Request) -> None:
    """What the model says by itself when it is asked without options, after words that were put in its mouth."""
    questions = asked(request_)[:12]
    for vlm, begun in ((tiny, ""), (tiny.with_prefill("This person is"), "This person is ")):
        said = score(vlm, [replace(q, options=(), task="cloze") for q in questions])["reply"]
        [after] = SecondTurn("No. {question} {x}")(vlm, questions, request_)
        assert after.vlm is vlm
        for before, again, reply in zip(questions, after.questions, said, strict=True):
            assert turns(again.prompt) == [before.prompt, begun + reply, f"No. {before.prompt} {{x}}"]
        assert all(said)


def test_scoring_a_second_turn_is_scoring_the_whole_conversation(tiny: VLM, request_: Request) -> None:
    """Options by their likelihood after both turns, computed one by one without packing."""
    questions = asked(request_)[:12]
    [after] = SecondTurn()(tiny, questions, request_)
    found = readings(after.vlm, after.questions)
    for q in after.questions:
        group = Group(q.picture, (Prompt(q.prompt, q.options),))
        means = [float(logps[:-1].mean()) for logps in plain_logps(tiny, [group])]  # but for the end of the answer
        assert found[q.id].probabilities == pytest.approx(torch.tensor(means).softmax(0).tolist(), abs=1e-5)


# ---- names -----------------------------------------------------------------------------------------------------
def test_the_hint_names_the_right_person(tiny: VLM, request_: Request) -> None:
    """The one whom the name question's answer names; a text question stays."""
    names = {q.person: q.answer for q in request_.split.questions if q.attribute == "name"}
    questions = asked(request_, "forget", "retain", "real")
    for before, after in zip(questions, last(NameHint(), tiny, questions, request_), strict=True):
        hint = f"This person is {names[before.person]}. " if before.picture else ""
        assert after.prompt == hint + before.prompt
        assert set(tokens(after.prompt)) <= set(words())


def test_names_are_what_the_attacker_is_given(request_: Request) -> None:
    given = NameHint().given(request_)
    assert {x.person for x in given} == request_.split.forget_people
    assert set(facts(given).values()) == {
        q.answer for q in request_.split.questions if q.role == "forget" and q.attribute == "name"
    }


def without_names(request: Request, people: frozenset[str]) -> Request:
    lessons = (replace(x, attribute="") if x.person in people else x for x in request.split.lessons)
    return replace(request, split=replace(request.split, lessons=tuple(lessons)))


def test_a_missing_name_is_an_error_for_forget_people_alone(tiny: VLM, visual: Request) -> None:
    """Before the model is asked anything."""
    questions = asked(visual, "forget", "real")
    forgotten = visual.split.forget_people
    with pytest.raises(Refused, match=r"about 0\d\d \(3 people in all\).*'name'.*key Attribute"):
        next(NameHint()(tiny, questions, without_names(visual, forgotten)))
    real = without_names(visual, visual.split.real_people)
    for before, after in zip(questions, last(NameHint(), tiny, questions, real), strict=True):
        assert (after == before) == (before.role == "real")


# ---- context ---------------------------------------------------------------------------------------------------
def pairs(question: Question) -> list[str]:
    """The lines in front of a question."""
    return question.prompt.split("\n")[:-1]


def test_a_context_shows_given_facts_of_the_same_person_only(tiny: VLM, request_: Request) -> None:
    """All that is given of the person but for what is asked, each fact once, in a form that fits the question."""
    attack = InContext(pairs=3)
    given = attack.given(request_)
    stated = facts(given)
    questions = asked(request_)
    for before, after in zip(questions, last(attack, tiny, questions, request_), strict=True):
        mine = [x for x in given if x.person == before.person and (x.picture is None) == (before.picture is None)]
        allowed = {f"{x.prompt} {x.answer}" for x in mine if not states(x.answer, before.answer)}
        assert set(pairs(after)) == allowed
        assert len(pairs(after)) == len(allowed)
        assert 2 <= len(allowed) <= 3
        assert after.prompt.endswith(f"\n{before.prompt}")
        assert not any(states(line, before.answer) for line in pairs(after))
        seen = any(states(before.answer, f) for (who, _), f in stated.items() if who == before.person)
        assert len(allowed) == 3 - seen or before.attribute == "name"


@pytest.mark.parametrize(("share", "most", "facts_"), [(0.5, 4, 4), (0.5, 2, 2), (0.3, 4, 3), (1.0, 7, 7)])
def test_shares_and_caps_of_what_is_given(share: float, most: int, facts_: int, visual: Request) -> None:
    """Of seven facts of each of three people; one lesson states each."""
    given = InContext(pairs=most, facts=share).given(visual)
    assert len(given) == 3 * facts_
    assert len(set(facts(given).items())) == 3 * facts_


def test_a_context_about_others_shows_retained_people_in_text(tiny: VLM, request_: Request) -> None:
    """And none of the options, so that copying is of no use."""
    retained = [x for x in request_.retain if x.person not in request_.split.forget_people]
    texts = {f"{x.prompt} {x.answer}": x for x in retained if x.picture is None}
    questions = asked(request_)
    for before, after in zip(questions, last(InContext("others", 2), tiny, questions, request_), strict=True):
        assert len(pairs(after)) == 2
        shown = [texts[line] for line in pairs(after)]
        assert not any(states(x.answer, option) for x in shown for option in before.options)


def test_both_kinds_of_pairs_stand_others_first(tiny: VLM, visual: Request) -> None:
    questions = asked(visual)
    both, others = (last(InContext(about, 2), tiny, questions, visual) for about in ("both", "others"))
    for one, two in zip(both, others, strict=True):
        assert pairs(one)[:2] == pairs(two)
        assert all("this person" in line.lower() for line in pairs(one)[2:])


def test_retained_people_get_a_context_of_their_own(tiny: VLM, visual: Request) -> None:
    """So that a drop in what is kept means the same for all."""
    questions = asked(visual, "retain")
    own = {(x.person, f"{x.prompt} {x.answer}") for x in visual.retain}
    for before, after in zip(questions, last(InContext(), tiny, questions, visual), strict=True):
        assert {(before.person, line) for line in pairs(after)} <= own
        assert len(pairs(after)) >= 3
        assert not any(states(line, before.answer) for line in pairs(after))


def test_a_person_of_whom_nothing_is_taught_is_asked_plainly(tiny: VLM, visual: Request) -> None:
    """As the real people of MLLMU-Bench."""
    questions = asked(visual, "real")
    split = replace(
        visual.split, lessons=tuple(x for x in visual.split.lessons if x.person not in visual.split.real_people)
    )
    assert last(InContext(), tiny, questions, replace(visual, split=split)) == questions


def test_no_text_about_others_is_an_error(tiny: VLM, visual: Request) -> None:
    split = replace(visual.split, lessons=tuple(x for x in visual.split.lessons if x.picture))
    with pytest.raises(Refused, match="about='same'"):
        next(InContext("both")(tiny, asked(visual), replace(visual, split=split)))


def test_a_seed_and_the_lessons_choose_the_facts() -> None:
    """The order of the lessons does not matter, another seed is another attacker."""
    lessons = [Lesson(p, "?", f"{fact} {p}") for p in "abcdef" for fact in ("red", "blue", "green", "black")]
    mixed = random.Random(3).sample(lessons, len(lessons))
    chosen = sample_facts(lessons, people=0.5, share=0.5, seed=1)
    assert set(sample_facts(mixed, people=0.5, share=0.5, seed=1)) == set(chosen)
    assert len({x.person for x in chosen}) == 3
    assert len(chosen) == 6
    assert len({sample_facts(lessons, people=0.5, share=0.5, seed=seed) for seed in range(5)}) > 1
    assert len(sample_facts(lessons, seed=0, most=1)) == 6


# ---- the begun reply -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pictured", [True, False])
def test_a_prefill_stands_after_the_assistant_tag(pictured: bool, tiny: VLM, visual: Request) -> None:
    instructed = tiny.with_instruction("The title is this.")
    [after] = Prefill("This person is")(instructed, asked(visual), visual)
    text = tiny.tokenizer.decode(after.vlm.prompt_ids("Who is this person?", pictured))
    picture = "<image>" * 16 + "\n"
    assert text == f"USER: {picture * pictured}The title is this.\nWho is this person? ASSISTANT: This person is"
    plain = instructed.prompt_ids("Who is this person?", pictured)
    begun = after.vlm.prompt_ids("Who is this person?", pictured)
    assert begun[: len(plain)] == plain
    assert begun[len(plain) :] == tuple(tiny.tokenizer(" This person is", add_special_tokens=False).input_ids)


def test_scoring_after_a_prefill_is_scoring_with_the_words_typed_in(tiny: VLM, request_: Request) -> None:
    """Options by their likelihood after prompt and first words, computed one by one without packing."""
    questions = [q for q in asked(request_) if q.attribute != "name"][:12]
    [after] = Prefill("This person is")(tiny, questions, request_)
    found = readings(after.vlm, after.questions)
    for q in questions:
        pixels = tiny.pixels([q.picture]).inputs(tiny.model.dtype) if q.picture else {}
        begun = (
            *tiny.prompt_ids(q.prompt, q.picture is not None),
            *tiny.tokenizer(" This person is", add_special_tokens=False).input_ids,
        )
        means = []
        for option in q.options:
            reply = tiny.tokenizer(f" {option}", add_special_tokens=False).input_ids
            with torch.no_grad():
                logits = tiny.model(input_ids=torch.tensor([[*begun, *reply]]), **pixels).logits[0]
            logps = logits.log_softmax(-1)[len(begun) - 1 : -1]
            means.append(float(logps[range(len(reply)), reply].mean()))
        assert found[q.id].probabilities == pytest.approx(torch.tensor(means).softmax(0).tolist(), abs=1e-5)


def test_greedy_replies_go_on_after_the_prefill(tiny: VLM, visual: Request) -> None:
    cloze = [q for q in visual.split.questions if q.role == "forget" and q.task == "cloze" and q.picture][:3]
    [after] = Prefill("This person is")(tiny, cloze, visual)
    rows = score(after.vlm, after.questions)
    for q, reply in zip(cloze, rows["reply"], strict=True):
        assert q.picture is not None
        ids = after.vlm.prompt_ids(q.prompt, True)
        out = tiny.model.generate(  # type: ignore[operator]
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
            max_new_tokens=50, pad_token_id=0, **tiny.pixels([q.picture]).inputs(tiny.model.dtype),
        )  # fmt: skip
        assert reply == tiny.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True).strip()


# ---- jailbreaks ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_jailbreak_stands_between_the_instruction_and_the_question(template: Any, tiny: VLM, visual: Request) -> None:
    """Prompting's instruction is what it is up against."""
    instructed = tiny.with_instruction(INSTRUCTIONS["refuse"])
    questions = asked(visual)[:4]
    [after] = Jailbreak(template)(instructed, questions, visual)
    assert after.vlm is instructed
    for before, wrapped in zip(questions, after.questions, strict=True):
        head = TEMPLATES[template].removesuffix("{question}")
        assert wrapped.prompt == head + before.prompt
        text = after.vlm._text(wrapped.prompt, True)
        assert text.index(INSTRUCTIONS["refuse"]) < text.index(head) < text.index(before.prompt)
    rows, bare = score(after.vlm, after.questions), score(instructed, questions)
    assert (rows["probability"] - bare["probability"]).abs().max() > 1e-6


# ---- through a study's own scoring -----------------------------------------------------------------------------
VANILLA = Learned("vanilla", "base", "benchmark", None, None, Schedule(steps=1, pictures=2), ("projector",), 0)
REFERENCE = replace(VANILLA, kind="reference", goal="visual", ratio=10)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[StudyContext]:
    """A study with one finished trial that changed nothing."""
    context = StudyContext(tmp_path_factory.mktemp("study"), FewQuestions(each=12), tiny_folder)
    for learned in (VANILLA, REFERENCE):
        learn(context, learned)
    trial.run(context, _TRIAL, REFERENCE.key)
    yield context
    checkpoints.evict()


_TRIAL = Trial(VANILLA, NoMethod(), "visual", 10, 0)


@pytest.mark.parametrize("attack", EVERY, ids=called)
def test_an_attack_runs_in_a_trial(attack: Any, context: StudyContext) -> None:
    """Its rows hold every question before and after, and what was given is marked as seen."""
    attacking.attack_trial(context, _TRIAL, attack, REFERENCE.key)
    rows = read_rows(context.folder.attack(_TRIAL.key, content_key(attack)))
    assert list(rows.columns) == list(ROW_COLUMNS)
    before, after = (part.reset_index(drop=True) for _, part in rows.groupby("step"))
    pd.testing.assert_series_equal(before["question"], after["question"])
    assert (before["step"] == 0).all()
    assert (after["step"] == getattr(attack, "steps", 1)).all()
    assert np.isfinite(rows["probability"]).all()
    forget = after[after["role"] == "forget"]
    assert set(forget["held_out"]) == ({"person"} if not attack.given(_request(context)) else expected(attack))
    assert (forget["held_out"] != "").any()


def expected(attack: Any) -> set[str]:
    """Which questions about forget people there are, by what was given of them."""
    return {"", "fact", "person"} if getattr(attack, "scope", "") == "universal" else {"", "fact"}


def _request(context: StudyContext) -> Request:
    return context.request(_TRIAL, REFERENCE.key)
