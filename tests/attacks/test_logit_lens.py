"""The logit lens reads a model that ends early, and leaves it as it was."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from study.attacks import logit_lens
from study.attacks.logit_lens import LogitLens
from study.contracts import Request
from study.core.errors import Refused
from study.data.benchmark import Benchmark, Question
from study.evaluation.scoring import score
from study.model.vlm import VLM
from tests.helpers.families import FAMILIES
from tests.helpers.small import fresh, request_on, same_bits, snapshot, token_types


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    return request_on(benchmark, tmp_path / "cache", tiny_folder, ratio=15)


@pytest.fixture
def questions(request_: Request) -> list[Question]:
    """Choices about forget people, with and without picture."""
    found = [q for q in request_.split.questions if q.role == "forget" and q.task == "classification"]
    return [q for q in found if q.picture][:6] + [q for q in found if not q.picture][:3]


def language_model(vlm: VLM) -> Any:
    return vlm.model.get_submodule(vlm.prefixes["llm"])


def read(keep: int, vlm: VLM, questions: list[Question], request: Request) -> pd.DataFrame:
    """The rows of the attack's last stage."""
    last = list(LogitLens(keep)(vlm, questions, request))[-1]
    assert last.read is not None
    return last.read(last.vlm, last.questions)


@torch.no_grad()
def by_hand(vlm: VLM, question: Question, kept: int) -> list[float]:
    """The options' probabilities from the hidden states that transformers gives out, asked one by one."""
    means = []
    pictured = question.picture is not None
    pixels = vlm.pixels([question.picture]).inputs(vlm.model.dtype) if question.picture else {}
    for option in question.options:
        asked, reply = vlm.prompt_ids(question.prompt, pictured), vlm.answer_ids(question.prompt, pictured, option)
        ids = torch.tensor([[*asked, *reply]])
        types = token_types(vlm, ids, len(asked), pictured)
        states = vlm.model(input_ids=ids, **pixels, **types, output_hidden_states=True).hidden_states
        found = vlm.model.lm_head(language_model(vlm).norm(states[kept]))[0]
        logps = found[len(asked) - 1 : -1].log_softmax(-1)
        means.append(logps.gather(1, torch.tensor(reply)[:, None]).mean())
    return torch.stack(means).softmax(0).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_read_at_any_depth(
    family: str, family_folders: dict[str, Path], request_: Request, questions: list[Question]
) -> None:
    """With all layers exactly as ever; with fewer as by hand, which is something else."""
    vlm = fresh(family_folders[family])
    ordinary, depth = score(vlm, questions), len(language_model(vlm).layers)
    pd.testing.assert_frame_equal(read(depth, vlm, questions, request_), ordinary, check_exact=True)
    early = read(1, vlm, questions, request_)
    wanted = [by_hand(vlm, q, 1)[q.options.index(q.answer)] for q in questions]
    assert early["probability"].tolist() == pytest.approx(wanted, abs=1e-4)
    assert early["probability"].tolist() != pytest.approx(ordinary["probability"].tolist(), abs=1e-4)
    assert early["question"].tolist() == ordinary["question"].tolist()


def test_layers_are_counted_from_either_end(tiny: VLM, request_: Request, questions: list[Question]) -> None:
    one, other = read(1, tiny, questions, request_), read(-1, tiny, questions, request_)
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_the_model_is_whole_between_and_after_the_stages(
    tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    """The same layers and the same bits, while a stage is held, after it was read and when the attack is left early."""
    before, layers = snapshot(tiny), language_model(tiny).layers
    stages = LogitLens()(tiny, questions, request_)
    last = next(stages)
    assert last.vlm.model is tiny.model
    assert isinstance(stages, Generator)
    assert last.read is not None
    for step in (lambda: None, partial(last.read, last.vlm, questions), stages.close):
        step()
        assert language_model(tiny).layers is layers
        assert len(layers) == 2
        assert same_bits(before, snapshot(tiny))


def test_the_model_is_whole_after_an_error(
    tiny: VLM, request_: Request, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(vlm: VLM, questions: list[Question]) -> pd.DataFrame:
        assert len(language_model(vlm).layers) == 1
        raise RuntimeError("out of memory")

    layers = language_model(tiny).layers
    monkeypatch.setattr(logit_lens, "score", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        read(-1, tiny, questions, request_)
    assert language_model(tiny).layers is layers


def test_replies_are_read_early_too(tiny: VLM, request_: Request) -> None:
    """A question without options is answered by the shortened model as well."""
    cloze = [q for q in request_.split.questions if q.role == "forget" and q.task == "cloze"][:2]
    pd.testing.assert_frame_equal(read(2, tiny, cloze, request_), score(tiny, cloze))
    assert len(read(1, tiny, cloze, request_)) == 2


def test_nothing_is_given_and_an_instruction_is_dropped(
    tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    told = tiny.with_instruction("Where does this person live?")
    [last] = LogitLens()(told, questions, request_)
    assert last.vlm.instruction == ""
    assert LogitLens().given(request_) == ()


@pytest.mark.parametrize("keep", [3, -2, -7])
def test_layers_that_are_not_there_are_named_before_anything_is_asked(
    keep: int, tiny: VLM, request_: Request, questions: list[Question]
) -> None:
    with pytest.raises(Refused, match=f"keep={keep}: the language model has 2 layers"):
        next(LogitLens(keep)(tiny, questions, request_))


def test_no_layer_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="keep=0"):
        LogitLens(keep=0)
