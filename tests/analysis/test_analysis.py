"""The numbers of the analysis on a study whose answers are planted."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import special, stats

from analysis import intervals, naming, style, trials
from analysis.sections import _recovery, _worst_attack, attacks, scores, search
from analysis.sections.conclusion import answer
from analysis.sections.winners import winners_table
from analysis.study_folder import StudyResults, read
from study.core.files import read_json, write_json
from study.core.layout import StudyFolder
from study.core.rows import read_rows, write_rows
from tests.helpers.planted import MODELS, PEOPLE, VANILLA, Model, Planter, plant


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted study."""
    return plant(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def study(root: Path) -> StudyResults:
    """The planted study, read."""
    return read(root)


@pytest.fixture(scope="module")
def recovery(study: StudyResults) -> pd.DataFrame:
    """What came back on held-out people at ratio 10, by method."""
    found = _recovery.recovery(study)
    return found[(found["held_out"] == "person") & (found["ratio"] == 10)].set_index("method")


def said(study: StudyResults) -> str:
    """The plain answer."""
    return " ".join(answer(study, trials.winners(study), _recovery.recovery(study), _worst_attack.table(study)))


def test_objectives_of_winners_are_those_planted(study: StudyResults) -> None:
    """Distance to the reference, overshoot included; utility of a destroyed model; yardsticks."""
    won = trials.winners(study).query("ratio == 15").set_index("method")
    assert won["forget_gap"].to_dict() == pytest.approx(
        {"perfect": 0.0, "overshooting": 0.25, "destroyed": 0.2, "hiding": 0.02, "idle": 0.6}
    )
    assert won["utility"].drop("destroyed").tolist() == pytest.approx([1.0] * 4)
    assert won.loc["destroyed", "utility"] == pytest.approx(1 / 9)
    assert won["broken"].to_dict() == {method: method == "destroyed" for method in won.index}
    assert (won["seeds"] == 2).all()
    found = trials.trials(study)
    bars = found[found["ratio"] == 15].drop_duplicates("kind").set_index("kind")
    assert bars.loc[["vanilla", "reference"], "forget_gap"].tolist() == pytest.approx([0.6, 0.0])


def test_flags_of_trials(study: StudyResults) -> None:
    """Winner, default, confirmation and front, each where planted."""
    mine = trials.trials(study).query("method == 'perfect' and ratio == 10").set_index("number")
    flags = mine[["default", "winner", "front"]].to_numpy().tolist()
    assert flags[:2] == [[True, False, False], [False, True, True]]
    again = mine[mine["confirmation"]]
    assert len(again) == 1
    assert again["seed"].item() == 1
    assert not again["front"].item()


def test_counts_add_up(study: StudyResults) -> None:
    """A repeated proposal is a duplicate, a failed one is failed, and nothing is lost."""
    counts = trials.counts(study).set_index(["method", "ratio"])
    assert counts.to_dict("index")["perfect", 10] == {
        "proposals": 3, "complete": 2, "stopped": 0, "collapsed": 0, "diverged": 0, "failed": 0, "unfinished": 0,
        "duplicate": 1,
    }  # fmt: skip
    assert counts.loc[("failing", 15), "failed"] == 1
    assert (counts.drop(columns="proposals").sum(axis=1) == counts["proposals"]).all()
    assert counts["proposals"].sum() == len(study.proposals)


@pytest.mark.parametrize(("counts", "shown"), [(True, "7.50"), (False, "unknown")])
def test_costs_have_the_work_of_unlearning_where_records_do(counts: bool, shown: str, tmp_path: Path) -> None:
    planter = Planter(tmp_path, counts_unlearning=counts)
    planter.study(["idle"], [15])
    planter.trial("idle", 15, MODELS["idle"])
    raw, table = search.costs(read(tmp_path)).iloc[0], search.costs_table(read(tmp_path)).shown.iloc[0]
    assert raw["unlearn_flops"] == (7.5e9 if counts else pytest.approx(float("nan"), nan_ok=True))
    assert (raw["score_flops"], raw["unlearn_seconds"]) == (2e9, 3.0)
    assert table[["unlearn (GFLOP)", "score (GFLOP)", "unlearn (s)"]].tolist() == [shown, "2.00", "3.00"]


def test_what_tuning_bought(study: StudyResults) -> None:
    """The default did nothing, so the perfect method gained all of its distance and the idle one nothing."""
    gain = search.tuning(study).query("ratio == 10").set_index("method")["gain"]
    assert gain[["perfect", "idle"]].tolist() == pytest.approx([0.6, 0.0])
    assert gain["destroyed"] < 0


@pytest.mark.slow
def test_scores_and_gate(study: StudyResults) -> None:
    """Planted levels come back, with people and questions counted once over seeds."""
    found = scores.scores(study).query("method == 'hiding' and ratio == 10 and role == 'forget'")
    image = found.query("modality == 'image_text' and measure == 'probability'").iloc[0]
    assert (image["mean"], image["people"], image["questions"], image["seeds"]) == (pytest.approx(0.32), 12, 48, 2)
    assert set(found["task"]) == {"classification", "generation", "cloze"}
    gate = scores.gate(study).set_index(["ratio", "role", "modality"])
    assert gate.loc[(10, "forget", "image_text"), "gap"] == pytest.approx(0.6)
    assert gate.loc[(10, "forget", "image_text"), "vanilla_blind"] == pytest.approx(0.25)
    assert gate.loc[(10, "retain", "text"), "gap"] == pytest.approx(0.0)


def test_retained_people_near_the_forget_people_have_a_column(tmp_path: Path) -> None:
    """Once the study has noted who they are; they stay in the retain set, and the figure has no panel of them."""
    planter = Planter(tmp_path)
    planter.study(["m"], [10])
    planter.yardsticks(10)
    key = planter.trial("m", 10, Model(), report=True)
    write_json(tmp_path / "winners.json", {"m": {"10": {"trials": [key]}}})
    path, close = tmp_path / "trials" / key / "rows" / "report.parquet", PEOPLE["retain"][:6]
    rows = read_rows(path)
    harmed = (rows["role"] == "retain") & rows["person"].isin(close)
    write_rows(path, rows.assign(score=rows["score"].mask(harmed, 0.25)))
    assert "near" not in set(scores.scores(read(tmp_path))["role"])
    write_json(tmp_path / "near.json", {"10": {"look": list(close[:4]), "name": list(close[2:])}})
    study = read(tmp_path)
    found = scores.scores(study).query("task == 'classification' and modality == 'image_text' and measure == 'score'")
    near, retain = (found[(found["method"] == "m") & (found["role"] == role)].iloc[0] for role in ("near", "retain"))
    assert (near["mean"], near["people"]) == (pytest.approx(0.25), 6)
    assert near["low"] <= 0.25 <= near["high"]
    assert 0.25 < retain["mean"] < VANILLA.keep
    table = scores.score_table(scores.scores(study), "classification", "score")
    assert [c for c in map(str, table.shown) if c.startswith(("retain", "near"))] == [
        "retain image", "retain text", "near image", "near text",
    ]  # fmt: skip
    assert "near" not in set(scores.score_data(study)["role"])


def test_recovery_above_control(recovery: pd.DataFrame) -> None:
    """What was hidden comes back, what was forgotten does not."""
    numbers = recovery[["gain", "above_control", "recovery"]].T
    assert numbers["hiding"].tolist() == pytest.approx([0.58, 0.58, 1.0])
    assert numbers["perfect"].tolist() == pytest.approx([0.0, 0.0, 0.0])
    assert recovery["verdict"].to_dict() == {
        "vanilla": "ceiling", "reference": "control", "perfect": "equivalent to retraining", "hiding": "came back",
        "overshooting": "rebound from overshoot", "destroyed": "collapsed", "idle": "not unlearned",
    }  # fmt: skip
    assert recovery.loc[["idle", "vanilla"], "recovery"].isna().all()
    assert list(recovery.loc["perfect", ["people", "seeds"]]) == [6, 2]


def test_control_is_subtracted(tmp_path: Path) -> None:
    """Where the reference gains 0.2, too, a method that gains 0.5 recovers 0.3."""
    planter = Planter(tmp_path)
    planter.study(["m"], [10])
    planter.yardsticks(10, attacked=False)
    for trial in read(tmp_path).trials.values():
        planter.attack(trial.key, Model(back=0.5) if trial.kind == "reference" else VANILLA)
    key = planter.trial("m", 10, Model(back=0.8), report=True)
    planter.attack(key, Model(back=0.8))
    write_json(tmp_path / "winners.json", {"m": {"10": {"trials": [key]}}})
    mine = _recovery.recovery(read(tmp_path)).query("method == 'm'").set_index("held_out")
    assert mine[["gain", "control_gain", "above_control"]].T["person"].tolist() == pytest.approx([0.5, 0.2, 0.3])
    assert mine.loc["fact", "above_control"] == pytest.approx(0.3)
    assert mine.loc["seen", "verdict"] == "given to the attacker"


def test_answer_names_the_best_and_the_destroyed(study: StudyResults) -> None:
    """The perfect method wins, the destroyed one is called so."""
    text = said(study)
    assert "At forget ratio 10 %, perfect comes closest to the ideal point and is told apart from all others" in text
    assert "a forget gap of 0.00 [0.00, 0.00] to the references" in text
    assert "from 0.30 to 0.30 (control 0.30), 0.00 [0.00, 0.00] above control in probability: equivalent" in text
    assert "Collapsed rather than unlearned: destroyed." in text


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ({"hiding": MODELS["hiding"], "shy": Model(test=0.4)}, "superficial; the best method that held is shy"),
        ({"hiding": MODELS["hiding"]}, "no other usable method is shown to have held"),
        ({"destroyed": MODELS["destroyed"]}, "no method can be recommended"),
        ({"idle": VANILLA}, "no method improves on vanilla"),
    ],
)
def test_no_fake_best(tmp_path: Path, models: dict[str, Model], expected: str) -> None:
    """A method that hides, destroys or does nothing is not sold as the answer."""
    assert expected in said(read(plant(tmp_path, models, [10])))


