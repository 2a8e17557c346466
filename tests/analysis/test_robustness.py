"""The worst attack, against brute force and on planted truths: what hides, what forgot, what is destroyed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import naming, study_folder, style, trials
from analysis.sections import _attack_suite, _recovery, _worst_attack, attacks, worst_case
from analysis.sections.conclusion import answer
from study.core.files import read_json, write_json
from study.core.rows import read_rows, write_rows
from study.metrics import recovery
from tests.helpers.planted import (
    MODELS,
    REFERENCE,
    RELEARNING,
    SUITE,
    VANILLA,
    Attack,
    Model,
    Planter,
    plant_attacks,
    tried,
)

SHY = Model()
"""Like the reference, until somebody searches."""


def study_of(root: Path, model: Model, searched: Sequence[Attack], *, noise: float = 0.0, method: str = "m",
             first: Attack = RELEARNING) -> str:  # fmt: skip
    """A study of one method at 10 % with the suite's relearning, `first`, and a search; the key of the winner."""
    planter = Planter(root, noise=noise)
    planter.study([method], [10], attack_keeps=0.5)
    planter.yardsticks(10)
    key = planter.trial(method, 10, model, report=True)
    [reference] = [t.key for t in study_folder.read(root).yardsticks("reference", 10)]
    planter.search(key, model, "relearning", [first, *searched], reference)
    write_json(root / "winners.json", {method: {"10": {"trials": [key]}}})
    return key


def worst(root: Path) -> pd.Series:
    [(_, line)] = _worst_attack.table(study_folder.read(root)).iterrows()
    return line


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> study_folder.StudyResults:
    models = {"hiding": MODELS["hiding"], "perfect": Model(), "destroyed": MODELS["destroyed"]}
    return study_folder.read(plant_attacks(tmp_path_factory.mktemp("study"), models, [10]))


# ---- the numbers -----------------------------------------------------------------------------------------------------
def by_person(rows: pd.DataFrame, half: str, step: int) -> pd.Series[float]:
    """The mean probability of each person on what was held out; all have as many questions."""
    asked = rows[(rows["half"] == half) & (rows["role"] == "forget") & (rows["held_out"] != "")]
    return asked[asked["step"] == step].groupby(["person", "held_out"])["probability"].mean().groupby("person").mean()


@pytest.mark.slow
def test_the_worst_attack_is_that_of_brute_force(tmp_path: Path) -> None:
    """Noisy rows: attack and step are chosen on the select half, told on the report half, by hand.

    Of people given facts about, half of the questions are held out, so that people weigh differently in the choice.
    """
    key = study_of(tmp_path, SHY, tried(count=8), noise=0.1)
    study = study_folder.read(tmp_path)
    [reference] = [t.key for t in study.yardsticks("reference", 10)]
    select: dict[tuple[str, int], float] = {}
    frames: dict[str, list[pd.DataFrame]] = {}
    for path in (tmp_path / "trials" / key / "attacks").glob("*.parquet"):
        both = [read_rows(path), read_rows(tmp_path / "trials" / reference / "attacks" / path.name)]
        frames[path.stem] = both
        for step in (5, 10, 20, 40):
            asked = [rows[(rows["half"] == "select") & (rows["role"] == "forget") & (rows["held_out"] != "")]
                     for rows in both]  # fmt: skip
            mine, control = (
                rows.loc[rows["step"] == step, "probability"].mean() - rows.loc[rows["step"] == 0, "probability"].mean()
                for rows in asked
            )
            select[path.stem, step] = mine - control
    best, step = max(select, key=lambda tried: select[tried])
    line = worst(tmp_path)
    assert (line["attack"], line["step"]) == (best, step)
    assert line["select"] == pytest.approx(select[best, step])
    gains = [by_person(rows, "report", step) - by_person(rows, "report", 0) for rows in frames[best]]
    assert line["above_control"] == pytest.approx((gains[0] - gains[1]).mean())
    assert line["above_control_low"] < line["above_control"] < line["above_control_high"]
    assert line["kept"] == pytest.approx(recovery.kept(frames[best][0], "report")[step])
    assert line["people"] == 12


PEAK = {0: 0.0, 5: 1.0, 10: 0.75, 20: 0.25, 40: 0.0}
"""The part of what comes back that is there at each step, of an attack that undoes itself."""


