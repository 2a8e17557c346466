"""Rows of scored questions written by hand: what a test does not say is empty, unknown or false."""

from __future__ import annotations

from study.core.rows import ROW_COLUMNS

EMPTY: dict[str, object] = {"str": "", "float64": float("nan"), "int64": 0, "bool": False}


def row(**given: object) -> dict[str, object]:
    """One row with every column of `ROW_COLUMNS`. Raises `ValueError` for a column that there is not."""
    if unknown := given.keys() - ROW_COLUMNS.keys():
        raise ValueError(f"no such column of rows: {', '.join(sorted(unknown))}")
    empty = {name: EMPTY[kind] for name, kind in ROW_COLUMNS.items()}
    return {**empty, "parsed": True, "protocol": "strict", **given}
