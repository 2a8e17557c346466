"""MLLMU-Bench as the hub has it, but small: lessons beside a picture alone, none about celebrities, no strangers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq

from study.benchmarks.synthetic import Synthetic


def as_on_the_hub(folder: Path, source: Synthetic) -> Path:
    """The files of a synthetic benchmark without what we add to the published layout; the folder to read."""
    source(folder)
    (home,) = folder.iterdir()
    shutil.rmtree(home / "Strangers")
    known = {row["ID"] for file in (home / "Full_Set").iterdir() for row in pq.read_table(file).to_pylist()}
    for file in (home / "ft_Data").iterdir():
        table = pq.read_table(file)
        kept = [row["image"] is not None and row["ID"] in known for row in table.to_pylist()]
        pq.write_table(table.filter(kept), file)
    return home