def bent(root: Path, key: str, course: Mapping[int, float], half: str, end: float) -> None:
    """Bend the relearning of a trial: the part of its way from step 0 to `end` that it has gone at each step."""
    path = root / "trials" / key / "attacks" / f"{RELEARNING.key}.parquet"
    rows = read_rows(path)
    asked = (rows["half"] == half) & (rows["held_out"] != "") & (rows["role"] == "forget")
    start = rows[asked & (rows["step"] == 0)].set_index("question")["probability"]
    before = rows.loc[asked, "question"].map(start)
    level = before + rows.loc[asked, "step"].map(course) * (end - before)
    rows.loc[asked, "probability"] = level
    rows.loc[asked, "score"] = level
    write_rows(path, rows)


def test_the_attacker_stops_where_the_validation_half_peaks(tmp_path: Path) -> None:
    """By hand: there from .3 to .9 at step 5, all gone at the end. The test half, which rises to the end, counts at 5.

    There an eighth of the way to .7 is gone; half of the .6 that was forgotten is back at step 40, not before.
    """
    key = study_of(tmp_path, SHY, [])
    bent(tmp_path, key, PEAK, "select", 0.9)
    bent(tmp_path, key, {0: 0.0, 5: 1 / 8, 10: 1 / 4, 20: 1 / 2, 40: 1.0}, "report", 0.7)
    line = worst(tmp_path)
    assert (line["step"], line["last_step"]) == (5, 40)
    assert line["select"] == pytest.approx(0.6)
    assert line["above_control"] == pytest.approx(0.4 / 8)
    assert [line["before"], line["after"], line["control_after"]] == pytest.approx([0.3, 0.35, 0.3])
    assert list(line[["half_back", "half_back_low", "half_back_high"]]) == [40, 40, 40]
    study = study_folder.read(tmp_path)
    fixed = _recovery.pooled_groups(study).set_index("method")
    assert fixed.loc[["m", "vanilla", "reference"], "step"].tolist() == [5, 5, 40]
    assert fixed.loc["m", "above_control"] == pytest.approx(0.4 / 8)
    assert fixed.loc["m", "attack_gain"] == pytest.approx(0.4 / 8)
    told = _worst_attack.curves(study).query("told")
    assert set(zip(told["who"], told["step"], strict=True)) == {("method", 5), ("control", 5)}
    shown = worst_case.worst_case_table(study).shown.iloc[0]
    assert (shown["step"], shown["steps to half"]) == ("5 of 40", "40 [40, 40]")


def test_what_does_not_come_back_takes_more_steps_than_there_were(tmp_path: Path) -> None:
    """Of .6 that was forgotten a sixth came back; of an attack of one step no course is known."""
    study_of(tmp_path, SHY, [], first=dataclasses.replace(RELEARNING, back=0.4, told=0.4))
    assert worst(tmp_path)["half_back"] == np.inf
    study = study_folder.read(tmp_path)
    assert worst_case.worst_case_table(study).shown["steps to half"].tolist() == ["> 40"]
    at_once = tmp_path / "at once"
    study_of(at_once, SHY, [], first=dataclasses.replace(RELEARNING, back=0.9, told=0.9, steps=(0, 1)))
    assert np.isnan(worst(at_once)["half_back"])
    assert worst_case.worst_case_table(study_folder.read(at_once)).shown["steps to half"].tolist() == ["n/a"]


def test_what_an_attack_costs_stands_beside_what_it_costs_on_the_control(tmp_path: Path) -> None:
    """Records that did not count it leave the number open."""
    key = study_of(tmp_path, SHY, tried(count=2)[:2])
    [reference] = [t.key for t in study_folder.read(tmp_path).yardsticks("reference", 10)]
    for trial, flops in ((key, 2e12), (reference, 3e12)):
        note = tmp_path / "trials" / trial / "attacks" / f"{RELEARNING.key}.json"
        write_json(note, {**read_json(note), "flops": flops, "score_flops": 1e9})
    study = study_folder.read(tmp_path)
    found = _worst_attack.trials(study).set_index("attack")[["flops", "control_flops"]]
    assert list(found.loc[RELEARNING.key]) == [2e12, 3e12]
    assert found.drop(RELEARNING.key).isna().all(axis=None)
    fixed = _recovery.recovery(study).set_index(["method", "attack", "held_out"])
    assert list(fixed.loc[("m", RELEARNING.key, "fact"), ["flops", "control_flops"]]) == [2e12, 3e12]


