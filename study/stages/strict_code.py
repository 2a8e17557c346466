"""A study is continued by the code and the libraries that began it, where that is asked for (`--strict-code`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from study.core.errors import Refused
from study.core.failures import Refusal
from study.core.hashing import Json
from study.core.layout import StudyFolder
from study.core.provenance import Origin, code_of, versions
from study.core.records import AttackRecord, LearnedRecord, TrialRecord, read_record

TOO_SMALL: Refusal = "out of memory (device)"
"""How trials and attacks failed that no code computed to an end."""


def check_code(folder: StudyFolder) -> None:
    """Refuse a study of which a result was computed by other code or versions, or does not say by which."""
    found = Counter(
        f"{what}: {difference}"
        for what, settings, origin in _results(folder)
        for difference in _differences(settings, origin)
    )
    if found:
        lines = "".join(f"\n  {number} x {difference}" for difference, number in sorted(found.items()))
        raise Refused(
            f"{folder.root} has results of other code or versions than those here:{lines}\n"
            "continue it with those, leave --strict-code out, or choose another --study-dir"
        )


def _results(folder: StudyFolder) -> Iterator[tuple[str, Json, Origin | None]]:
    """Every result but models of others and what a device was too small for: its name, settings and origin."""
    for path in folder.learned_records():
        learned = read_record(LearnedRecord, path)
        if not learned.brought:
            yield f"learned {learned.kind}", None, learned.origin
    for path in folder.trial_records():
        trial = read_record(TrialRecord, path)
        attacks = [read_record(AttackRecord, attack) for attack in folder.attacks(path.parent.name)]
        if trial.failure != TOO_SMALL:
            yield f"trial of {trial.label}", trial.hyperparameters, trial.origin
        yield from ((f"attack {a.attack}", a.settings, a.origin) for a in attacks if a.failure != TOO_SMALL)


def _differences(settings: Json, origin: Origin | None) -> Iterator[str]:
    """What computed a result other than what would compute it here."""
    if origin is None or not origin.code:
        yield "does not say by which code"
        return
    if origin.code != (here := code_of(settings)):
        yield f"code {origin.code[:12]} of revision {origin.revision[:12] or 'unknown'}, here {here[:12]}"
    ours = versions()
    for name in sorted(ours.keys() | origin.versions.keys()):
        if origin.versions.get(name) != ours.get(name):
            yield f"{name} {origin.versions.get(name, 'not there')}, here {ours.get(name, 'not there')}"