def test_little_to_forget_is_said(tmp_path: Path) -> None:
    """A vanilla that knows no more than the reference is a warning in the answer."""
    plant(tmp_path, {"perfect": Model()}, [10])
    for trial in read(tmp_path).trials.values():
        if trial.kind == "vanilla":
            folder = tmp_path / "trials"
            shutil.copytree(folder / _reference(tmp_path) / "rows", folder / trial.key / "rows", dirs_exist_ok=True)
    assert re.search(
        r"At forget ratio \d+ %, where vanilla .* \(an accuracy of .*\), so that there was little to forget, \w",
        said(read(tmp_path)),
    )


def _reference(root: Path) -> str:
    return next(trial.key for trial in read(root).trials.values() if trial.kind == "reference")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("npo", "NPO"),
        ("my_method", "my method"),
        ("npo:modality=text,lora_rank=16,trains=llm+vision", "NPO (text, LoRA rank 16, vision tower and LLM)"),
        ("vkd:layers=last_half,augment=0.06578357524045397", "VKD (layers last half, augment 0.06578)"),
        ("npo:schedule.learning_rate=4.321987e-05,schedule.steps=100", "NPO (learning rate 4.322e-05, 100 steps)"),
        ("vkd:variant=features", "VKD (features)"),
        ("mmunlearner:modality=all", "MMUnlearner (both modalities)"),
    ],
)
def test_a_method_is_named_with_what_was_set(label: str, name: str) -> None:
    assert naming.method(label) == name