def test_the_step_leaves_what_it_leaves(tmp_path: Path) -> None:
    """A quarter of the way to step 40, at which .2 is kept, .8 is: on the model and on the control alike."""
    key = study_of(tmp_path, SHY, [], first=dataclasses.replace(RELEARNING, back=0.9, told=0.9, kept=0.2))
    bent(tmp_path, key, {0: 0.0, 5: 0.5, 10: 1.0, 20: 0.5, 40: 0.0}, "select", 0.9)
    line = worst(tmp_path)
    assert line["step"] == 10
    assert [line["kept"], line["control_kept"]] == pytest.approx([0.8, 1.0])
    [(_, trial)] = _worst_attack.trials(study_folder.read(tmp_path)).iterrows()
    assert [trial["kept"], trial["select_kept"], trial["report"]] == pytest.approx([0.8, 0.8, line["above_control"]])


def test_an_attack_that_one_seed_met_does_not_stand_for_all(tmp_path: Path) -> None:
    """The search looks with the first seed and reference: what it did not choose for all of them is tried, no more."""
    planter = Planter(tmp_path)
    planter.study(["m"], [10])
    planter.yardsticks(10, references=[REFERENCE, REFERENCE])
    keys = [planter.trial("m", 10, SHY, report=True, seed=seed) for seed in (0, 1)]
    write_json(tmp_path / "winners.json", {"m": {"10": {"trials": keys}}})
    [first, _] = [t.key for t in study_folder.read(tmp_path).yardsticks("reference", 10)]
    lucky = Attack("relearning", {"trains": ["llm"]}, back=0.9, told=0.9)
    planter.search(keys[0], SHY, "relearning", [RELEARNING, lucky], first)
    planter.attack(keys[1], SHY)
    line = worst(tmp_path)
    assert (line["attack"], line["seeds"], line["tried"]) == (RELEARNING.key, 2, 2)
    found = _worst_attack.trials(study_folder.read(tmp_path)).set_index("attack")["models"]
    assert found.to_dict() == {RELEARNING.key: 4, lucky.key: 2}


def test_selected_on_one_half_and_told_on_the_other(tmp_path: Path) -> None:
    """The attack that shines on the report half alone is not chosen; the chosen one is not flattered."""
    lucky = Attack("relearning", {"trains": ["llm"]}, back=0.4, told=0.95)
    chosen = Attack("relearning", {"trains": ["projector"]}, back=0.9, told=0.5)
    study_of(tmp_path, SHY, [lucky, chosen])
    line = worst(tmp_path)
    assert line["attack"] == chosen.key
    assert line["select"] == pytest.approx(0.6)
    assert line["above_control"] == pytest.approx(0.2)
    assert line["settings"] == "relearning, projector"
    assert line["worst_3"] == pytest.approx((0.2 + 0.65 + 0.0) / 3)


def test_an_attack_that_breaks_the_model_is_the_worst_if_most_comes_back(tmp_path: Path) -> None:
    """Whoever extracts facts does not need the rest of the model."""
    wrecking = Attack("relearning", {"trains": ["llm"]}, back=0.95, told=0.95, kept=0.2)
    study_of(tmp_path, SHY, [*tried(best=0.6), wrecking])
    line = worst(tmp_path)
    assert line["attack"] == wrecking.key
    assert line["above_control"] == pytest.approx(0.65)
    assert line["kept"] == pytest.approx(0.2)
    assert line["control_kept"] == pytest.approx(1.0)
    assert line["verdict"] == "came back"
    assert line["broke"] == 2


def test_every_attack_is_counted(tmp_path: Path) -> None:
    again = Attack("relearning", {"trains": ["llm"]}, back=0.4)
    cut = Attack("relearning", {"trains": ["projector"]}, back=0.4, diverged="diverged at step 3")
    study_of(tmp_path, SHY, [*tried(), again, again, cut])
    line = worst(tmp_path)
    assert line["proposals"] == 13
    assert line["suite"] == 0
    counts = line[list(_worst_attack.COUNTS)].to_dict()
    assert counts == {"complete": 10, "duplicates": 1, "failed": 1, "unfinished": 1, "cut_short": 1, "broke": 1}
    assert sum(line[name] for name in ("complete", "duplicates", "failed", "unfinished")) == 13
    reasons = _worst_attack.trials(study_folder.read(tmp_path)).set_index("state")["reason"]
    assert reasons["failed"] == "too many facts"


