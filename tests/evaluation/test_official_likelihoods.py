"""How likely answers are by the official protocol of CLEAR: against transformers itself, and against its formulas."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from study.benchmarks.clear import Clear
from study.core.files import read_json, write_json
from study.data.official_protocol import OfficialPrompt
from study.engine.world import sharding
from study.evaluation import official_likelihoods
from study.evaluation.official_likelihoods import answer_means, grades
from study.evaluation.official_scoring import score_official
from study.evaluation.scoring import candidates
from study.model.loading import load
from study.model.vlm import VLM
from tests.helpers.benchmark_folders import clear
from tests.helpers.families import FAMILIES
from tests.helpers.processes import join, spawn
from tests.helpers.small import fresh, token_types


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> list[OfficialPrompt]:
    """Two questions of every set but one of each real one."""
    data = clear(tmp_path_factory.mktemp("clear"))
    benchmark = Clear(data)(data / "unused")
    every = list(Clear(data).released(benchmark.split(10), Path(), 0))
    sets: dict[tuple[str, str], list[OfficialPrompt]] = {}
    for ask in every:
        sets.setdefault((ask.question.role, ask.graded_in), []).append(ask)
    wanted = {"real_faces", "real_world", "name", "caption"}
    assert {kind for _, kind in sets} == wanted
    return [ask for (role, _), some in sorted(sets.items()) for ask in some[: 1 + (role != "real")]]


def by_transformers(vlm: VLM, ask: OfficialPrompt, answer: str) -> float:
    """The mean log-probability of an answer as transformers computes it, alone in its row."""
    processor: Any = vlm.processor
    shown = [vlm.prepared(picture.open()) for picture in ask.pictures]
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ask.asked}]}
    assistant = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    asked = processor.apply_chat_template([user], add_generation_prompt=True)
    whole = processor.apply_chat_template([user, assistant], add_generation_prompt=False)
    options = {"add_special_tokens": False} if asked.startswith("<s>") else {}
    prompt = processor(text=[asked], images=[shown], return_tensors="pt", **options)["input_ids"][0].tolist()
    made = processor(text=[whole], images=[shown], return_tensors="pt", **options)
    pairs = zip(prompt, made["input_ids"][0].tolist(), strict=False)
    before = next((place for place, (one, other) in enumerate(pairs) if one != other), len(prompt))
    types = token_types(vlm, made["input_ids"], before, True) if vlm.family.prefix else {}
    with torch.no_grad():
        logps = vlm.model(**{**made, **types}).logits[0, before - 1 : -1].log_softmax(-1)
    return float(logps.gather(1, made["input_ids"][0, before:, None]).mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_as_likely_as_transformers_finds_them(
    name: str, family_folders: dict[str, Path], asks: list[OfficialPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they are cut into batches."""
    vlm = fresh(family_folders[name])
    found = answer_means(vlm, asks)
    wanted = [[by_transformers(vlm, ask, answer) for answer in candidates(ask.question)] for ask in asks]
    assert [len(its) for its in found] == [len(its) for its in wanted]
    assert np.concatenate(found) == pytest.approx(np.concatenate(wanted), abs=1e-4)
    monkeypatch.setattr(official_likelihoods, "TOKENS_PER_BATCH", 1)
    assert np.concatenate(answer_means(vlm, asks)) == pytest.approx(np.concatenate(found), abs=1e-4)


def member(rank: int, root: Path, port: int, folder: Path, asks: Sequence[OfficialPrompt]) -> None:
    """What each of two processes does, with a model of its own and with half of one: read all prompts, then a single
    one; all is kept in a file."""
    join(rank, port)
    asked = list[int]()
    whole = official_likelihoods._rows

    def recorded(vlm: VLM, number: int, ask: OfficialPrompt) -> Any:
        asked.append(number)
        return whole(vlm, number, ask)

    official_likelihoods._rows = recorded
    means = []
    for sharded in (False, True):
        with sharding(sharded):
            vlm = load(folder)
            means += [answer_means(vlm, asks), answer_means(vlm, asks[:1])]
    write_json(root / f"{rank}.json", {"means": means, "asked": asked})
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_read_what_one_reads(
    tmp_path: Path, tiny_folder: Path, tiny: VLM, asks: list[OfficialPrompt]
) -> None:
    """Each of them its share, and both have all; of a single prompt the second has nothing to read."""
    spawn(member, tmp_path, tiny_folder, asks)
    first, second = (read_json(tmp_path / f"{rank}.json") for rank in range(2))
    assert first["means"] == second["means"]
    alone = [answer_means(tiny, asks), answer_means(tiny, asks[:1])]
    for found, wanted in zip(first["means"], alone * 2, strict=True):
        assert [len(its) for its in found] == [len(its) for its in wanted]
        assert np.concatenate(found) == pytest.approx(np.concatenate(wanted), abs=1e-5)
    assert first["asked"] == [*range(0, len(asks), 2), 0] * 2
    assert second["asked"] == [*range(1, len(asks), 2)] * 2


