"""General utility: lmms-eval is called with the right arguments, its file read as it is written, its failures told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.sections import general_utility as tables
from analysis.study_folder import read
from analysis.tables import Table
from study import general_utility as general
from study.core.errors import Damaged
from study.core.files import read_json, write_json
from study.core.layout import StudyFolder
from study.core.records import ModelKind, write_record
from study.experiment.checkpoints import save
from study.experiment.records import learned_record
from study.experiment.trial_spec import Learned
from study.general_utility import Settings, arguments_for, failed_replies, parsed
from study.model.loading import Loading
from study.model.tensor_files import save_tensors
from study.training.schedule import Schedule
from tests.helpers.page import page_of
from tests.helpers.planted import Model, Planter, plant
from tests.helpers.small import fresh

SETTINGS = Settings("llava_hf", (), None, 1, "0.7.3")
POPE: dict[str, Any] = {  # as lmms-eval 0.7.3 lays it out; 6 of 8 questions right: the error is sqrt(6/8 2/8 / 7)
    "alias": "pope",
    **{"pope_accuracy,none": 0.75, "pope_accuracy_stderr,none": "N/A", "pope_accuracy_stderr_clt,none": 0.1636634177,
       "pope_accuracy_stderr_clustered,none": "N/A"},
    **{"pope_f1_score,none": 0.8, "pope_f1_score_stderr,none": "N/A", "pope_f1_score_stderr_clt,none": 0.1636634177,
       "pope_f1_score_stderr_clustered,none": "N/A"},
}  # fmt: skip
RESULTS: dict[str, Any] = {
    "pope": POPE,
    "mmmu_val": {"alias": "mmmu_val", "mmmu_acc,none": 0.35, "mmmu_acc_stderr,none": "N/A",
                 "mmmu_acc_stderr_clt,none": "N/A", "submission,none": None, "submission_stderr,none": []},
    "mme": {"alias": "mme", "mme_score,none": 1510.5, "mme_score_stderr,none": 2.5},
}  # fmt: skip
FAKE = """
import argparse, json, os, pathlib, sys
parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("model", "model_args", "tasks", "batch_size", "device", "output_path", "verbosity"):
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("--limit", type=float)
asked = parser.parse_args()
given = dict(pair.split("=", 1) for pair in asked.model_args.split(","))
folder = pathlib.Path(given["pretrained"])
assert (folder / "model.safetensors").stat().st_size, "no weights"
about = json.loads((folder / "unlearning.json").read_text())
assert asked.verbosity == "WARNING" and asked.output_path == "results"
with open(os.environ["FAKE_CALLS"], "a") as calls:
    calls.write(json.dumps({"trial": about["trial"], "argv": sys.argv[1:], "cwd": os.getcwd()}) + "\\n")
mode, known, tasks = os.environ.get("FAKE_MODE", ""), json.loads(os.environ["FAKE_RESULTS"]), asked.tasks.split(",")
if mode == "status":
    sys.exit("\\x1b[31mout of memory\\x1b[0m")
if mode == "silent":
    print("Error during evaluation: Tasks not found")
    sys.exit(0)
for _ in range({"deaf": 8 * len(tasks), "lossy": 2}.get(mode, 0)):
    print("ERROR - Error must not be empty in generating")