def test_failing_on_the_control_is_a_failure_too(tmp_path: Path) -> None:
    """An attack of which only the winner's rows are there cannot be compared."""
    key = study_of(tmp_path, SHY, [])
    planter, odd = Planter(tmp_path), Attack("relearning", {"trains": ["llm"]}, back=0.9)
    [reference] = [t.key for t in study_folder.read(tmp_path).yardsticks("reference", 10)]
    planter.attack(key, SHY, odd)
    planter.attack(reference, REFERENCE, Attack("relearning", {"trains": ["llm"]}, failed="out of memory"))
    line = worst(tmp_path)
    assert line["failed"] == 1
    assert line["above_control"] == pytest.approx(0.0)


def test_the_best_so_far_never_falls(planted: study_folder.StudyResults) -> None:
    """And ends at the best of the search's attacks."""
    found = _worst_attack.budget(planted)
    for _, mine in found.groupby(["method", "ratio"]):
        assert mine["trial"].tolist() == list(range(1, len(mine) + 1))
        assert (np.diff(mine["best"]) >= 0).all()
    tries = _worst_attack.trials(planted)
    tries = tries[tries["trial"].notna()]
    best = tries.groupby("method")["select"].max()
    assert found.groupby("method")["best"].last().to_dict() == pytest.approx(best.to_dict())


def test_the_same_attack_on_vanilla_is_the_ceiling(planted: study_folder.StudyResults) -> None:
    lines = _worst_attack.table(planted).set_index("method")
    assert lines.loc["hiding", "vanilla_after"] == pytest.approx(0.95)
    assert lines["weak_above_control"].isna().all()


# ---- the verdicts ----------------------------------------------------------------------------------------------------
def test_planted_truths(planted: study_folder.StudyResults) -> None:
    lines = _worst_attack.table(planted).set_index("method")
    assert lines["verdict"].to_dict() == {
        "hiding": "came back", "perfect": "equivalent to retraining", "destroyed": "collapsed",
    }  # fmt: skip
    assert lines.loc["perfect", "above_control"] == 0.0
    assert lines.loc["hiding", "above_control"] == pytest.approx(0.95 - 0.32)


def test_what_holds_under_the_suite_may_come_back_in_a_search(tmp_path: Path) -> None:
    """The answer says so and does not call the method one that held."""
    study_of(tmp_path, SHY, tried(best=0.9))
    study = study_folder.read(tmp_path)
    fixed, found = _recovery.recovery(study), _worst_attack.table(study)
    mine = fixed[(fixed["method"] == "m") & (fixed["held_out"] == "person")]
    assert set(mine["verdict"]) == {"equivalent to retraining"}
    assert found["verdict"].tolist() == ["came back"]
    text = " ".join(answer(study, trials.winners(study), fixed, found))
    assert "; with an attack search of 10 trials) took accuracy on what the attacker was not given " in text
    assert "from 0.30 to 0.90 (control 0.30), 0.60 [0.60, 0.60] above control in probability: came back." in text
    assert "no other usable method is shown to have held" in text


@pytest.mark.parametrize(("control", "verdict"), [(1.0, "collapsed under attack"), (0.3, "equivalent to retraining")])
def test_a_model_that_an_attack_breaks_did_not_hold(tmp_path: Path, control: float, verdict: str) -> None:
    """Unless the same attack breaks the control as well; what is left counts beside what it leaves of that."""
    planter = Planter(tmp_path)
    planter.study(["m"], [10])
    _, reference = planter.yardsticks(10, attacked=False)
    key = planter.trial("m", 10, SHY, report=True)
    breaking = Attack("pruning", {"share": 0.9}, kept=0.3, steps=(0, 1))
    write_json(tmp_path / "winners.json", {"m": {"10": {"trials": [key]}}})
    planter.attack(key, SHY, breaking)
    planter.attack(reference, REFERENCE, dataclasses.replace(breaking, kept=control))
    planter.attack(planter.trial("none", 10, VANILLA, report=True), VANILLA, breaking)
    fixed = _recovery.recovery(study_folder.read(tmp_path))
    assert set(fixed.loc[(fixed["method"] == "m") & (fixed["held_out"] != "seen"), "verdict"]) == {verdict}
    assert worst(tmp_path)["verdict"] == verdict
    assert worst(tmp_path)["above_control"] == 0.0


def test_an_attack_on_the_input_breaks_no_model(tmp_path: Path) -> None:
    """It leaves the weights alone: whatever the model then says of the retained people, it is as it was."""
    key = study_of(tmp_path, SHY, [], first=dataclasses.replace(RELEARNING, kept=0.2, steps=(0, 40)))
    assert worst(tmp_path)["verdict"] == "collapsed under attack"
    note = tmp_path / "trials" / key / "attacks" / f"{RELEARNING.key}.json"
    write_json(note, {**read_json(note), "changes": []})
    assert worst(tmp_path)["verdict"] == "equivalent to retraining"


