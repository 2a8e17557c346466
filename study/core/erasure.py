"""The erasure manifest: which files of a study still hold whom a model was to forget, why, and their removal.

Deletion from a model is half of it: the study that shows it keeps the model of before, the portraits and the replies.
Whatever is not known to hold nobody is listed. What no run or command left is listed as well, but never removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from study.core.errors import Purged
from study.core.files import read_json, read_object, write_json
from study.core.hashing import Json, file_digest
from study.core.layout import StudyFolder
from study.core.records import LearnedRecord, read_record
from study.core.terms import Goal

Request = tuple[Goal, int]
"""The goal of a deletion, and its forget ratio."""
REASONS = {
    "people": "lists people of the dataset by their ids, the forgotten among them",
    "rows": "questions, answers and replies about people, the forgotten among them",
    "cache": "computed from lessons or questions about the forgotten; rebuilt when missing",
    "report": "tables and figures about single people, and facts that replies state",
    "logs": "state and logs of a run, which may quote the data",
    "draft": "left by a write that was interrupted; what is in it is not known",
}
BENCHMARK = "the benchmark that was made: portraits, names and facts of everybody, the forgotten among them"
VANILLA = "vanilla, the model that was taught the forgotten"
OTHER_REFERENCE = "a reference of another request, or of unknown training: nobody has shown that it lacks the forgotten"
TEXT_REFERENCE = (
    "a reference under the goal visual: it never saw the forgotten's pictures, but was taught what text says of them"
)
UNFINISHED = "a model whose teaching has not ended"
OTHER_TRIAL = "what another trial changed of its start: nobody has shown that it forgot"
OTHER_EXPORT = "an exported model other than the one of the evidence"
SKIPPED = "quotes rows of the dataset that were skipped"
UNKNOWN = "left by no run and no command of this project: look at it yourself"
LINK = "a link to a folder, whose files are not listed: what is in it is not known"


@dataclass(frozen=True)
class Holding:
    """A file that still holds the forgotten, or may."""

    name: str
    """Within the study's folder."""
    reason: str
    bytes: int
    sha256: str
    removable: bool = True
    """Whether a purge removes it: not what somebody else put there."""


def holdings(folder: StudyFolder, products: Collection[str], requests: Sequence[Request]) -> list[Holding]:
    """Every file of a study that still holds the people whom the trials `products` were to forget by their requests.

    A link to a folder is listed as one, since what it leads to may be anything, and may change.
    """
    models = _models(folder, requests)
    found = []
    for name in sorted(_files(folder)):
        if why := _reason(folder, name, products, models):
            path = folder.root / name
            found.append(Holding(name, why, path.stat().st_size, file_digest(path), why != UNKNOWN))
    return [*found, *(Holding(name, LINK, 0, "", removable=False) for name in _links(folder))]


def _links(folder: StudyFolder) -> list[str]:
    """The links to folders within a study."""
    links = (path for path in folder.root.rglob("*") if path.is_symlink() and path.is_dir())
    return sorted(path.relative_to(folder.root).as_posix() for path in links)


def _reason(folder: StudyFolder, name: str, products: Collection[str], models: dict[str, str]) -> str:
    """Why a file holds the forgotten; empty if it does not."""
    kind = folder.content(name)
    _, key, *below = (*name.split("/"), "")
    in_model = len(below) > 2
    match kind:
        case "record" | "evidence":
            return ""
        case "settings":
            return SKIPPED if read_json(folder.settings).get("skipped") else ""
        case "data":
            return BENCHMARK if _is_of_benchmark(folder, folder.root / name) else ""
        case "learned":
            return models.get(key, UNFINISHED) if in_model or key not in models else ""
        case "delta":
            return "" if key in products else OTHER_TRIAL
        case "export":
            return "" if key in products else OTHER_EXPORT
        case "people":
            return REASONS[kind] if read_json(folder.root / name) else ""
        case "other":
            return UNKNOWN
    return REASONS[kind]


def _models(folder: StudyFolder, requests: Sequence[Request]) -> dict[str, str]:
    """By the key of a learned model, why it holds whom one of the requests covers; empty if it holds none of them."""
    learned = {path.parent.name: read_record(LearnedRecord, path) for path in folder.learned_records()}
    return {
        key: next(filter(None, (_taught(model, goal, ratio) for goal, ratio in requests)), "")
        for key, model in learned.items()
    }


def _taught(model: LearnedRecord, goal: Goal, ratio: int) -> str:
    """Why a learned model holds whom a request covers; empty for a reference of that request."""
    if model.kind == "vanilla":
        return VANILLA
    if model.ratio != ratio:
        return OTHER_REFERENCE
    return TEXT_REFERENCE if goal == "visual" else ""


def benchmark_files(folder: StudyFolder) -> list[Path]:
    """The files of the benchmark, where it was made within the study."""
    return [path for path in sorted(folder.data.rglob("*")) if path.is_file() and _is_of_benchmark(folder, path)]


def _is_of_benchmark(folder: StudyFolder, path: Path) -> bool:
    """Whether a file of the generated data is the benchmark's, and not the base model's, which was taught nobody."""
    if path == folder.base_model:
        return False
    made = read_object(folder.base_model, "path")["path"] if folder.base_model.exists() else ""
    return not (made and path.is_relative_to(folder.root / made))


def _files(folder: StudyFolder) -> Iterator[str]:
    for path in folder.root.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder.root).as_posix()


# ---- removal -------------------------------------------------------------------------------------------------------
def purge(folder: StudyFolder, found: Sequence[Holding]) -> None:
    """Remove the files that hold the forgotten, and leave a record of them with their digests.

    The record comes first, so that a purge that is killed is no damage: the next one goes on. It is dated when files
    were last removed.
    """
    gone = [hold for hold in found if hold.removable]
    before: Json = read_json(folder.purged) if folder.purged.exists() else {"at": now(), "removed": []}
    names = {hold.name for hold in gone}
    kept = [hold for hold in before["removed"] if hold["name"] not in names]
    removed: list[Json] = sorted([*kept, *map(asdict, gone)], key=lambda hold: str(hold["name"]))
    write_json(folder.purged, {"at": now() if gone else before["at"], "removed": removed})
    for hold in gone:
        (folder.root / hold.name).unlink(missing_ok=True)
    for path in sorted((p for p in folder.root.rglob("*") if p.is_dir() and not p.is_symlink()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


def check(folder: StudyFolder) -> None:
    """Raise `Purged` if the study was purged: what is missing is no damage, and nothing is to be computed again."""
    if folder.purged.exists():
        record = read_json(folder.purged)
        raise Purged(
            f"{folder.root} was purged on {record['at'][:10]}: {len(record['removed'])} files that held the forgotten "
            f"were removed on purpose, as {folder.purged} lists; what is left is the evidence beside it. Choose "
            "another folder for another study"
        )


def now() -> str:
    """The time of day in UTC, as evidence is dated."""
    return datetime.now(UTC).isoformat(timespec="seconds")
