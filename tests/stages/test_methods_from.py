"""Methods from an earlier study: each starts at its winner, as if that had been pasted, and keeps what it took."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.sections.winners import pasted
from analysis.study_folder import read
from search_spaces import refusal
from study.core.files import read_json, write_json
from study.core.hashing import content_key
from study.core.plugins import search_space
from study.core.specs import adjusted, name_in, parameters
from study.presets import PRESETS
from study.settings import Study
from study.stages.manifest import check_settings, settle
from study.stages.methods_from import winners_of, with_earlier_winners
from study.stages.preflight import validate_study
from tests.helpers.planted import Model, Planter

NPO = {"beta": 0.123456789012345, "retain_weight": 2.5, "learning_rate": 3.3e-4, "steps": 71}
PINNED = "npo:modality=text,lora_rank=4"
WON: dict[str, dict[int, dict[str, Any]]] = {
    "npo": {10: {**NPO, "beta": 0.5}, 20: NPO},
    PINNED: {10: {**NPO, "beta": 0.7, "steps": 40}, 20: {**NPO, "beta": 0.9}},
    "prompting": {20: {"wording": "privacy", "repeats": 2}},
}
"""The hyper-parameters that won, by method and ratio."""


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A finished study of three methods."""
    planter = Planter(tmp_path / "earlier")
    planter.study(list(WON), [10, 20])
    winners: dict[str, Any] = {}
    for method, ratios in WON.items():
        for number, (ratio, params) in enumerate(ratios.items()):
            key = planter.trial(method, ratio, Model(), report=True, beta=params.get("beta", 0.0))
            path = planter.root / "search" / method / f"{number:04d}.json"
            write_json(
                path, {"number": number, "ratio": ratio, "params": {**params, "forget_ratio": ratio}, "trial": key}
            )
            winners.setdefault(method, {})[str(ratio)] = {"trials": [key]}
    for ratio in (10, 20):
        planter.yardsticks(ratio, attacked=False)
    write_json(planter.root / "winners.json", winners)
    return planter.root


def started(source: object, *ratios: int, **more: Any) -> Study:
    study = dataclasses.replace(PRESETS["smoke"][1], methods_from=str(source), forget_ratios=ratios or (20,), **more)
    return with_earlier_winners(study)


def set_to(study: Study, method: str) -> dict[str, Any]:
    return {name: parameters(study.method_defaults()[method])[name] for name in NPO}


def test_without_an_earlier_study_nothing_changes() -> None:
    study = PRESETS["smoke"][1]
    assert with_earlier_winners(study) is study
    assert winners_of(study) is None


def test_every_method_starts_at_its_winner(earlier: Path) -> None:
    """With what was set of it; all that was not searched is as the preset has it."""
    study = started(earlier)
    assert study.methods == ("npo", PINNED, "prompting")
    assert set_to(study, "npo") == NPO
    assert set_to(study, PINNED) == {**NPO, "beta": 0.9}
    pinned = parameters(study.method_defaults()[PINNED])
    assert (pinned["modality"], pinned["lora_rank"], pinned["pictures"]) == ("text", 4, 4)
    assert study.defaults["vkd"] == PRESETS["smoke"][1].defaults["vkd"]
    for text, default in study.method_defaults().items():
        assert refusal(search_space(name_in(text)).space, default, parameters(default)) == ""


@pytest.mark.parametrize(
    ("at", "ratios", "beta"),
    [("", (20,), NPO["beta"]), ("", (15,), 0.5), ("", (5, 20), 0.5), ("@20", (5,), NPO["beta"])],
)
def test_the_winner_is_that_of_the_nearest_ratio_or_of_the_one_named(
    earlier: Path, at: str, ratios: tuple[int, ...], beta: float
) -> None:
    """To the first ratio of the study, since all of them share a default; of two as near the smaller."""
    study = started(f"{earlier}{at}", *ratios)
    assert set_to(study, "npo")["beta"] == beta
    assert parameters(study.method_defaults()["prompting"])["wording"] == "privacy"  # it won at one ratio alone


def test_a_pasted_winner_is_the_same_method(earlier: Path) -> None:
    """Three ways to the same content: the folder, its winners as text, and what was planted."""
    texts = [line.partition("  ")[2] for line in pasted(read(earlier)) if line.startswith("20 %")]
    assert len(texts) == 3
    whole = started(earlier).method_defaults()
    for method, default in whole.items():
        [text] = [t for t in texts if name_in(t) == name_in(method) and ("lora_rank" in t) == ("lora_rank" in method)]
        alone = dataclasses.replace(PRESETS["smoke"][1], methods=(text,))
        assert content_key(alone.method_defaults()[text]) == content_key(default)
        assert content_key(adjusted(alone.method_defaults()[text], text)) == content_key(default)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nowhere", r"methods_from=.*nowhere is not a study: it has no study.json; name a folder such as runs/tiny"),
        ("earlier@10", "no winner of prompting at 10 %; that study has 10, 20 %"),
    ],
)
def test_what_cannot_be_taken_is_said(earlier: Path, source: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        started(earlier.parent / source)


def test_a_study_whose_search_has_not_ended_starts_nothing(earlier: Path) -> None:
    (earlier / "winners.json").unlink()
    with pytest.raises(ValueError, match=r"winners.json is missing; run that study until its search has ended"):
        started(earlier)


def test_a_study_without_a_winner_starts_nothing(earlier: Path) -> None:
    write_json(earlier / "winners.json", {"npo": {}})
    with pytest.raises(ValueError, match="no method of that study has a winner"):
        started(earlier)


def test_a_study_that_has_begun_keeps_what_it_took(earlier: Path, tmp_path: Path) -> None:
    """It says so in its settings, continues when the earlier study has gone, and not without the flag."""
    asked: dict[str, Any] = {"study_dir": tmp_path / "mine", "trials": 1, "goal": "full"}
    plan = validate_study(started(earlier, **asked), tmp_path / "data")
    settle(plan)
    record = read_json(tmp_path / "mine" / "study.json")
    assert record["methods_from"]["winners"]["prompting"] == {"ratio": 20, "params": WON["prompting"][20]}
    assert set(record["spaces"]) == set(WON)
    shutil.rmtree(earlier)
    again = started(earlier, **asked)
    assert again == plan.study
    check_settings(dataclasses.replace(plan, study=again))
    del record["methods_from"]["asked"]  # as earlier versions wrote it
    write_json(tmp_path / "mine" / "study.json", record)
    assert started(earlier, **asked) == plan.study
    with pytest.raises(ValueError, match="is not a study"):
        started(tmp_path / "another", **asked)
