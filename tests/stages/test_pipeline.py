"""One whole study from nothing to its report: killed in the middle, continued, grown, and refused when it changed."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from study.core.files import read_json
from study.core.hashing import content_key
from study.core.layout import StudyFolder
from study.presets import PRESETS
from tests.helpers.in_process import run_here
from tests.helpers.studies import Whole, command, proposals, rows, run, trials

METHODS = ("vkd", "gradient_ascent")
pytestmark = pytest.mark.slow


def counts(folder: Path) -> tuple[int, int]:
    """How many models were learned, and how many files of the meta-evaluation there are."""
    return len([*folder.glob("learned/*/learned.json")]), len([*folder.glob("trials/*/metric_check/*")])


def times(folder: Path) -> dict[str, int]:
    """When each result was last written."""
    kept = [path for part in ("trials", "learned", "search", "data") for path in (folder / part).rglob("*")]
    return {str(path): path.stat().st_mtime_ns for path in kept if path.is_file()}


MORE = ("--metric-seeds", "1")
ASCENT = ("--methods", "gradient_ascent", "--no-metric-check")
"""One of the two methods of the whole study: searched alone it comes to the same, and costs half."""


@dataclass(frozen=True)
class Grown:
    """A copy of the whole study that was continued with `MORE`: what it printed, and its files as they were before."""

    folder: Path
    printed: str
    before: dict[str, int]
    winners: bytes
    """The table, as it was before."""


@pytest.fixture(scope="module")
def grown(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    folder = whole.copied(tmp_path_factory.mktemp("grown") / "study")
    before, winners = times(folder), (folder / "report" / "tables" / "winners.csv").read_bytes()
    return Grown(folder, run_here(folder, *MORE), before, winners)


def test_a_study_runs_from_nothing_to_its_report(whole: Whole) -> None:
    folder, printed = whole.folder, whole.printed
    for stage in ("base", "learn", "score", "search", "confirm", "attack"):
        assert f"{stage}: done in" in printed
    assert "search: 8/8" in printed
    report = folder / "report" / "report.html"
    assert printed.splitlines()[-1] == f"Report: {report}"
    assert "<img" in report.read_text(encoding="utf-8")
    assert {path.suffix for path in (folder / "report" / "figures").iterdir()} == {".png", ".pdf"}
    assert {path.suffix for path in (folder / "report" / "tables").iterdir()} == {".csv", ".tex"}
    near = read_json(folder / "near.json")
    assert {ratio: set(found) for ratio, found in near.items()} == {r: {"look", "name"} for r in ("10", "15")}
    assert len(proposals(folder)) == 8
    for by_ratio in read_json(folder / "winners.json").values():
        for winner in by_ratio.values():
            assert [read_json(StudyFolder(folder).record(key))["seed"] for key in winner["trials"]] == [0, 1]
            assert all(StudyFolder(folder).rows(key, "report").exists() for key in winner["trials"])


def test_a_study_ends_with_its_winners_to_paste_and_its_health(whole: Whole) -> None:
    """The text is read back as the winner; four trials are few for VKD's hyper-parameters, and the terminal says so."""
    folder, printed = StudyFolder(whole.folder), whole.printed.splitlines()
    start = printed.index(f"Winners, to be written after --methods, or all at once with --methods-from {whole.folder}:")
    pasted = [line.split()[2] for line in printed[start + 1 : start + 5]]
    won = [one["trials"][0] for ratios in read_json(folder.winners).values() for one in ratios.values()]
    found = [dataclasses.replace(PRESETS["smoke"][1], methods=(text,)).method_defaults()[text] for text in pasted]
    wanted = [read_json(folder.record(key))["hyperparameters"] for key in won]
    assert sorted(map(content_key, found)) == sorted(map(content_key, wanted))
    assert any(line.startswith("check: Too few trials") and "VKD has 2 for 14" in line for line in printed)


def test_defaults_are_scored_on_the_test_half_too(whole: Whole) -> None:
    """What tuning gained is told there."""
    given = [p for p in proposals(whole.folder).values() if p["default"]]
    assert len(given) == 4
    assert all(StudyFolder(whole.folder).rows(p["trial"], "report").exists() for p in given)
    gains = pd.read_csv(whole.folder / "report" / "tables" / "tuning.csv")
    assert len(gains) == 4
    assert gains["test_gain"].notna().all()


def test_keeping_winners_alone_changes_no_row(whole: Whole, tmp_path: Path) -> None:
    """Without a race a method keeps its winner at each ratio."""
    place = whole.scored(tmp_path / "study")
    folder = place.root
    run_here(folder, *ASCENT, "--keep", "winners", "--race", "1", "--trials", "8")
    winners = {
        key for found in read_json(folder / "winners.json").values() for won in found.values() for key in won["trials"]
    }
    mine, theirs = rows(folder), rows(whole.folder)
    searched = {p["trial"] for p in whole.of("gradient_ascent").proposals.values()}
    both = [name for name in mine.keys() & theirs.keys() if Path(name).parts[1] in searched]
    assert {Path(name).parts[1] for name in both} == searched  # whole confirms what raced
    assert all(mine[name].equals(theirs[name]) for name in both)
    methods = {key for key in trials(folder) if read_json(place.record(key))["method"] != "none"}
    kept = {key for key in methods if place.delta(key).exists()}
    dropped = {key for key in methods if place.dropped(key).exists()}
    assert winners <= kept
    assert dropped
    assert dropped == methods - kept


