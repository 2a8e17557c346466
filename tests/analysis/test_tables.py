"""What is written of a table: no formula for a spreadsheet, no control character for LaTeX, and numbers as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.tables import NOTHING, Table, as_csv, number


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|x", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_a_csv_is_a_formula(cell: str) -> None:
    frame = pd.DataFrame({"a": [cell, "plain"], cell: ["x", None]})
    header, first, _ = as_csv(frame).replace('"', "").split("\n", 2)
    assert header == f"a,'{cell}".replace('"', "")
    assert first.startswith(f"'{cell}")


def test_numbers_stay_numbers_and_other_text_stays_as_it_is(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "x": [-1.5, np.nan], "n": pd.array([-3, None], dtype="Int64"), "b": [True, False], "t": ["-0.25", "a=b"],
        "none": [None, "x"],
    })  # fmt: skip
    assert as_csv(frame) == frame.to_csv(index=False)


def test_latex_gets_no_control_character(tmp_path: Path) -> None:
    frame = pd.DataFrame({"na\x00me": ["a\x1bb\x7fc\x85d", "x_1 Łódź"], "n": [1, 2]})
    _, tex = Table("t", "", "", frame, frame).write(tmp_path)
    text = tex.read_text(encoding="utf-8")
    assert "na me & n" in text
    assert "a b c d & 1" in text
    assert "x\\_1 Łódź & 2" in text


def test_what_rounds_to_nothing_has_no_sign() -> None:
    assert [number(value, 2) for value in (-0.004, -0.006, 0.0, float("nan"))] == ["0.00", "-0.01", "0.00", NOTHING]