def test_the_bound_is_the_studys(tmp_path: Path) -> None:
    """How much an attack must leave for a verdict on what did not come back; what did, did."""
    study_of(tmp_path, SHY, [], first=dataclasses.replace(RELEARNING, kept=0.6, steps=(0, 40)))
    assert worst(tmp_path)["verdict"] == "equivalent to retraining"
    Planter(tmp_path).study(["m"], [10], attack_keeps=0.7)
    assert worst(tmp_path)["verdict"] == "collapsed under attack"
    study_of(tmp_path, SHY, [], first=dataclasses.replace(RELEARNING, back=0.9, told=0.9, kept=0.6))
    Planter(tmp_path).study(["m"], [10], attack_keeps=0.7)
    assert worst(tmp_path)["verdict"] == "came back"


def test_a_control_that_falls_is_no_recovery(tmp_path: Path) -> None:
    study_of(tmp_path, SHY, [Attack("relearning", {"trains": ["llm"]}, back=0.3, told=0.3, control=0.1)])
    line = worst(tmp_path)
    assert line["above_control"] == pytest.approx(0.2)
    assert line["verdict"] == "only the control fell"


def ended_early(root: Path, steps: Sequence[int]) -> pd.Series:
    """The worst attack on a model that it takes from .05 to .6, where it ended after these steps on the control."""
    planter, model = Planter(root), Model(0.05, 0.05, back=0.6)
    planter.study(["m"], [10])
    _, reference = planter.yardsticks(10, attacked=False)
    key = planter.trial("m", 10, model, report=True)
    write_json(root / "winners.json", {"m": {"10": {"trials": [key]}}})
    planter.attack(key, model)
    planter.attack(reference, REFERENCE, dataclasses.replace(RELEARNING, steps=steps, back=0.35, told=0.35))
    return worst(root)


def test_after_is_at_the_last_step_that_the_control_has(tmp_path: Path) -> None:
    """At 10 of 40 steps a quarter of the rise of .55 is done, and the control is still above it."""
    line = ended_early(tmp_path, (0, 5, 10))
    assert [line["after"], line["control_after"]] == pytest.approx([0.05 + 0.55 / 4, 0.35])
    assert line["above_control"] == pytest.approx(0.55 / 4 - 0.05)
    assert line["verdict"] == "rebound from overshoot"


def test_a_control_that_fell_at_once_is_none(tmp_path: Path) -> None:
    """Nothing was scored of it but its start: that no gain was seen then says nothing."""
    line = ended_early(tmp_path, (0, 40))
    assert line["verdict"] == "came back"
    [reference] = [t.key for t in study_folder.read(tmp_path).yardsticks("reference", 10)]
    path = tmp_path / "trials" / reference / "attacks" / f"{RELEARNING.key}.parquet"
    rows = read_rows(path)
    write_rows(path, rows[rows["step"] == 0])
    study = study_folder.read(tmp_path)
    assert worst(tmp_path)["verdict"] == "not attacked"
    assert set(_recovery.pooled_groups(study).query("method == 'm'")["verdict"]) == {"no control"}


def test_a_model_that_fell_at_once_has_no_course(tmp_path: Path) -> None:
    """All that was scored of it is its start, in a study whose vanilla and reference met the whole attack."""
    key = study_of(tmp_path, SHY, [])
    path = tmp_path / "trials" / key / "attacks" / f"{RELEARNING.key}.parquet"
    rows = read_rows(path)
    write_rows(path, rows[rows["step"] == 0])
    study = study_folder.read(tmp_path)
    assert worst(tmp_path)["verdict"] == "not attacked"
    [mine] = _recovery.pooled_groups(study).query("method == 'm'").to_dict("records")
    assert np.isnan(mine["half_back"])
    assert np.isnan(mine["above_control"])


def test_a_collapsed_model_neither_rebounds_nor_profits_from_a_falling_control(tmp_path: Path) -> None:
    """That its level rises to the control's says nothing of a model that has lost everything else."""
    study_of(tmp_path, MODELS["destroyed"], [Attack("relearning", {"trains": ["llm"]}, back=0.3, told=0.3)])
    line = worst(tmp_path)
    assert line["above_control"] == pytest.approx(0.2)
    assert line["verdict"] == "collapsed"