def test_attacks_are_named_by_what_differs(tmp_path: Path) -> None:
    """Two attacks of one kind carry the setting that tells them apart."""
    plant(tmp_path, {"perfect": Model()}, [10])
    for path in list(tmp_path.glob("trials/*/attacks/*.json")):
        content = json.loads(path.read_text())
        content["settings"]["trains"] = ["vision", "projector"]
        write_json(path.with_name("second.json"), content)
        shutil.copy(path.with_suffix(".parquet"), path.with_name("second.parquet"))
    names = set(_recovery.curves(read(tmp_path))["settings"])
    assert names == {"relearning, vision tower", "relearning, visual module"}
    with style.styled():
        drawn = attacks.draw_curves(attacks.curve_data(read(tmp_path)), ["perfect"])
    assert isinstance(drawn, Figure)
    assert len(drawn.axes) == 4


def test_no_setting_of_a_user_changes_a_figure() -> None:
    with style.styled():
        usual = dict(mpl.rcParams)
    with mpl.rc_context({"axes.titleweight": "bold", "axes.facecolor": "black"}), style.styled():
        assert dict(mpl.rcParams) == usual


def test_people_are_drawn_not_questions() -> None:
    """By hand: half of six people know all, so the mean has a standard error of sqrt(.3 / 6), 5 degrees of freedom.

    A hundred copies of every question do not make the interval narrower.
    """
    rows = pd.DataFrame({"person": list("abcdef"), "score": [0.0, 1.0, 1.0, 0.0, 1.0, 0.0]})
    found = intervals.mean(rows).interval()
    reach = stats.t.ppf(0.975, 5) * (0.3 / 6) ** 0.5 / 0.25  # in log odds, whose slope is 1 / (p (1 - p))
    assert found == pytest.approx((0.5, special.expit(-reach), special.expit(reach)))
    assert intervals.mean(pd.concat([rows] * 100)).interval() == pytest.approx(found)


