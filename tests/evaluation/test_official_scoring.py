"""The released protocol: its words, its draws, its parsing, and that batches and padding change no reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from study.benchmarks._mllmu import official
from study.benchmarks.synthetic import Synthetic
from study.core.rows import ROW_COLUMNS
from study.data.benchmark import Question, Split
from study.data.official_protocol import IMAGE, OfficialPrompt
from study.data.picture import Picture
from study.evaluation import official_scoring
from study.evaluation.official_likelihoods import user_turn
from study.evaluation.official_scoring import generated, prompt_ids, score_official
from study.model.vlm import VLM
from tests.helpers.families import FAMILIES
from tests.helpers.released_llava import llama_tokenizer
from tests.helpers.small import fresh

SOURCE = Synthetic(people=20, celebrities=8, views=2, strangers=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("synthetic")


@pytest.fixture(scope="module")
def split(folder: Path) -> Split:
    return SOURCE(folder).split(15)


@pytest.fixture(scope="module")
def asks(split: Split, folder: Path) -> list[OfficialPrompt]:
    return list(SOURCE.released(split, folder, 0))


def of(asks: Sequence[OfficialPrompt], role: str, task: str, modality: str = "image_text") -> list[OfficialPrompt]:
    return [a for a in asks if (a.question.role, a.question.task, a.question.modality) == (role, task, modality)]


# ---- words -------------------------------------------------------------------------------------------------------
OPTIONS = {"A": "Oslo", "B": "Rome", "C": "Lima", "D": "Cairo"}
CHOICE = {"Question": "Where?", "Options": OPTIONS, "Correct_Answer": "B"}


def picture() -> Picture:
    return Picture(b"never opened", "nowhere")


def question(task: str, **changes: Any) -> Question:
    options = tuple(OPTIONS.values()) if task == "classification" else ()
    base = Question("i", "1", "forget", "text", "cloze", "select", "Where?", "Rome", options)
    return replace(base, task=task, **changes)  # type: ignore[arg-type]


def test_a_choice_is_asked_word_for_word() -> None:
    lines = "Where?\nA: Oslo\nB: Rome\nC: Lima\nD: Cairo\nJust give ONE letter representing the answer directly."
    assert official._query("classification", "image_text", CHOICE) == f"USER: <image>\n{lines}\nASSISTANT:"
    assert official._query("classification", "text", CHOICE) == f"USER:\n{lines}\nASSISTANT:"
    example = "Question: Where?\nA: Oslo\nB: Rome\nC: Lima\nD: Cairo\nCorrect Answer: B\n"
    assert official._example("classification", "image_text", CHOICE) == f"USER: <image>\n{example}"
    assert official._example("classification", "text", CHOICE) == f"USER:\n{example}"


def test_a_cloze_and_a_description_are_asked_word_for_word() -> None:
    cloze = {"Question": "This person lives in __.", "Ground_Truth": "Rome"}
    only = "Please **ONLY** provide the correct answer that should replace the [Blank]."
    assert official._query("cloze", "text", cloze) == f"USER:\nThis person lives in [Blank].\n{only}\nASSISTANT:"
    said = f"USER:<image>\nThis person lives in [Blank].\n{only}\nCorrect Answer: Rome\n"
    assert official._example("cloze", "image_text", cloze) == said
    told, asked = "Answer the question based on your trained knowledge in one sentence", {"Question": "Where?"}
    assert official._query("generation", "text", asked) == f"USER: Where?\n{told} in ENGLISH.\nASSISTANT:"
    pictured = official._query("generation", "image_text", asked)
    assert pictured == f"USER: <image>\nWhere?\n{told} accurately in ENGLISH.\nASSISTANT: "


@pytest.mark.parametrize(
    ("reply", "meant"),
    [("B", "B"), ("b) it is", "B"), (" c", "C"), ("Rome", None), ("", None), ("E", None), ("ASSISTANT: B", None)],
)
def test_a_choice_is_read_by_its_first_letter(reply: str, meant: str | None) -> None:
    ask = official._prompt(question("classification"), "USER:\nASSISTANT:", (), CHOICE)
    assert (ask.read(reply), ask.right, ask.question.answer) == (meant, "B", "Rome")


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
    assert {len(a.pictures) for a in of(asks, "real", "cloze")} == {1}  # nobody in Full_Set has their IDs
    assert min(len(a.pictures) for a in of(asks, "retain", "cloze")) > 1


def test_a_person_is_asked_about_one_picture_that_the_seed_draws(
    split: Split, folder: Path, asks: list[OfficialPrompt]
) -> None:
    def drawn(found: Sequence[OfficialPrompt]) -> dict[str, set[str]]:
        shown: dict[str, set[str]] = {}
        for ask in of(found, "test", "generation"):
            shown.setdefault(ask.question.person, set()).add(ask.pictures[-1].key)
        return shown

    assert all(len(keys) == 1 for keys in drawn(asks).values())
    others = [list(SOURCE.released(split, folder, seed)) for seed in (0, 1, 2, 3)]
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
        ask
        for task, modality, count in (("cloze", "image_text", 3), ("cloze", "text", 2), ("generation", "image_text", 1),
                                      ("generation", "text", 1))
        for ask in of(asks, "forget", task, modality)[:count]
    ]  # fmt: skip
    return [replace(ask, most_tokens=4) for ask in [*some, *of(asks, "real", "classification")[:2]]]


@pytest.mark.parametrize("name", FAMILIES)
def test_batches_and_shared_examples_change_no_reply(
    name: str, family_folders: dict[str, Path], few: list[OfficialPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = fresh(family_folders[name])
    alone = [generated(vlm, [ask], shared=False)[0] for ask in few]
    assert generated(vlm, few) == alone
    assert generated(vlm, few, shared=False) == alone
    assert generated(vlm, few[::-1]) == alone[::-1]
    monkeypatch.setattr(official_scoring, "REPLIES_PER_BATCH", 2)
    assert generated(vlm, few) == alone
    assert len({len(ids) for ids in prompt_ids(vlm, few)}) > 3


def test_llava_is_asked_in_the_authors_words(tiny: VLM, few: list[OfficialPrompt]) -> None:
    for ask in few:
        processor: Any = tiny.processor
        images = [picture.open() for picture in ask.pictures]
        own = processor(text=[ask.text], images=images or None, return_tensors="pt")
        assert prompt_ids(tiny, [ask]) == [tuple(own.input_ids[0].tolist())]
    instructed = tiny.with_instruction("The title is this.")
    words = tiny.tokenizer.decode(prompt_ids(instructed, few)[-1])
    assert words.startswith("USER: The title is this.")


def test_a_prompt_that_is_tokenized_twice_begins_twice(folder: Path) -> None:
    """As FIUBench does: what it generates from is the text of its tokens, up to the answer, as tokens."""
    tokenizer = llama_tokenizer(["What is the income of this person? A chat between USER: ASSISTANT: Two."])
    model = SimpleNamespace(config=SimpleNamespace(model_type="llava"))
    vlm: Any = SimpleNamespace(
        tokenizer=tokenizer, model=model, instruction="", image_tokens=1,
        image_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    text = "A chat between USER: <image>\nWhat is the income? ASSISTANT: "
    ask = OfficialPrompt(question("generation"), text, (picture(),), 5, tokenized_twice=True)
    told = tokenizer.batch_decode(tokenizer([f"{text}Two."]).input_ids)[0].split(" ASSISTANT: ")[0].strip(" ")
    (ids,) = prompt_ids(vlm, [ask])
    assert ids == tuple(tokenizer([f"{told} ASSISTANT: "], add_special_tokens=True).input_ids[0])
    assert ids[:2] == (tokenizer.bos_token_id,) * 2 != prompt_ids(vlm, [replace(ask, tokenized_twice=False)])[0][:2]


def test_other_families_are_asked_through_their_template(
    family_folders: dict[str, Path], few: list[OfficialPrompt]
) -> None:
    vlm = fresh(family_folders["qwen2_5_vl"])
    (ids,) = prompt_ids(vlm, few[-1:])
    text = vlm.tokenizer.decode(ids)
    assert "USER" not in text
    assert "ASSISTANT" not in text
    assert ids.count(vlm.image_id) == vlm.image_tokens
    several = max(few, key=lambda ask: len(ask.pictures))
    (longer,) = prompt_ids(vlm, [several])
    assert longer.count(vlm.image_id) == len(several.pictures) * vlm.image_tokens > vlm.image_tokens


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


def test_a_prefix_model_is_asked_as_its_own_processor_asks(
    family_folders: dict[str, Path], asks: list[OfficialPrompt]
) -> None:
    """All tokens of a prompt see each other, with a picture and without; also in a padded batch."""
    vlm = fresh(family_folders["paligemma"])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # as initialized, it says one word and repeats it
        for name, weight in vlm.trainable(("llm",)).items():
            weight.add_((0.3 if "embed" in name else 1.0) * torch.randn(weight.shape, generator=generator))
    some = [*of(asks, "real", "classification")[:4], *of(asks, "forget", "generation", "text")[:4]]
    few = [replace(ask, most_tokens=6) for ask in some]
    processor: Any = vlm.processor
    for ask, found in zip(few, generated(vlm, few), strict=True):
        text = vlm.chat([user_turn(vlm, ask)])
        images = [[vlm.prepared(picture.open()) for picture in ask.pictures]] if ask.pictures else None
        made = processor(text=[text], images=images, return_tensors="pt")
        out = vlm.model.generate(  # type: ignore[operator]
            **made, max_new_tokens=6, do_sample=False, pad_token_id=vlm.tokenizer.pad_token_id
        )
        said = vlm.tokenizer.decode(out[0, made["input_ids"].shape[1] :], skip_special_tokens=True)
        assert found == said.strip()
    assert len(set(generated(vlm, few))) > 2
