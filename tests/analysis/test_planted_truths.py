"""Studies whose right answer is known: whatever speaks of it, in numbers or in words, must come to that answer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import comparison, naming, trials
from analysis.plots import Plot
from analysis.sections import _worst_attack, attacks, conclusion, sections, worst_case
from analysis.sections import people as people_section
from analysis.sections import winners as winners_section
from analysis.study_folder import StudyResults, read
from analysis.tables import Pairs, Table
from study.core.files import write_json
from tests.helpers.planted import (
    MODELS,
    PEOPLE,
    REFERENCE,
    RELEARNING,
    VANILLA,
    Attack,
    Model,
    Planter,
    plant_attacks,
)

RETRAINED = 0.12
"""How far the scores of a person differ between retrainings from two seeds."""


def retrained(seed: int) -> Model:
    """A retraining: at chance whom it guesses right. What an attack then teaches it depends on the seed a little."""
    draw = np.random.default_rng(seed)
    people = {who: 0.3 + float(np.clip(RETRAINED * draw.normal(), -0.25, 0.25)) for who in PEOPLE["forget"]}
    return Model(people=people, back=0.35 + 0.01 * float(draw.normal()))


REFERENCES = [retrained(seed) for seed in range(3)]


def study_of(
    root: Path,
    models: Mapping[str, Sequence[Model]],
    references: Sequence[Model] = (REFERENCE,),
    *,
    how: Attack | None = RELEARNING,
    people: Mapping[str, Sequence[str]] = PEOPLE,
    noise: float = 0.0,
) -> StudyResults:
    """A study at 10 % of one winner a method with its seeds, which all met one attack, as the references did."""
    planter = Planter(root, people=people, noise=noise)
    planter.study([*models], [10], confirm_seeds=len(next(iter(models.values()), ())) - 1)
    keys = planter.yardsticks(10, attacked=how is not None, references=references)
    assert len(set(keys)) == 1 + len(references)
    winners = {}
    for method, runs in models.items():
        mine = [planter.trial(method, 10, model, seed=seed, report=True) for seed, model in enumerate(runs)]
        planter.proposal(method, 0, 10, mine[0], default=True)
        for key, model in zip(mine, runs, strict=True):
            if how is not None:
                planter.attack(key, model, how)
        winners[method] = {"10": {"trials": mine}}
    write_json(root / "winners.json", winners)
    return read(root)


def said(study: StudyResults) -> str:
    """The sentences below the table of the answer."""
    return " ".join(part for part in conclusion.parts(study) if isinstance(part, str))


def won(study: StudyResults) -> pd.DataFrame:
    return trials.winners(study).set_index("method")


def cells(study: StudyResults) -> list[str]:
    """Every sentence, definition and cell of the page and of the terminal, as text."""
    found = []
    for part in (part for section in sections() for part in section.parts(study)):
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, Table):
            found += [part.title, part.note, *map(str, part.shown.to_numpy().ravel())]
        elif isinstance(part, Pairs):
            found += [text for pair in part.entries for text in pair]
    for frame in (winners_section.printed(study), attacks.printed(study)):
        found += map(str, frame.to_numpy().ravel())
    return found


# ---- retraining and twins --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """Two methods that are retrainings from further seeds, twice each, and three references."""
    models = {name: [retrained(seed), retrained(seed + 1)] for name, seed in (("vkd", 10), ("npo", 20))}
    return study_of(tmp_path_factory.mktemp("honest"), models, REFERENCES, noise=0.05)


def test_a_retraining_lies_about_the_noise_floor(honest: StudyResults) -> None:
    """It is as far from the references as these are from each other, which is far from vanilla."""
    floor = comparison.floor(honest, 10)
    assert len(floor) == 3
    for _, line in won(honest).iterrows():
        assert 0.5 * min(floor) < line["forget_gap"] < 1.5 * max(floor)
        assert line["forget_gap_high"] < 0.2
        assert line["noise_floor"] == max(floor)
    assert trials.objectives_of(honest, honest.yardsticks("vanilla", 10)[0].key, "report")[0]["forget_gap"] > 0.5


def test_nothing_came_back_of_a_retraining(honest: StudyResults) -> None:
    worst = _worst_attack.table(honest)
    assert len(worst) == 2
    assert set(worst["verdict"]) <= {"equivalent to retraining", "cannot tell"}
    assert (worst["seeds"] == 2).all()
    assert "came back" not in said(honest)
    assert "came back" not in set(attacks.printed(honest)["verdict"])


def test_two_retrainings_tie(honest: StudyResults) -> None:
    assert won(honest)["tied"].all()
    assert "the methods closest to the ideal point cannot be told apart: " in said(honest)
    assert f"The noise floor of retraining is {max(comparison.floor(honest, 10)):.2f}" in said(honest)


@pytest.mark.slow
def test_twins_under_two_names_tie_and_both_are_named(tmp_path: Path) -> None:
    """Beside a third method that is plainly farther. What is said of one is said of the other."""
    twin = [retrained(7), retrained(8)]
    far = [Model(0.7, 0.7, back=0.7)] * 2
    study = study_of(tmp_path, {"vkd": twin, "npo": twin, "manu": far}, REFERENCES)
    lines = won(study)
    assert lines["tied"].to_dict() == {"vkd": True, "npo": True, "manu": False}
    assert sorted(lines.loc[["vkd", "npo"], "farther"]) == [0.0, 0.0]
    assert lines["farther_low"]["manu"] > 0
    first, _, rest = said(study).partition("; vanilla's gap")
    assert "cannot be told apart: " in first
    assert "NPO (gap " in first
    assert "VKD (gap " in first
    assert "MANU" not in first
    assert "The worst attack on VKD (" in rest
    assert "The worst attack on NPO (" in rest
    marks = winners_section.printed(study).set_index("method")["mark"]
    assert [("tied" in marks[name]) for name in ("VKD", "NPO", "MANU")] == [True, True, False]


# ---- what a mean hides -----------------------------------------------------------------------------------------------
EIGHT = {**PEOPLE, "forget": PEOPLE["forget"][:8]}
MIXTURE = Model(0.1, 0.1, people={"forget-2": 0.9, "forget-5": 0.9}, back=0.1)
"""Two of eight people are kept whole and six crushed: the mean is that of the reference, (2 * .9 + 6 * .1) / 8 = .3."""


def test_a_mixture_is_behind_retraining_though_its_mean_is_the_same(tmp_path: Path) -> None:
    """By hand: two people are .6 too high and six .2 too low."""
    models = {"vkd": [retrained(10), retrained(11)], "npo": [MIXTURE] * 2}
    study = study_of(tmp_path, models, [REFERENCE] * 3, people=EIGHT)
    lines = won(study)
    assert lines.loc["npo", "mean_gap"] == pytest.approx(0.0)
    assert lines.loc["npo", "forget_gap"] == pytest.approx((2 * 0.6 + 6 * 0.2) / 8)
    assert lines.index[0] == "vkd"
    assert not lines["tied"].any()
    assert "VKD comes closest to the ideal point and is told apart from the other" in said(study)
    shown = winners_section.printed(study).set_index("method")["most known"]
    assert shown["NPO"] == "forget-2 0.90"
    most = people_section.worst_table(people_section.people(study)).shown.set_index("model")
    assert list(most.loc["NPO", ["person", "knows"]]) == ["forget-2", "0.900"]
    drawn = people_section.people(study).query("method == 'npo'")
    assert sorted(drawn["score"]) == pytest.approx([0.1] * 6 + [0.9] * 2)


@pytest.mark.slow
def test_whom_the_best_method_kept_is_said(tmp_path: Path) -> None:
    """Where nothing else was tried, the mixture is the closest, and its person is named; a retraining has none."""
    study = study_of(tmp_path / "mixture", {"npo": [MIXTURE] * 2}, [REFERENCE] * 3, people=EIGHT)
    assert "Caution: of forget-2 NPO still knows 0.90, of nobody do the references know more than 0.30." in said(study)
    assert "told apart" not in said(study)
    honest = study_of(tmp_path / "honest", {"npo": [Model()] * 2}, [REFERENCE] * 3, people=EIGHT)
    assert "Caution" not in said(honest)


def test_wrong_choices_do_not_hide_right_clozes(tmp_path: Path) -> None:
    """Of six terms two are choices at the reference's level; clozes and generations of both sets are .6 above it."""
    study = study_of(tmp_path, {"vkd": [Model()], "npo": [Model(open=0.9)]})
    lines = won(study)
    assert lines.loc["npo", "forget_gap"] == pytest.approx(4 / 6 * 0.6)
    assert lines.loc["npo", "select_forget_gap"] == pytest.approx(4 / 6 * 0.6)
    assert lines.loc["npo", "mean_gap"] == pytest.approx(0.0)
    assert lines.index[0] == "vkd"
    assert not lines["tied"].any()


