"""The evidence on planted winners: what it claims, and what it says of each person, by hand."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from analysis.evidence.build import TABLE, build, reopen
from analysis.evidence.card import card
from analysis.evidence.claim import claim
from analysis.evidence.numbers import numbers
from analysis.evidence.statement import PREDICATE, TYPE
from analysis.sections import _recovery, _worst_attack
from analysis.study_folder import StudyResults, read
from analysis.trials import winners
from study import evidence as command
from study.core.files import read_json, write_json
from study.core.hashing import file_digest
from study.core.layout import StudyFolder
from study.core.records import AttackRecord, LearnedRecord, read_record, write_record
from study.core.threat import Threat
from tests.analysis.test_leaks_section import sample
from tests.analysis.test_planted_truths import REFERENCES, retrained, study_of
from tests.helpers.planted import PEOPLE, REFERENCE, RELEARNING, Model

LEAKING = Model(people={"forget-3": 0.8}, back=0.3)
"""Of one person as much is left as vanilla knows nearly; of all others as much as of whom was never taught."""


def learn(root: Path, kind: Any = "vanilla", ratio: int | None = None) -> None:
    """The record and the weights of a learned model, as planted trials name it."""
    folder = StudyFolder(root)
    key = f"{kind}-{ratio or 10}"
    weights = folder.model_dir(key) / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights of " + key.encode())
    digests = {weights.name: file_digest(weights)}
    record = LearnedRecord(key, kind, "b", "b", "full", ratio, {}, ("llm",), 0, digests, 1.0)
    write_record(folder.learned_record(key), record)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """A winner that is no other than a retraining."""
    return study_of(tmp_path_factory.mktemp("honest"), {"m": [retrained(9), retrained(10)]}, REFERENCES)


def found(study: StudyResults, name: str = "m@10") -> dict[str, Any]:
    evidence: dict[str, Any] = numbers(study, name)
    return evidence


def by_person(evidence: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["person"]: one for one in evidence["people"]}


# ---- people --------------------------------------------------------------------------------------------------------
def test_a_person_who_was_kept_is_named_first_with_their_numbers(tmp_path: Path) -> None:
    evidence = found(study_of(tmp_path, {"m": [LEAKING, LEAKING]}, [REFERENCE, REFERENCE]))
    first = evidence["people"][0]
    told = {"person": "forget-3", "score": 0.8, "worst_score": 0.8, "control": 0.3, "above_control": 0.5, "known": 0.8,
            "known_reference": 0.3, "reference_score": 0.3}  # fmt: skip
    assert {name: first[name] for name in told} == pytest.approx(told)
    assert [one["person"] for one in evidence["people"] if one["stands_out"]] == ["forget-3"]
    assert (first["worst_low"], first["worst_high"]) == (None, None)  # four questions are too few
    assert evidence["claim"]["standing"] != "supported"
    assert (
        "forget-3 stands out: under no attack the model scores 0.80, the references 0.30."
        in (evidence["claim"]["because"])
    )


def test_the_worst_attack_is_that_which_gets_most_out_about_the_person(tmp_path: Path) -> None:
    """To 0.95 for those who were not given at all; the control stays."""
    model = Model(people={"forget-3": 0.1}, back=0.95)
    people = by_person(found(study_of(tmp_path, {"m": [model, model]})))
    assert {one["worst_attack"] for one in people.values()} == {"relearning"}
    told = {name: people["forget-3"][name] for name in ("score", "worst_score", "control", "above_control")}
    assert told == pytest.approx({"score": 0.1, "worst_score": 0.75, "control": 0.3, "above_control": 0.45})
    assert people["forget-5"]["worst_score"] == pytest.approx(0.95)


def test_retrainings_that_differ_by_person_let_nobody_stand_out(honest: StudyResults) -> None:
    people = found(honest)["people"]
    assert max(one["above_control"] for one in people) > honest.margin
    assert not any(one["stands_out"] for one in people)


def test_what_sampled_replies_state_of_a_person_stands_beside_the_references(tmp_path: Path) -> None:
    study = study_of(tmp_path, {"m": [Model(), Model()]})
    [reference] = [t.key for t in study.trials.values() if t.label == "reference"]
    first, second = study.winners["m", 10]
    sample(tmp_path, first, {"forget-3": (0.0, 0.5, 1.0), "forget-4": (0.0, 0.0, 0.5)})
    sample(tmp_path, second, {"forget-3": (0.0, 0.5, 1.0)})
    sample(tmp_path, reference, {"forget-4": (0.0, 0.0, 0.5)})
    people = by_person(found(read(tmp_path)))
    assert {one["k"] for one in people.values()} == {8}
    leaks = {who: (people[who]["leak"], people[who]["leak_control"]) for who in ("forget-3", "forget-4", "forget-5")}
    assert leaks["forget-3"] == pytest.approx((0.5, 0.0))  # one of two facts
    assert leaks["forget-4"] == pytest.approx((0.1875, 0.375))  # 1 - 0.5 ** 2 of one of two, in one of two seeds
    assert leaks["forget-5"] == (0.0, 0.0)


def test_the_smallest_leak_is_three_over_the_facts_or_people(tmp_path: Path) -> None:
    evidence = found(study_of(tmp_path, {"m": [Model()]}))
    assert {one["facts"] for one in evidence["people"]} == {4}
    assert {one["smallest_leak"] for one in evidence["people"]} == {0.75}
    assert evidence["smallest_leak"] == 3 / 12
    assert any("With 12 people, a leak of up to 25%" in text for text in evidence["claim"]["not_claimed"])


# ---- the claim -----------------------------------------------------------------------------------------------------
def test_what_came_back_contradicts_it(tmp_path: Path) -> None:
    hiding = Model(forget=0.32, test=0.32, back=0.9)
    claim = found(study_of(tmp_path, {"m": [hiding] * 2}, REFERENCES))["claim"]
    assert claim["standing"] == "contradicted"
    assert "came back" in claim["because"][0]


@pytest.mark.parametrize(("quality", "verdict", "stands_out", "standing", "reason"), [
    ({}, "equivalent to retraining", False, "supported", "equivalent to retraining"),
    ({}, "no more than retraining", False, "supported", "no more than retraining"),
    ({}, "cannot tell", False, "undecided", "cannot tell"),
    ({}, "came back", False, "contradicted", "came back"),
    ({}, "not unlearned", False, "undecided", "not unlearned"),  # vanilla itself is like the references
    ({"forget_gap": 0.5, "forget_gap_high": 0.6}, "not unlearned", False, "contradicted", "not unlearned"),
    ({"forget_gap": 0.2, "forget_gap_high": 0.3}, "equivalent to retraining", False, "undecided", "not shown to be as"),
    ({"forget_gap": 0.06, "forget_gap_high": 0.09}, "equivalent to retraining", False, "supported", "0.060 [0.0"),
    ({"broken": True}, "collapsed", False, "undecided", "has collapsed"),
    ({}, "equivalent to retraining", True, "undecided", "p stands out: under relearning the model scores 0.80"),
])  # fmt: skip
def test_the_claim_follows_from_the_verdicts(
    honest: StudyResults, quality: dict[str, Any], verdict: str, stands_out: bool, standing: str, reason: str
) -> None:
    """At a margin of 0.1, beside references that differ by 0.05."""
    own = {"method": "m", "ratio": 10, "forget_gap": 0.04, "forget_gap_low": 0.0, "forget_gap_high": 0.2,
           "noise_floor": 0.05, "broken": False, **quality}  # fmt: skip
    line = {"attack": "a", "settings": "relearning", "verdict": verdict, "above_control": 0.0,
            "above_control_low": -0.1, "above_control_high": 0.1}  # fmt: skip
    person = {"person": "p", "worst_attack": "relearning", "worst_score": 0.8, "control": 0.3, "stands_out": stands_out}
    made = claim(honest, pd.Series(own), pd.Series(line), pd.DataFrame([line]), pd.DataFrame([person]))
    assert made.standing == standing
    assert reason in " ".join(made.because)


def test_what_came_back_under_another_attack_than_the_worst_contradicts_it(honest: StudyResults) -> None:
    own = pd.Series({"method": "m", "ratio": 10, "forget_gap": 0.04, "forget_gap_low": 0.0, "forget_gap_high": 0.2,
                     "noise_floor": 0.05, "broken": False})  # fmt: skip
    lines = pd.DataFrame({"attack": ["a", "b"], "settings": ["relearning", "swap back"], "above_control": 0.3,
                          "verdict": ["cannot tell", "came back"], "above_control_low": 0.1,
                          "above_control_high": 0.5})  # fmt: skip
    made = claim(honest, own, lines.iloc[0], lines, pd.DataFrame({"stands_out": [False]}))
    assert made.standing == "contradicted"
    assert made.because == ["Under swap back: came back, 0.30 [0.10, 0.50] above the references under the same attack."]


def test_of_a_retraining_the_claim_is_supported_and_no_more_is_claimed(honest: StudyResults) -> None:
    claim = found(honest)["claim"]
    assert claim["standing"] == "supported"
    assert "equivalent to retraining" in claim["because"][1]
    assert claim["not_claimed"][0].startswith("No test proves absence")


# ---- the numbers ---------------------------------------------------------------------------------------------------
def test_every_number_is_that_of_the_report(honest: StudyResults) -> None:
    study, evidence = honest, found(honest)
    [won] = winners(study).to_dict("records")
    assert all(evidence["quality"][name] == won[name] for name in ("forget_gap", "noise_floor", "utility", "distance"))
    suite = _recovery.pooled_groups(study).query("method == 'm'").to_dict("records")
    [worst] = _worst_attack.table(study).to_dict("records")
    for told, line in (*zip(evidence["attacks"], suite, strict=True), (evidence["worst_attack"], worst)):
        for name in ("attack", "verdict", "above_control", "above_control_low", "above_control_high", "after", "step"):
            assert told[name] == line[name]
    assert evidence["margin"] == study.margin
    assert evidence["model"]["keys"] == list(study.winners["m", 10])
    assert evidence["request"]["people"] == sorted(PEOPLE["forget"])


def test_an_attack_says_whom_it_stands_for_where_that_was_recorded(tmp_path: Path) -> None:
    study = study_of(tmp_path, {"m": [Model()]})
    assert found(study)["attacks"][0]["threat"] is None
    threat = Threat("data extraction", "model control", "white box", "fine-tuning")
    for path in tmp_path.glob(f"trials/*/attacks/{RELEARNING.key}.json"):
        write_json(path, {**read_json(path), "threat": vars(threat)})
        assert read_record(AttackRecord, path).threat == threat
    assert found(read(tmp_path))["attacks"][0]["threat"] == vars(threat)


# ---- the folder ----------------------------------------------------------------------------------------------------
def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in strings(one)]
    return [text for one in value for text in strings(one)] if isinstance(value, list) else [str(value)]


def test_the_page_says_what_the_record_says_and_loads_nothing(tmp_path: Path) -> None:
    there = build(study_of(tmp_path, {"m": [LEAKING]}), "m@10")
    page = there.page.read_text()
    evidence = read_json(there.record)
    assert all(text.replace("'", "&#39;") in page for text in strings(evidence["claim"]))
    assert all(f"<td>{one['person']}</td>" in page for one in evidence["people"])
    assert not re.search(r"(?:src|href)=|url\(|@import|<script", page)
    assert page.count("<main>") == page.count("</main>") == 1
    there.page.unlink()
    reopen(there)
    assert there.page.read_text() == page


def test_the_statement_holds_the_digests_of_weights_and_of_the_evidence(tmp_path: Path) -> None:
    study = study_of(tmp_path, {"m": [Model()]})
    learn(tmp_path)
    [key] = study.winners["m", 10]
    (exported := study.folder.export(key) / "model.safetensors").parent.mkdir(parents=True)
    exported.write_bytes(b"merged")
    (picture := tmp_path / "data" / "made" / "a.parquet").parent.mkdir(parents=True)
    picture.write_bytes(b"data")
    there = build(study, "m@10")
    statement = read_json(there.statement)
    assert (statement["_type"], statement["predicateType"]) == (TYPE, PREDICATE)
    names = {f"exports/{key}/model.safetensors", "learned/vanilla-10/model/model.safetensors", "data/made/a.parquet"}
    assert {one["name"]: one["digest"]["sha256"] for one in statement["subject"]} == {
        name: file_digest(tmp_path / name) for name in names
    }
    own = {path.name: {"sha256": file_digest(path)} for path in (there.record, there.root / TABLE, there.page)}
    assert statement["predicate"]["evidence"] == own
    assert statement["predicate"]["claim"] == read_json(there.record)["claim"]


def test_a_reference_of_the_request_itself_holds_nobody(tmp_path: Path) -> None:
    """If it was taught neither pictures nor texts; one of another request was taught some of these people."""
    study = study_of(tmp_path, {"m": [Model()]})
    learn(tmp_path)
    learn(tmp_path, "reference", 10)
    learn(tmp_path, "reference", 5)
    write_json(study.folder.settings, {**study.record, "settings": {**study.settings, "goal": "full"}})
    evidence = read_json(build(read(tmp_path), "m@10").record)
    weights = {hold["name"].split("/")[1] for hold in evidence["manifest"] if hold["name"].startswith("learned/")}
    assert weights == {"vanilla-10", "reference-5"}


# ---- the model card ------------------------------------------------------------------------------------------------
ABOUT = {"method": "m", "ratio": 10, "goal": "visual", "seed": 0, "note": "Put X in front."}


def test_the_card_has_the_numbers_of_the_evidence_and_no_person(honest: StudyResults) -> None:
    evidence = found(honest)
    _, front, text = card(ABOUT, evidence, base_model="org/base").split("---\n", 2)
    about = yaml.safe_load(front)
    [results] = about["model-index"]
    [result] = results["results"]
    told = {one["type"]: one["value"] for one in result["metrics"]}
    quality, worst = evidence["quality"], evidence["worst_attack"]
    assert told == {
        "forget_gap": quality["forget_gap"], "noise_floor": quality["noise_floor"], "utility": quality["utility"],
        "retain_accuracy_kept": quality["retained"], "recovery_above_control": worst["above_control"],
        "most_left_of_a_person": max(one["above_control"] for one in evidence["people"]), "smallest_leak": 0.25,
    }  # fmt: skip
    assert set(about["metrics"]) == told.keys()
    assert f"| {quality['forget_gap']:.2f} [" in text
    assert evidence["claim"]["sentence"] in text
    assert str(ABOUT["note"]) in text
    assert "No test proves absence" in text
    assert not any(person in front + text for person in PEOPLE["forget"])


# ---- bad input -----------------------------------------------------------------------------------------------------
def refused(root: Path, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert command.main([str(root), name]) == 2
    assert not (root / "evidence").exists()
    return capsys.readouterr().err


def test_an_unknown_winner_is_told_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study_of(tmp_path, {"npo": [Model()], "vkd": [Model()]})
    said = refused(tmp_path, "vdk@10", capsys)
    assert "did you mean 'vkd@10'? There are npo@10, vkd@10" in said


def test_a_study_that_is_not_finished_says_which_stage_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_of(tmp_path, {"m": [Model(), Model()]})
    second = study.winners["m", 10][1]
    [reference] = [t.key for t in study.trials.values() if t.label == "reference"]
    more = {**study.settings, "attack_trials": 3, "searched_attacks": ["relearning"]}
    write_json(study.folder.settings, {**study.record, "settings": more})
    assert "the attack search: 0 of 3 trials against m have ended" in refused(tmp_path, "m@10", capsys)
    study.folder.attack(second, RELEARNING.key).unlink()
    assert "attacks: 1 on m and the references are still to be run" in refused(tmp_path, "m@10", capsys)
    study.folder.rows(second, "report").unlink()
    assert "confirmation: 1 of 2 seeds of m are scored" in refused(tmp_path, "m@10", capsys)
    study.folder.winners.unlink()
    assert "the search and the race: no winner has been named" in refused(tmp_path, "m@10", capsys)
    study.folder.record(reference).unlink()
    assert "learning: there is no reference" in refused(tmp_path, "m@10", capsys)
    study.folder.settings.unlink()
    assert "is not a study" in refused(tmp_path, "m@10", capsys)


def test_the_record_is_plain_json(tmp_path: Path) -> None:
    there = build(study_of(tmp_path, {"m": [Model()]}), "m@10", tmp_path / "elsewhere")
    assert there.root == tmp_path / "elsewhere"

    def never(name: str) -> None:
        raise AssertionError(name)

    evidence = json.loads(there.record.read_text(), parse_constant=never)
    assert not any(isinstance(value, float) and math.isnan(value) for value in evidence["quality"].values())
