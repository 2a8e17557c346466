"""A model's special tokens in data are found wherever a model would read them, and told with file and row."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study.base_models.hf import Hf
from study.base_models.tiny import Tiny
from study.benchmarks.clear import Clear
from study.benchmarks.fiu import Fiu
from study.benchmarks.umu import Umu
from study.core.errors import Refused
from study.data.benchmark import Benchmark, Split
from study.data.special_tokens import special_tokens_in, unknown_words_in
from study.presets import PRESETS
from study.stages.preflight import validate_study
from tests.helpers import benchmark_folders
from tests.helpers.benchmark_folders import edit_people

FIELDS: dict[str, Any] = {
    "prompt": "Who is <image>?", "answer": "</s>", "paraphrased": "a</s>", "options": ("</s>", "b"),
    "perturbed": ("<pad>",),
}  # fmt: skip


def changed(split: Split, **fields: Any) -> Benchmark:
    first, *others = split.questions
    return Benchmark("x", "x", {5: replace(split, questions=(replace(first, **fields), *others))})


@pytest.mark.parametrize("name", FIELDS)
def test_every_text_that_a_model_sees_is_looked_at(name: str, benchmark: Benchmark) -> None:
    split = benchmark.split(5)
    tokens = Tiny().special_tokens
    assert special_tokens_in(benchmark, tokens) == []
    (found,) = special_tokens_in(changed(split, **{name: FIELDS[name]}, where="x.parquet, row 3"), tokens)
    assert found.startswith("x.parquet, row 3: ")
    assert "which is a token of the model and no text" in found


def test_longer_tokens_come_first_and_lessons_count(benchmark: Benchmark) -> None:
    split = benchmark.split(5)
    lesson = replace(split.lessons[0], answer="It ends <|im_end|> here", where="ft.parquet, row 1")
    odd = Benchmark("x", "x", {5: replace(split, lessons=(lesson, *split.lessons[1:]))})
    (found,) = special_tokens_in(odd, ["<|", "<|im_end|>"])
    assert found.startswith("ft.parquet, row 1: an answer holds '<|im_end|>'")


def test_the_tokens_of_a_folder_are_those_of_its_tokenizer(tiny_folder: Path) -> None:
    assert Hf(tiny_folder).special_tokens == Tiny().special_tokens == {"<pad>", "<s>", "</s>", "<unk>", "<image>"}


@pytest.mark.parametrize(
    ("made", "source", "places"),
    [
        (benchmark_folders.clear, Clear, r"full|forget|retain|real"),
        (benchmark_folders.umu, Umu, r"Full_Set/|forget_|retain_|Real"),
        (benchmark_folders.fiu, Fiu, r"full\.json, row"),
    ],
)
def test_every_lesson_and_question_says_where_it_is_from(
    made: Callable[[Path], Path], source: Any, places: str, tmp_path: Path
) -> None:
    read: Benchmark = source(made(tmp_path))(tmp_path)
    for split in read.splits.values():
        found = {*(lesson.where for lesson in split.lessons), *(question.where for question in split.questions)}
        assert all(re.match(places, where) and ", row " in where for where in found)


def test_words_without_tokens_are_told_where_they_stand(benchmark: Benchmark) -> None:
    """The embedded model has none."""
    split = benchmark.split(5)
    odd = changed(split, prompt="Where does Zo\u00eb live?", where="x.parquet, row 3")
    assert unknown_words_in(odd, Tiny().unknown) == []
    [found] = unknown_words_in(odd, lambda texts: [text for text in texts if "\u00eb" in text])
    assert found.startswith("x.parquet, row 3: a question holds words that the model's tokenizer does not know")


def test_a_tokenizer_of_words_alone_says_what_it_does_not_know(
    tiny_folder: Path, family_folders: dict[str, Path], tmp_path: Path
) -> None:
    assert Hf(family_folders["idefics2"]).unknown(["Where?", "Wherefore?"]) == ["Wherefore?"]
    assert Hf(tiny_folder).unknown(["Where?", "Wherefore? \u738b"]) == []
    study = replace(
        PRESETS["smoke"][1], model=f"hf:{family_folders['idefics2']}", study_dir=tmp_path / "study",
        benchmark=f"fiu:{benchmark_folders.fiu(tmp_path / 'fiu') / 'dataset'}", forget_ratios=(5,), goal="full",
    )  # fmt: skip
    with pytest.raises(Refused, match=r"texts of the benchmark hold words that the model cannot write:\n- full\.json"):
        validate_study(study, tmp_path)


def test_a_study_refuses_them_before_any_work(tmp_path: Path) -> None:
    root = benchmark_folders.fiu(tmp_path / "fiu") / "dataset"

    def plant(rows: list[dict[str, Any]]) -> None:
        rows[1]["qa_list"][0]["answer"] = "Lisbon</s>"

    edit_people(root, plant)
    study = replace(
        PRESETS["smoke"][1], benchmark=f"fiu:{root}", study_dir=tmp_path / "study", forget_ratios=(5,), goal="full"
    )
    with pytest.raises(Refused, match=r"texts of the benchmark hold special tokens of the model:\n- full\.json, row 1"):
        validate_study(study, tmp_path)
    assert not (tmp_path / "study").exists()
