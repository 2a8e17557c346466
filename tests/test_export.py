"""An exported model is the one the trial left, bit for bit, and the folder says where it comes from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub.errors import LocalTokenNotFoundError
from transformers import AutoModelForImageTextToText, AutoProcessor

from study import export
from study.contracts import Method
from study.core.files import read_json, write_json
from study.core.hashing import canonical, file_digest
from study.experiment import checkpoints
from study.experiment import trial as trials
from study.experiment.checkpoints import load_learned, save
from study.experiment.context import StudyContext
from study.experiment.records import keep_record
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_ascent import GradientAscent
from study.methods.none import NoMethod
from study.methods.prompting import INSTRUCTIONS, Prompting
from study.methods.vkd import VKD
from study.model.loading import load
from study.training.schedule import Schedule
from tests.helpers.families import FAMILIES
from tests.helpers.small import FewQuestions, borrowed, fresh, same_bits, snapshot

TAUGHT = Schedule(steps=2, learning_rate=1e-3, pictures=2, texts=1)
SHORT = Schedule(steps=2, learning_rate=1e-3, pictures=2, lessons_per_picture=3)
VANILLA = Learned("vanilla", "base", "benchmark", None, None, TAUGHT, ("projector", "llm"), 0)
REFERENCE = replace(VANILLA, kind="reference", goal="visual", ratio=10)
METHODS: dict[str, Method] = {
    "vkd": VKD(schedule=SHORT),
    "gradient_ascent:lora_rank=2": GradientAscent(trains=("llm",), schedule=replace(SHORT, lora_rank=2)),
    "prompting": Prompting(),
}


def of(name: str) -> Trial:
    if name in ("vanilla", "reference"):
        return Trial(VANILLA if name == "vanilla" else REFERENCE, NoMethod(), "visual", 10, 0)
    return Trial(VANILLA, METHODS[name], "visual", 10, 1, name)


FAILED = Trial(VANILLA, VKD(schedule=replace(SHORT, learning_rate=9.0)), "visual", 10, 0, "vkd")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudyContext:
    """A study of three methods whose benchmark is gone: an export must not need it."""
    root = tmp_path_factory.mktemp("parent") / "study"
    context = StudyContext(root, FewQuestions(), tiny_folder)
    for learned in (VANILLA, REFERENCE):
        learn(context, learned)
    for name in ("vanilla", "reference", *METHODS):
        assert trials.run(context, of(name), REFERENCE.key).state == "complete"
    keep_record(context.folder, FAILED, "diverged", "loss is NaN", cost={})
    write_json(context.folder.settings, {"name": "mine", "git": "abc", "settings": {}})
    write_json(context.folder.winners, {name: {"10": {"trials": [of(name).key, "later"]}} for name in METHODS})
    return context


@pytest.fixture
def context(made: StudyContext, tmp_path: Path) -> Iterator[StudyContext]:
    shutil.copytree(made.root, tmp_path / "study")
    yield replace(made, root=tmp_path / "study")
    checkpoints.evict()


def run(*arguments: str | Path) -> int:
    return export.main([str(argument) for argument in arguments])


# ---- the weights -----------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(("name", "parts"), [
    ("vkd", {"vision", "projector"}), ("gradient_ascent:lora_rank=2", {"llm"}), ("vanilla", set()),
])  # fmt: skip
def test_the_export_is_the_model_that_the_trial_left(
    context: StudyContext, name: str, parts: set[str], tmp_path: Path
) -> None:
    """Made again by the method itself: equal weights, and equal logits from the plain classes of transformers."""
    asked = of(name)
    torch.manual_seed(asked.seed)
    request = context.request(asked, REFERENCE.key)
    shutil.rmtree(context.folder.data)
    assert run(context.root, asked.key, "--to", tmp_path / "out") == 0
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", local_files_only=True).eval()
    processor: Any = AutoProcessor.from_pretrained(tmp_path / "out", local_files_only=True, backend="pil")
    picture = context.benchmark.split(10).lessons[0].picture
    assert picture is not None
    inputs = processor(text=["<image>\nwho is this ?"], images=[picture.open()], return_tensors="pt")
    with borrowed(load_learned(context.root, VANILLA.key)) as (vlm, before):
        torch.manual_seed(asked.seed)
        left = asked.method(vlm, request)
        exported = load(tmp_path / "out")
        assert same_bits(snapshot(left), snapshot(exported))
        assert {left.part_of(n) for n, p in exported.tensors().items() if not torch.equal(p, before[n])} == parts
        with torch.no_grad():
            assert torch.equal(left.model(**inputs).logits, model(**inputs).logits)


def test_the_reference_is_exported_by_its_ratio(context: StudyContext) -> None:
    assert run(context.root, "reference@10") == 0
    to = context.root / "exports" / of("reference").key
    assert same_bits(snapshot(load(to)), snapshot(load_learned(context.root, REFERENCE.key)))
    assert not same_bits(snapshot(load(to)), snapshot(load_learned(context.root, VANILLA.key)))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_processor_of_every_family_lies_beside_it(
    name: str, family_folders: dict[str, Path], tmp_path: Path
) -> None:
    """As the stock processors look for it, those that take videos too."""
    vlm = fresh(family_folders[name])
    save(vlm, tmp_path / "model")
    export.beside(vlm, tmp_path / "model")
    about = read_json(tmp_path / "model" / "preprocessor_config.json")
    assert about["size"] == read_json(family_folders[name] / "processor_config.json")["image_processor"]["size"]
    assert len(load(tmp_path / "model").prompt_ids("who ?", True)) == len(vlm.prompt_ids("who ?", True))


# ---- what the folder says --------------------------------------------------------------------------------------
def test_the_folder_says_where_it_comes_from(context: StudyContext, capsys: pytest.CaptureFixture[str]) -> None:
    asked = of("vkd")
    assert run(context.root, "vkd@10") == 0
    to = context.root / "exports" / asked.key
    assert capsys.readouterr().out == f"{to}\n"
    weights = context.folder.learned(VANILLA.key) / "model" / "model.safetensors"
    about = read_json(to / "unlearning.json")
    assert about.pop("tensors_changed") > 0
    assert about == {
        "study": {"name": "mine", "git": "abc"}, "trial": asked.key, "method": "vkd",
        "hyperparameters": canonical(METHODS["vkd"]), "goal": "visual", "ratio": 10, "seed": 1,
        "start": {"kind": "vanilla", "key": VANILLA.key, "sha256": {"model.safetensors": file_digest(weights)}},
        "instruction": "", "note": "", "sha256": {"model.safetensors": file_digest(to / "model.safetensors")},
    }  # fmt: skip
    assert str(context.root) not in json.dumps(about)
    assert [path.name for path in to.parent.iterdir()] == [to.name]


def test_an_instruction_is_no_weight(context: StudyContext, capsys: pytest.CaptureFixture[str]) -> None:
    """File and screen say so."""
    assert run(context.root, "prompting@10") == 0
    to, said = context.root / "exports" / of("prompting").key, capsys.readouterr().out
    about = read_json(to / "unlearning.json")
    assert about["instruction"] == INSTRUCTIONS["refuse"]
    assert about["tensors_changed"] == 0
    assert about["note"].startswith("The instruction is not part of the weights")
    assert INSTRUCTIONS["refuse"] in said
    assert about["note"] in said
    assert same_bits(snapshot(load(to)), snapshot(load_learned(context.root, VANILLA.key)))


def test_the_card_of_a_trial_without_evidence_says_why_it_has_no_numbers(context: StudyContext, tmp_path: Path) -> None:
    assert run(context.root, "vkd@10", "--to", tmp_path / "out", "--base-model", "org/base", "--license", "mit") == 0
    _, front, text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(front)
    assert (about["base_model"], about["license"], "model-index" in about) == ("org/base", "mit", False)
    assert "machine-unlearning" in about["tags"]
    assert "No numbers are given here" in text
    assert "still missing: confirmation: 0 of 2 seeds of vkd are scored." in text
    assert str(context.root) not in text
    assert run(context.root, "vanilla", "--to", tmp_path / "vanilla") == 0
    assert "it is no winner of the study" in (tmp_path / "vanilla" / "README.md").read_text()


# ---- the hub ---------------------------------------------------------------------------------------------------
class Hub:
    """Stands for the hub: notes what it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.error = error

    def create_repo(self, repository: str, **how: Any) -> str:
        self.asked.append((repository, how))
        if self.error:
            raise self.error
        return f"https://huggingface.co/{repository}"

    def upload_folder(self, **how: Any) -> None:
        self.asked.append(("upload", {**how, "files": sorted(path.name for path in how["folder_path"].iterdir())}))


