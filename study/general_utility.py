"""General utility of a study's models: `mus general-utility runs/<study> --tasks pope mmmu_val`.

It is measured by lmms-eval, an optional package that is run as a program and never imported. Its arguments, and what it
writes, are those of lmms-eval 0.7.3.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from study.core.files import read_json, read_object, visible, write_json
from study.core.hashing import Json, canonical
from study.core.layout import StudyFolder
from study.core.records import TrialRecord
from study.export import export, named, record_of

FAMILIES = {
    "llava": "llava_hf",
    "llava_next": "llava_hf",
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_5_vl",
    "gemma3": "gemma3",
    "idefics2": "idefics2",
}
"""What lmms-eval calls the family of each `model_type`."""
NOTHING: tuple[Json, ...] = (None, "N/A", "", [])
"""What lmms-eval writes where there is no number: a task that only prepares a submission, an error not estimated."""
ERRORS = ("_stderr", "_stderr_clt", "_stderr_clustered")
MODEL = "model"
"""The folder, in the one that lmms-eval runs in, that holds the model for as long."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Unmeasured(Exception):
    """lmms-eval did not measure; the message says what it said."""


@dataclass(frozen=True)
class Settings:
    """All that decides, besides the weights, what lmms-eval measures of a task."""

    model: str
    """What lmms-eval calls the family."""
    model_args: tuple[str, ...]
    """Further arguments of that family, as KEY=VALUE."""
    limit: int | None
    """How many questions of each task, the first ones; None for all."""
    batch_size: int
    version: str
    """Of lmms-eval."""


# ---- arguments ---------------------------------------------------------------------------------------------------
def arguments_for(settings: Settings, tasks: Sequence[str], device: str) -> list[str]:
    """The arguments of lmms-eval in a folder that holds the `MODEL`, and in which it is to make `results/`.

    Where the weights go is always said, because some families of 0.7.3 pass transformers an empty device otherwise.
    Below warnings it is silent: at its usual level it would write the token of the Hugging Face hub into the log.
    """
    given = [f"pretrained=./{MODEL}", *settings.model_args]
    placed = [] if ",device_map=" in ",".join(given) else [f"device_map={device}"]
    limit = [] if settings.limit is None else ["--limit", str(settings.limit)]
    return [
        *("--model", settings.model, "--model_args", ",".join([*given, *placed]), "--tasks", ",".join(tasks)),
        *("--batch_size", str(settings.batch_size), "--device", device, "--output_path", "results"),
        *("--verbosity", "WARNING", *limit),
    ]


def family(root: Path, record: TrialRecord) -> str:
    """What lmms-eval calls the family of a trial's model. Raises `ValueError` for one it has no known name for."""
    path = StudyFolder(root).model_dir(record.start.key) / "config.json"
    kind = read_json(path)["model_type"]
    if kind not in FAMILIES:
        raise ValueError(
            f"{path}: model_type {kind!r} is none of {', '.join(FAMILIES)}; find out with `python -m lmms_eval models` "
            "what lmms-eval calls it and say --model NAME"
        )
    return FAMILIES[kind]


def installed() -> str:
    """The version of lmms-eval. Raises `ValueError` with the remedy if it is not installed."""
    try:
        return version("lmms-eval")
    except PackageNotFoundError as error:
        raise ValueError(
            "lmms-eval is not installed: pip install 'mllm-unlearning-study[general]', or in a checkout "
            ".venv/bin/pip install -c requirements.lock -e '.[general]'"
        ) from error


# ---- results -----------------------------------------------------------------------------------------------------
def parsed(content: Json, tasks: Sequence[str]) -> Json:
    """What lmms-eval wrote, as task -> metric -> `value` and `stderr`, either None where it gave none.

    A group of tasks comes as its members. Raises `ValueError` naming a task without result or what cannot be read.
    """
    results, sizes = content.get("results", {}), content.get("n-samples", {})
    missing = [task for task in tasks if task not in results and task not in content.get("group_subtasks", {})]
    if missing:
        raise ValueError(f"no result for {', '.join(missing)}: name tasks or groups, no tags or patterns")
    found = {task: _metrics(task, line, sizes.get(task, {}).get("effective", 0)) for task, line in results.items()}
    return {task: metrics for task, metrics in found.items() if metrics}


