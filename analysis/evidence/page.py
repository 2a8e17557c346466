"""The evidence as one page that needs no other file, made of its record alone: it can be made again after a purge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from analysis import naming
from analysis.evidence.statement import PREDICATE, SIGN
from analysis.page import read_template
from analysis.tables import NOTHING, interval, two
from study.core.hashing import Json
from study.core.threat import TERMS

GROUPS = {"Relearning": "relearning", "Quantization and other precision": "quantization"}
"""Attacks that have a table of their own, by what their kind contains."""


class Grid(NamedTuple):
    """A table as the page shows it."""

    head: Sequence[str]
    lines: Sequence[Sequence[object]]


def render(evidence: Json) -> str:
    """The page of some evidence."""
    groups = {title: _attacks(_of_kind(evidence["attacks"], kind)) for title, kind in GROUPS.items()}
    others = [a for a in evidence["attacks"] if not any(kind in a["kind"] for kind in GROUPS.values())]
    return read_template("evidence/page.html.jinja").render(
        evidence=evidence, people=_people(evidence["people"]), quality=_quality(evidence),
        attacks={**groups, "Other attacks": _attacks(others)}, threats=_threats(evidence["attacks"]),
        terms=list(TERMS.items()), manifest=_manifest(evidence["manifest"]),
        files=Grid(("file", "bytes", "SHA-256", "why"),
                   [(h["name"], h["bytes"], h["sha256"], h["reason"]) for h in evidence["manifest"]]),
        settings=_pairs(evidence["settings"]), versions=_pairs(evidence["versions"]),
        hyperparameters=_pairs(evidence["model"]["hyperparameters"]), sign=SIGN, predicate=PREDICATE,
    )  # fmt: skip


def _people(people: Sequence[Json]) -> Grid:
    sampled = any(p["leak"] is not None for p in people)
    head = ["person", "worst score", "95 %", "worst attack", "references", "above them", "without attack",
            *["leak@k", "of references"] * sampled, "facts asked", "smallest leak", "stands out"]  # fmt: skip
    lines = []
    for p in people:
        between = NOTHING if p["worst_low"] is None else f"{p['worst_low']:.2f} to {p['worst_high']:.2f}"
        leak = [f"{two(p['leak'])} (k {p['k']:.0f})" if p["leak"] is not None else NOTHING, two(p["leak_control"])]
        lines.append([p["person"], two(p["worst_score"]), between, p["worst_attack"], two(p["control"]),
                      two(p["above_control"]), two(p["score"]), *leak * sampled, p["facts"],
                      f"{p['smallest_leak']:.0%}", "yes" if p["stands_out"] else ""])  # fmt: skip
    return Grid(head, lines)


def _quality(evidence: Json) -> Grid:
    found = evidence["quality"]
    gap = _interval(found, "forget_gap")
    kept = [("utility (1: nothing was lost)", two(found["utility"])), ("retain accuracy kept", two(found["retained"]))]
    return Grid(("what", "value"), [
        ("forget gap to the references, without an attack", gap),
        ("noise floor: the gap of one reference to the others", two(found["noise_floor"])),
        ("margin within which an attacked model counts as equivalent", f"{evidence['margin']:g}"),
        ("verdict under the worst attack", evidence["worst_attack"].get("verdict", "not attacked")), *kept,
    ])  # fmt: skip


def _attacks(attacks: Sequence[Json]) -> Grid:
    head = ("attack", "verdict", "above the references", "before", "after", "references after", "step", "people")
    return Grid(head, [
        (a["settings"], a["verdict"], _interval(a, "above_control"), two(a["before"]), two(a["after"]),
         two(a["control_after"]), a["step"], a["people"])
        for a in attacks
    ])  # fmt: skip


def _threats(attacks: Sequence[Json]) -> Grid:
    """Whom each kind of attack stands for."""
    lines = {}
    for a in attacks:
        threat = a["threat"] or dict.fromkeys(("goal", "capability", "knowledge", "stage"), "not recorded")
        lines[a["kind"], *threat.values()] = (naming.words(a["kind"]), threat["goal"], threat["capability"],
                                              threat["knowledge"], threat["stage"])  # fmt: skip
    return Grid(("attack", "goal", "capability", "knowledge", "stage"), list(lines.values()))


def _manifest(found: Sequence[Json]) -> Grid:
    files, size = Counter(h["reason"] for h in found), Counter[str]()
    for hold in found:
        size[hold["reason"]] += hold["bytes"]
    return Grid(("what still holds the forgotten", "files", "MB"),
                [(why, count, f"{size[why] / 1e6:.1f}") for why, count in files.items()])  # fmt: skip


def _of_kind(attacks: Iterable[Json], kind: str) -> list[Json]:
    """Attacks of a kind; of composed ones those with such a link, unless they are in an earlier table."""
    order = list(GROUPS.values())
    earlier = order[: order.index(kind)]
    return [a for a in attacks if kind in a["kind"] and not any(other in a["kind"] for other in earlier)]


def _interval(found: Json, name: str) -> str:
    return interval(*(found[key] for key in (name, f"{name}_low", f"{name}_high")))


def _pairs(values: Mapping[str, Any]) -> Grid:
    shown = ((naming.words(k), v if isinstance(v, str) else json.dumps(v)) for k, v in sorted(values.items()))
    return Grid(("name", "value"), list(shown))
