"""A finished trial's model as an ordinary Hugging Face folder: `mus export runs/<study> vkd@20`."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from study.core import inventory
from study.core.files import read_json, write_json, written_folder
from study.core.hashing import Json
from study.core.layout import StudyFolder
from study.core.records import LearnedRecord, ModelKind, TrialRecord, read_record, read_study, read_winners
from study.experiment.checkpoints import load_learned, save, unlearned_model
from study.model.vlm import VLM

CARD = "README.md"
"""The model card, as hubs show it."""
ABOUT = "unlearning.json"
"""The file beside the weights that says where they come from."""
NOTE = (
    "The instruction is not part of the weights: this trial was scored with the instruction on a separate line before "
    "every prompt, and whoever uses these files has to add it."
)


def named(root: Path) -> dict[str, str]:
    """The keys of the trials that have a name: `vanilla`, `reference@RATIO`, then the winners as METHOD@RATIO.

    Vanilla is the same model at every ratio; its trial at the smallest ratio stands for it. Raises `FileNotFoundError`
    with the remedy if `root` is not a study, and `Damaged` if a file of it is not as the last run left it.
    """
    folder = StudyFolder(root)
    inventory.check(folder)
    read_study(folder)
    records = [read_record(TrialRecord, path) for path in folder.trial_records()]
    found: dict[str, str] = {}
    for kind in get_args(ModelKind):
        for record in sorted(records, key=lambda r: (r.ratio, r.seed, r.key)):
            if record.kind == kind:
                found.setdefault(kind if kind == "vanilla" else f"{kind}@{record.ratio}", record.key)
    for method, ratios in read_winners(folder).items():
        found |= {f"{method}@{ratio}": trials[0] for ratio, trials in ratios.items() if trials}
    return found


def record_of(root: Path, name: str, names: Mapping[str, str] | None = None) -> TrialRecord:
    """The record of the complete trial with the name or key `name`; `names` are those of `named`, where they are known.

    Raises `ValueError` with the nearest name if there is none, and with its state if it has no model.
    """
    names = named(root) if names is None else names
    key = names.get(name, name)
    path = StudyFolder(root).record(key)
    if not path.exists():
        raise ValueError(_unknown(root, name, names))
    record = read_record(TrialRecord, path)
    if record.state != "complete":
        raise ValueError(
            f"trial {key} ({record.method} at {record.ratio} %) is {record.state} ({record.reason}) and has no model; "
            "name a complete trial"
        )
    return record


def export(root: Path, record: TrialRecord, to: Path, card: str = "") -> None:
    """Write the model of a complete trial as the folder `to`, whole or not at all, with its `card` if there is one.

    Raises `ValueError` if `to` exists or a file of the study is damaged.
    """
    if to.exists():
        raise ValueError(f"{to} exists already: remove it, or name another folder with --to")
    vlm, changed = unlearned_model(StudyFolder(root), record.key, load_learned(root, record.start.key))
    with written_folder(to) as draft:
        digests = save(vlm, draft)
        beside(vlm, draft)
        write_json(draft / ABOUT, {**_about(root, record), "tensors_changed": len(changed), "sha256": digests})
        if card:
            (draft / CARD).write_text(card, encoding="utf-8")


def beside(vlm: VLM, folder: Path) -> None:
    """Write the image processor's settings also to the file that the released checkpoints have.

    Where torchvision is installed, the stock processor of Qwen reads its video settings from it and fails without.
    """
    vlm.processor.image_processor.save_pretrained(folder)


def card_of(root: Path, record: TrialRecord, *, base_model: str = "", licence: str = "") -> str:
    """The model card of a trial: with the numbers of the evidence if it is a winner of a study that is finished."""
    from analysis.evidence.card import card  # with pandas, which an export for lmms-eval does without
    from analysis.evidence.numbers import Unfinished, numbers
    from analysis.evidence.numbers import named as winners
    from analysis.study_folder import read

    study = read(root, checked=False)  # `named` has checked its files
    found = [name for name, place in winners(study).items() if study.winners[place][0] == record.key]
    try:
        evidence = numbers(study, found[0]) if found else None
        missing = "it is no winner of the study"
    except Unfinished as error:
        evidence, missing = None, f"the study is not finished; still missing: {error.lacks}"
    return card(_about(root, record), evidence, missing=missing, base_model=base_model, licence=licence)


def push(folder: Path, repository: str) -> str:
    """Upload an exported folder to a private repository of the hub, which is made if there is none; its address.

    Raises `OSError` with the remedy if the hub does not take it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    hub = HfApi()
    try:
        address = hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="An unlearned model, with its card")
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        raise OSError(
            f"{repository} cannot be written ({error}): log in with `hf auth login` and a token that may write there; "
            f"{folder} is complete"
        ) from error
    return str(address)


def _repository(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r}: write ORG/NAME")
    return text


def _about(root: Path, record: TrialRecord) -> Json:
    """Where an exported model comes from."""
    folder = StudyFolder(root)
    study, learned = read_study(folder), read_record(LearnedRecord, folder.learned_record(record.start.key))
    return {
        "study": {name: study.get(name, "") for name in ("name", "git")},
        "trial": record.key,
        **{name: getattr(record, name) for name in ("method", "hyperparameters", "goal", "ratio", "seed")},
        "start": {"kind": record.start.kind, "key": record.start.key, "sha256": learned.sha256},
        "instruction": record.instruction,
        "note": NOTE if record.instruction else "",
    }


def _unknown(root: Path, name: str, names: Mapping[str, str]) -> str:
    keys = sorted(path.parent.name for path in StudyFolder(root).trial_records())
    near = difflib.get_close_matches(name, [*names, *keys], n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return (
        f"no finished trial {name!r} in {root}: {meant}There are {', '.join(names) or 'no winners yet'}, and "
        f"{len(keys)} keys under trials/"
    )


def _is_exported(to: Path, record: TrialRecord) -> bool:
    """Whether a folder is the export of this trial, which can be uploaded as it is."""
    return (to / ABOUT).exists() and bool(read_json(to / ABOUT)["trial"] == record.key)


def main(arguments: list[str] | None = None) -> int:
    """Export and print the folder. Returns 0, or 2 if that cannot be done, with the reason."""
    parser = argparse.ArgumentParser(prog="mus export", description=__doc__)
    parser.add_argument("study", type=Path, help="the folder of the study, such as runs/tiny")
    parser.add_argument("trial", help="a trial's key, METHOD@RATIO of a winner, vanilla, or reference@RATIO")
    parser.add_argument("--to", type=Path, help="the folder to write; default exports/KEY in the study")
    parser.add_argument("--base-model", default="", help="the base model's name, for the model card")
    parser.add_argument("--license", default="", dest="licence", help="the base model's licence, for the model card")
    parser.add_argument("--push-to-hub", type=_repository, metavar="ORG/NAME", help="also upload the folder to this "
                        "repository of the Hugging Face hub, which is made private if it is new")  # fmt: skip
    asked = parser.parse_args(arguments)
    try:
        record = record_of(asked.study, asked.trial)
        to: Path = asked.to or StudyFolder(asked.study).export(record.key)
        if not (asked.push_to_hub and _is_exported(to, record)):
            card = card_of(asked.study, record, base_model=asked.base_model, licence=asked.licence)
            export(asked.study, record, to, card)
        address = push(to, asked.push_to_hub) if asked.push_to_hub else ""
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(to)
    if address:
        print(address)
    if record.instruction:
        print(f"The result of {record.method} is an instruction: {record.instruction!r}. {NOTE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