# ---- attacks ---------------------------------------------------------------------------------------------------------
def test_what_came_back_counts_on_a_model_that_keeps_little_else(tmp_path: Path) -> None:
    """From .2 to .95 while .3 of the retain accuracy is left: in the table, the terminal, the conclusion, the map."""
    how = Attack(settings=RELEARNING.settings, back=0.95, told=0.95, kept=0.3)
    model = Model(0.2, 0.2)
    study = study_of(tmp_path, {"vkd": [model] * 2}, how=None)
    planter = Planter(tmp_path)
    for key in study.winners["vkd", 10]:
        planter.attack(key, model, how)
    for kind, told in (("vanilla", VANILLA), ("reference", REFERENCE)):
        [bar] = study.yardsticks("reference" if kind == "reference" else "vanilla", 10)
        planter.attack(bar.key, told)
    study = read(tmp_path)
    [(_, line)] = _worst_attack.table(study).iterrows()
    assert [line["before"], line["after"], line["kept"]] == pytest.approx([0.2, 0.95, 0.3])
    assert line["above_control"] == pytest.approx(0.75)
    assert line["verdict"] == "came back"
    assert worst_case.worst_case_table(study).shown["verdict"].tolist() == ["came back"]
    assert attacks.printed(study)["verdict"].tolist() == ["came back"]
    assert "from 0.20 to 0.95 (control 0.30), 0.75 [0.75, 0.75] above control in probability: came back." in said(study)
    assert "Its unlearning is superficial" in said(study)
    heat = attacks.heat_data(study)
    assert heat["verdict"].tolist() == ["came back"]
    assert heat["above_control"].tolist() == pytest.approx([0.75])


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """A study with a suite, searches, and a method of every kind."""
    models = {**MODELS, "shy": Model(0.35, 0.35, back=0.45)}
    return read(plant_attacks(tmp_path_factory.mktemp("searched"), models, [10]))


