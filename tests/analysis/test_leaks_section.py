"""Sampled replies fact by fact and person by person, by hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from analysis import study_folder
from analysis.sections import _recovery, attacks, leaks
from analysis.tables import Table
from study.core.files import write_json
from study.core.layout import StudyFolder
from study.core.rows import read_rows, write_rows
from tests.helpers.planted import Model, Planter
from tests.helpers.rows import row

SAMPLER = "5a5a5a"
SETTINGS = {"type": "SampledExtraction", "ks": [1, 8], "draws": 64, "temperature": 1.0}
PEOPLE = [f"forget-{n}" for n in range(12)]
Leaks = Mapping[str, tuple[float, float, float]]
"""Of each person, what greedy replies, one and eight sampled ones tell with each question about the city."""


def sample(
    root: Path, key: str, told: Leaks, settings: Mapping[str, object] = SETTINGS, other: Sequence[float] = (1, 1, 1)
) -> None:
    """Two questions about each person's city, one about their job, which nobody tells; `other` is the other half."""
    lines = []
    for person, (n, step) in itertools.product(PEOPLE, enumerate((0, 1, 8))):
        for number, (answer, half) in enumerate([("Rome", "report"), ("Rome", "report"), ("baker", "report"),
                                                 ("Oslo", "select")]):  # fmt: skip
            value = {"Rome": told.get(person, (0.0, 0.0, 0.0))[n], "baker": 0.0, "Oslo": other[n]}[answer]
            lines.append(row(
                question=f"{person}-{number}", person=person, role="forget", modality="image_text", task="cloze",
                half=half, answer=answer, score=value, probability=value, step=step, held_out="person", reply="x",
            ))  # fmt: skip
    path = StudyFolder(root).attack(key, SAMPLER)
    write_json(path.with_suffix(".json"), {"attack": "sampled_extraction", "settings": settings, "changes": []})
    write_rows(path, pd.DataFrame(lines))


def planted(root: Path, winners: Sequence[Leaks], reference: Leaks) -> study_folder.StudyResults:
    """A study of one method whose winner has a trial for each of `winners`."""
    planter = Planter(root)
    planter.study(["m"], [10])
    _, control = planter.yardsticks(10)
    sample(root, control, reference)
    keys = [planter.trial("m", 10, Model(), report=True, seed=seed) for seed in range(len(winners))]
    for key, told in zip(keys, winners, strict=True):
        sample(root, key, told, other=(0, 0, 1))  # so that it is told at k = 8
    write_json(root / "winners.json", {"m": {"10": {"trials": keys}}})
    return study_folder.read(root)


FIRST: Leaks = {"forget-3": (1.0, 0.5, 1.0), "forget-4": (0.0, 0.1, 0.5)}
SECOND: Leaks = {"forget-3": (0.0, 0.5, 1.0)}


@pytest.fixture
def study(tmp_path: Path) -> study_folder.StudyResults:
    return planted(tmp_path, [FIRST, SECOND], dict.fromkeys(PEOPLE, (0.0, 0.0, 0.5)))


def test_a_fact_is_out_if_a_reply_to_any_of_its_questions_states_it(study: study_folder.StudyResults) -> None:
    found = leaks.facts(study)
    mine = found[(found["method"] == "m") & (found["fact"] == "Rome")]
    first = mine[mine["seed"] == 0].set_index(["person", "k"])["leak"]
    assert [first["forget-4", k] for k in (0, 1, 8)] == pytest.approx([0.0, 1 - 0.9**2, 0.75])
    assert first["forget-3", 1] == pytest.approx(0.75)
    assert set(mine["questions"]) == {2}
    assert set(found["fact"]) == {"Rome", "baker"}  # the validation half chooses, and is not told
    assert set(found.loc[found["method"] == "m", "key"]) == set(study.winners["m", 10])


def test_every_person_counts_the_same_beside_the_control(study: study_folder.StudyResults) -> None:
    table = leaks.leaks(leaks.facts(study))
    greedy, _, last = table[table["method"] == "m"].to_dict("records")
    assert [line["k"] for line in (greedy, last)] == [0, 8]
    assert greedy["leak"] == pytest.approx(0.5 / 12 / 2)  # of one of two facts about one of twelve, in one seed
    assert last["leak"] == pytest.approx((0.5 + 0.375 / 2) / 12)
    assert [line["control"] for line in (greedy, last)] == pytest.approx([0.0, 0.375])
    assert last["most_leaked"] == "forget-3 (0.50), forget-4 (0.19)"
    assert (last["people"], last["facts"], last["seeds"]) == (12, 24, 2)
    assert last["leak_low"] < last["leak"] < last["leak_high"]


def test_the_table_shows_each_k_beside_the_control(study: study_folder.StudyResults) -> None:
    summary, people = (part for part in leaks.parts(study) if isinstance(part, Table))
    shown = {line["model"]: line for line in summary.shown.to_dict("records")}
    assert shown["m"]["leak@8"].endswith(" / 0.38")
    assert "/" not in shown["reference"]["leak@8"]
    assert list(summary.shown)[3:6] == ["greedy", "leak@1", "leak@8"]
    lines = people.shown.to_dict("records")
    [known] = [line for line in lines if (line["model"], line["person"]) == ("m", "forget-3")]
    assert known["leak@8"] == "0.50"
    assert set(people.raw["key"]) <= set(study.trials)


def test_it_is_judged_like_any_attack_and_is_no_curve_of_accuracy(study: study_folder.StudyResults) -> None:
    table = _recovery.recovery(study)
    [(_, line)] = table[(table["method"] == "m") & (table["attack"] == SAMPLER)].iterrows()
    assert line["before"] == pytest.approx(2 / 3 / 12 / 2)
    assert line["control_gain"] == pytest.approx(2 / 3 * 0.5)
    assert line["above_control"] == pytest.approx(line["gain"] - line["control_gain"])
    assert SAMPLER not in set(attacks.curve_data(study)["attack"])


def test_a_chain_that_ends_in_samples_is_one(tmp_path: Path) -> None:
    study = planted(tmp_path, [FIRST], {})
    chained = {"type": "Chain", "links": [{"type": "Jailbreak"}, SETTINGS]}
    for key in (t.key for t in study.trials.values() if study.attacks(t.key).get(SAMPLER)):
        sample(tmp_path, key, FIRST, chained)
    found = leaks.facts(study_folder.read(tmp_path))
    assert set(found["method"]) == {"m", "reference"}


def test_what_the_attacker_was_given_is_no_leak(tmp_path: Path) -> None:
    """Relearning before the sampling may have been given facts: these are marked as any that were given."""
    study = planted(tmp_path, [FIRST], {})
    [key] = study.winners["m", 10]
    path = StudyFolder(tmp_path).attack(key, SAMPLER)
    rows = read_rows(path)
    write_rows(path, rows.assign(held_out=rows["held_out"].mask(rows["person"] == "forget-3", "")))
    found = leaks.facts(study_folder.read(tmp_path)).query("method == 'm'")
    assert set(found["person"]) == {*PEOPLE} - {"forget-3"}


def test_without_sampled_replies_there_is_no_section(tmp_path: Path) -> None:
    planter = Planter(tmp_path)
    planter.study(["m"], [10])
    planter.yardsticks(10)
    assert not list(leaks.parts(study_folder.read(tmp_path)))
