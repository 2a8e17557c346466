"""Records: what is written is read as it was, whoever reads it; files of studies from before are records still."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from study.core.errors import Damaged
from study.core.files import write_json
from study.core.layout import StudyFolder, record_beside
from study.core.records import (
    AttackProposal,
    AttackRecord,
    BaseCheckRecord,
    KnownRecord,
    LearnedRecord,
    MetaEvaluationRecord,
    MethodProposal,
    RaceRecord,
    RaceRun,
    SequenceRecord,
    Start,
    TrialRecord,
    read_known,
    read_near,
    read_races,
    read_record,
    read_winners,
    state_of_attack,
    to_json,
    write_record,
)

SCHEDULE = {"type": "Schedule", "steps": 4, "learning_rate": 0.001, "optimizer": "adamw"}
TRIAL: dict[str, Any] = {
    "chunks": 1,
    "cost": {"flops": 557351424.0, "generated_tokens": 0, "images": 34, "score_seconds": 0.09},
    "goal": "visual",
    "hyperparameters": {"modality": "all", "schedule": SCHEDULE, "trains": ["vision", "llm"], "type": "GradientAscent"},
    "instruction": "",
    "key": "012db3925ff9",
    "method": "gradient_ascent",
    "processes": 1,
    "ratio": 15,
    "reason": "",
    "seed": 1,
    "start": {"key": "b347111a4382", "kind": "vanilla"},
    "state": "complete",
}
LEARNED: dict[str, Any] = {
    "attention": "sdpa", "base": "20fc481ccaf0", "benchmark": "a6b53eadf669", "chunks": 1, "dtype": "float32",
    "goal": None, "key": "b347111a4382", "kind": "vanilla", "parts": ["projector", "llm"], "processes": 1,
    "quantized": "", "ratio": None, "schedule": SCHEDULE, "seconds": 0.95, "seed": 0,
    "sha256": {"model.safetensors": "bd34"}, "type": "Learned",
}  # fmt: skip
RACE: dict[str, Any] = {
    "best": "a0", "method": "npo", "racing": ["a0"], "ratio": 10,
    "runs": [{"distances": [0.1, 0.2], "trial": "a0"}, {"distances": [0.1, float("inf")], "trial": "b1"}],
}  # fmt: skip
RUNS = (RaceRun("a0", (0.1, 0.2)), RaceRun("b1", (0.1, float("inf"))))
KNOWN: dict[str, Any] = {"dropped": ["q1", "q7"], "of_people": 6, "of_questions": 80, "people": 5, "questions": 61,
                         "tellable": 0.3}  # fmt: skip
OLD: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "trial": (TrialRecord, TRIAL),
    "vanilla": (LearnedRecord, LEARNED),
    "reference": (LearnedRecord, {**LEARNED, "kind": "reference", "goal": "full", "ratio": 10}),
    "a default": (MethodProposal, {"default": True, "number": 1, "params": {"steps": 2}, "ratio": 15, "trial": "47b6"}),
    "a winner of before": (
        MethodProposal,
        {"default": False, "number": 1, "params": {}, "ratio": 15, "trial": "47b6", "warm": True},
    ),
    "without a mark": (MethodProposal, {"number": 0, "params": {}, "ratio": 15, "trial": "47b6"}),
    "attack proposal": (AttackProposal, {"number": 0, "params": {"people": 0.5}, "trial": "aa", "attack": "bb"}),
    "attack": (
        AttackRecord,
        {"attack": "relearning", "settings": {"type": "Relearning"}, "diverged": "", "seconds": 0.27, "chunks": 2},
    ),
    "counted attack": (
        AttackRecord,
        {"attack": "relearning", "settings": {}, "diverged": "", "seconds": 0.27, "chunks": 2, "changes": ["llm"],
         "flops": 2.5e12, "score_flops": 1e12},
    ),
    "failed attack": (AttackRecord, {"attack": "probe", "settings": {}, "failed": "too few pictures"}),
    "sequence": (SequenceRecord, {"people": [["a", "b"], ["c"]], "diverged": "", "seconds": 1.5, "chunks": 1}),
    "pool": (
        MetaEvaluationRecord,
        {"attack": "", "failed": "", "knows": True, "ratio": 10, "seconds": 0.58, "seed": 0, "settings": None,
         "state": "plain"},
    ),
    "judged pool": (
        MetaEvaluationRecord,
        {"attack": "quantization", "failed": "", "knows": False, "ratio": 10, "seconds": 1, "seed": 1,
         "settings": {"type": "Quantization"}, "state": "quantized", "short": ""},
    ),
    "base check": (
        BaseCheckRecord, {"checks": {"batch": ["ok", ""], "answer": ["failed", "is empty"]}, "subject": "f5a1"}
    ),
    "race": (RaceRecord, RACE),
    "race that does not say who was left": (RaceRecord, {k: v for k, v in RACE.items() if k != "racing"}),
    "known": (KnownRecord, KNOWN),
    "of which nothing can be told": (KnownRecord, {**KNOWN, "tellable": None}),
}  # fmt: skip
"""Files of studies that were made before there were records, as they lie on users' disks."""


@pytest.mark.parametrize("name", OLD)
def test_a_file_of_an_older_study_is_read_and_written_again_to_the_letter(name: str, tmp_path: Path) -> None:
    kind, content = OLD[name]
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    write_json(old, content)
    record = read_record(kind, old)
    write_record(new, record)
    assert new.read_bytes() == old.read_bytes()
    assert read_record(kind, new) == record