@pytest.mark.slow
def test_all_speak_of_the_same_worst_attack(searched: StudyResults) -> None:
    """Of every winner: the table, the terminal, the figures."""
    table = _worst_attack.table(searched).set_index("method")
    assert len(table) == len(searched.winners)
    names = {naming.method(method): method for method in table.index}
    shown = worst_case.worst_case_table(searched).shown.set_index("method").rename(index=names)
    printed = attacks.printed(searched).set_index("method").rename(index=names)
    drawn = worst_case.against_utility_data(searched).set_index("method")
    heat = attacks.heat_data(searched)
    heat = heat[heat["settings"] == attacks.WORST].set_index("method")
    curves = _worst_attack.curves(searched).query("who == 'method'").groupby("method")
    for method, line in zip(map(str, table.index), table.to_dict("records"), strict=True):
        assert {frame.loc[method, "verdict"] for frame in (shown, printed, drawn, heat)} == {line["verdict"]}
        assert shown.loc[method, "worst attack"] == line["settings"]
        assert line["settings"].startswith(printed.loc[method, "worst attack"])
        assert {frame["above_control"][method] for frame in (drawn, heat)} == {line["above_control"]}
        assert set(curves.get_group(method)["settings"]) == {line["settings"]}
        assert curves.get_group(method)["mean"].iloc[-1] == pytest.approx(line["after"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["perfect", "shy", "hiding", "overshooting"])
def test_the_headline_speaks_of_the_same_worst_attack(tmp_path: Path, method: str) -> None:
    """Of the method that is best where there is no other."""
    model = {**MODELS, "shy": Model(0.35, 0.35, back=0.45)}[method]
    study = read(plant_attacks(tmp_path, {method: model}, [10]))
    [(_, line)] = _worst_attack.table(study).iterrows()
    assert f"The worst attack on it ({line['settings']}; with an attack search of " in said(study)
    assert f"from {line['before']:.2f} to {line['after']:.2f} (control " in said(study)
    assert f" above control in probability: {line['verdict']}." in said(study)


# ---- too little to tell ----------------------------------------------------------------------------------------------
def test_fewer_than_six_people_have_no_interval_and_no_verdict(tmp_path: Path) -> None:
    """Whatever the numbers: here all came back."""
    few = {**PEOPLE, "forget": PEOPLE["forget"][:5]}
    models = {"vkd": [Model(back=0.9)] * 2, "npo": [Model(0.4, 0.4, back=0.9)] * 2}
    study = study_of(tmp_path, models, people=few)
    worst = _worst_attack.table(study)
    assert set(worst["verdict"]) == {"too few people"}
    assert worst["above_control"].tolist() == pytest.approx([0.5, 0.6])
    assert worst[["above_control_low", "above_control_high"]].isna().all(axis=None)
    assert set(attacks.printed(study)["verdict"]) == {"too few people"}
    lines = won(study)
    assert lines["forget_gap"].tolist() == pytest.approx([0.0, 0.1])
    assert lines[["forget_gap_low", "forget_gap_high", "farther_low"]].isna().all(axis=None)
    assert lines["tied"].all()
    assert "VKD (gap 0.00, utility 1.00) and NPO (gap 0.10, utility 1.00)" in said(study)
    assert "Their differences have no interval: it takes at least 6 people of each set." in said(study)
    assert "include 0" not in said(study)
    assert "0.60 above control in probability: too few people." in said(study)


def unfinished(root: Path) -> StudyResults:
    """Selected, not scored on the test half, one seed of two never ran."""
    planter = Planter(root)
    planter.study(["vkd", "npo"], [10, 15])
    planter.yardsticks(10, attacked=False)
    key = planter.trial("vkd", 10, Model())
    planter.proposal("vkd", 0, 10, key)
    planter.proposal("npo", 0, 10, "never-ran")
    write_json(root / "winners.json", {"vkd": {"10": {"trials": [key, "never-ran"]}}})
    return read(root)


def half_attacked(root: Path) -> StudyResults:
    """One winner met an attack that failed, the other none; the references met none."""
    study = study_of(root, {"vkd": [Model()], "npo": [Model()]}, how=None)
    Planter(root).attack(study.winners["vkd", 10][0], Model(), Attack(failed="out of memory"))
    return read(root)


STUDIES: dict[str, Callable[[Path], StudyResults]] = {
    "one reference": lambda root: study_of(root, {"vkd": [Model()] * 2, "npo": [Model(0.5, 0.5)] * 2}),
    "one seed": lambda root: study_of(root, {"vkd": [retrained(5)], "npo": [Model()]}, REFERENCES),
    "no attacks": lambda root: study_of(root, {"vkd": [Model()] * 2, "npo": [Model()] * 2}, how=None),
    "half attacked": half_attacked,
    "unfinished": unfinished,
    "few people": lambda root: study_of(
        root, {"vkd": [Model()] * 2, "npo": [Model()] * 2}, people={**PEOPLE, "forget": ["a", "b"]}
    ),
    "no reference": lambda root: study_of(root, {"vkd": [Model()] * 2}, ()),
    "collapsed": lambda root: study_of(root, {"vkd": [MODELS["destroyed"]] * 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", STUDIES)
def test_nothing_is_called_nan(tmp_path: Path, kind: str) -> None:
    """In no sentence and no cell of the page or the terminal."""
    texts = cells(STUDIES[kind](tmp_path))
    assert texts
    assert not [text for text in texts if re.search(r"\b(nan|NaN|None|inf)\b", text)]


def test_an_attack_that_failed_shows_nothing(tmp_path: Path) -> None:
    """Nor does one that was never run: of both methods the robustness is unknown, and nothing held."""
    text = said(half_attacked(tmp_path))
    assert "No attack on VKD could be compared with the same on the references, so its robustness is unknown." in text
    assert "NPO has not been attacked yet, so its robustness is unknown." in text
    assert not [word for word in ("came back", "equivalent", "collapsed") if word in text]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one reference", "one seed"])
def test_an_unknown_noise_floor_is_said_to_be_unknown(tmp_path: Path, kind: str) -> None:
    study = STUDIES[kind](tmp_path)
    floor = winners_section.printed(study).query("mark == 'noise floor'")["forget gap"].item()
    unknown = kind == "one reference"
    assert (floor == "not known") == unknown
    assert ("How far retrainings differ among themselves is not known" in said(study)) == unknown


@pytest.mark.slow
def test_figures_are_drawn_of_studies_that_say_little(tmp_path: Path) -> None:
    """Without intervals, too."""
    study = STUDIES["few people"](tmp_path)
    plots = [part for section in sections() for part in section.parts(study) if isinstance(part, Plot)]
    drawn = {plot.name: plot.draw(plot.data, study.methods) for plot in plots if not plot.data.empty}
    assert {"people", "attack_heatmap", "robustness", "worst_attack", "trade_off"} <= drawn.keys()
    assert not any(math.isnan(size) for figure in drawn.values() for size in figure.get_size_inches())
