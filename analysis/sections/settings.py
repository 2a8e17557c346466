"""The settings of the study, and the versions of the packages that ran it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from analysis.sections import Part, Section
from analysis.study_folder import StudyResults
from analysis.tables import Pairs


def parts(study: StudyResults) -> Iterator[Part]:
    """Both as they were recorded, and what of the data was skipped."""
    if skipped := study.record.get("skipped"):
        yield skipped["said"] + "."
        yield Pairs("Rows that were skipped", [(str(i), said) for i, said in enumerate(skipped["all"], 1)])
    yield Pairs("Settings", _entries(study.settings))
    yield Pairs("Versions", _entries(study.record.get("versions") or {}))


def _entries(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in sorted(values.items())}
    return [(name.replace("_", " "), value) for name, value in shown.items()]


SECTION = Section("Settings and versions", 130, parts)
