"""Several drawn replies to each question: whose they are, what they cost, and that only the seed moves them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from study.data.benchmark import Benchmark, Question
from study.evaluation import sampling, scoring
from study.evaluation.sampling import sampled
from study.evaluation.scoring import readings
from study.model import decoding
from study.model.flop_counter import counted
from study.model.packing import batched
from study.model.vlm import VLM

COLD = 1e-6
"""So low a temperature that only the likeliest token is drawn."""


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (scoring, sampling):
        monkeypatch.setattr(module, "MAX_NEW_TOKENS", 4)


@pytest.fixture(scope="module")
def questions(benchmark: Benchmark) -> list[Question]:
    """Free questions about three pictures, and some about none."""
    free = [q for q in benchmark.split(5).questions if q.task != "classification"]
    pictures = list(dict.fromkeys(q.picture for q in free if q.picture))[:3]
    return [q for q in free if q.picture in pictures] + [q for q in free if q.picture is None][:10]


@pytest.fixture
def tiny(tiny: VLM) -> VLM:
    """A model whose replies differ: as initialized, it says one word and repeats it."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in tiny.trainable(("llm",)).items():
            weight.add_((0.3 if "embed" in name else 1.0) * torch.randn(weight.shape, generator=generator))
    return tiny


def said(vlm: VLM, questions: Sequence[Question], draws: int = 6, **fields: Any) -> dict[str, list[str]]:
    return sampled(vlm, questions, draws, **{"seed": 0, **fields})


def test_at_temperature_0_every_reply_is_the_greedy_one(tiny: VLM, questions: list[Question]) -> None:
    greedy = readings(tiny, questions)
    for draws in (1, 3):
        assert said(tiny, questions, draws, temperature=COLD) == {q.id: [greedy[q.id].reply] * draws for q in questions}
    assert len({reading.reply for reading in greedy.values()}) > 1


def test_only_seed_and_question_move_a_reply(
    tiny: VLM, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the order, the batches, the other questions, or how many replies are continued together."""
    found = said(tiny, questions)
    assert {len(replies) for replies in found.values()} == {6}
    torch.manual_seed(1)
    assert said(tiny, questions[::-1]) == found
    assert said(tiny, questions[:1]) == {questions[0].id: found[questions[0].id]}
    monkeypatch.setattr(scoring, "batched", lambda vlm, groups, grows: batched(vlm, groups, 1))
    for together in (1, 13, 1000):
        monkeypatch.setattr(decoding, "REPLIES_PER_ROW", together)
        assert said(tiny, questions) == found
    other = said(tiny, questions, seed=1)
    assert all(other[key] != replies for key, replies in found.items())


@pytest.mark.slow
def test_memory_that_runs_out_moves_no_reply(
    tiny: VLM, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are halved, in the middle of replies too, and what was not replied to is asked again."""
    found, ask, sizes = said(tiny, questions), decoding._continued, list[int]()

    def short(vlm: VLM, batch: Any, *rest: Any) -> Tensor:
        sizes.append(len(batch.input_ids))
        if len(batch.input_ids) > 1 and len(sizes) > 1:
            raise torch.OutOfMemoryError("planted")
        return ask(vlm, batch, *rest)

    monkeypatch.setattr(decoding, "_continued", short)
    with pytest.warns(UserWarning, match="out of memory"):
        assert said(tiny, questions, 32) == said(tiny, questions, 32)
    assert sizes[0] > 1 == sizes[-1]
    monkeypatch.setattr(decoding, "_continued", ask)
    assert said(tiny, questions) == found


def test_a_picture_is_encoded_once_and_equal_beginnings_are_computed_once(tiny: VLM, questions: list[Question]) -> None:
    """However many replies there are; those that say the same cost no more than one."""
    works = []
    for draws, temperature in ((1, COLD), (48, COLD), (48, 1.0)):
        with counted(tiny) as work:
            said(tiny, questions, draws, temperature=temperature)
        works.append(work)
    once, often, apart = works
    assert {work.images for work in works} == {3}
    assert {work.prompt_tokens for work in works} == {once.prompt_tokens}
    assert once.flops == pytest.approx(often.flops, rel=0.1)  # passes of fewer prompts have fewer slots to pad
    assert once.generated_tokens < apart.generated_tokens < 48 * once.generated_tokens


def test_replies_are_as_frequent_as_they_are_likely(
    tiny: VLM, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """First words of 4000 replies against the model's own distribution, of which each part is known to 0.03."""
    monkeypatch.setattr(sampling, "MAX_NEW_TOKENS", 1)
    [question] = questions[:1]
    found = Counter(said(tiny, [question], 4000)[question.id])
    ids = torch.tensor([tiny.prompt_ids(question.prompt, True)])
    assert question.picture is not None
    with torch.no_grad():
        out = tiny.model(input_ids=ids, **tiny.pixels([question.picture]).tensors).logits[0, -1].softmax(-1)
    words = [tiny.tokenizer.decode([i], skip_special_tokens=True).strip() for i in range(len(out))]
    likely = Counter[str]()
    for word, chance in zip(words, out.tolist(), strict=True):
        likely[word] += chance
    assert max(abs(found[word] / 4000 - chance) for word, chance in likely.items()) < 0.03
    assert likely.most_common(1)[0][1] < 0.97