def _metrics(task: str, line: Mapping[str, Json], questions: int) -> Json:
    """The metrics of one task from its line of `METRIC,FILTER` and `METRIC_stderr,FILTER`."""
    known = {key: value for key, value in line.items() if key not in ("alias", " ", "samples")}
    if strange := [key for key in known if "," not in key]:
        raise ValueError(f"{task}: {strange[0]!r} is not METRIC,FILTER")
    values = {(*key.rsplit(",", 1),): _number(task, key, value) for key, value in known.items()}
    metrics = {}
    for (name, filtered), value in values.items():
        if not name.endswith(ERRORS):
            own, of_scores = (values.get((f"{name}{error}", filtered)) for error in ERRORS[:2])
            stderr = own if own is not None or not _is_of(value, of_scores, questions) else of_scores
            metrics[name if filtered == "none" else f"{name} ({filtered})"] = {"value": value, "stderr": stderr}
    return metrics


def _number(task: str, key: str, value: Json) -> float | None:
    if value in NOTHING:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{task}: {key} is {value!r} and no number")
    return float(value) if math.isfinite(value) else None


def _is_of(value: float | None, stderr: float | None, questions: int) -> bool:
    """Whether a standard error of scores of 0 and 1 is that of `value`, so that `value` is their mean.

    lmms-eval gives the error of the scores of single answers to every metric of a task, to F1 and recall too, whose
    error it is not. At 0 and 1, where it is 0, nothing tells them apart.
    """
    if value is None or stderr is None or questions < 2 or not 0 < value < 1:
        return False
    return math.isclose(stderr, math.sqrt(value * (1 - value) / (questions - 1)), rel_tol=1e-3)


def failed_replies(log: str) -> int:
    """How many replies lmms-eval could not get out of the model and counted as empty."""
    return len(re.findall(r"Error .* in generating", log))


# ---- running -----------------------------------------------------------------------------------------------------
def missing(root: Path, record: TrialRecord, tasks: Sequence[str], settings: Settings) -> list[str]:
    """The tasks that have not been measured of a trial with these settings."""
    there = {task for run in _runs(root, record) if run["settings"] == canonical(settings) for task in run["tasks"]}
    return [task for task in tasks if task not in there]


def measure(root: Path, record: TrialRecord, tasks: Sequence[str], settings: Settings, device: str) -> None:
    """Measure a trial's model on `tasks` and keep the numbers beside its record; its export is gone afterwards.

    Raises `Unmeasured` with the end of lmms-eval's log, which stays, if there is no result.
    """
    path, asked = StudyFolder(root).general_utility(record.key), arguments_for(settings, tasks, device)
    log = path.with_suffix(".log")
    with tempfile.TemporaryDirectory(prefix=f".{root.absolute().name}.", dir=root.absolute().parent) as temporary:
        export(root, record, Path(temporary) / MODEL)
        content = _called(Path(temporary), asked, log)
    failures, sizes = failed_replies(log.read_text(encoding="utf-8", errors="replace")), content.get("n-samples", {})
    if failures and failures >= sum(size["effective"] for size in sizes.values()):
        raise Unmeasured(_said("the model answered nothing, lmms-eval counted every reply as empty", log))
    try:
        results = parsed(content, tasks)
    except ValueError as error:
        unread = path.with_suffix(".unread.json")
        write_json(unread, {name: content.get(name) for name in ("results", "n-samples", "group_subtasks")})
        raise Unmeasured(f"lmms-eval {settings.version}: {error} (what it wrote is kept in {unread})") from error
    run = {
        "tasks": list(tasks),
        "settings": canonical(settings),
        "arguments": asked,
        "questions": {task: {"asked": size["effective"], "of": size["original"]} for task, size in sizes.items()},
        "failed_replies": failures,
        "results": results,
    }
    write_json(path, {"runs": [*_runs(root, record), run]})


def _runs(root: Path, record: TrialRecord) -> list[Json]:
    path = StudyFolder(root).general_utility(record.key)
    runs: list[Json] = read_object(path, "runs")["runs"] if path.exists() else []
    return runs


