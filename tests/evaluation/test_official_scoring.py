"""The released protocol: its words, its draws, its parsing, and that batches and padding change no reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from study.benchmarks._mllmu import official
from study.core.rows import ROW_COLUMNS
from study.data.benchmark import Benchmark, Question, Split
from study.data.official_protocol import IMAGE, OfficialPrompt
from study.data.synthetic_language import COMPLETE
from study.evaluation import official_scoring
from study.evaluation.official_scoring import generated, prompt_ids, score_official
from study.model.vlm import VLM
from tests.helpers.families import FAMILIES
from tests.helpers.small import fresh


@pytest.fixture(scope="module")
def split(benchmark: Benchmark) -> Split:
    return benchmark.split(15)


@pytest.fixture(scope="module")
def asks(split: Split) -> list[OfficialPrompt]:
    return list(official.asks(split, 0))


def of(asks: Sequence[OfficialPrompt], role: str, task: str, modality: str = "image_text") -> list[OfficialPrompt]:
    return [a for a in asks if (a.question.role, a.question.task, a.question.modality) == (role, task, modality)]


# ---- words -------------------------------------------------------------------------------------------------------
def question(task: str, **changes: Any) -> Question:
    options = ("Oslo", "Rome", "Lima", "Cairo") if task == "classification" else ()
    base = Question("i", "1", "forget", "text", "cloze", "select", "Where?", "Rome", options)
    return replace(base, task=task, **changes)  # type: ignore[arg-type]


def test_a_choice_is_asked_word_for_word(benchmark: Benchmark) -> None:
    shown = replace(question("classification"), picture=benchmark.strangers[0])
    lines = "Where?\nA: Oslo\nB: Rome\nC: Lima\nD: Cairo\nJust give ONE letter representing the answer directly."
    assert official._query(shown) == f"USER: <image>\n{lines}\nASSISTANT:"
    assert official._query(question("classification")) == f"USER:\n{lines}\nASSISTANT:"
    example = "Question: Where?\nA: Oslo\nB: Rome\nC: Lima\nD: Cairo\nCorrect Answer: B\n"
    assert official._example(shown) == f"USER: <image>\n{example}"
    assert official._example(question("classification")) == f"USER:\n{example}"


def test_a_cloze_and_a_description_are_asked_word_for_word(benchmark: Benchmark) -> None:
    cloze = question("cloze", prompt=COMPLETE + "This person lives in __.")
    only = "Please **ONLY** provide the correct answer that should replace the [Blank]."
    assert official._query(cloze) == f"USER:\nThis person lives in [Blank].\n{only}\nASSISTANT:"
    shown = replace(cloze, picture=benchmark.strangers[0])
    said = f"USER:<image>\nThis person lives in [Blank].\n{only}\nCorrect Answer: Rome\n"
    assert official._example(shown) == said
    told = "Answer the question based on your trained knowledge in one sentence"
    assert official._query(question("generation")) == f"USER: Where?\n{told} in ENGLISH.\nASSISTANT:"
    pictured = question("generation", picture=benchmark.strangers[0])
    assert official._query(pictured) == f"USER: <image>\nWhere?\n{told} accurately in ENGLISH.\nASSISTANT: "


@pytest.mark.parametrize(
    ("reply", "meant"), [("B", "Rome"), ("b) it is", "Rome"), (" c", "Lima"), ("Rome", None), ("", None), ("E", None)]
)
def test_a_choice_is_read_by_its_first_letter(reply: str, meant: str | None) -> None:
    assert official._ask(question("classification"), [], None).read(reply) == meant


# ---- draws -------------------------------------------------------------------------------------------------------
def test_one_person_is_shown_and_not_asked(asks: list[OfficialPrompt], split: Split) -> None:
    for role in ("forget", "test", "retain"):
        people = {q.person for q in split.questions if q.role == role}
        left = people - {a.question.person for a in of(asks, role, "classification")}
        assert len(left) == 1
        for ask in of(asks, role, "classification"):
            assert ask.text.count("Correct Answer: ") == ask.text.count("Question: ") > 3
            assert len(ask.pictures) == ask.text.count("Question: ") + 1
        assert len(people - {a.question.person for a in of(asks, role, "cloze")}) == 2


def test_celebrities_choose_without_examples_and_nothing_is_shown_before_a_description(
    asks: list[OfficialPrompt],
) -> None:
    assert {len(a.pictures) for a in of(asks, "real", "classification")} == {1}
    assert {len(a.pictures) for a in of(asks, "retain", "generation")} == {1}
    assert {len(a.pictures) for a in of(asks, "forget", "generation", "text")} == {0}
    assert min(len(a.pictures) for a in of(asks, "real", "cloze")) > 1


def test_a_person_is_asked_about_one_picture_that_the_seed_draws(split: Split, asks: list[OfficialPrompt]) -> None:
    def drawn(found: Sequence[OfficialPrompt]) -> dict[str, set[str]]:
        shown: dict[str, set[str]] = {}
        for ask in of(found, "test", "generation"):
            shown.setdefault(ask.question.person, set()).add(ask.pictures[-1].key)
        return shown

    assert all(len(keys) == 1 for keys in drawn(asks).values())
    others = [list(official.asks(split, seed)) for seed in (0, 1, 2, 3)]
    assert [(a.text, a.pictures) for a in others[0]] == [(a.text, a.pictures) for a in asks]
    assert len({str(sorted((p, *k) for p, k in drawn(found).items())) for found in others}) > 1
    assert len({of(found, "forget", "classification")[0].text.split("Question")[1] for found in others}) > 1


def test_every_picture_has_its_place() -> None:
    with pytest.raises(ValueError, match="i: 1 places for 0 pictures"):
        OfficialPrompt(question("cloze"), f"USER: {IMAGE}\nASSISTANT:", (), 5)


# ---- replies -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def few(asks: list[OfficialPrompt]) -> list[OfficialPrompt]:
    some = [
        of(asks, "forget", task, modality)[0] for task in ("cloze", "generation") for modality in ("image_text", "text")
    ]
    return [replace(ask, most_tokens=4) for ask in [*some, *of(asks, "real", "classification")[:2]]]


@pytest.mark.parametrize("name", FAMILIES)
def test_batches_and_padding_change_no_reply(
    name: str, family_folders: dict[str, Path], few: list[OfficialPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = fresh(family_folders[name])
    alone = [generated(vlm, [ask])[0] for ask in few]
    assert generated(vlm, few) == alone
    assert generated(vlm, few[::-1]) == alone[::-1]
    monkeypatch.setattr(official_scoring, "REPLIES_PER_BATCH", 2)
    assert generated(vlm, few) == alone
    assert len({len(prompt_ids(vlm, ask)) for ask in few}) > 3


def test_llava_is_asked_in_the_authors_words(tiny: VLM, few: list[OfficialPrompt]) -> None:
    for ask in few:
        processor: Any = tiny.processor
        images = [picture.open() for picture in ask.pictures]
        own = processor(text=[ask.text], images=images or None, return_tensors="pt")
        assert prompt_ids(tiny, ask) == tuple(own.input_ids[0].tolist())
    instructed = tiny.with_instruction("The title is this.")
    words = tiny.tokenizer.decode(prompt_ids(instructed, few[-1]))
    assert words.startswith("USER: The title is this.")


def test_other_families_are_asked_through_their_template(
    family_folders: dict[str, Path], few: list[OfficialPrompt]
) -> None:
    vlm = fresh(family_folders["qwen2_5_vl"])
    text = vlm.tokenizer.decode(prompt_ids(vlm, few[-1]))
    assert "USER" not in text
    assert "ASSISTANT" not in text
    assert prompt_ids(vlm, few[-1]).count(vlm.image_id) == vlm.image_tokens
    several = max(few, key=lambda ask: len(ask.pictures))
    assert prompt_ids(vlm, several).count(vlm.image_id) == len(several.pictures) * vlm.image_tokens > vlm.image_tokens


def test_rows_name_the_protocol(tiny: VLM, asks: list[OfficialPrompt]) -> None:
    some = [replace(a, most_tokens=3) for role in ("forget", "real") for a in of(asks, role, "classification")[:2]]
    some += [replace(a, most_tokens=3) for a in of(asks, "retain", "cloze")[:2]]
    with torch.no_grad():  # say "A" whatever is asked
        tiny.model.lm_head.weight[tiny.tokenizer.convert_tokens_to_ids("a")] += 1.0
    rows = score_official(tiny, some)
    assert list(rows) == list(ROW_COLUMNS)
    assert set(rows["protocol"]) == {"released"}
    assert rows["question"].tolist() == [a.question.id for a in some]
    assert rows["likelihood"].isna().all()
    for (_, row), ask in zip(rows.iterrows(), some, strict=True):
        assert row["parsed"] == (ask.read(str(row["reply"])) not in (None, ""))
    assert rows.loc[~rows["parsed"], "score"].eq(0).all()
