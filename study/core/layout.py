"""The layout of a study on disk: only this file spells names and patterns of files in a study's folder."""

from __future__ import annotations

import dataclasses
import math
import time
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from study.core.hashing import content_key
from study.core.terms import Tracker

DISPOSABLE = ("ray", "cache")
"""Folders of a study that are rebuilt when missing and therefore not copied."""
RESULTS = ("data", "learned", "trials", "search", "attack_search")
"""Folders of a study with what a run computes once and for all."""
WRITTEN_BY_COMMANDS = ("exports", "evidence", "report")
"""Folders of a study that other commands write to, also while it runs."""
ABANDONED = 24 * 3600.0
"""Seconds without a change after which a draft of theirs is one of a command that was killed: they take minutes."""
NO_RESULTS = ("progress.json", "curve.json", "general_utility.")
"""How the names of files in these begin that no number of the study is read from, or that another command writes."""
DRAFTS = (".model.", ".tiny.")
"""How the names of folders begin that become a model when they are complete."""
Content = Literal["settings", "record", "people", "data", "learned", "delta", "rows", "cache", "report", "logs",
                  "draft", "export", "evidence", "other"]  # fmt: skip
"""What a file of a study holds; `people` are records that list people or questions about them, `other` is what no run
and no command leaves."""
_BY_NAME: dict[str, Content] = {
    **dict.fromkeys((".lock", "plan.json", "race.json", "winners.json", "files.json", "base_check.json"), "record"),
    **dict.fromkeys(("near.json", "unknown.json"), "people"),
    "study.json": "settings",
}
_BY_FOLDER: dict[str, Content] = {
    **dict.fromkeys(("search", "attack_search"), "record"),
    **dict.fromkeys(("ray", "failures", *get_args(Tracker)), "logs"),
    **{"data": "data", "learned": "learned", "cache": "cache", "report": "report"},
    **{"exports": "export", "evidence": "evidence"},
}
LONGEST_NAME = 200
"""Bytes of the name of a folder that stands for a method with all its settings; file systems end at 255."""