# ---- the suite, its names and its figures ----------------------------------------------------------------------------
def test_the_suite_is_what_no_search_proposed(planted: study_folder.StudyResults) -> None:
    """A search starts with an attack of the suite; its other proposals do not crowd the tables."""
    assert set(_attack_suite.suite(planted).values()) == {
        "relearning", "quantization, int4", "quantization, nf4", "swap back",
    }  # fmt: skip
    assert {how.key for how in (RELEARNING, *SUITE)} == set(_attack_suite.suite(planted))
    assert set(_recovery.recovery(planted)["settings"]) == set(_attack_suite.suite(planted).values())


def test_attacks_are_told_by_what_varies() -> None:
    named = naming.differing({
        "a": ("swap_back", {"type": "SwapBack", "parts": ["vision"]}),
        "b": ("relearning", {"data": "forget", "schedule": {"steps": 40, "learning_rate": 0.000123456}}),
        "c": ("relearning", {"data": "forget", "schedule": {"steps": 40, "learning_rate": 0.001}}),
        "d": ("prefill", {"text": "Sure"}), "e": ("prefill", {"text": "Sure, " + "as you wish " * 9}),
        "f": ("quantization", {"scale": 0.10001}), "g": ("quantization", {"scale": 0.10002}),
    })  # fmt: skip
    assert named["a"] == "swap back"
    assert named["b"] == "relearning, learning rate 0.000123"
    assert named["e"].endswith(" ...")
    assert len(named["e"]) < 60
    assert len(set(named.values())) == 7


def test_shares_and_modules_are_said_in_words() -> None:
    """With as few settings as tell the attacks apart, and nothing of a share that is all."""
    every = ["vision", "projector", "llm"]
    given = {"a": (1.0, 0.5, every, 5e-4), "b": (0.3, 1.0, every, 5e-4), "c": (0.3, 1.0, every[:2], 1e-3)}
    named = naming.differing({
        key: ("relearning", {"data": "forget", "facts": facts, "people": people, "trains": parts,
                             "schedule": {"learning_rate": rate}})
        for key, (facts, people, parts, rate) in given.items()
    })  # fmt: skip
    assert named == {
        "a": "relearning, 50 % of people, whole model", "b": "relearning, 30 % of facts, whole model",
        "c": "relearning, 30 % of facts, visual module",
    }  # fmt: skip
    assert naming.setting("swap back parts", ["llm"]) == "swap back LLM"
    assert naming.setting("lora_rank", 8) == "LoRA rank 8"


def test_the_heat_map_is_grey_where_nothing_can_be_said(planted: study_folder.StudyResults) -> None:
    data = attacks.heat_data(planted)
    cells = data.set_index(["settings", "method"])
    assert cells.loc[("swap back", "hiding"), "above_control"] == pytest.approx(0.58)
    assert cells.loc[(attacks.WORST, "hiding"), "above_control"] == pytest.approx(0.63)
    assert set(data.loc[data["method"] == "destroyed", "verdict"]) <= set(_recovery.NOTHING_TO_SEE)
    assert len(data) == 3 * (len(_attack_suite.suite(planted)) + 1)


def test_one_shot_attacks_have_no_curve(planted: study_folder.StudyResults) -> None:
    assert set(attacks.curve_data(planted)["settings"]) == {"relearning"}


def test_the_worst_attacks_curve_has_its_control_beside_it(planted: study_folder.StudyResults) -> None:
    found = _worst_attack.curves(planted).set_index(["method", "who", "step"])["mean"]
    assert found["hiding", "method", 40] == pytest.approx(0.95)
    assert found["hiding", "control", 40] == pytest.approx(0.3)


def test_sixteen_methods_look_different() -> None:
    methods = [f"m{number}" for number in range(16)]
    looks = [style.look(method, methods) for method in methods]
    assert len({how.marker for how in looks}) == len({tuple(how.color) for how in looks}) == 16
    assert not {how.marker for how in looks} & {how.marker for how in style.YARDSTICKS.values()}


def test_methods_with_settings_are_wrapped() -> None:
    label = "npo:modality=text,lora_rank=16,trains=vision+projector"
    assert naming.method(label) == "NPO (text, LoRA rank 16, visual module)"
    assert naming.method("retain_finetuning:variant=paper") == "retain finetuning (paper)"
    assert max(map(len, naming.wrapped(naming.method(label), 26).split("\n"))) <= 26
    assert naming.in_lines(naming.method(label), 2).count("\n") == 1
