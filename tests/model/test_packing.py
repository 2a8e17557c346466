"""Packed questions are the questions asked one by one: same logits, whoever else is in the row or the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from study.core.errors import Refused
from study.data.benchmark import Benchmark
from study.data.picture import Picture
from study.model.likelihood import answer_lengths, answer_sums, token_logps
from study.model.packing import Batch, Group, Prompt, Row, batched, logits, pack, shared_prefix
from study.model.vlm import VLM

CITY = Prompt("Where does this person live?", ("Lisbon", "Oslo", "This person lives in Rome.", "Lisbon Oslo"))
JOB = Prompt("What is the job of this person?", ("baker",))
LONG = Prompt("In which city does this person live? In which city does this person live?", ("Cairo", "a nurse"))
WHERE = Prompt("Where does this person", ("live", "Oslo"))  # its tokens are almost a prefix of CITY's
NAMES = ["picture", "text"]


@pytest.fixture(scope="module")
def pictures(benchmark: Benchmark) -> list[Picture]:
    return list(dict.fromkeys(q.picture for q in benchmark.split(5).questions if q.picture is not None))[:4]


def asked(vlm: VLM, groups: Sequence[Group], **options: Any) -> tuple[Batch, Tensor]:
    batch = pack(vlm, groups, **options)
    with torch.no_grad():
        return batch, logits(vlm, batch)


def one_by_one(vlm: VLM, picture: Picture | None, prompt: str, answer: str, end: bool) -> tuple[Tensor, Tensor]:
    """Logits and targets of an answer's tokens, by the processor and the model alone."""
    processor: Any = vlm.processor
    content = [{"type": "image"}] * (picture is not None) + [{"type": "text", "text": prompt}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    images = None if picture is None else picture.open()
    before = processor(text=text, images=images, return_tensors="pt").input_ids.shape[1]
    whole = processor(text=f"{text} {answer}{'</s>' * end}", images=images, return_tensors="pt")
    with torch.no_grad():
        out = vlm.model(**whole).logits[0]
    return out[before - 1 : -1], whole.input_ids[0, before:]


def reference(vlm: VLM, groups: Sequence[Group], end: bool) -> tuple[Tensor, Tensor]:
    found = [one_by_one(vlm, g.picture, p.text, a, end) for g in groups for p in g.prompts for a in p.answers]
    return torch.cat([out for out, _ in found]), torch.cat([target for _, target in found])


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("shown", [(True,), (False,), (True, False, True)], ids=["picture", "text", "mixed"])
def test_packed_logits_are_those_of_asking_one_by_one(
    tiny: VLM, pictures: list[Picture], shown: tuple[bool, ...], end: bool
) -> None:
    prompts = ((CITY, JOB, LONG, WHERE), (LONG, CITY), (JOB,))
    groups = [Group(pictures[i] if seen else None, prompts[i]) for i, seen in enumerate(shown)]
    batch, found = asked(tiny, groups, end=end)
    expected, target = reference(tiny, groups, end)
    assert batch.target.tolist() == target.tolist()
    assert float((found - expected).abs().max()) < 1e-5
    assert found.argmax(-1).tolist() == expected.argmax(-1).tolist()


def test_a_group_does_not_depend_on_its_batch(tiny: VLM, pictures: list[Picture]) -> None:
    mine = Group(pictures[0], (CITY, JOB))
    batch, alone = asked(tiny, [mine])
    longer = Group(pictures[1], (LONG, CITY, JOB, WHERE))  # pads mine
    company = [longer, Group(None, (LONG,)), mine, Group(pictures[2], (JOB,))]
    shared_batch, shared = asked(tiny, company)
    torch.testing.assert_close(shared[shared_batch.row == 2], alone, rtol=0, atol=1e-5)
    assert shared_batch.target[shared_batch.row == 2].tolist() == batch.target.tolist()


def test_what_others_say_and_what_pads_is_not_seen(tiny: VLM, pictures: list[Picture]) -> None:
    """Not to rounding but exactly: masked tokens of the same shape change no bit."""
    batch, before = asked(tiny, [Group(pictures[0], (JOB, CITY)), Group(pictures[1], (LONG, CITY, JOB))])
    rows, places = batch.attention_mask.shape[0], batch.attention_mask.shape[-1]
    kin = batch.attention_mask[:, 0]
    answer = batch.owner == 0  # "baker" in row 0
    seen = torch.zeros(rows, places, dtype=torch.bool)
    seen[0] = kin[0][batch.source[answer]].any(0)
    assert 0 < int(seen.sum()) < places
    scrambled = torch.where(seen | (batch.input_ids == tiny.image_id), batch.input_ids, 7)
    assert int((scrambled != batch.input_ids).sum()) > 10
    changed = Batch(**{**vars(batch), "input_ids": scrambled})
    with torch.no_grad():
        after = logits(tiny, changed)
    assert torch.equal(after[answer], before[answer])
    assert not torch.equal(after[~answer], before[~answer])


def test_only_answer_tokens_are_targets(tiny: VLM, pictures: list[Picture]) -> None:
    batch = pack(tiny, [Group(pictures[0], (CITY, JOB)), Group(None, (JOB,))])
    words = [tiny.tokenizer.convert_ids_to_tokens(batch.target[batch.owner == i].tolist()) for i in range(6)]
    assert words == [
        [" Lisbon", "</s>"],
        [" Oslo", "</s>"],
        [" This", " person", " lives", " in", " Rome", ".", "</s>"],
        [" Lisbon", " Oslo", "</s>"],
        [" baker", "</s>"],
        [" baker", "</s>"],
    ]
    assert answer_lengths(batch).tolist() == [2, 2, 7, 3, 2, 2]


def test_own_pixels_replace_the_pictures(tiny: VLM, pictures: list[Picture]) -> None:
    _, expected = asked(tiny, [Group(pictures[1], (CITY,))])
    _, found = asked(tiny, [Group(pictures[0], (CITY,))], pixels=tiny.pixels(pictures[1:2]))
    assert torch.equal(found, expected)


def test_logps_are_log_probabilities_of_the_targets(tiny: VLM, pictures: list[Picture]) -> None:
    batch, out = asked(tiny, [Group(pictures[0], (CITY, JOB))])
    expected = [float(row.double().softmax(-1)[t].log()) for row, t in zip(out, batch.target, strict=True)]
    assert token_logps(out, batch).tolist() == pytest.approx(expected, abs=1e-5)


def test_sums_and_lengths_are_by_answer(tiny: VLM) -> None:
    batch = pack(tiny, [Group(None, (CITY, JOB))], end=False)
    values = torch.arange(1.0, len(batch.owner) + 1)
    assert answer_lengths(batch).tolist() == [1, 1, 6, 2, 1]
    assert answer_sums(values, batch).tolist() == [1, 2, sum(range(3, 9)), 9 + 10, 11]


def test_a_template_that_asks_before_it_shows_is_refused(
    tiny: VLM, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    template = (
        "{% for part in messages[0]['content'] | reverse %}{{ part['text'] or '<image>' }} {% endfor %}ASSISTANT:"
    )
    monkeypatch.setattr(tiny.processor, "chat_template", template)
    with pytest.raises(Refused, match="the question before the picture"):
        pack(tiny, [Group(pictures[0], (CITY, JOB))])
    groups = [Group(pictures[0], (CITY,)), Group(None, (CITY, JOB))]  # nothing is shared, or there is no picture
    _, found = asked(tiny, groups)
    expected, _ = reference(tiny, groups, end=True)
    assert float((found - expected).abs().max()) < 1e-5


# ---- the tree ------------------------------------------------------------------------------------------------------
@given(st.data())
def test_a_token_sees_its_ancestors_and_what_is_before_it_in_its_node(data: st.DataObject) -> None:
    row = Row([], [], [], [])
    parents: list[int] = []
    owners: list[int] = []
    for node in range(data.draw(st.integers(1, 7))):
        parent = data.draw(st.integers(0, node - 1)) if node else -1
        length = data.draw(st.integers(0, 3))
        assert row.add(parent, [9] * length, 5 * node) == node
        parents.append(parent)
        owners += [node] * length

    def is_kin(node: int, ancestor: int) -> bool:
        return node == ancestor or (node >= 0 and is_kin(parents[node], ancestor))

    mask = row.mask()
    assert mask.shape == (len(owners), len(owners))
    for i, mine in enumerate(owners):
        for j, other in enumerate(owners):
            assert mask[i, j] == (j <= i and is_kin(mine, other))


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=4))
def test_the_shared_prefix_is_the_longest_that_leaves_each_a_token(prompts: list[tuple[int, ...]]) -> None:
    n = shared_prefix(prompts)
    assert len({p[:n] for p in prompts}) == 1
    assert all(len(p) > n for p in prompts)
    assert any(len(p) == n + 1 for p in prompts) or len({p[: n + 1] for p in prompts}) > 1


@pytest.mark.parametrize("limit", [60, 150, 100_000])
def test_batches_hold_every_group_in_order_within_the_limit(tiny: VLM, pictures: list[Picture], limit: int) -> None:
    many = Prompt("Where?", ("This person lives in Rome.",) * 8)
    groups = [Group(None, (JOB,)), Group(pictures[0], (CITY, JOB)), Group(None, (many,)), Group(None, (JOB, LONG))] * 3
    parts = list(batched(tiny, groups, limit))
    assert [group for part in parts for group in part] == groups
    for part in parts:
        assert len(part) == 1 or pack(tiny, part).input_ids.numel() <= limit
    assert len(parts) < len(groups) or limit == 60
