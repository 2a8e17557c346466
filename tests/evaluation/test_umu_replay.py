"""What eval.py of UMU-Bench (revision 93b9900) did on a small folder, recorded, beside ours: no difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from study.benchmarks.umu import Umu
from study.data.official_protocol import OfficialPrompt
from study.evaluation import official_scoring
from study.evaluation.official_scoring import score_official
from study.metrics.umu_table import MARKED, umu_scores
from tests.helpers.odd_folders import odd_umu
from tests.helpers.replays import drawn, prompts_of

RECORDED = Path(__file__).with_name("umu_replay.json")
REPLIES = {
    "Residence": (" Oslo", "Lisbon", "It is Turin.", "  York ", "oslo", "Turin ASSISTANT: York", "", "St. Gallen"),
    "Employment": ("Baker", "Clerk", "miller", "A Tailor or a Baker, they said", "Tailor", "Millers", "Clerk\n",
                   "東京"),
    "Pet": ("a cat", " a dog", "St. Gallen, they said.", "zürich", "It is 東京", "a hen ASSISTANT: a newt",
            "They live in a cats' home, two cats", "a newt"),
}  # fmt: skip
"""What a model was made to say, in place of a real one, when it was asked for each of these."""

DRAW = 187
"""With these draws some pairs of replies are right in both modalities, of every task."""


def canned(text: str) -> str:
    """A reply that depends on the prompt alone."""
    return drawn(f"{DRAW} {text}", next(replies for asked, replies in REPLIES.items() if asked in text))


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> list[OfficialPrompt]:
    source = Umu(odd_umu(tmp_path_factory.mktemp("umu") / "data"))
    return list(source.released(source(Path()).split(10), Path(), 0))


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def test_every_prompt_is_one_of_theirs_and_all_of_theirs_are_asked(
    asks: list[OfficialPrompt], recorded: dict[str, Any]
) -> None:
    assert prompts_of(asks) == {key: its["prompts"] for key, its in recorded.items()}
    for ask in asks:
        assert ask.most_tokens == recorded[f"{ask.question.role} {ask.question.task}"]["most_tokens"]


def test_the_same_replies_have_their_scores(
    asks: list[OfficialPrompt], recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of each side, and those of pairs."""
    monkeypatch.setattr(official_scoring, "generated", lambda _, asked: [canned(ask.text).strip() for ask in asked])
    rows = score_official(None, asks)  # type: ignore[arg-type]  # no model is asked
    pairs = umu_scores(rows)
    for key, its in recorded.items():
        role, task = key.split()
        kinds = [rows[(rows.role == role) & (rows.task == task) & (rows.modality == m)] for m in ("image_text", "text")]
        if task == "generation":
            names = ("rouge_1", "rouge_2", "rouge_l", "bleu")
            ours = [kind[name].astype(float).mean() for kind in kinds for name in names] + [pairs[role]["ROUGE-L"]]
        else:
            both = [pairs[role][f"{MARKED[task]} both {kind}"] for kind in ("right", "wrong")]
            ours = [100 * mean for mean in (*(kind["score"].mean() for kind in kinds), *both)]
        assert ours == pytest.approx(its["results"], abs=1e-12), key
    right = {key.split()[1] for key, its in recorded.items() if its["results"][0] and its["results"][1]}
    assert right == {"classification", "cloze", "generation"}  # some replies are, in both modalities