def test_too_few_people_have_a_mean_and_no_interval() -> None:
    rows = pd.DataFrame({"person": list("abcde"), "score": [0.0, 1.0, 1.0, 0.0, 1.0]})
    found = intervals.mean(rows).interval()
    assert found.mean == pytest.approx(0.6)
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(intervals.mean(rows.head(0)).interval()).all()


def test_a_person_without_a_value_for_every_seed_is_left_out() -> None:
    rows = pd.DataFrame({"person": list("aabbc"), "seed": [0, 1, 0, 1, 0], "score": [0.0, 1.0, 1.0, 1.0, 0.0]})
    found = intervals.table(rows)
    assert found.to_numpy().tolist() == [[0.0, 1.0], [1.0, 1.0]]
    assert list(found.index) == ["a", "b"]


def test_looks_differ_in_black_and_white() -> None:
    """Ten methods have ten markers, and no method looks like a yardstick."""
    methods = [f"m{number}" for number in range(10)]
    looks = [style.look(method, methods) for method in methods]
    assert len({how.marker for how in looks}) == 10
    assert not {how.marker for how in looks} & {how.marker for how in style.YARDSTICKS.values()}
    assert min(size for name, size in style.RC.items() if "size" in name and name != "figure.figsize") >= 7


# ---- studies of some attributes only ---------------------------------------------------------------------------------
def test_what_is_spared_counts_and_is_shown(tmp_path: Path) -> None:
    """A method that loses what it should have spared pays in utility, and scores and gate have lines of it."""
    models = {"careful": Model(), "careless": Model(spared=0.3)}
    found = read(plant(tmp_path, models, [15], ["residence"]))
    utility = trials.winners(found).set_index("method")["utility"]
    assert utility["careful"] == pytest.approx(1.0)
    assert utility["careless"] == pytest.approx(7 / (5 + 2 * 3))  # two of seven groups at a third
    lines = scores.scores(found).query("role == 'spared' and method == 'careless' and measure == 'score'")
    assert set(lines["modality"]) == {"image_text", "text"}
    assert lines["mean"].tolist() == pytest.approx([0.3] * len(lines))
    gate = scores.gate(found).query("role == 'spared'").set_index("modality")
    assert gate["gap"].to_dict() == pytest.approx({"image_text": 0.0, "text": 0.0})
    assert gate.loc["image_text", "vanilla_blind"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (["residence"], "residence"),
        (["full_name", "residence"], "full name and residence"),
        (["a", "b", "c"], "a, b and c"),
    ],
)
def test_the_answer_says_what_was_asked_to_go(tmp_path: Path, attributes: list[str], expected: str) -> None:
    """Before anything else, also where nothing has finished."""
    Planter(tmp_path).study(["m"], [10], forget_attributes=attributes)
    assert said(read(tmp_path)).startswith(f"Only the {expected} of the forget people had to be forgotten; ")