def _called(folder: Path, arguments: Sequence[str], log: Path) -> Json:
    """Run lmms-eval in a folder and return what it wrote; it may well fail with exit status 0."""
    with log.open("w", encoding="utf-8") as said:
        command = [sys.executable, "-m", "lmms_eval", *arguments]
        done = subprocess.run(command, cwd=folder, stdout=said, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise Unmeasured(_said(f"lmms-eval ended with exit status {done.returncode}", log))
    written = visible(folder / "results", "**/*_results.json")
    if len(written) != 1:
        raise Unmeasured(_said(f"lmms-eval wrote {len(written)} files of results in place of one", log))
    return read_json(written[0])


def _said(what: str, log: Path) -> str:
    lines = COLOURS.sub("", log.read_text(encoding="utf-8", errors="replace")).splitlines()
    return "\n".join([f"{what}; the end of {log}:", *(f"  {line}" for line in lines[-12:])])


# ---- command line ------------------------------------------------------------------------------------------------
def chosen(root: Path, names: Sequence[str]) -> dict[str, TrialRecord]:
    """The records of vanilla, the references and the named trials, by their names; without names all winners.

    A trial with two names is there once, by the first. Raises `ValueError` for a named trial whose product is an
    instruction: lmms-eval would ask without it.
    """
    there = named(root)
    yardsticks = [name for name in there if name == "vanilla" or name.startswith("reference@")]
    records = {name: record_of(root, name, there) for name in dict.fromkeys([*yardsticks, *(names or there)])}
    first = {record.key: name for name, record in reversed(records.items())}
    wanted = {name: record for name, record in records.items() if first[record.key] == name}
    asked = {name: record for name, record in wanted.items() if not record.instruction}
    for name in wanted.keys() - asked.keys():
        left = f"{name}: the product of this method is an instruction, and lmms-eval asks without it"
        if names:
            raise ValueError(f"{left}; leave it out")
        print(f"left out: {left}")
    return asked


def main(arguments: list[str] | None = None) -> int:
    """Measure what has not been measured. Returns 0; 1 if a model was not measured; 2 if nothing was begun."""
    asked = _parser().parse_args(arguments)
    root, tasks = asked.study, [task for given in asked.tasks for task in given.split(",") if task]
    try:
        release, models = installed(), chosen(root, asked.trials)
        planned = {}
        for name, record in models.items():
            adapter = asked.model or family(root, record)
            settings = Settings(adapter, tuple(asked.model_args), asked.limit, asked.batch_size, release)
            planned[name] = (record, missing(root, record, tasks, settings), settings)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        for name, (record, new, settings) in planned.items():
            print(f"{name}: {', '.join(new) or 'nothing new'}", flush=True)
            if new:
                measure(root, record, new, settings, asked.device)
    except (Unmeasured, OSError, ValueError) as error:
        print(f"failed: {name}: {error}", file=sys.stderr)
        return 1
    print(f"`mus report {root}` puts the numbers into the report")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mus general-utility", description=__doc__)
    parser.add_argument("study", type=Path, help="the folder of the study, such as runs/tiny")
    parser.add_argument("trials", nargs="*", help="trials beside vanilla and the references: keys, or METHOD@RATIO of "
                        "winners; default all winners")  # fmt: skip
    parser.add_argument("--tasks", nargs="+", required=True, help="lmms-eval's names of tasks or groups of tasks")
    parser.add_argument("--limit", type=_positive, help="ask only the first LIMIT questions of each task")
    parser.add_argument("--batch-size", type=_positive, default=1)
    parser.add_argument("--model", help="lmms-eval's name of the model's family; default by model_type")
    parser.add_argument("--model-args", nargs="*", type=_pair, default=[], metavar="KEY=VALUE",
                        help="further arguments of that family, such as dtype=float16")  # fmt: skip
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: use a whole number of at least 1")
    return int(text)


def _pair(text: str) -> str:
    if "=" not in text or text.startswith("pretrained="):
        raise argparse.ArgumentTypeError(f"{text!r}: use KEY=VALUE with any key but pretrained, which is the export")
    return text


if __name__ == "__main__":
    sys.exit(main())