def test_an_instruction_comes_before_the_question(tiny: VLM, asks: list[OfficialPrompt]) -> None:
    said = [replace(ask, asked=f"Say nothing.\n{ask.asked}") for ask in asks]
    instructed = answer_means(tiny.with_instruction("Say nothing."), asks)
    assert instructed == answer_means(tiny, said) != answer_means(tiny, asks)


def test_rows_have_the_grades(tiny: VLM, asks: list[OfficialPrompt]) -> None:
    """Beside what any official protocol has; other protocols are not graded."""
    few = [replace(ask, most_tokens=2) for ask in asks]
    rows = score_official(tiny, few)
    for name, values in _columns(grades(few, answer_means(tiny, few))).items():
        np.testing.assert_allclose(rows[name].astype(float), values, rtol=1e-6)
    plain = score_official(tiny, [replace(ask, graded_in="") for ask in few])
    assert plain[["likelihood", "truth_ratio"]].isna().all(axis=None)
    assert plain["reply"].tolist() == rows["reply"].tolist()


def _columns(cells: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    return {name: [one[name] for one in cells] for name in ("likelihood", "probability", "truth_ratio")}


def test_grades_are_those_of_the_authors_formulas(asks: list[OfficialPrompt]) -> None:
    """From losses as mm/calculate_metrics.py writes them: R is exp(mean loss of all wrong answers - loss) there."""
    draw = np.random.default_rng(0)
    losses = [draw.uniform(0.1, 3.0, len(candidates(ask.question))) for ask in asks]
    found = grades(asks, [(-its).tolist() for its in losses])
    for ask, its, cells in zip(asks, losses, found, strict=True):
        first = 2 if ask.graded_in == "caption" else 1
        assert (first == 2) == bool(ask.question.paraphrased)
        alike = [other for one, other in zip(asks, losses, strict=True)
                 if (one.question.role, one.graded_in) == (ask.question.role, ask.graded_in)]  # fmt: skip
        ratio = np.exp(np.concatenate([other[first:] for other in alike]).mean() - its[first - 1])
        assert cells["truth_ratio"] == pytest.approx(1.0 / ratio)
        assert cells["likelihood"] == pytest.approx(np.exp(-its[0]))
        if first == 2:
            assert np.isnan(float(str(cells["probability"])))
        else:
            assert cells["probability"] == pytest.approx(np.exp(-its[0]) / np.exp(-its).sum())


@pytest.mark.parametrize("means", [[-800.0, -900.0, -1000.0], [-0.5, -1e4, -2e4], [-1e4, -0.5, -0.1]])
def test_grades_of_a_model_that_finds_answers_impossible_are_numbers(
    asks: list[OfficialPrompt], means: list[float]
) -> None:
    """Or no number where a ratio has none; nothing over- or underflows into an error."""
    name = next(ask for ask in asks if ask.graded_in == "name")
    (cells,) = grades([name], [means])
    chance, ratio = (float(str(cells[key])) for key in ("probability", "truth_ratio"))
    assert 0.0 <= chance <= 1.0
    assert chance == pytest.approx(1.0 if means[0] == max(means) else 0.0)
    assert (ratio < 1e-3) if means[0] == max(means) else (ratio > 1e3)


def test_an_answer_begins_where_the_template_parts_from_the_prompt(tiny: VLM, asks: list[OfficialPrompt]) -> None:
    """Some templates write a thought before a reply, and do not keep it of one."""
    vlm = replace(tiny, processor=copy.copy(tiny.processor), _ids={})
    template = str(vlm.processor.chat_template)
    end = "{% if add_generation_prompt %}"
    assert end in template
    vlm.processor.chat_template = template + "{% if add_generation_prompt %} nothing to say about it {% endif %}"
    found, wanted = answer_means(vlm, asks), answer_means(tiny, asks)
    assert np.concatenate(found) == pytest.approx(np.concatenate(wanted), abs=1e-4)
