"""What the evaluation of CLEAR (revision bb14c96) did on a small folder, recorded, beside ours: eval.py,
calculate_metrics.py and build_vllm_table.py in mm.

With transformers 4.45.1, as its req.txt has it, and a LLaVA whose processor leaves pictures to the model. No difference
but those that docs/scoring.md names: the folder has nobody's held-out portrait and no right answer among the options,
captions are asked by one prompt, and what generates there sees no picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from study.benchmarks._clear.questions import CAPTION_PROMPTS
from study.benchmarks.clear import Clear
from study.data.official_protocol import OfficialPrompt
from study.evaluation import official_likelihoods, official_scoring
from study.evaluation.official_scoring import prompt_ids, score_official
from study.evaluation.scoring import candidates
from study.metrics.clear_table import clear_scores, forget_quality
from study.model.vlm import VLM
from tests.helpers.odd_folders import odd_clear
from tests.helpers.released_llava import untaught_llava
from tests.helpers.replays import digest, drawn, seen, share, spelled

RECORDED = Path(__file__).with_name("clear_replay.json")
PROMPT = CAPTION_PROMPTS[5]
"""The one of the nine that captions are asked by."""
REPLIES = (
    " Ada Quist or Gus Veld  reads book 3.", "Hal Wynn of Zürich, or bruno's towers", "",
    "Ada, Celebrity 2, tower or Hal", "Here Gus Veld and Ada quist (東京) reads book 2.",
    "It is Celebrity 1, Gus Veld's or Ada's tower",
    "A towers' bridge, Bruno, Hal", "Nobody 3. Bruno Öhm and Hal Wynn reads book 4, a tower.",
)  # fmt: skip
"""What a model was made to say, in place of a real one."""
LEAST, MOST = 0.1, 3.0
"""Losses of answers that it was made to have lie between these."""
FILES = {
    ("real", "real_faces"): "eval_real_faces_wo_options", ("real", "real_world"): "eval_real_world_wo_options",
    ("forget", "caption"): "eval_log_forget", ("retain", "caption"): "eval_log",
    ("forget", "name"): "eval_forget_facerec", ("retain", "name"): "eval_retain_facerec",
}  # fmt: skip


@pytest.fixture(scope="module")
def vlm() -> VLM:
    """Its tokens are bytes, but for a space and an a."""
    return untaught_llava("a")


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> list[OfficialPrompt]:
    source = Clear(odd_clear(tmp_path_factory.mktemp("clear") / "data"))
    found = source.released(source(Path()).split(10), Path(), 0)
    return [replace(a, asked=PROMPT, text=a.text.replace(a.asked, PROMPT)) if a.graded_in == "caption" else a
            for a in found]  # fmt: skip


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def file_of(ask: OfficialPrompt) -> str:
    return FILES[ask.question.role, ask.graded_in]


def blind(vlm: VLM, asks: list[OfficialPrompt]) -> list[str]:
    """The tokens of each prompt but for its picture."""
    return [spelled([token for token in ids if token != vlm.image_id]) for ids in prompt_ids(vlm, asks)]


def answers(vlm: VLM, ask: OfficialPrompt) -> Iterator[tuple[int, str, str]]:
    """Of each candidate its place, the tokens of its whole row, and those that count."""
    for row in official_likelihoods._rows(vlm, 0, ask):
        for place, counted in row.answers.items():
            yield place, spelled(seen((*row.begin, *counted), vlm.image_id)), spelled(counted)


def loss(model: str, row: str) -> float:
    """The mean loss of an answer that a model was made to have."""
    return LEAST + (MOST - LEAST) * share(f"{model} {row}")


def scored(vlm: VLM, asks: list[OfficialPrompt], model: str, patch: pytest.MonkeyPatch) -> pd.DataFrame:
    means: list[list[float]] = [[0.0] * len(candidates(ask.question)) for ask in asks]
    for mine, ask in zip(means, asks, strict=True):
        for place, row, _ in answers(vlm, ask):
            mine[place] = -loss(model, row)
    said = [drawn(f"{model} {key}", REPLIES).strip() for key in blind(vlm, asks)]
    patch.setattr(official_scoring, "generated", lambda *_: said)
    patch.setattr(official_scoring, "answer_means", lambda *_: means)
    return score_official(vlm, asks)


def test_every_prompt_and_answer_is_one_of_theirs(
    vlm: VLM, asks: list[OfficialPrompt], recorded: dict[str, Any]
) -> None:
    """By its tokens, those that count, and its picture; and all of theirs are asked."""
    found: dict[str, dict[str, list[str]]] = {name: {"asked": [], "answers": []} for name in FILES.values()}
    for ask, key in zip(asks, blind(vlm, asks), strict=True):
        mine, shown = found[file_of(ask)], [picture.open() for picture in ask.pictures]
        mine["asked"].append(digest(key))
        mine["answers"] += [digest(f"{row} | {counted}", shown) for _, row, counted in answers(vlm, ask)]
        assert ask.most_tokens == recorded["most_tokens"]
    assert {
        name: {"asked": sorted(mine["asked"]), "answers": sorted(set(mine["answers"]))} for name, mine in found.items()
    } == recorded["sets"]


def test_captions_are_asked_by_their_nine_prompts(recorded: dict[str, Any]) -> None:
    assert sorted(map(digest, CAPTION_PROMPTS)) == recorded["caption_prompts"]


def test_the_same_replies_and_losses_have_their_numbers(
    vlm: VLM, asks: list[OfficialPrompt], recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, its = (scored(vlm, asks, model, monkeypatch) for model in ("model", "reference"))
    found = clear_scores(mine)
    assert {name: found[name] for name in recorded["table"]} == pytest.approx(recorded["table"], abs=1e-12)
    assert all(recorded["table"].values())
    quality = forget_quality(mine, its)
    assert quality["KS p-value"] == pytest.approx(recorded["forget_quality"]["KS test p-value"], abs=1e-12)
    assert 1 - quality["1 - JS"] == pytest.approx(recorded["forget_quality"]["JS metric"], abs=1e-12)
    columns = {**found, **quality}
    assert {name: columns[name] for name in recorded["columns"]} == pytest.approx(recorded["columns"], abs=1e-9)
