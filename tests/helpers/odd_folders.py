"""Small folders in the formats of UMU-Bench, FIUBench and CLEAR with what real ones have: spaces, scripts, stops."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.helpers.benchmark_folders import PICTURES, Cells, Change, clear, edit, edit_people, fiu, umu
from tests.helpers.mllmu_folder import picture


def _each(change: Callable[[Cells], None]) -> Change:
    """The same change of every row."""

    def changed(rows: list[Cells]) -> None:
        for row in rows:
            change(row)

    return changed


# ---- UMU-Bench -----------------------------------------------------------------------------------------------------
UMU_FOLDERS = ("Full_Set", "real_person", "forget_5", "retain_95", "forget_10", "retain_90")


def odd_umu(root: Path) -> Path:
    """Pictures that lie on their side, options with spaces, answers with full stops inside and in other scripts."""
    umu(root, people=8, famous="real_person")
    for folder in UMU_FOLDERS:
        edit(root, folder, _each(_odd_person))
    return root


def _odd_person(row: Cells) -> None:
    number = int(row["ID"])
    row["image"] = picture(f"{row['ID']} {row['image']['path']}")
    cells = {column: ast.literal_eval(row[column]) for column in ("Classify", "Cloze", "Generation")}
    for side in ("unimodal", "muitimodal"):
        for column in cells:
            asked = cells[column][side]["Residence"]
            asked["question"] = f" {asked['question']}  " if number % 2 else f"{asked['question']} ('東京')\n"
        choice = cells["Classify"][side]["Pet"]
        choice["options"] = {letter: f" {option}" for letter, option in choice["options"].items()}
        cells["Cloze"][side]["Pet"]["answer"] = ("St. Gallen", "Zürich.", " a Cat.", "東京. It is.")[number % 4]
        told = ("It is St. Gallen, they said.", "Zürich", "A cats' home; two cats.", "東京 and Oslo ")[number % 4]
        cells["Generation"][side]["Pet"]["answer"] = told
    row.update({column: str(cell) for column, cell in cells.items()})


# ---- FIUBench ------------------------------------------------------------------------------------------------------
def odd_fiu(root: Path) -> Path:
    """Questions with capitals and spaces, answers without a full stop or with two, keywords in capitals and parts."""
    fiu(root)
    edit_people(root / "dataset", _each(partial(_odd_face, root / "dataset")))
    return root


def _odd_face(home: Path, row: Cells) -> None:
    number, (_, income, illness) = int(row["unique_id"]), row["qa_list"]
    (home / row["image_path"].removeprefix("./dataset/")).write_bytes(picture(f"{number:03d} face")["bytes"])
    income["question"] = f"What is the Income of THIS person ('東京')?{' ' * (number % 2)}"
    income["answer"] = f"It is {number}.5 thousand U.S. dollars"
    income["keywords"] = [f"{number}.5 Thousand", "DOLLARS", f" {number}"]
    illness["question"] = f" {illness['question']}"
    illness["answer"] = f"Zürich  fever of degree {number}. It passes."
    illness["keywords"] = ["zürich", "Fever of degree", "passes"]
    illness["paraphrased_question"] = [f"Which illness does SHE have,  version {i}?" for i in range(3)]


# ---- CLEAR ---------------------------------------------------------------------------------------------------------
CAPTIONED = ("full", "full+tofu", "forget05", "forget05_perturbed", "forget10", "forget10_perturbed", "retain90",
             "retain95", "retain_perturbed")  # fmt: skip


def odd_clear(root: Path) -> Path:
    """Captions with spaces and other scripts, and options that are all wrong; no portrait that is held out is asked."""
    clear(root)
    for folder in CAPTIONED:
        edit(root, folder, _each(_odd_portrait))
    edit(root, "full", _each(_odd_portrait), shard=1)
    edit(root, "forget10_perturbed", _without_held_out)
    for folder in ("real_faces", "real_world"):
        edit(root, folder, _each(_odd_world))
    return root


def _odd_portrait(row: Cells) -> None:
    if row["image"] is not None:
        number = int(row["image"]["path"].removesuffix(".png")[-1])
        row["image"] = picture(f"{number:03d} {row['image']['path']}")
        for column in {"caption", "paraphrased_caption"} & set(row):
            told = (" of Zürich reads", "  reads", " (東京) reads", "")[number % 4]
            row[column] = row[column].replace(" reads", told) + " " * (number % 3)
        for column in {"perturbed_captions", "perturbed_names"} & set(row):
            row[column][0] += " " * (number % 2)


def _without_held_out(rows: list[Cells]) -> None:
    """Of five portraits of each author the last two are."""
    rows[:] = [row for i, row in enumerate(rows) if i % PICTURES < PICTURES - 2]


def _odd_world(row: Cells) -> None:
    number = int(row["answer"][-1]) if row["answer"][-1].isdigit() else 0
    row["image"] = picture(f"{number:03d} {row['image']['path']}")
    row["options"] = [f"{option} " for option in row["options"] if option != row["answer"]]
    row["question"], row["answer"] = f" {row['question']}", row["answer"] + " " * (number % 2)
