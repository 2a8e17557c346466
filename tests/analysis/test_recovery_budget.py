"""Recovery against the attacker's budget: which attacks are drawn, and that the numbers are those planted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import style
from analysis.sections import recovery_budget, worst_case
from analysis.sections.conclusion import parts as sentences
from analysis.sections.recovery_budget import budget, by_share_table, draw_budget, family
from analysis.study_folder import StudyResults, read
from analysis.tables import Table
from study.core.files import write_json
from study.core.layout import StudyFolder
from study.core.records import LearnedRecord, write_record
from study.core.rows import write_rows
from tests.helpers.planted import REFERENCE, VANILLA, Attack, Model, Planter

MODEL = Model()


def relearning(people: float, back: float, **more: object) -> Attack:
    """An attack on some people, of which so much comes back in 40 steps."""
    return Attack(
        "relearning", {"people": people, "facts": 0.5, "schedule": {"steps": 40}, **more}, back=back, told=back
    )


SHARES = (relearning(0.25, 0.5), relearning(0.5, 0.7), relearning(1.0, 0.9))
OTHERS = (relearning(0.5, 0.95, facts=1.0), Attack("swap_back", {"parts": ["vision"]}, back=0.9, steps=(0, 1)))


def study_of(root: Path, attacks: Sequence[Attack]) -> StudyResults:
    """A winner that knows .3 and met some attacks; the control gains .1 by each."""
    planter = Planter(root)
    planter.study(["vkd"], [10])
    vanilla, reference = planter.yardsticks(10, attacked=False)
    key = planter.trial("vkd", 10, MODEL, report=True)
    planter.proposal("vkd", 0, 10, key, default=True)
    write_json(root / "winners.json", {"vkd": {"10": {"trials": [key]}}})
    for how in attacks:
        planter.attack(key, MODEL, how)
        for bar, model in ((vanilla, VANILLA), (reference, REFERENCE)):
            planter.attack(bar, model, Attack(how.name, how.settings, back=0.4, told=0.4, steps=how.steps))
    return read(root)


def test_attacks_that_differ_in_the_people_given_alone_are_one_family(tmp_path: Path) -> None:
    """Not the stronger attack that is given other facts, nor one of a single step."""
    study = study_of(tmp_path, [*SHARES, *OTHERS])
    assert family(study) == {0.25: SHARES[0].key, 0.5: SHARES[1].key, 1.0: SHARES[2].key}


def test_of_families_with_one_share_the_strongest_is_drawn(tmp_path: Path) -> None:
    study = study_of(tmp_path, [SHARES[0], OTHERS[0]])
    assert family(study) == {0.5: OTHERS[0].key}
    assert [part for part in recovery_budget.parts(study) if isinstance(part, Table)] == []


def test_the_strongest_is_the_one_of_the_validation_half(tmp_path: Path) -> None:
    """What shines on the test half alone is not drawn for it."""
    lucky = Attack("relearning", {"people": 0.5, "facts": 0.2, "schedule": {"steps": 40}}, back=0.45, told=0.95)
    assert family(study_of(tmp_path, [lucky, SHARES[0]])) == {0.25: SHARES[0].key}


def test_the_budget_is_people_times_steps(tmp_path: Path) -> None:
    """By hand: a quarter of the way is gone at step 10, of .2, .4 and .6 on the winner and of .1 on the control."""
    data = budget(study_of(tmp_path, [*SHARES, *OTHERS])).set_index(["share", "who", "step"])["gain"]
    assert len(data) == 3 * 2 * 4
    for share, way in ((0.25, 0.2), (0.5, 0.4), (1.0, 0.6)):
        assert data[share, "method", 10] == pytest.approx(way / 4)
        assert data[share, "method", 40] == pytest.approx(way)
        assert data[share, "control", 10] == pytest.approx(0.1 / 4)


def test_the_attack_gain_is_told_by_share(tmp_path: Path) -> None:
    """In accuracy, which rose as the probability did; of the control .1 each time."""
    study = study_of(tmp_path, [*SHARES, *OTHERS])
    shown = by_share_table(study)
    assert shown.raw["attack_gain"].tolist() == pytest.approx([0.2, 0.4, 0.6])
    assert shown.raw["control_attack_gain"].tolist() == pytest.approx([0.1] * 3)
    assert shown.shown["given"].tolist() == ["25 % of the people", "50 % of the people", "100 % of the people"]
    assert shown.shown["on"].tolist() == ["held out"] * 3
    assert "definition is ours" in shown.note


def test_where_all_is_given_the_gain_is_of_that(tmp_path: Path) -> None:
    """The whole forget set was given at 100 %: no line in the figure, and a gain that says nothing of memory."""
    study_of(tmp_path, SHARES)
    for path in tmp_path.glob(f"trials/*/attacks/{SHARES[2].key}.parquet"):
        rows = pd.read_parquet(path)
        forget = rows["role"] == "forget"
        write_rows(path, rows.assign(seen=rows["seen"] | forget, held_out=rows["held_out"].mask(forget, "")))
    study = read(tmp_path)
    assert list(family(study)) == [0.25, 0.5, 1.0]
    assert set(budget(study)["share"]) == {0.25, 0.5}
    shown = by_share_table(study)
    assert shown.shown["on"].tolist() == ["held out", "held out", "given"]
    assert shown.shown["verdict"].tolist()[-1] == "given to the attacker"
    # Of twelve people every other one gets back .6 of all questions, the others of half of them and .65 of the rest.
    assert shown.raw["attack_gain"].tolist()[-1] == pytest.approx((3 * 0.6 + 0.65) / 4)


def test_every_winner_has_a_panel_and_every_share_a_line(tmp_path: Path) -> None:
    """One of the winner and one of the control, beside the line at 0."""
    data = budget(study_of(tmp_path, SHARES))
    with style.styled():
        figure = draw_budget(data, ["vkd"])
    [axis] = figure.axes
    assert len(axis.lines) == 3 * 2 + 1
    ends = sorted(float(np.asarray(line.get_ydata())[-1]) for line in axis.lines)
    assert ends == pytest.approx([0.0, 0.1, 0.1, 0.1, 0.2, 0.4, 0.6])


def test_nothing_is_drawn_of_attacks_of_one_step(tmp_path: Path) -> None:
    assert budget(study_of(tmp_path, OTHERS[1:])).empty


@pytest.mark.slow
@pytest.mark.parametrize(("quantized", "said"), [("", "bfloat16"), ("nf4", "bfloat16, LLM in nf4")])
def test_verdicts_name_the_precision(tmp_path: Path, quantized: str, said: str) -> None:
    """In the table, its caption and the conclusion; nothing is said where the learned model is not there."""
    study = study_of(tmp_path, SHARES)
    assert "weights in" not in worst_case.worst_case_table(study).note + " ".join(map(str, sentences(study)))
    record = LearnedRecord("vanilla-10", "vanilla", "b", "b", None, None, {}, ("llm",), 0, {}, 1.0, dtype="bfloat16",
                           quantized="nf4" if quantized else "")  # fmt: skip
    write_record(StudyFolder(tmp_path).learned_record("vanilla-10"), record)
    study = read(tmp_path)
    table = worst_case.worst_case_table(study)
    assert table.raw["precision"].tolist() == [said]
    assert f"Verdicts are on weights in {said}, before the attack." in table.note
    assert f"Verdicts are on weights in {said}, before the attack." in " ".join(map(str, sentences(study)))
