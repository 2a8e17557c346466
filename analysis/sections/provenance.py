"""Provenance: by which code, libraries and machines the study was computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pandas as pd

from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.tables import Table
from study.core.provenance import Origin
from study.core.records import LearnedRecord, read_record

COUNTS = ("learned models", "trials", "attacks")
NOT_RECORDED = "not recorded"


def parts(study: StudyResults) -> Iterator[Part]:
    """How many results were computed by what; a sentence if it was not the same for all."""
    raw = origins(study)
    known = raw[raw["revision"] != NOT_RECORDED]
    if len(known) > 1:
        yield (
            f"The results of this study were computed by {len(known)} different setups: rounding differs between "
            "machines and versions, and training amplifies it, so numbers of different setups compare less exactly "
            "than those of one."
        )
    if len(known):
        yield provenance_table(raw)


def origins(study: StudyResults) -> pd.DataFrame:
    """One line for each setup that computed something, with the numbers of its results, the most frequent first."""
    learned = [read_record(LearnedRecord, path) for path in study.folder.learned_records()]
    records = [record for record in learned if not record.brought]
    attacks = [attack.record for key in study.trials for attack in study.attacks(key).values()]
    kinds = (records, list(study.trials.values()), attacks)
    counts = [Counter(_key(record.origin) for record in found) for found in kinds]
    places = dict.fromkeys(key for found in counts for key in found)
    lines = [{**dict(key), **{name: found[key] for name, found in zip(COUNTS, counts, strict=True)}} for key in places]
    table = pd.DataFrame(lines, columns=[*_names(places), *COUNTS])
    return table.sort_values("trials", ascending=False, kind="stable", ignore_index=True)


Key = tuple[tuple[str, object], ...]


def _key(origin: Origin | None) -> Key:
    """What tells origins apart, by name."""
    if origin is None:
        return (("revision", NOT_RECORDED),)
    own = {name: getattr(origin, name) for name in ("revision", "cpu", "gpu", "dtype", "threads")}
    return (*own.items(), *sorted(origin.versions.items()))


def _names(places: dict[Key, None]) -> list[str]:
    return list(dict.fromkeys(["revision", *(name for key in places for name, _ in key)]))


def provenance_table(raw: pd.DataFrame) -> Table:
    """The table of the report: the libraries in one column."""
    own = ["revision", "cpu", "gpu", "dtype", "threads"]
    shown = raw[own].assign(revision=raw["revision"].map(_short), threads=raw["threads"].astype("Int64").astype(str))
    libraries = raw.drop(columns=[*own, *COUNTS])
    shown["versions"] = [
        ", ".join(f"{name} {version}" for name, version in line.items() if isinstance(version, str))
        for line in libraries.to_dict("records")
    ]
    shown = shown.assign(**{name: raw[name].astype(str) for name in COUNTS}).fillna("")
    return Table(
        "provenance", "What computed the results",
        "A plus after the revision: files differed from it. Results of earlier versions of this project do not say.",
        raw, shown, folded=True,
    )  # fmt: skip


def _short(revision: str) -> str:
    """A git revision as people write it."""
    digits = revision.rstrip("+")
    return revision if revision == NOT_RECORDED else digits[:12] + revision[len(digits) :]


SECTION = Section("Provenance", 150, parts)