def test_only_relative_paths_are_kept(whole: Whole) -> None:
    folder = whole.folder
    kept = [path for path in folder.rglob("*.json") if "ray" not in path.relative_to(folder).parts]
    assert kept
    for path in kept:
        assert str(folder) not in path.read_text(encoding="utf-8"), path


def test_a_study_checks_its_metrics_and_grows(whole: Whole, grown: Grown) -> None:
    assert "metrics: 4/4" in whole.printed
    assert "steps, vanilla seed 1" in grown.printed  # the reference of seed 1 is one of the study
    assert "metrics: 4/4" in grown.printed
    assert "search:" not in grown.printed.partition("  budget ")[2]
    after = times(grown.folder)
    assert {path: after[path] for path in grown.before} == grown.before
    learned, checked = counts(whole.folder)
    assert counts(grown.folder) == (learned + 1, 2 * checked)
    report = grown.folder / "report"
    assert (report / "tables" / "winners.csv").read_bytes() == grown.winners
    assert ">Meta-evaluation: which metrics to trust</h2>" in (report / "report.html").read_text(encoding="utf-8")
    assert set(pd.read_csv(report / "tables" / "metric_check.csv")["metric"]) > {"accuracy", "ks"}


def test_again_runs_nothing(grown: Grown) -> None:
    before = times(grown.folder)
    assert "done in" not in run(grown.folder, *MORE)
    assert times(grown.folder) == before


def test_more_trials_run_only_the_difference(whole: Whole, grown: Grown, tmp_path: Path) -> None:
    """Nor are the metrics checked again."""
    folder = shutil.copytree(grown.folder, tmp_path / "study")
    before = times(folder)
    printed = run_here(folder, *MORE, "--trials", "5")
    assert "search: 2/2" in printed
    for stage in ("learn", "metrics"):
        assert f"{stage}: done in" not in printed
    after = times(folder)
    assert {path: after[path] for path in before} == before
    assert proposals(folder).keys() - proposals(whole.folder).keys() == {f"search/{m}/0004.json" for m in METHODS}


def test_another_configuration_is_refused_field_by_field(grown: Grown) -> None:
    before = times(grown.folder)
    printed = run(grown.folder, *MORE, "--trials", "6", "--seed", "3", "--learn.steps", "9", status=2)
    assert "seed: 0 on disk, 3 requested" in printed
    assert "learn.steps: 4 on disk, 9 requested" in printed
    assert "trials" not in printed.split("other settings:")[1]
    assert times(grown.folder) == before


def until_searched(folder: Path, running: subprocess.Popen[str]) -> None:
    """Wait until a trial of the search has ended."""
    until = time.monotonic() + 300
    while not any(proposal["trial"] in trials(folder) for proposal in proposals(folder).values()):
        assert time.monotonic() < until, "the search never finished a trial"
        assert running.poll() is None, "the study ended before"
        time.sleep(0.02)


def begin(folder: Path, *settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command(folder, *settings), stdout=subprocess.PIPE, text=True, cwd=folder.parent)


def test_a_killed_study_continues_to_the_same_end(whole: Whole, tmp_path: Path) -> None:
    place = whole.scored(tmp_path / "killed")
    with begin(place.root, *ASCENT) as victim:
        try:
            until_searched(place.root, victim)
        finally:
            victim.kill()
    finished = {key: place.record(key).stat().st_mtime_ns for key in trials(place.root)}
    run(place.root, *ASCENT)
    assert {key: place.record(key).stat().st_mtime_ns for key in finished} == finished
    whole.of("gradient_ascent").is_all_of(place.root)


def test_damage_in_a_search_is_no_result_and_neither_is_being_asked_to_end(whole: Whole, tmp_path: Path) -> None:
    """A flipped bit in the weights that every trial starts from ends the run with the file and the remedy; once it is
    put right the search goes on, is ended by SIGTERM, and goes on again: to the same end as if nothing had happened."""
    place = whole.scored(tmp_path / "study")
    vanilla = next(path for path in place.learned_records() if read_json(path)["kind"] == "vanilla")
    (weights,) = place.model_dir(vanilla.parent.name).glob("*.safetensors")
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    printed = run(place.root, "--no-metric-check", status=1)
    assert "failed: search stops, and 8 trials are still to be run:" in printed
    assert f"damaged input: {weights} is damaged: remove" in printed
    found = [read_json(path) for path in place.failure_records()]
    assert {(one["stage"], one["kind"]) for one in found} == {("search", "damaged input")}
    assert len(found) >= 3
    assert all(read_json(path)["method"] == "none" for path in place.trial_records())
    weights.write_bytes(data)

    with begin(place.root, "--no-metric-check") as asked:
        until_searched(place.root, asked)
        asked.send_signal(signal.SIGTERM)
        said, _ = asked.communicate(timeout=120)
    assert asked.returncode == 143, said
    assert said.splitlines()[-1] == "interrupted: run the same command again to continue where it stopped"
    assert not place.failures.exists()

    run_here(place.root, "--no-metric-check")
    whole.of(*METHODS).is_all_of(place.root)