@dataclasses.dataclass(frozen=True)
class StudyFolder:
    """The paths of a study's files. Only paths relative to `root` are ever stored, so the folder can be moved."""

    root: Path

    @property
    def settings(self) -> Path:
        """The resolved settings, versions and fingerprints."""
        return self.root / "study.json"

    @property
    def lock(self) -> Path:
        """Locked by the process that runs the study."""
        return self.root / ".lock"

    @property
    def plan(self) -> Path:
        """What every stage of the run that began last does, for whoever asks how far it is."""
        return self.root / "plan.json"

    @property
    def race(self) -> Path:
        """The contenders of each method and ratio, with the distances to the ideal of each seed they were run with."""
        return self.root / "race.json"

    @property
    def winners(self) -> Path:
        """The winning trials, by method and ratio."""
        return self.root / "winners.json"

    @property
    def near(self) -> Path:
        """By ratio, the retained people who look, and who are named, most like the forget people."""
        return self.root / "near.json"

    @property
    def unknown(self) -> Path:
        """By ratio, the questions that do not count because vanilla does not know them, and what is left."""
        return self.root / "unknown.json"

    @property
    def data(self) -> Path:
        """Generated benchmarks and base models."""
        return self.root / "data"

    @property
    def base_model(self) -> Path:
        """The path of the base model within the study, if it was generated."""
        return self.data / "base.json"

    @property
    def inventory(self) -> Path:
        """The files that the last run left, with their digests."""
        return self.root / "files.json"

    @property
    def failures(self) -> Path:
        """What failed in the last run without being a result."""
        return self.root / "failures"

    def failure(self, stage: str, job: str) -> Path:
        """The record of a job that did not end in the last run; its traceback is `trace_beside` it."""
        return self.failures / f"{content_key((stage, job))}.json"

    def failure_records(self) -> list[Path]:
        """All of these."""
        return sorted(self.failures.glob("*.json"))

    @property
    def base_check(self) -> Path:
        """What the trial of the base model found, and of what folder and versions."""
        return self.root / "base_check.json"

    @property
    def ray(self) -> Path:
        """Ray's own state and logs: disposable."""
        return self.root / "ray"

    @property
    def report(self) -> Path:
        """Tables, figures and the report."""
        return self.root / "report"

    @property
    def paper(self) -> Path:
        """The document with the figures and tables of a paper."""
        return self.report / "paper" / "paper.tex"

    @property
    def page(self) -> Path:
        """The report itself."""
        return self.report / "report.html"

    def tracker(self, name: str) -> Path:
        """What a tracker of this name shows: `tensorboard` shows the files in it."""
        return self.root / name

    def evidence(self, name: str) -> Path:
        """The evidence of a winner, METHOD@RATIO."""
        return _joined(self.root, "evidence", search_name(name))

    def evidences(self) -> list[EvidenceFolder]:
        """The evidence on each winner for which there is some."""
        found = (EvidenceFolder(path) for path in sorted(self.root.glob("evidence/*")) if path.is_dir())
        return [one for one in found if one.record.exists()]

    @property
    def purged(self) -> Path:
        """What was removed of the study once its evidence was there: who reads it finds no more than the evidence."""
        return self.root / "evidence" / "purged.json"

    def cache(self, key: str) -> Path:
        """Derived values that are rebuilt when missing."""
        return self.root / "cache" / key

    def cached_rows(self, key: str, name: str) -> Path:
        """Rows that several trials share; `name` as in `rows`."""
        return self.cache(key) / f"{name}.parquet"

    # ---- learned models --------------------------------------------------------------------------------------------
    def learned(self, key: str) -> Path:
        """A learned model: weights, record, training curve."""
        return self.root / "learned" / key

    def learned_folders(self) -> list[Path]:
        """All learned models, by key."""
        return sorted(self.root.glob("learned/*"))

    def learned_records(self) -> list[Path]:
        """The records of all models whose learning has ended, by key."""
        return sorted(self.root.glob("learned/*/learned.json"))

    def model_dir(self, key: str) -> Path:
        """A learned model as a Hugging Face folder."""
        return self.learned(key) / "model"

    def learned_record(self, key: str) -> Path:
        """The record of a learned model: written last, so learning has ended for a model that has one."""
        return self.learned(key) / "learned.json"

    def curve(self, key: str) -> Path:
        """The training loss of every step of a learned model."""
        return self.learned(key) / "curve.json"

    def progress(self, key: str) -> Path:
        """The progress of learning, updated now and then."""
        return self.learned(key) / "progress.json"

    # ---- trials ----------------------------------------------------------------------------------------------------
    def trial(self, key: str) -> Path:
        """A trial: its record, weights, rows, attacks."""
        return _joined(self.root, "trials", key)

    def trial_folders(self) -> list[Path]:
        """All trials, ended or not, by key."""
        return sorted(self.root.glob("trials/*"))

    def record(self, key: str) -> Path:
        """The record of a trial: written last, so a trial that has one is finished."""
        return _joined(self.root, "trials", key, "trial.json")

    def trial_records(self) -> list[Path]:
        """The records of all finished trials, by key."""
        return sorted(self.root.glob("trials/*/trial.json"))

    def delta(self, key: str) -> Path:
        """The tensors in which the model of a trial differs from its start model, or the factors of its adapters."""
        return _joined(self.root, "trials", key, "delta.safetensors")

    def trial_curve(self, key: str) -> Path:
        """The training loss of every step of a trial; there is none of a method that trains nothing."""
        return self.trial(key) / "curve.json"

    def dropped(self, key: str) -> Path:
        """The note that a trial's weights were deleted because it did not win."""
        return self.trial(key) / "delta.dropped.json"

    def rows(self, key: str, name: str) -> Path:
        """A trial's rows: `select` (validation half), `report` (test half), `blind` (grey pictures) or `released`
        (official protocol); of baselines also `whole_select` and `whole_report`, with questions that do not count."""
        return self.trial(key) / "rows" / f"{name}.parquet"

    def attack(self, key: str, attack: str) -> Path:
        """The rows of one attack on a trial; its record is `record_beside` them, as for all that follow."""
        return self.trial(key) / "attacks" / f"{attack}.parquet"

    def attacks(self, key: str) -> list[Path]:
        """The records of all attacks on a trial, by the keys of the attacks."""
        return sorted(self.trial(key).glob("attacks/*.json"))

    def meta_evaluation(self, key: str, state: str) -> Path:
        """The rows of a model of the meta-evaluation in a state: `plain`, `quantized` or `relearned`."""
        return self.trial(key) / "metric_check" / f"{state}.parquet"

    def meta_evaluations(self) -> list[Path]:
        """The records of all models of the meta-evaluation, by trial and state."""
        return sorted(self.root.glob("trials/*/metric_check/*.json"))

    def sequence(self, key: str, requests: int) -> Path:
        """The rows of sequential unlearning with a trial's method in so many requests."""
        return self.trial(key) / "sequence" / f"{requests}.parquet"

    def sequences(self, key: str) -> list[Path]:
        """The records of sequential unlearning with a trial's method, by the number of requests."""
        return sorted(self.trial(key).glob("sequence/*.json"), key=lambda path: int(path.stem))

    def general_utility(self, key: str) -> Path:
        """The general utility of a trial's model, measured by lmms-eval."""
        return self.trial(key) / "general_utility.json"

    def export(self, key: str) -> Path:
        """A trial's model as a Hugging Face folder."""
        return self.root / "exports" / key

    # ---- searches --------------------------------------------------------------------------------------------------
    def proposal(self, method: str, number: int) -> Path:
        """A proposal of the search for a method, by its number."""
        return _joined(self.root, "search", search_name(method), f"{number:04d}.json")

    def proposals(self, method: str = "*") -> list[Path]:
        """All proposals of the search for a method, or for all methods, by method and number.

        The folder of each is named by `search_name`.
        """
        return sorted(self.root.glob(f"search/{search_name(method)}/*.json"))

    def attack_proposal(self, key: str, attack: str, number: int) -> Path:
        """A proposal of the attack search against a trial, by its number; composed attacks have one folder."""
        return self.root / "attack_search" / key / attack.replace("/", " then ") / f"{number:04d}.json"

    def attack_proposals(self) -> list[Path]:
        """All proposals of the attack search, by trial, attack and number."""
        return sorted(self.root.glob("attack_search/*/*/*.json"))

    def drafts(self) -> list[Path]:
        """What a run that was killed had begun to write among the results, and the probes of its cluster; of other
        commands what is old."""
        below = [path for top in (*RESULTS, *DISPOSABLE) for path in (self.root / top).rglob(".*")]
        own = [path for pattern in (".*.draft", ".probe-*") for path in self.root.glob(pattern)]
        others = [path for top in WRITTEN_BY_COMMANDS for path in (self.root / top).rglob(".*.draft")]
        return [
            *own,
            *(path for path in below if path.name.startswith(DRAFTS) or path.suffix == ".draft"),
            *(path for path in others if time.time() - _last_change(path) > ABANDONED),
        ]

    # ---- files by their names within the folder ----------------------------------------------------------------------
    def is_result(self, name: str) -> bool:
        """Whether a file is one that a run leaves, and computes anew if it is gone."""
        top, *below = name.split("/")
        if below:
            return top in RESULTS and not below[-1].startswith(NO_RESULTS)
        return self.root / name in (self.settings, self.race, self.winners, self.near, self.unknown)

    def content(self, name: str) -> Content:
        """What a file of the study holds."""
        top, *below = name.split("/")
        hidden = any(folder.startswith(".") for folder in below[:-1])
        if hidden or (name.endswith(".draft") and name.rpartition("/")[2].startswith(".")):
            return "draft"
        if not below:
            return _BY_NAME.get(top, "other")
        return _of_trial(below[1:]) if top == "trials" else _BY_FOLDER.get(top, "other")

    @staticmethod
    def has_own_digest(name: str) -> bool:
        """Whether a file is one of weights, whose digest lies in the record beside them."""
        return name.startswith(("learned/", "trials/")) and name.endswith(".safetensors")

    @staticmethod
    def group(name: str) -> str:
        """What a file was made together with: without one of a group the others are of no use.

        The group is a folder where the whole folder was made at once.
        """
        top, *below = name.split("/")
        if top in ("data", "learned") and len(below) > 1:
            return f"{top}/{below[0]}"
        if top != "trials":
            return name
        *folders, last = below
        stem = last.partition(".")[0]
        if stem in ("trial", "delta", "select", "whole_select"):
            return f"{top}/{folders[0]}/trial"
        return "/".join((top, *folders, stem.removeprefix("whole_")))

    def remedy(self, name: str) -> str:
        """What to remove of a file that is damaged, so that it is made anew: its folder where that was made at once."""
        group = self.group(name)
        return group if (self.root / group).is_dir() else name


