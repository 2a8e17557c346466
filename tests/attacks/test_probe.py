"""Identity probes find who is encoded, and only that, with the asked picture left out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from study.attacks.probe import PROMPT, Kind, Probe, _album
from study.contracts import Request
from study.core.errors import Refused
from study.core.terms import PARTS, Part
from study.data.benchmark import Benchmark, Lesson, Question, Split
from study.data.picture import Picture
from study.evaluation.scoring import score
from study.model.loading import load
from study.model.vlm import VLM
from tests.helpers.families import FAMILIES
from tests.helpers.small import fresh, request_on, same_bits, snapshot, token_types

KINDS: tuple[Kind, ...] = get_args(Kind)
COLOURS = ((230, 40, 40), (40, 230, 40), (40, 40, 230), (220, 220, 40))


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    return request_on(benchmark, tmp_path / "cache", tiny_folder, ratio=15)


@pytest.fixture
def questions(request_: Request) -> list[Question]:
    """Two choices about every picture of a forget person that is asked about, and some of other kinds."""
    choices = [q for q in request_.split.questions if q.task == "classification"]
    pictures = dict.fromkeys(q.picture for q in choices if q.role == "forget" and q.picture)
    pictured = [q for picture in pictures for q in [q for q in choices if q.picture == picture][:2]]
    text = [q for q in choices if q.role == "forget" and not q.picture][:2]
    return [text[0], *pictured, next(q for q in choices if q.role == "retain" and q.picture), text[1]]


def read(probe: Probe, vlm: VLM, questions: Sequence[Question], request: Request) -> pd.DataFrame:
    """The rows of the attack's last stage."""
    last = list(probe(vlm, questions, request))[-1]
    assert last.read is not None
    return last.read(last.vlm, last.questions)


