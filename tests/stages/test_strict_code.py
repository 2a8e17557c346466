"""With --strict-code a study is continued by the code and the versions that began it, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from study.core.errors import Refused
from study.core.hashing import canonical
from study.core.layout import StudyFolder, record_beside
from study.core.provenance import Origin, code_of, versions
from study.core.records import AttackRecord, LearnedRecord, Start, TrialRecord, write_record
from study.methods.npo import NPO
from study.stages.strict_code import check_code

SETTINGS = canonical(NPO())
HERE = Origin("a" * 40, versions(), "Abacus", "", "float32", 1, code_of(SETTINGS))


def written(root: Path, origin: Origin | None, *, failure: bool = False) -> StudyFolder:
    """A study with a trial by `origin`, and a model and an attack by what is here."""
    folder = StudyFolder(root)
    taught = LearnedRecord("v", "vanilla", "b", "d", None, None, {}, ("llm",), 0, {}, 5.0)
    write_record(folder.learned_record("v"), replace(taught, origin=replace(HERE, code=code_of(None))))
    write_record(folder.learned_record("brought"), replace(taught, parts=()))
    trial = TrialRecord("t", "complete", "npo", 10, 0, "full", Start("vanilla", "v"), SETTINGS, origin=origin)
    write_record(folder.record("t"), replace(trial, failure="out of memory (device)") if failure else trial)
    attack = AttackRecord("nothing", {}, origin=replace(HERE, code=code_of({})))
    write_record(record_beside(folder.attack("t", "a")), attack)
    return folder


@pytest.mark.parametrize("machine", [HERE, replace(HERE, cpu="Slide rule", gpu="H200", threads=4)])
def test_the_same_code_and_versions_go_on_on_any_machine(machine: Origin, tmp_path: Path) -> None:
    check_code(written(tmp_path, machine))


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        (None, "1 x trial of npo: does not say by which code"),
        (replace(HERE, code=""), "1 x trial of npo: does not say by which code"),
        (replace(HERE, code="b" * 64), f"1 x trial of npo: code {'b' * 12} of"),
        (replace(HERE, versions={**versions(), "torch": "1.0"}), f"torch 1.0, here {versions()['torch']}"),
        (replace(HERE, versions={**versions(), "abacus": "2"}), "abacus 2, here not there"),
    ],
)  # fmt: skip
def test_what_other_code_or_versions_computed_is_refused_with_counts(
    origin: Origin | None, told: str, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=r"leave --strict-code out, or choose another --study-dir$") as refused:
        check_code(written(tmp_path, origin))
    assert told in str(refused.value)
    assert len(str(refused.value).splitlines()) == 3


def test_what_a_device_was_too_small_for_was_computed_by_no_code(tmp_path: Path) -> None:
    check_code(written(tmp_path, None, failure=True))
