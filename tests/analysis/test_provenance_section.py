"""A study that was computed by several setups says so, with counts; older records do not say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.sections.provenance import origins, parts
from analysis.study_folder import read
from analysis.tables import Table
from study.core.provenance import Origin
from study.core.records import LearnedRecord, TrialRecord, read_record, write_record
from tests.helpers.planted import plant

ONE = Origin("a" * 40, {"python": "3.11.9", "torch": "2.13.0"}, "Abacus", "", "float32", 1)
OTHER = replace(ONE, gpu="H200", versions={"python": "3.11.9", "torch": "2.14.0"})


def with_origins(root: Path, found: list[Origin | None]) -> None:
    """Give the first trials these origins."""
    for path, origin in zip(read(root).folder.trial_records(), found, strict=False):
        write_record(path, replace(read_record(TrialRecord, path), origin=origin))


@pytest.mark.slow
def test_a_study_by_several_setups_says_so_with_counts(tmp_path: Path) -> None:
    root = plant(tmp_path)
    with_origins(root, [ONE, ONE, OTHER])
    study = read(root)
    table = origins(study).set_index(["revision", "gpu"])["trials"]
    assert table["a" * 40].to_dict() == {"": 2, "H200": 1}
    assert table["not recorded"].sum() == len(study.trials) - 3
    sentence, shown = parts(study)
    assert isinstance(sentence, str)
    assert "computed by 2 different setups" in sentence
    assert isinstance(shown, Table)
    line = shown.shown[shown.shown["gpu"] == "H200"].iloc[0]
    assert (line["revision"], line["versions"], line["trials"]) == ("a" * 12, "python 3.11.9, torch 2.14.0", "1")


@pytest.mark.slow
def test_a_study_by_one_setup_has_its_table_alone(tmp_path: Path) -> None:
    root = plant(tmp_path)
    with_origins(root, [ONE] * 10**6)
    [table] = parts(read(root))
    assert isinstance(table, Table)
    assert table.shown["revision"].tolist()[0] == "a" * 12


@pytest.mark.slow
def test_models_that_were_brought_were_not_computed(tmp_path: Path) -> None:
    root = plant(tmp_path)
    folder = read(root).folder
    own = LearnedRecord("own", "vanilla", "b", "d", None, None, {}, ("llm",), 0, {}, 5.0)
    for record in (own, replace(own, key="brought", parts=(), seconds=0.0)):
        folder.learned(record.key).mkdir(parents=True)
        write_record(folder.learned_record(record.key), record)
    assert origins(read(root))["learned models"].sum() == 1


@pytest.mark.slow
def test_records_of_earlier_versions_say_nothing(tmp_path: Path) -> None:
    assert list(parts(read(plant(tmp_path)))) == []
