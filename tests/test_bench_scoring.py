"""What scoring saves, in counted work: no time is asserted."""

from dataclasses import replace
from pathlib import Path

from bench.scoring import compared
from study.benchmarks._mllmu_released import asks
from study.models.tiny import Tiny
from study.questions import Benchmark
from study.vlm import load


def test_choices_take_a_fifteenth_of_the_tokens_and_have_the_answers_of_asking_one_by_one(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    vlm = load(Tiny(steps=0)(tmp_path))
    some = [
        replace(ask, most_tokens=1)  # a model that was taught replies with one word; this one would go on
        for ask in asks(benchmark.split(15), 0)
        if ask.question.options and ask.question.role in ("forget", "test")
    ]
    done = compared(vlm, some)
    assert done["plain"].said == done["ours"].said
    assert done["ours"].said.keys() == done["released"].said.keys()
    assert done["released"].work.tokens >= 15 * done["ours"].work.tokens
    assert done["released"].work.flops >= 15 * done["ours"].work.flops
    assert done["plain"].work.tokens >= 3 * done["ours"].work.tokens
    pictures = {ask.question.picture for ask in some} - {None}
    assert done["ours"].work.images == len(pictures)