def test_nothing_is_uploaded_unless_it_is_asked_for(context: StudyContext, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    assert run(context.root, "vkd@10") == 0
    assert hub.asked == []


def test_an_export_is_uploaded_to_a_private_repository(
    context: StudyContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one that is there already; one of another trial is not."""
    hub, to = Hub(), context.folder.export(of("vkd").key)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    for _ in range(2):
        assert run(context.root, "vkd@10", "--push-to-hub", "me/vkd") == 0
        assert capsys.readouterr().out == f"{to}\nhttps://huggingface.co/me/vkd\n"
    (_, made), (_, sent), *again = hub.asked
    assert made == {"private": True, "exist_ok": True}
    assert (sent["repo_id"], sent["folder_path"]) == ("me/vkd", to)
    assert {"README.md", "model.safetensors", "unlearning.json", "config.json"} <= set(sent["files"])
    assert again == hub.asked[:2]
    assert run(context.root, "vanilla", "--to", to, "--push-to-hub", "me/vkd") == 2
    assert len(hub.asked) == 4


def test_a_hub_that_refuses_leaves_the_export(
    context: StudyContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = Hub(LocalTokenNotFoundError("no token"))
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    assert run(context.root, "vkd@10", "--push-to-hub", "me/vkd") == 2
    assert "me/vkd cannot be written (no token): log in with `hf auth login`" in capsys.readouterr().err
    assert (context.folder.export(of("vkd").key) / "model.safetensors").exists()


def test_a_repository_without_an_owner_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, "vanilla", "--push-to-hub", "vkd")
    assert "'vkd': write ORG/NAME" in capsys.readouterr().err


# ---- what cannot be exported -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "told"), [
    ("vdk@10", "did you mean 'vkd@10'? There are vanilla, reference@10, gradient_ascent:lora_rank=2@10,"),
    ("reference@15", "did you mean 'reference@10'?"),
    (of("vkd").key[:-1], f"did you mean '{of('vkd').key}'?"),
    ("zzz", "in {root}: There are vanilla,"),
    (FAILED.key, f"trial {FAILED.key} (vkd at 10 %) is diverged (loss is NaN) and has no model"),
])  # fmt: skip
def test_an_unknown_or_failed_trial(
    context: StudyContext, name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(context.root, name) == 2
    assert told.format(root=context.root) in capsys.readouterr().err
    assert not (context.root / "exports").exists()


def test_a_folder_that_is_there_stays(
    context: StudyContext, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    assert run(context.root, "vanilla", "--to", tmp_path / "out") == 2
    assert f"{tmp_path / 'out'} exists already: remove it, or name another" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_that_is_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "vanilla") == 2
    assert f"{tmp_path} is not a study" in capsys.readouterr().err


def test_damaged_weights_are_not_exported(context: StudyContext, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither those of the trial nor those it started from."""
    for path in (
        context.folder.trial(of("vkd").key) / "delta.safetensors",
        context.folder.learned(VANILLA.key) / "model" / "model.safetensors",
    ):
        path.write_bytes(path.read_bytes()[:-4] + b"\0\1\2\3")
        assert run(context.root, "vkd@10") == 2
        assert f"{path} is damaged" in capsys.readouterr().err
    assert not list((context.root).glob("exports/*"))


def test_an_export_that_is_interrupted_leaves_nothing(
    context: StudyContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "beside", killed)
    with pytest.raises(KeyboardInterrupt):
        run(context.root, "vanilla", "--to", tmp_path / "to" / "out")
    assert not list((tmp_path / "to").iterdir())