sizes = {task: {"original": 9000, "effective": 8} for task in tasks}
place = pathlib.Path("results", ".__model")
place.mkdir(parents=True)
written = {"results": {t: known[t] for t in tasks}, "group_subtasks": {t: [] for t in tasks}, "n-samples": sizes}
(place / "20261121_224831_results.json").write_text(json.dumps({**written, "model_name": "./model"}))
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for lmms-eval on the path of subprocesses; the file in which it notes its calls."""
    fake = tmp_path / "fake"
    (fake / "lmms_eval").mkdir(parents=True)
    (fake / "lmms_eval" / "__init__.py").touch()
    (fake / "lmms_eval" / "__main__.py").write_text(FAKE)
    (fake / "lmms_eval-0.7.3.dist-info").mkdir()
    (fake / "lmms_eval-0.7.3.dist-info" / "METADATA").write_text("Name: lmms-eval\nVersion: 0.7.3\n")
    monkeypatch.syspath_prepend(fake)
    monkeypatch.setenv("PYTHONPATH", str(fake))
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("FAKE_RESULTS", json.dumps(RESULTS))
    return tmp_path / "calls"


@pytest.fixture
def root(tmp_path: Path, tiny_folder: Path) -> Path:
    """A finished study of one ratio, with a winner that has weights and one that is an instruction."""
    root, vlm = tmp_path / "runs" / "mine", fresh(tiny_folder)
    write_json(root / "study.json", {"name": "mine", "git": "", "settings": {"methods": ["vkd", "prompting"]}})
    for kind in get_args(ModelKind):
        (root / "learned" / kind).mkdir(parents=True)
        digests = save(vlm, root / "learned" / kind / "model")
        record = learned_record(Learned(kind, "base", "data", None, None, Schedule(), ("llm",), 0), Loading(), digests)
        write_record(root / "learned" / kind / "learned.json", record)
    for key, method, start, instruction in (
        ("aaa", "none", "vanilla", ""), ("bbb", "none", "reference", ""),
        ("ccc", "vkd", "vanilla", ""), ("ddd", "prompting", "vanilla", "Say nothing."), ("eee", "vkd", "vanilla", ""),
    ):  # fmt: skip
        write_json(root / "trials" / key / "trial.json", {
            "key": key, "state": "complete", "reason": "", "method": method, "hyperparameters": {}, "goal": "visual",
            "ratio": 10, "seed": 0, "instruction": instruction, "start": {"kind": start, "key": start}, "cost": {},
        })  # fmt: skip
        save_tensors(root / "trials" / key / "delta.safetensors", {})
    winners = {"vkd": {"10": {"trials": ["ccc"]}}, "prompting": {"10": {"trials": ["ddd"]}}}
    write_json(root / "winners.json", winners)
    return root


def run(root: Path, *arguments: str) -> int:
    return general.main([str(root), *arguments, "--device", "cpu"])


def called(calls: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def measured(root: Path, key: str) -> list[dict[str, Any]]:
    path = root / "trials" / key / "general_utility.json"
    return list(read_json(path)["runs"]) if path.exists() else []


# ---- arguments -------------------------------------------------------------------------------------------------
def test_the_arguments_of_lmms_eval() -> None:
    assert arguments_for(SETTINGS, ["pope", "mmmu_val"], "cuda") == [
        "--model", "llava_hf", "--model_args", "pretrained=./model,device_map=cuda", "--tasks", "pope,mmmu_val",
        "--batch_size", "1", "--device", "cuda", "--output_path", "results", "--verbosity", "WARNING",
    ]  # fmt: skip
    other = Settings("qwen2_vl", ("device_map=auto", "max_pixels=9"), 50, 4, "0.7.3")
    assert arguments_for(other, ["pope"], "cuda")[3] == "pretrained=./model,device_map=auto,max_pixels=9"
    assert arguments_for(other, ["pope"], "cuda")[-2:] == ["--limit", "50"]


@pytest.mark.parametrize(("arguments", "told"), [
    (["--limit", "0"], "'0': use a whole number of at least 1"),
    (["--model-args", "pretrained=x"], "any key but pretrained"),
    (["--model-args", "float16"], "'float16': use KEY=VALUE"),
])  # fmt: skip
def test_arguments_that_cannot_be(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        general.main(["runs/none", "--tasks", "pope", *arguments])
    assert told in capsys.readouterr().err


# ---- results ---------------------------------------------------------------------------------------------------
def content(*tasks: str, **more: Any) -> dict[str, Any]:
    sizes = {task: {"original": 9000, "effective": 8} for task in tasks}
    return {"results": {task: RESULTS[task] for task in tasks}, "n-samples": sizes, **more}


def test_results_are_read_as_they_are_laid_out() -> None:
    """An error that is not the metric's own is left out; no number is None."""
    assert parsed(content("pope", "mmmu_val", "mme"), ["pope", "mmmu_val", "mme"]) == {
        "pope": {"pope_accuracy": {"value": 0.75, "stderr": 0.1636634177},
                 "pope_f1_score": {"value": 0.8, "stderr": None}},
        "mmmu_val": {"mmmu_acc": {"value": 0.35, "stderr": None}, "submission": {"value": None, "stderr": None}},
        "mme": {"mme_score": {"value": 1510.5, "stderr": 2.5}},
    }  # fmt: skip


