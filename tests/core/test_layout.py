"""Where things lie in a study folder: one place each, below its root, and lists that find what was put there."""

import inspect
import os
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from study.core.hashing import content_key
from study.core.layout import ABANDONED, DISPOSABLE, StudyFolder, record_beside, rows_beside, search_name

NUMBERS = {"number": 3, "requests": 2}
"""Arguments that are no names."""


def places(folder: StudyFolder) -> dict[str, Path]:
    """Every single place, by what it is called."""
    found: dict[str, Path] = {}
    for name, member in inspect.getmembers(StudyFolder):
        if isinstance(member, property):
            found[name] = member.fget(folder)  # type: ignore[misc]
        elif inspect.isfunction(member) and member.__annotations__.get("return") == "Path":
            asked = list(inspect.signature(member).parameters)[1:]
            found[name] = member(folder, *(NUMBERS.get(one, one) for one in asked))
    return found


def put(*paths: Path) -> list[Path]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return list(paths)


def test_everything_of_a_study_has_one_place_below_its_root(tmp_path: Path) -> None:
    found = places(StudyFolder(tmp_path))
    assert len(found) > 20
    assert len(set(found.values())) == len(found)
    assert all(tmp_path in place.parents for place in found.values())
    assert {found["ray"].name, found["cache"].parent.name} == set(DISPOSABLE)


def test_a_place_does_not_move(tmp_path: Path) -> None:
    """A study that was begun is found again: these names are on users' disks."""
    folder = StudyFolder(Path("r"))
    failure = f"r/failures/{content_key(('stage', 'job'))}.json"  # a job's name may be anything
    assert {str(place) for place in places(folder).values()} == {
        "r/study.json", "r/.lock", "r/plan.json", "r/race.json", "r/winners.json", "r/near.json", "r/unknown.json",
        "r/base_check.json", "r/data", "r/data/base.json", "r/failures", failure, "r/files.json", "r/ray", "r/report",
        "r/report/report.html", "r/report/paper/paper.tex", "r/name", "r/cache/key",
        "r/cache/key/name.parquet", "r/learned/key",
        "r/learned/key/model", "r/learned/key/learned.json", "r/learned/key/curve.json", "r/learned/key/progress.json",
        "r/trials/key", "r/trials/key/trial.json", "r/trials/key/curve.json",
        "r/trials/key/delta.safetensors", "r/trials/key/delta.dropped.json",
        "r/trials/key/rows/name.parquet",
        "r/trials/key/attacks/attack.parquet", "r/trials/key/metric_check/state.parquet",
        "r/trials/key/sequence/2.parquet", "r/trials/key/general_utility.json", "r/exports/key",
        "r/search/method/0003.json", "r/attack_search/key/attack/0003.json", "r/evidence/name",
        "r/evidence/purged.json",
    }  # fmt: skip


@given(st.text(alphabet="abc:=,.0123456789é", min_size=1, max_size=600), st.text(min_size=1, max_size=3))
def test_the_search_of_a_method_has_a_folder_however_long_its_settings(method: str, more: str) -> None:
    """A folder of its own, whose name no file system refuses; a short one is the name itself."""
    assert len(search_name(method).encode()) < 255
    assert (search_name(method) == method) == (len(method.encode()) <= 200)
    assert search_name(method + more) != search_name(method)


def test_lists_find_what_lies_there_in_order(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    records = put(folder.record("a"), folder.record("b"))
    attacks = put(*(record_beside(folder.attack("a", name)) for name in ("x", "y")))
    sequences = put(*(record_beside(folder.sequence("a", count)) for count in (2, 10)))
    pool = put(*(record_beside(folder.meta_evaluation("a", state)) for state in ("plain", "quantized")))
    proposals = put(folder.proposal("npo", 0), folder.proposal("npo", 1), folder.proposal("vkd", 0))
    long = "vkd:" + "x" * 300
    [own] = put(folder.proposal(long, 0))
    assert folder.proposals(long) == [own]
    own.unlink()
    asked = put(
        folder.attack_proposal("a", "relearning", 0),
        folder.attack_proposal("a", "swap_back/relearning:steps=7", 0),
        folder.attack_proposal("b", "pruning", 0),
    )
    put(*map(rows_beside, [*attacks, *sequences, *pool]))
    assert folder.trial_records() == records
    assert (folder.attacks("a"), folder.attacks("b")) == (attacks, [])
    assert folder.sequences("a") == sequences
    assert folder.meta_evaluations() == pool
    assert (folder.proposals(), folder.proposals("npo")) == (proposals, proposals[:2])
    assert folder.attack_proposals() == asked


def test_drafts_of_other_commands_are_left_over_when_they_are_old(tmp_path: Path) -> None:
    """An export that is killed leaves a draft as large as the model; one that writes is left alone."""
    old = time.time() - 2 * ABANDONED
    drafts = {name: tmp_path / "exports" / f".{name}.draft" for name in ("left", "growing")}
    weights = put(*(draft / "model.safetensors" for draft in drafts.values()))
    (table,) = put(tmp_path / "report" / "tables" / ".winners.csv.x.draft")
    put(tmp_path / "report" / ".new.html.x.draft", tmp_path / "exports" / "whole" / "model.safetensors")
    for path in (*drafts.values(), weights[0], table, tmp_path / "exports" / "whole"):
        os.utime(path, (old, old))
    assert sorted(StudyFolder(tmp_path).drafts()) == sorted([drafts["left"], table])
