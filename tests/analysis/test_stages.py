"""The stages of an attack that asks in several ways, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.sections import _recovery, attacks, stages
from analysis.study_folder import read
from study.core.files import write_json
from tests.helpers.planted import VANILLA, Attack, Model, Planter

KINDS = ["darken", "flip"]


def planted(root: Path, settings: dict[str, Any], steps: tuple[int, ...] = (0, 1, 2)) -> Path:
    """A winner that goes from 0.3 to 0.9 in two equal steps while the control stays."""
    how = Attack("image_transform", settings, steps=steps)
    planter = Planter(root)
    planter.study(["m"], [10])
    vanilla, reference = planter.yardsticks(10, attacked=False)
    key = planter.trial("m", 10, Model(back=0.9), report=True)
    write_json(root / "winners.json", {"m": {"10": {"trials": [key]}}})
    for trial, model in ((vanilla, VANILLA), (reference, Model(back=0.3)), (key, Model(back=0.9))):
        planter.attack(trial, model, how)
    return root


@pytest.mark.parametrize(
    "settings",
    [{"kind": KINDS, "strength": 0.5}, {"links": [{"type": "SwapBack"}, {"type": "ImageTransform", "kind": KINDS}]}],
)
def test_every_stage_has_a_name_and_its_gain_above_control(settings: dict[str, Any], tmp_path: Path) -> None:
    """Also the last of composed attacks."""
    found = stages.stages(read(planted(tmp_path, settings)))
    mine, control = (found[found["method"] == name] for name in ("m", "reference"))
    assert mine[["stage", "change"]].to_numpy().tolist() == [[1, "darken"], [2, "flip"]]
    assert mine["above_control"].tolist() == pytest.approx([0.3, 0.6])
    assert mine["after"].tolist() == pytest.approx([0.6, 0.9])
    assert control["above_control"].tolist() == [0.0, 0.0]
    shown = stages.stages_table(stages.stages(read(tmp_path))).shown
    assert shown.loc[shown["method"] == "m", "above control"].tolist() == ["0.30", "0.60"]


def test_changes_are_no_course(tmp_path: Path) -> None:
    """They have no order, so they are no curve, and no number of them takes an attacker half-way."""
    study = read(planted(tmp_path, {"kind": KINDS, "strength": 0.5}))
    assert attacks.curve_data(study).empty
    assert _recovery.recovery(study)["half_back"].isna().all()


def test_an_attack_that_lists_no_stages_has_no_lines(tmp_path: Path) -> None:
    assert stages.stages(read(planted(tmp_path, {"kind": "crop"}))).empty
