"""The counter of work, against what torch counts and what can be counted by hand."""

from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from study.data.benchmark import Benchmark
from study.evaluation import scoring
from study.evaluation.scoring import readings
from study.model import decoding
from study.model.flop_counter import counted
from study.model.packing import Group, Prompt, hidden_states, pack
from study.model.vlm import VLM
from tests.helpers.families import FAMILIES
from tests.helpers.small import fresh


@pytest.mark.parametrize("name", ["llava", "idefics2", "gemma3", "qwen2_vl"])
def test_operations_are_those_that_torch_counts(
    name: str, family_folders: dict[str, Path], benchmark: Benchmark
) -> None:
    vlm = fresh(family_folders[name])
    some = [q for q in benchmark.split(5).questions if q.picture is not None][:6]
    batch = pack(vlm, [Group(q.picture, (Prompt(q.prompt, (q.answer,)),)) for q in some])
    plain = sdpa_kernel(SDPBackend.MATH)  # torch does not count the products inside its fused attention on a CPU
    with torch.no_grad(), plain, counted(vlm) as work, FlopCounterMode(display=False) as counter:
        vlm.model.lm_head(hidden_states(vlm, batch))
    assert work.flops == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert (work.images, work.prompt_tokens, work.generated_tokens) == (6, batch.input_ids.numel(), 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_picture_is_encoded_once_for_all_that_is_asked(
    name: str, family_folders: dict[str, Path], benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MAX_NEW_TOKENS", 3)
    vlm = fresh(family_folders[name])
    pictured = [q for q in benchmark.split(5).questions if q.picture is not None]
    shown = list(dict.fromkeys(q.picture for q in pictured))[:3]
    some = [q for picture in shown for q in [q for q in pictured if q.picture == picture][:10]]
    with counted(vlm) as work:
        readings(vlm, some)
    assert work.images == 3 < len(some)
    with counted(vlm) as apart:
        for question in some:
            readings(vlm, [question])
    assert apart.images == len(some)
    assert apart.prompt_tokens - work.prompt_tokens > (len(some) - 6) * vlm.image_tokens
    assert apart.flops > 1.2 * work.flops


def test_nothing_is_counted_outside_of_the_block(tiny: VLM, benchmark: Benchmark) -> None:
    some = [q for q in benchmark.split(5).questions if q.options][:2]
    with counted(tiny) as work:
        pass
    readings(tiny, some)
    assert (work.images, work.tokens, work.flops) == (0, 0, 0)
    assert "get_image_features" not in vars(tiny.model.model)


def test_a_reply_counts_its_tokens_and_stops_when_it_ends(
    tiny: VLM, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first token costs nothing beyond the prompt; a reply that has ended takes no further turn."""
    monkeypatch.setattr(scoring, "MAX_NEW_TOKENS", 6)
    ended = iter([[11, 11, tiny.eos_id, 11], [tiny.eos_id, 12, 12], [13, 13], [14, 14], [15, 15], [16, 16]])
    monkeypatch.setattr(decoding, "_best", lambda vlm, hidden: torch.tensor(next(ended)))
    some = [q for q in benchmark.split(5).questions if q.task == "cloze" and q.picture is None][:4]
    with counted(tiny) as work:
        found = readings(tiny, some)
    assert work.generated_tokens == 3 + 2 * 4  # each turn takes those that go on, in the one row of four
    tokens = [len(tiny.tokenizer(str(r.reply), add_special_tokens=False).input_ids) for r in found.values()]
    assert tokens == [1, 6, 0, 6]
