"""What evaluate_util.py of FIUBench (revision 8e12cdd) did on a small folder, recorded, beside ours: no difference."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from study.benchmarks.fiu import Fiu
from study.data.official_protocol import OfficialPrompt
from study.evaluation import official_scoring
from study.evaluation.official_scoring import prompt_ids, score_official
from study.model.vlm import VLM
from tests.helpers.odd_folders import odd_fiu
from tests.helpers.released_llava import untaught_llava
from tests.helpers.replays import digest, drawn, seen, spelled

RECORDED = Path(__file__).with_name("fiu_replay.json")
REPLIES = (
    "It is 4.5 thousand dollars. More", "no stop here", "", "Zurich fever of degree 4. It passes.",
    "4 thousand Dollars.", "The name is Nora Nil2.", "zürich FEVER OF DEGREE 3. ", "  The income is 2000 U.S. dollars.",
    "Nora Nil4 is it.\nYes",
    ". It begins with a stop", "The illness is illness 3.", "It has 東京. Nora Nil2", "It passes, the fever of Zürich.",
    "3 U.S. dollars",
)  # fmt: skip
"""What a model was made to say, in place of a real one."""
DRAW = 1
"""With these draws some replies of every set have some of the keywords, and one has a keyword but for a space."""


@pytest.fixture(scope="module")
def vlm() -> VLM:
    """Its tokens are bytes, but for a space and an a."""
    return untaught_llava("a")


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> list[OfficialPrompt]:
    source = Fiu(odd_fiu(tmp_path_factory.mktemp("fiu") / "data"))
    return list(source.released(source(Path()).split(5), Path(), 0))


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def test_the_tokens_of_every_prompt_are_theirs_and_all_of_theirs_are_asked(
    vlm: VLM, asks: list[OfficialPrompt], recorded: dict[str, Any]
) -> None:
    """The people of retain5, and of a forget set with each question and its paraphrases."""
    ours: dict[str, list[str]] = defaultdict(list)
    for ask, ids in zip(asks, prompt_ids(vlm, asks), strict=True):
        shown = [picture.open() for picture in ask.pictures]
        ours[ask.question.role].append(digest(spelled(seen(ids, vlm.image_id)), shown))
        assert ask.most_tokens == recorded[ask.question.role]["most_tokens"]
    assert {key: sorted(found) for key, found in ours.items()} == {k: its["prompts"] for k, its in recorded.items()}


def test_the_same_replies_have_their_scores(
    vlm: VLM, asks: list[OfficialPrompt], recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of paraphrases their code has the keywords alone."""
    said = [drawn(f"{DRAW} {spelled(seen(ids, vlm.image_id))}", REPLIES).strip() for ids in prompt_ids(vlm, asks)]
    monkeypatch.setattr(official_scoring, "generated", lambda *_: said)
    rows = score_official(vlm, asks)
    for role, its in recorded.items():
        mine = rows[rows.role == role]
        assert mine["exact_match"].astype(float).tolist() == pytest.approx(its["exact_match"], abs=1e-12), role
        if its["rouge_l_recall"]:
            assert mine["score"].astype(float).tolist() == pytest.approx(its["rouge_l_recall"], abs=1e-12), role
        assert any(its["exact_match"])