@dataclasses.dataclass(frozen=True)
class EvidenceFolder:
    """The files of the evidence on one winner, within the study or elsewhere."""

    root: Path

    @property
    def record(self) -> Path:
        """All that it says."""
        return self.root / "evidence.json"

    @property
    def page(self) -> Path:
        """The same to be read and printed."""
        return self.root / "evidence.html"

    @property
    def statement(self) -> Path:
        """What somebody may sign."""
        return self.root / "statement.json"


def _of_trial(below: list[str]) -> Content:
    """What a file in the folder of a trial holds."""
    if not below:
        return "other"
    if below[-1].endswith(".parquet"):
        return "rows"
    if below[-1].endswith(".safetensors"):
        return "delta"
    return "people" if below[0] == "sequence" else "record"


def _last_change(path: Path) -> float:
    """When a file, or anything in a folder, changed last."""
    try:
        return max(found.lstat().st_mtime for found in (path, *path.rglob("*")))
    except FileNotFoundError:  # moved by its command at this moment
        return math.inf


@lru_cache(maxsize=2**17)
def _joined(root: Path, *names: str) -> Path:
    """A path that is asked for again and again: to join it takes longer than to look whether the file is there."""
    return root.joinpath(*names)


def search_name(method: str) -> str:
    """The folder of the search for a method: what the study calls it, or its beginning and a digest if that is long."""
    if len(method.encode()) <= LONGEST_NAME:
        return method
    beginning = method.encode()[: LONGEST_NAME // 2].decode(errors="ignore")
    return f"{beginning} {content_key(method)}"


def record_beside(rows: Path) -> Path:
    """The record of an attack, of sequential unlearning or of a model of the meta-evaluation, beside its rows."""
    return rows.with_suffix(".json")


def trace_beside(record: Path) -> Path:
    """The traceback of a failure."""
    return record.with_suffix(".txt")


def rows_beside(record: Path) -> Path:
    """The rows of a record."""
    return record.with_suffix(".parquet")
