"""What scoring saves, in counted work: no time is asserted."""

from dataclasses import replace
from pathlib import Path

import pytest

from study.base_models.tiny import Tiny
from study.benchmarks.synthetic import Synthetic
from study.core.files import write_json
from study.model.loading import load
from tests.cost.scoring import _vanilla, compared


def test_choices_take_a_fifteenth_of_the_tokens_and_have_the_answers_of_asking_one_by_one(
    tmp_path: Path,
) -> None:
    vlm = load(Tiny(steps=0)(tmp_path))
    source = Synthetic(people=20, celebrities=8, views=2, strangers=8)
    split = source(tmp_path).split(15)
    some = [
        replace(ask, most_tokens=1)  # a model that was taught replies with one word; this one would go on
        for ask in source.released(split, tmp_path, 0)
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


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_vanilla_of_the_study_is_measured_and_none_of_further_seeds(seed: int, tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", {"settings": {"seed": seed}})
    with pytest.raises(SystemExit, match="no vanilla model has been taught"):
        _vanilla(tmp_path)
    for kind in ("reference", "vanilla"):
        for other in (3, 4, 5):
            write_json(tmp_path / "learned" / f"{kind} {other}" / "learned.json", {"kind": kind, "seed": other})
    assert _vanilla(tmp_path) == f"vanilla {seed}"
