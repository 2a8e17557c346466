"""Scored questions as parquet: one row per question, always the same columns."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
from pyarrow.parquet import ParquetFile

from study.core.errors import REBUILT, Damaged
from study.core.files import writes, written

ROW_COLUMNS = {
    "question": "str",  # unique in its split
    "person": "str",
    "role": "str",  # forget, test, spared (other attributes of the forget people, to be kept), retain, real
    "modality": "str",  # image_text, text
    "task": "str",  # classification, generation, cloze
    "half": "str",  # select (validation half), report (test half)
    "score": "float64",  # accuracy of a multiple choice or a cloze in {0, 1}; ROUGE-L F1 of a generation in [0, 1]
    "probability": "float64",  # of the right option among the options; leak@k if replies are sampled; else NaN
    "likelihood": "float64",  # of the right answer, p(answer | question) ^ (1 / its tokens)
    "truth_ratio": "float64",  # mean likelihood of wrong answers / likelihood of the right one in other words
    "exposure": "float64",  # bits: log2 of the number of candidate answers less log2 of the right one's rank
    "member_loss": "float64",  # share of the wrong answers that look less like training data than the right one
    "member_zlib": "float64",
    "member_min_k": "float64",
    "member_min_k_plus_plus": "float64",
    "rouge_1": "float64",  # F1 of a reply with the answer; these six are NaN for choices
    "rouge_2": "float64",
    "rouge_l": "float64",
    "rouge_l_recall": "float64",
    "bleu": "float64",
    "exact_match": "float64",  # share of the keywords that the reply contains; NaN without keywords
    "refused": "bool",  # whether the reply refuses
    "parsed": "bool",  # whether the reply could be parsed as an answer of the required form
    "answer": "str",
    "reply": "str",
    "fact": "str",  # what is asked, the same for both modalities; "" where the dataset does not say
    "protocol": "str",  # strict, or released: the official protocol of the benchmark's authors
    "step": "int64",  # of an attack: optimizer steps, sampled replies or the number of the stage; 0 without attack
    "seen": "bool",  # whether the attacker was given this person's fact
    "held_out": "str",  # "person": not given; "fact": given, another fact; "": seen or no attack
}


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write scored questions as parquet, atomically, with exactly the columns of `ROW_COLUMNS`, unless `silent`."""
    frame = rows[list(ROW_COLUMNS)].astype(ROW_COLUMNS)
    if writes():
        data = frame.to_parquet(None, engine="pyarrow", index=False, write_page_checksum=True)
        with written(path, len(data)) as draft:
            draft.write_bytes(data)


def read_rows(path: Path, columns: Sequence[str] = tuple(ROW_COLUMNS)) -> pd.DataFrame:
    """Read scored questions, or some columns of them. Raises `Damaged` that names the file if it is not whole."""
    try:
        with ParquetFile(path, page_checksum_verification=True) as file:  # `pd.read_parquet` takes half as long again
            found = file.read(list(columns), use_threads=False).select(list(columns))
        frame: pd.DataFrame = found.to_pandas(use_threads=False)
        return frame
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise Damaged(f"{path} is damaged ({error})", REBUILT) from error


def rows_at(path: Path) -> pd.DataFrame | None:
    """The rows at `path`, or nothing if they are missing or damaged."""
    if path.exists():
        with suppress(ValueError):
            return read_rows(path)
    return None
