"""Both sides of the comparison of training steps do the same work: no time is asserted."""

from dataclasses import replace

import pytest
import torch

from study.data.benchmark import Benchmark
from study.model.vlm import VLM
from tests.cost import step
from tests.cost.step import SHAPE, authors, ours, prepared, taught
from tests.helpers.small import changed, snapshot, twin

PLAIN = replace(SHAPE, steps=3, lora_rank=2, learning_rate=1e-2, lora_dropout=0.0, clip=1e9, decay="constant")
"""Without dropout, whose draws differ, and without clipping, which the authors do without."""


@pytest.mark.parametrize("lessons", [1, 3])
def test_both_sides_have_the_same_losses_and_end_with_the_same_weights(
    lessons: int, tiny: VLM, benchmark: Benchmark
) -> None:
    schedule, some = replace(PLAIN, lessons_per_picture=lessons), taught(benchmark)
    mine, theirs, ready = twin(tiny), twin(tiny), twin(tiny)
    curve = ours(some, schedule)(mine)
    assert len(set(curve)) == 3
    assert authors(some, schedule)(theirs) == pytest.approx(curve, rel=1e-5)
    assert prepared(tiny, some, schedule)(ready) == pytest.approx(curve, rel=1e-5)
    before, after = snapshot(tiny), snapshot(mine)
    assert changed(before, after) == {f"{name}.weight" for name in tiny.linear(("llm",))}
    for name, tensor in snapshot(theirs).items():
        torch.testing.assert_close(tensor, after[name], rtol=1e-3, atol=1e-4)


def test_the_authors_loop_trains_on_answers_and_nothing_else(tiny: VLM, benchmark: Benchmark) -> None:
    asked = step.drawn(taught(benchmark), PLAIN)[:4]
    labels = step.collated(tiny, asked)["labels"]
    for row, (_, _, answer) in zip(labels, asked, strict=True):
        assert tiny.tokenizer.decode(row[row != -100]).strip() == answer + tiny.tokenizer.eos_token


def test_a_ratio_is_the_median_over_the_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [{"ours": 1.0, "authors": 2.0}, {"ours": 3.0, "authors": 4.0}, {"ours": 9.0, "authors": 3.0}]
    printed: list[list[list[object]]] = []
    monkeypatch.setattr(step, "table", lambda _title, _columns, rows: printed.append(rows))
    step.print_costs(replace(SHAPE, steps=100), turns)
    assert printed == [[["ours", pytest.approx(30.0), 1.0], ["authors", pytest.approx(30.0), 0.75]]]