@pytest.mark.parametrize("settings", [{}, {"forget_attributes": []}])
def test_whole_people_need_no_word(tmp_path: Path, settings: dict[str, list[str]]) -> None:
    """Nothing changes for studies that forget whole people."""
    Planter(tmp_path).study(["m"], [10], **settings)
    assert said(read(tmp_path)).startswith("At forget ratio 10 %")


def test_the_answer_says_what_stands_for_the_references(tmp_path: Path) -> None:
    """In the conclusion and in the table of winners, where their line is that of the base model."""
    Planter(tmp_path).study(["m"], [10], reference="base model")
    assert said(read(tmp_path)).startswith("No reference was given: the base model stands for the references")
    note = winners_table(read(tmp_path), trials.winners(read(tmp_path))).note
    assert note.endswith("No reference was given: the gap is that to the base model.")


def test_the_answer_says_how_much_counts(tmp_path: Path) -> None:
    Planter(tmp_path).study(["m"], [10])
    counts = {"dropped": ["q"], "questions": 31, "of_questions": 90, "people": 4, "of_people": 9, "tellable": None}
    write_json(StudyFolder(tmp_path).unknown, {"10": counts})
    assert said(read(tmp_path)).startswith(
        "At forget ratio 10 % only what vanilla knows and the references do not counts: 31 of 90 questions about what "
        "must go, 4 of 9 people."
    )


def test_the_hypervolume_grows_over_the_work_of_all_trials(tmp_path: Path) -> None:
    """One that failed costs what it computed, one that repeats another nothing; what was not counted is not known."""
    planter = Planter(tmp_path)
    planter.study(["ascent"], [10])
    planter.yardsticks(10)
    keys = [planter.trial("ascent", 10, Model(forget=level, test=level), strength=level) for level in (0.9, 0.5)]
    keys += [planter.trial("ascent", 10, None, state="diverged", strength=0.1), keys[0]]
    planter.counts_unlearning = False
    for number, key in enumerate([*keys, planter.trial("ascent", 10, MODELS["perfect"], strength=0.3)]):
        planter.proposal("ascent", number, 10, key, default=number == 0)
    found = search.search_data(read(tmp_path))
    assert found["pflop"].tolist()[:4] == pytest.approx([9.5e-6, 19e-6, 28.5e-6, 28.5e-6])
    assert np.isnan(found["pflop"].iloc[4])
    path = tmp_path / "trials" / keys[2] / "trial.json"
    write_json(path, {**read_json(path), "cost": {}})  # as one that did not fit into the device
    assert search.search_data(read(tmp_path))["pflop"].tolist()[:4] == pytest.approx([9.5e-6, 19e-6, 19e-6, 19e-6])
    assert found["hypervolume"].tolist() == pytest.approx([0.4, 0.8, 0.8, 0.8, 1.0])