def test_a_record_has_typed_values(tmp_path: Path) -> None:
    write_json(tmp_path / "trial.json", TRIAL)
    record = read_record(TrialRecord, tmp_path / "trial.json")
    assert record.start == Start("vanilla", "b347111a4382")
    assert (record.kind, record.label, record.cost["images"]) == ("method", "gradient_ascent", 34)
    write_json(tmp_path / "learned.json", LEARNED)
    assert read_record(LearnedRecord, tmp_path / "learned.json").parts == ("projector", "llm")


@pytest.mark.parametrize("kind", ["vanilla", "reference"])
def test_a_yardstick_is_called_by_the_model_that_it_is(kind: str, tmp_path: Path) -> None:
    write_json(tmp_path / "trial.json", {**TRIAL, "method": "none", "start": {"kind": kind, "key": "b"}})
    record = read_record(TrialRecord, tmp_path / "trial.json")
    assert (record.kind, record.label) == (kind, kind)


def test_what_the_place_of_a_file_says_is_not_written(tmp_path: Path) -> None:
    path = StudyFolder(tmp_path).proposal("npo", 0)
    content = {"number": 0, "params": {}, "ratio": 15, "trial": "47b6"}
    write_json(path, content)
    proposal = read_record(MethodProposal, path, method=path.parent.name)
    assert proposal.method == "npo"
    assert to_json(proposal) == content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({**TRIAL, "colour": "red"}, "has a field 'colour' that no TrialRecord has"),
        ({k: v for k, v in TRIAL.items() if k != "ratio"}, "lacks the field 'ratio' of a TrialRecord"),
        ({**TRIAL, "ratio": "15"}, "has ratio='15', which is no int"),
        ({**TRIAL, "seed": True}, "has seed=True, which is no int"),
        ({**TRIAL, "seed": 1.0}, "has seed=1.0, which is no int"),
        ({**TRIAL, "reason": None}, "has reason=None, which is no str"),
        ({**TRIAL, "state": "done"}, "has state='done', which is no 'complete' or 'diverged' or 'failed'"),
        ({**TRIAL, "state": ["complete"]}, "has state=['complete'], which is no 'complete'"),
        ({**TRIAL, "cost": {"images": "34"}}, "has cost={'images': '34'}, which is no"),
        ({**TRIAL, "cost": [1]}, "has cost=[1], which is no"),
        ({**TRIAL, "start": {"kind": "vanilla"}}, "lacks the field 'key' of a Start"),
        ({**TRIAL, "start": "vanilla"}, "holds no Start but 'vanilla'"),
        ([TRIAL], "holds no TrialRecord but [{"),
    ],
)
def test_what_is_no_record_is_damaged(content: Any, said: str, tmp_path: Path) -> None:
    """The error names the file, what is wrong in it, and the remedy."""
    path = tmp_path / "trial.json"
    path.write_text(json.dumps(content))
    with pytest.raises(Damaged) as caught:
        read_record(TrialRecord, path)
    assert str(caught.value).startswith(f"{path} {said}")
    assert "remove it and run the study again" in str(caught.value)


READERS: dict[str, tuple[Callable[[StudyFolder], Any], Any, Any]] = {
    "winners": (
        read_winners,
        {"npo": {"10": {"trials": ["a0", "b1"]}, "15": {"trials": []}}},
        {"npo": {10: ("a0", "b1"), 15: ()}},
    ),
    "near": (read_near, {"10": {"look": ["006"], "name": []}}, {10: {"look": ("006",), "name": ()}}),
    "unknown": (read_known, {"5": KNOWN}, {5: KnownRecord(("q1", "q7"), 61, 80, 5, 6, 0.3)}),
    "race": (read_races, {"npo 10": RACE}, [RaceRecord("npo", 10, RUNS, "a0", ("a0",))]),
}
"""Files that hold a record for each of some methods or ratios: who reads them, what they hold and what that means."""


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_many_records_is_read_by_method_and_ratio(name: str, tmp_path: Path) -> None:
    """Without the file there is nothing yet."""
    read, content, wanted = READERS[name]
    assert not read(StudyFolder(tmp_path))
    write_json(tmp_path / f"{name}.json", content)
    assert read(StudyFolder(tmp_path)) == wanted


def inner(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value: the container and the key or index."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for place, one in items:
        yield value, place
        yield from inner(one)


@pytest.mark.parametrize("name", READERS)
def test_a_wrong_value_at_any_depth_is_damaged(name: str, tmp_path: Path) -> None:
    """The error names the file and the remedy, whatever stands where something else should."""
    read, content, _ = READERS[name]
    path = tmp_path / f"{name}.json"
    for number in range(len(list(inner(content)))):
        changed = json.loads(json.dumps(content))
        [container, place] = list(inner(changed))[number]
        container[place] = {"": {}}
        write_json(path, changed)
        with pytest.raises(Damaged, match=rf"{re.escape(str(path))} .*remove it and run the study again"):
            read(StudyFolder(tmp_path))
    if name != "race":
        changed = json.loads(json.dumps(content))
        ratios = changed["npo"] if name == "winners" else changed
        ratios["ten"] = ratios.pop("10" if "10" in ratios else "5")
        write_json(path, changed)
        with pytest.raises(Damaged, match="not what a study writes there"):
            read(StudyFolder(tmp_path))


def test_what_became_of_an_attack(tmp_path: Path) -> None:
    """Rows are complete whatever lies beside them; a record alone is one that failed, or was killed before its rows."""
    rows = StudyFolder(tmp_path).attack("trial", "attack")
    assert state_of_attack(rows) == "unfinished"
    write_record(record_beside(rows), AttackRecord("probe", {}, diverged="", seconds=1.0, chunks=1))
    assert state_of_attack(rows) == "unfinished"
    write_record(record_beside(rows), AttackRecord("probe", {}, failed=""))
    assert state_of_attack(rows) == "failed"
    rows.touch()
    assert state_of_attack(rows) == "complete"