def test_filters_and_groups() -> None:
    line = {"alias": "x", "exact,strict": 0.5, "exact_stderr,strict": float("nan"), "exact,none": 0.25}
    made = {"results": {"group": {" ": " ", "alias": "group"}, "x": line}, "group_subtasks": {"group": ["x"]}}
    expected = {"exact (strict)": {"value": 0.5, "stderr": None}, "exact": {"value": 0.25, "stderr": None}}
    assert parsed(made, ["group"]) == {"x": expected}


@given(st.lists(st.booleans(), min_size=2, max_size=200), st.floats(0, 1))
def test_the_error_of_scores_is_that_of_their_mean_only(scores: list[bool], other: float) -> None:
    stderr = float(np.std(scores, ddof=1) / np.sqrt(len(scores)))
    mean = float(np.mean(scores))
    line = {f"{name},none": value for name, value in (("a", mean), ("b", other))}
    line |= {f"{name}_stderr_clt,none": stderr for name in "ab"}
    found = parsed({"results": {"t": line}, "n-samples": {"t": {"effective": len(scores)}}}, ["t"])["t"]
    assert found["a"]["stderr"] == (stderr if 0 < mean < 1 else None)
    if abs(other * (1 - other) - mean * (1 - mean)) > 0.01:  # else it might be another mean as far from one half
        assert found["b"]["stderr"] is None