def painted(colour: Sequence[int], number: int) -> Picture:
    """A picture of one colour with its own noise."""
    noise = np.random.default_rng(number).integers(-20, 20, (48, 48, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return Picture(buffer.getvalue(), f"painted {number}")


def world(colours: Sequence[Sequence[int]], each: int, tmp: Path, folder: Path) -> tuple[Request, list[Question]]:
    """A request about people `p0`, `p1`, ... with `each` pictures, and a question about every one of them."""
    pictures = [painted(colour, i) for i, colour in enumerate(colours)]
    people = [f"p{i // each}" for i in range(len(colours))]
    lessons = tuple(
        Lesson(w, "What is the job of this person?", "baker", p) for w, p in zip(people, pictures, strict=True)
    )
    asked = [
        Question(f"q{i}", x.person, "forget", "image_text", "classification", "report", x.prompt, "baker",
                 ("baker", "nurse"), x.picture)
        for i, x in enumerate(lessons)
    ]  # fmt: skip
    split = Split(10, frozenset(people), lessons, tuple(asked))
    return Request(split, "visual", (), 0, tmp, *(lambda: load(folder),) * 2, dict), asked


def left_out(probe: Probe, features: Tensor, people: Sequence[int]) -> float:
    """The share of rows whose person a probe names that was fitted to all other rows."""
    hits = 0
    for i, person in enumerate(people):
        others = [j for j in range(len(people)) if j != i]
        found = probe.probabilities(features[others], [people[j] for j in others], features[i])
        assert float(found.sum()) == pytest.approx(1)
        hits += int(found.argmax()) == person
    return hits / len(people)


# ---- the probe itself ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_code_is_found_and_nothing_is_found_where_there_is_none(kind: Kind) -> None:
    """Six people with five pictures each; the code is one direction a person, beside an offset of a thousand."""
    draw = torch.Generator().manual_seed(0)
    people = [i // 5 for i in range(30)]
    noise = torch.randn(30, 64, generator=draw, dtype=torch.float64)
    codes = 4 * torch.randn(6, 64, generator=draw, dtype=torch.float64)
    probe = Probe(kind=kind)
    assert left_out(probe, noise + codes[people] + 1000, people) == 1
    assert left_out(probe, noise + 1000, people) < 0.35


def test_the_linear_probe_is_the_minimum_it_says() -> None:
    """Against plain gradient descent in numpy, until nothing moves."""
    draw = np.random.default_rng(1)
    shown, asked = draw.normal(size=(12, 3)), draw.normal(size=3)
    people, decay = np.array([0, 1, 2] * 4), 0.05
    found = Probe(decay=decay).probabilities(torch.from_numpy(shown), people.tolist(), torch.from_numpy(asked))
    mean, scale = shown.mean(0), shown.std(0) * np.sqrt(3)
    x, weights, bias = (shown - mean) / scale, np.zeros((3, 3)), np.zeros(3)
    for _ in range(20_000):
        values = x @ weights.T + bias
        chances = np.exp(values) / np.exp(values).sum(1, keepdims=True)
        error = (chances - np.eye(3)[people]) / len(people)
        weights -= error.T @ x + decay * weights
        bias -= error.sum(0)
    wanted = np.exp(weights @ ((asked - mean) / scale) + bias)
    np.testing.assert_allclose(found.numpy(), wanted / wanted.sum(), rtol=1e-6)


@pytest.mark.parametrize("neighbours", [1, 3, 100])
def test_the_nearest_vote(neighbours: int) -> None:
    draw = np.random.default_rng(2)
    shown, asked, people = draw.normal(size=(9, 4)), draw.normal(size=4), [0, 1, 2] * 3
    probe = Probe(kind="knn", neighbours=neighbours)
    found = probe.probabilities(torch.from_numpy(shown), people, torch.from_numpy(asked))
    x, z = (shown - shown.mean(0)) / shown.std(0), (asked - shown.mean(0)) / shown.std(0)
    cosines = x @ z / np.linalg.norm(x, axis=1) / np.linalg.norm(z)
    votes = np.zeros(3)
    for i in sorted(range(9), key=lambda i: -cosines[i])[:neighbours]:
        votes[people[i]] += 1 + cosines[i]
    np.testing.assert_allclose(found.numpy(), votes / votes.sum(), rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_direction_that_never_varies_is_no_trouble(kind: Kind) -> None:
    draw = torch.Generator().manual_seed(3)
    features = torch.randn(6, 4, generator=draw, dtype=torch.float64)
    features[:, 1] = 7
    found = Probe(kind=kind).probabilities(features, [0, 0, 0, 1, 1, 1], features[0])
    assert torch.isfinite(found).all()
    assert found.argmax() == 0


# ---- what is probed --------------------------------------------------------------------------------------------
def test_features_of_the_visual_module_are_means_over_tokens(tiny: VLM, request_: Request) -> None:
    pictures = list(_album(request_.split))[:40]
    with torch.no_grad():
        there = tiny.features(tiny.pixels(pictures))
    for probe, wanted in (
        (Probe("vision", 0), there.layers[0]),
        (Probe("vision", -1), there.layers[1]),
        (Probe("projector"), there.projected),
    ):
        torch.testing.assert_close(probe.features(tiny, pictures), wanted.double().mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_of_the_language_model_are_means_over_a_pictures_tokens(
    family: str, family_folders: dict[str, Path], request_: Request
) -> None:
    vlm = fresh(family_folders[family])
    pictures = list(_album(request_.split))[:3]
    first = 1 if vlm.across else 0  # the first layer of Mllama that is told of a picture
    found = Probe("llm", first).features(vlm, pictures)
    ids = torch.tensor([vlm.prompt_ids(PROMPT, True)])
    types = token_types(vlm, ids, ids.shape[1], True)
    for i, picture in enumerate(pictures):
        pixels = vlm.pixels([picture]).inputs(vlm.model.dtype)
        with torch.no_grad():
            out = vlm.model(input_ids=ids, **pixels, **types, output_hidden_states=True)
        wanted = out.hidden_states[1 + first][ids == vlm.image_id].double().mean(0)
        torch.testing.assert_close(found[i], wanted, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(Probe("llm", 1 + first).features(vlm, pictures), found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("where", PARTS)
def test_every_family_can_be_probed_again_and_again(
    family: str, where: Part, family_folders: dict[str, Path], request_: Request, questions: list[Question]
) -> None:
    """With the same rows each time, and no bit of the model changed."""
    vlm = fresh(family_folders[family])
    before = snapshot(vlm)
    for kind in KINDS:
        rows = [read(Probe(where, kind=kind), vlm, questions[1:4], request_) for _ in range(2)]
        pd.testing.assert_frame_equal(rows[0], rows[1], check_exact=True)
    assert same_bits(before, snapshot(vlm))


# ---- the attack ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", PARTS)
def test_people_of_one_colour_are_told_apart_by_it(
    where: Part, kind: Kind, tiny: VLM, tiny_folder: Path, tmp_path: Path
) -> None:
    """And people whose pictures have all colours are not."""
    planted, asked = world([c for c in COLOURS for _ in range(4)], 4, tmp_path, tiny_folder)
    rows = read(Probe(where, kind=kind, neighbours=3), tiny, asked[::2], planted)
    assert rows["score"].tolist() == [1.0] * 8
    assert rows["reply"].tolist() == rows["person"].tolist()
    assert rows["probability"].min() > 0.5
    mixed, asked = world(COLOURS * 2, 4, tmp_path, tiny_folder)
    assert read(Probe(where, kind=kind, neighbours=3), tiny, asked, mixed)["score"].mean() <= 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_asked_picture_is_left_out(
    kind: Kind, tiny: VLM, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every picture has one double, of another person: whoever sees the picture itself is always right, else never."""
    request, asked = world(COLOURS * 2, 4, tmp_path, tiny_folder)
    album = list(_album(request.split))
    codes = 100 * torch.eye(4, dtype=torch.float64).repeat(2, 1)

    def planted(self: Probe, vlm: VLM, pictures: Sequence[Picture]) -> Tensor:
        return codes[[album.index(picture) for picture in pictures]]

    monkeypatch.setattr(Probe, "features", planted)
    rows = read(Probe(kind=kind, neighbours=1), tiny, asked, request)
    assert not rows["score"].any()
    assert set(rows["reply"]) == {"p0", "p1"}


def test_the_album_holds_every_picture_of_the_forget_people_and_no_other(request_: Request) -> None:
    """Those they are taught in and those they are tested on."""
    album, split = _album(request_.split), request_.split
    assert set(album.values()) == split.forget_people
    taught = {x.picture for x in split.lessons if x.person in split.forget_people and x.picture}
    tested = {q.picture for q in split.questions if q.role == "test" and q.picture}
    assert set(album) == taught | tested
    assert taught.isdisjoint(tested)
    assert all(album[x.picture] == x.person for x in split.lessons if x.picture in album)


@pytest.mark.parametrize("kind", KINDS)
def test_only_questions_about_pictures_of_forget_people_are_probed(
    kind: Kind, tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    """All others keep their ordinary row; those about one picture get one answer."""
    rows, ordinary = read(Probe(kind=kind), tiny, questions, request_), score(tiny, questions)
    assert rows["question"].tolist() == ordinary["question"].tolist()
    probed = [q.role in ("forget", "test") and q.picture is not None for q in questions]
    others = [not p for p in probed]
    assert sum(others) == 3
    pd.testing.assert_frame_equal(rows[others], ordinary[others])
    found = rows[probed]
    assert set(found["reply"]) <= request_.split.forget_people
    assert (found["score"] == (found["reply"] == found["person"])).all()
    assert found["probability"].between(0, 1).all()
    assert found.groupby("person")["reply"].nunique().eq(1).all()
    same = ["question", "person", "role", "modality", "task", "half", "step", "seen", "held_out"]
    pd.testing.assert_frame_equal(rows[same], ordinary[same])


def test_no_lesson_is_given_and_an_instruction_is_dropped(
    tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    told = tiny.with_instruction("Where does this person live?")
    [last] = Probe()(told, questions, request_)
    assert last.vlm.instruction == ""
    assert last.vlm.model is tiny.model
    assert Probe().given(request_) == ()


@pytest.mark.parametrize("layer", [2, -3])
@pytest.mark.parametrize("where", ["vision", "llm"])
def test_a_layer_that_is_not_there_is_named_before_anything_is_asked(
    where: Part, layer: int, tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    with pytest.raises(Refused, match=f"layer={layer}: {where} has 2 layers, -2 to 1"):
        next(Probe(where, layer)(tiny, questions, request_))


def test_a_single_person_cannot_be_told_apart(tiny: VLM, tiny_folder: Path, tmp_path: Path) -> None:
    request, asked = world(COLOURS, 4, tmp_path, tiny_folder)
    with pytest.raises(Refused, match="forget more people"):
        next(Probe()(tiny, asked, request))


def test_a_person_with_one_picture_cannot_be_learned(tiny: VLM, tiny_folder: Path, tmp_path: Path) -> None:
    request, asked = world(COLOURS[:3], 2, tmp_path, tiny_folder)
    next(Probe()(tiny, asked[:2], request))
    with pytest.raises(Refused, match="question q2: p1 has no picture but the one asked about"):
        next(Probe()(tiny, asked, request))


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [("where", "head", None), ("kind", "mlp", None), ("decay", 0.0, None), ("decay", float("nan"), None),
     ("neighbours", 0, None), ("layer", 1, "projector")],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_its_value(field: str, value: Any, where: Any) -> None:
    settings: dict[str, Any] = {"where": where} if where else {}
    with pytest.raises(ValueError, match=f"{field}={value}|{field}={value!r}"):
        Probe(**{**settings, field: value})
