"""What a search costs beside its trials: counted in files that are read, since time is not the same everywhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from study.core import files, records
from study.core.hashing import Json
from tests.cost.overhead import overheads, search_of

TRIALS = 24


def test_every_record_of_a_search_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one process that proposes, compares at rungs, counts a budget and drops weights, however many there are."""
    reads, original = Counter[Path](), files.read_json

    def read_json(path: Path) -> Json:
        reads[path] += 1
        return original(path)

    monkeypatch.setattr(records, "read_json", read_json)
    search = search_of(tmp_path, TRIALS, "auto")
    assert len(list(overheads(search))) == TRIALS
    assert len(reads) == 2 * TRIALS  # proposals and records
    assert set(reads.values()) == {1}
    left = [proposal for proposal in search.proposals("npo") if search.context.folder.delta(proposal.trial).exists()]
    assert len(left) <= 1 + 1 + search.lookahead  # the best, the default, and whoever has not been beaten yet