@pytest.mark.parametrize(("results", "told"), [
    ({}, "no result for pope"),
    ({"pope": {"accuracy": 0.5}}, "pope: 'accuracy' is not METRIC,FILTER"),
    ({"pope": {"accuracy,none": {"all": 0.5}}}, r"pope: accuracy,none is \{'all': 0.5\} and no number"),
    ({"pope": {"accuracy,none": True}}, "is True and no number"),
])  # fmt: skip
def test_results_that_cannot_be_read(results: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parsed({"results": results}, ["pope"])


def test_replies_that_failed_are_counted() -> None:
    assert failed_replies("x - Error CUDA out of memory in generating\nfine\ny Error a b in generating\n") == 2


# ---- the command -----------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_vanilla_reference_and_winners_are_measured_once(
    root: Path, calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, "--tasks", "pope", "mmmu_val", "--limit", "8") == 0
    said = capsys.readouterr().out
    assert "left out: prompting@10: the product of this method is an instruction" in said
    made = called(calls)
    assert [call["trial"] for call in made] == ["aaa", "bbb", "ccc"]
    (kept,) = measured(root, "ccc")
    assert kept == {
        "tasks": ["pope", "mmmu_val"], "arguments": made[2]["argv"], "failed_replies": 0,
        "settings": {"type": "Settings", "model": "llava_hf", "model_args": [], "limit": 8, "batch_size": 1,
                     "version": "0.7.3"},
        "questions": {task: {"asked": 8, "of": 9000} for task in ("pope", "mmmu_val")},
        "results": parsed(content("pope", "mmmu_val"), ["pope"]),
    }  # fmt: skip
    assert {Path(call["cwd"]).parent for call in made} == {root.parent}
    assert [path.name for path in root.parent.iterdir()] == ["mine"]  # the exports are gone
    assert run(root, "--tasks", "pope,mmmu_val", "--limit", "8") == 0
    assert len(called(calls)) == 3
    assert run(root, "vkd@10", "--tasks", "pope", "mme", "--limit", "8") == 0
    assert [call["argv"][5] for call in called(calls)[3:]] == ["mme"] * 3
    assert run(root, "eee", "--tasks", "pope", "--limit", "8") == 0
    assert [call["trial"] for call in called(calls)[6:]] == ["eee"]
    assert run(root, "eee", "--tasks", "pope") == 0  # without limit it is another measurement
    assert [call["trial"] for call in called(calls)[7:]] == ["aaa", "bbb", "eee"]
    assert [kept["settings"]["limit"] for kept in measured(root, "eee")] == [8, None]


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "told"), [
    ("status", ["lmms-eval ended with exit status 1", "\n  out of memory"]),
    ("silent", ["wrote 0 files of results in place of one", "\n  Error during evaluation: Tasks not found"]),
    ("deaf", ["the model answered nothing"]),
])  # fmt: skip
def test_a_failure_of_lmms_eval_is_told(
    root: Path, calls: Path, mode: str, told: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """With the end of its log, even where it exits with 0; what was measured before stays."""
    assert run(root, "--tasks", "mme") == 0
    monkeypatch.setenv("FAKE_MODE", mode)
    assert run(root, "--tasks", "pope") == 1
    error = capsys.readouterr().err
    assert all(part in error for part in ["failed: vanilla", str(root / "trials/aaa/general_utility.log"), *told])
    assert [kept["tasks"] for kept in measured(root, "aaa")] == [["mme"]]
    assert [path.name for path in root.parent.iterdir()] == ["mine"]
    assert len(called(calls)) == 4


def test_a_trial_of_two_names_is_measured_once(root: Path, calls: Path) -> None:
    assert run(root, "vkd@10", "ccc", "aaa", "--tasks", "pope") == 0
    assert [call["trial"] for call in called(calls)] == ["aaa", "bbb", "ccc"]
    assert len(measured(root, "ccc")) == 1


def test_a_model_that_is_damaged_is_no_reason_to_say_that_nothing_was_begun(
    root: Path, calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "trials" / "ccc" / "delta.safetensors").write_bytes(b"")
    assert run(root, "--tasks", "pope") == 1
    assert [call["trial"] for call in called(calls)] == ["aaa", "bbb"]
    assert "failed: vkd@10: " in capsys.readouterr().err


def test_results_that_cannot_be_read_are_not_lost(
    root: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_RESULTS", json.dumps({"pope": {"accuracy": 0.5}}))
    assert run(root, "--tasks", "pope") == 1
    unread = root / "trials/aaa/general_utility.unread.json"
    error = capsys.readouterr().err
    assert f"'accuracy' is not METRIC,FILTER (what it wrote is kept in {unread})" in error
    assert read_json(unread)["results"] == {"pope": {"accuracy": 0.5}}
    assert measured(root, "aaa") == []


def test_a_few_failed_replies_are_kept_in_mind(root: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "lossy")
    assert run(root, "--tasks", "pope") == 0
    assert [kept["failed_replies"] for kept in measured(root, "ccc")] == [2]


def test_nothing_is_begun_without_lmms_eval(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacks(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(general, "version", lacks)
    assert run(root, "--tasks", "pope") == 2
    assert "pip install 'mllm-unlearning-study[general]'" in capsys.readouterr().err


@pytest.mark.parametrize(("names", "told"), [
    (["prompting@10"], "prompting@10: the product of this method is an instruction, and lmms-eval asks without it;"),
    (["vdk@10"], "did you mean 'vkd@10'?"),
])  # fmt: skip
def test_trials_that_cannot_be_measured(
    root: Path, calls: Path, names: Sequence[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, *names, "--tasks", "pope") == 2
    assert told in capsys.readouterr().err
    assert called(calls) == []


def test_a_family_that_is_not_known(root: Path, calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named with the remedy, before anything runs; with the remedy it runs."""
    path = root / "learned" / "vanilla" / "model" / "config.json"
    path.write_text(path.read_text().replace('"model_type": "llava"', '"model_type": "flava"'))
    assert run(root, "--tasks", "pope") == 2
    error = capsys.readouterr().err
    assert f"{path}: model_type 'flava' is none of llava, llava_next," in error
    assert "--model NAME" in error
    assert called(calls) == []
    path.write_text(path.read_text().replace("flava", "llava"))
    assert run(root, "--tasks", "pope", "--model", "vllm", "--model-args", "dtype=float16") == 0
    assert {tuple(call["argv"][1:4:2]) for call in called(calls)} == {
        ("vllm", "pretrained=./model,dtype=float16,device_map=cpu")
    }


# ---- the table -------------------------------------------------------------------------------------------------
def note(
    root: Path, key: str, limit: int | None = None, failed: int = 0, **metrics: tuple[float, float | None]
) -> None:
    """Plant what was measured of a trial."""
    path = root / "trials" / key / "general_utility.json"
    runs = read_json(path)["runs"] if path.exists() else []
    results = {"pope": {name: {"value": value, "stderr": error} for name, (value, error) in metrics.items()}}
    settings = {"model": "llava_hf", "model_args": ["a=1"], "limit": limit, "batch_size": 1, "version": "0.7.3"}
    made = {"settings": settings, "results": results, "failed_replies": failed}
    write_json(path, {"runs": [*runs, {**made, "questions": {"pope": {"asked": 8, "of": 9000}}}]})


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Vanilla, the reference and one of five winners measured, and one trial that won nothing."""
    root = plant(tmp_path, ratios=[10])
    records = [read_json(path) for path in sorted(root.glob("trials/*/trial.json"))]
    bars = {r["start"]["kind"]: r["key"] for r in records if r["method"] == "none"}
    note(root, bars["vanilla"], acc=(0.9, 0.01), f1=(0.5, None))
    note(root, bars["reference"], acc=(0.8, 0.02), f1=(0.4, None))
    winner, seed = read_json(root / "winners.json")["perfect"]["10"]["trials"]
    note(root, winner, acc=(0.7, 0.03), f1=(0.3, None), failed=3)
    note(root, seed, limit=8, acc=(0.6, None))
    return root


def test_the_table_has_a_row_for_every_model(planted: Path) -> None:
    (table,) = tables.parts(read(planted))
    assert isinstance(table, Table)
    shown = {line[1]: [line[0], *line[2:]] for line in table.shown.to_numpy().tolist()}
    seed = read_json(planted / "winners.json")["perfect"]["10"]["trials"][1]
    assert list(table.shown) == ["forget %", "method", "pope: acc", "pope: f1", "pope: acc, first 8"]
    assert shown["vanilla"] == ["all", "0.900 ± 0.010", "0.500", "n/a"]
    assert shown["reference"] == [10, "0.800 ± 0.020", "0.400", "n/a"]
    assert shown["perfect"] == [10, "0.700 ± 0.030", "0.300", "n/a"]
    assert shown["destroyed"] == [10, "n/a", "n/a", "n/a"]
    assert shown[f"perfect {seed}"] == [10, "n/a", "n/a", "0.600"]
    assert len(shown) == 2 + 5 + 1
    assert "3 of perfect at 10 %." in table.note
    assert "trial run" in table.note
    assert "lmms-eval 0.7.3" in table.note


def test_numbers_of_other_settings_stand_apart(planted: Path) -> None:
    key = read_json(planted / "winners.json")["perfect"]["10"]["trials"][0]
    path = planted / "trials" / key / "general_utility.json"
    path.write_text(path.read_text().replace("0.7.3", "0.8.0"))
    (table,) = tables.parts(read(planted))
    assert isinstance(table, Table)
    assert "pope: acc, version 0.7.3" in table.shown
    assert "pope: acc, version 0.8.0" in table.shown


@pytest.mark.slow
@pytest.mark.parametrize("content", ["[]", "{}"])
def test_a_note_without_runs_is_named(content: str, tmp_path: Path) -> None:
    plant(tmp_path, {"vkd": Model(forget=0.3)}, [15])
    folder = StudyFolder(tmp_path)
    key = next(iter(read(tmp_path).trials))
    folder.general_utility(key).write_text(content)
    with pytest.raises(Damaged, match=rf"{key}/general_utility\.json is damaged"):
        list(tables.parts(read(tmp_path)))


@pytest.mark.slow
def test_the_report_shows_it_where_it_was_measured(tmp_path: Path) -> None:
    planter = Planter(tmp_path)
    planter.study(["vkd"], [15])
    planter.yardsticks(15, attacked=False)
    key = planter.trial("vkd", 15, Model(forget=0.4), report=True)
    write_json(tmp_path / "winners.json", {"vkd": {"15": {"trials": [key]}}})
    assert list(tables.parts(read(tmp_path))) == []
    note(tmp_path, key, acc=(0.9, 0.01))
    page = page_of(tmp_path)
    assert "General utility" in page
    assert "0.900 ± 0.010" in page
    raw = pd.read_csv(tmp_path / "report" / "tables" / "general_utility.csv")
    assert raw[["method", "ratio", "value", "asked"]].to_numpy().tolist() == [["vkd", 15, 0.9, 8]]
