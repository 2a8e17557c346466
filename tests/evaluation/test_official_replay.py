"""What eval.py of MLLMU-Bench (revision 0e3098e) did on a small folder, recorded, beside ours: no difference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study.benchmarks.mllmu import Mllmu
from study.data.official_protocol import OfficialPrompt
from study.evaluation import official_scoring
from study.evaluation.official_scoring import score_official
from tests.helpers.mllmu_folder import RATIO, mllmu
from tests.helpers.replays import drawn, prompts_of

SEED = 4
"""Given to `random.seed` before eval.py ran, and to ours. Of the celebrities two have IDs that are in Full_Set: one of
them was drawn for clozes and none for choices, where eval.py hands over pictures without a place."""
RECORDED = Path(__file__).with_name("mllmu_replay.json")
REPLIES = (
    " B", "a) Lima", "d.", "Zürich", "", "It is 東京 ASSISTANT: Cairo", "E", " c", "Rome, Oslo or Cairo",
    "lima, zurich", "the city of  Oslo, Lima , 東京 or  zürich", "Cairo", "Rome and Oslo", "B", "C", "D", "a",
)  # fmt: skip
"""What a model was made to say, in place of a real one."""
METRICS = {
    "cloze": ("score",), "classification": ("score",), "generation": ("rouge_1", "rouge_2", "rouge_l", "bleu"),
}  # fmt: skip

BYTES = pa.list_(pa.binary())


def canned(text: str) -> str:
    """A reply that depends on the prompt alone."""
    return drawn(text, REPLIES)


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> list[OfficialPrompt]:
    return of(mllmu(tmp_path_factory.mktemp("mllmu") / "data"))


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def of(root: Path) -> list[OfficialPrompt]:
    source = Mllmu(root)
    return list(source.released(source(Path()).split(RATIO), Path(), SEED))


def changed(root: Path, folder: str, change: Callable[[dict[str, Any]], Any], **columns: pa.DataType) -> None:
    """Change every row of a folder in place, and the type of columns."""
    (file,) = (root / folder).iterdir()
    rows, schema = pq.read_table(file).to_pylist(), pq.read_schema(file)
    for row in rows:
        change(row)
    fields = [field.with_type(columns.get(field.name, field.type)) for field in schema]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), file)


def test_every_prompt_is_one_of_theirs_and_all_of_theirs_are_asked(
    asks: list[OfficialPrompt], recorded: dict[str, Any]
) -> None:
    assert prompts_of(asks) == {key: its["prompts"] for key, its in recorded.items()}


def test_the_same_replies_have_their_scores(
    asks: list[OfficialPrompt], recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(official_scoring, "generated", lambda _, asked: [canned(ask.text).strip() for ask in asked])
    rows = score_official(None, asks)  # type: ignore[arg-type]  # no model is asked
    for key, its in recorded.items():
        role, task = key.split()
        kinds = [rows[(rows.role == role) & (rows.task == task) & (rows.modality == m)] for m in ("image_text", "text")]
        percent = 1 if task == "generation" else 100
        ours = [percent * kind[name].astype(float).mean() for kind in kinds for name in METRICS[task]]
        assert ours == pytest.approx(its["results"], abs=1e-12), key


# ---- what reading passes over ------------------------------------------------------------------------------------
def test_pictures_may_be_bytes_alone(asks: list[OfficialPrompt], tmp_path: Path) -> None:
    root = mllmu(tmp_path / "data")
    for folder in ("Full_Set", f"forget_{RATIO}"):
        changed(root, folder, lambda row: row.update(image=row["image"]["bytes"]), image=pa.binary())
    changed(root, "Test_Set", lambda row: row.update(images=[i["bytes"] for i in row["images"]]), images=BYTES)
    assert of(root) == asks


def test_a_picture_that_does_not_open_is_not_drawn(tmp_path: Path) -> None:
    root = mllmu(tmp_path / "data")
    changed(root, "Test_Set", lambda row: row["images"].extend([{"bytes": b"none"}, {"bytes": None}] * 20))
    shown = [picture for ask in of(root) if ask.question.role == "test" for picture in ask.pictures]
    assert shown
    for picture in shown:
        picture.check()


def test_questions_without_truth_are_neither_asked_nor_shown(
    asks: list[OfficialPrompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgotten(row: dict[str, Any]) -> None:
        for column in ("Mask_Task", "Generation_Task"):
            row[column][0]["Ground_Truth"] = row[column][1]["Question"] = None

    root = mllmu(tmp_path / "data")
    for folder in ("Full_Set", f"forget_{RATIO}"):
        changed(root, folder, forgotten)
    monkeypatch.setattr(official_scoring, "generated", lambda _, asked: [canned(ask.text).strip() for ask in asked])
    found = of(root)
    assert len(score_official(None, found)) == len(found)  # type: ignore[arg-type]  # no model is asked
    mine, whole = ({a.question.id for a in some if a.question.role == "forget"} for some in (found, asks))
    assert mine == {id for id in whole if "/classification/" in id or not id.endswith("/0")}
    assert not any("None" in ask.text for ask in found)
