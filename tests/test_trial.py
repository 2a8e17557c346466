"""One trial from vanilla to rows, on disk: run once, kept whole, rebuilt from its delta, honest about its end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from study import lending
from study import trial as trials
from study.attacks.relearning import Relearning
from study.benchmarks.synthetic import Synthetic
from study.contracts import Learned, Method, Request, Trial
from study.learning import learn
from study.methods.gradient_ascent import GradientAscent
from study.methods.none import NoMethod
from study.methods.prompting import INSTRUCTIONS, Prompting
from study.methods.vkd import VKD
from study.objectives import DIRECTIONS
from study.questions import HALVES, Question
from study.scoring import score
from study.store import ROW_COLUMNS, canonical, content_key, read_json, read_rows
from study.training import Schedule
from study.trial import Bench
from study.vlm import VLM
from tests.small import same_bits, snapshot

TAUGHT = Schedule(steps=3, learning_rate=1e-3, pictures=3, texts=2)
SHORT = Schedule(steps=2, learning_rate=1e-3, pictures=2, lessons_per_picture=3)
VISUAL = VKD(schedule=SHORT)
ASCENT = GradientAscent(schedule=SHORT)
VANILLA = Learned("vanilla", "base", "benchmark", None, None, TAUGHT, ("projector", "llm"), 0)
REFERENCE = replace(VANILLA, kind="reference", goal="visual", ratio=10)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Bench:
    """A study that has learned its models."""
    root = tmp_path_factory.mktemp("study")
    bench = Bench(root, Synthetic(people=20, celebrities=8, views=2, strangers=8), tiny_folder)
    for learned in (VANILLA, REFERENCE):
        learn(root, learned, bench.benchmark, tiny_folder, "cpu", None)
    return bench


@pytest.fixture
def bench(study: Bench, tmp_path: Path) -> Iterator[Bench]:
    """A copy of that study of which nothing is in memory."""
    shutil.copytree(study.root, tmp_path / "study")
    lending.put_away()
    yield replace(study, root=tmp_path / "study")
    lending.put_away()


def of(method: Method, *, seed: int = 0, start: Learned = VANILLA) -> Trial:
    return Trial(start, method, "visual", 10, seed)


def run(bench: Bench, method: Method, **fields: Any) -> tuple[Trial, dict[str, Any]]:
    asked = of(method, **fields)
    return asked, trials.run(bench, asked, REFERENCE.key)


def delta_of(bench: Bench, asked: Trial) -> dict[str, torch.Tensor]:
    return load_file(bench.folder.trial(asked.key) / "delta.safetensors")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The modalities of the questions of every call to the scorer."""
    calls: list[set[str]] = []

    def record(vlm: VLM, questions: Sequence[Question], *, blind: bool = False) -> pd.DataFrame:
        calls.append({q.modality for q in questions})
        return score(vlm, questions, blind=blind)

    monkeypatch.setattr(trials, "score", record)
    return calls


# ---- a trial that ends well ------------------------------------------------------------------------------------
def test_a_trial_leaves_its_record_weights_and_rows(bench: Bench) -> None:
    asked, record = run(bench, VISUAL, seed=3)
    assert record == read_json(bench.folder.record(asked.key))
    costs = record.pop("cost")
    assert record == {
        "key": asked.key, "state": "complete", "reason": "", "method": "vkd", "hyperparameters": canonical(VISUAL),
        "instruction": "", "goal": "visual", "ratio": 10, "seed": 3, "chunks": 1, "processes": 1,
        "start": {"kind": "vanilla", "key": VANILLA.key},
    }  # fmt: skip
    seconds = {"unlearn_seconds", "score_seconds", "overhead_seconds"}
    assert costs.keys() == seconds | {"images", "prompt_tokens", "generated_tokens", "flops"}
    assert all(costs[name] > 0 for name in costs.keys() - {"generated_tokens"})
    assert costs["generated_tokens"] == 0  # only choices select
    rows = read_rows(bench.folder.rows(asked.key, "select"))
    asked_for = {q.id for q in bench.benchmark.split(10).questions if q.half == "select" and q.task == "classification"}
    assert list(rows.columns) == list(ROW_COLUMNS)
    assert set(rows["question"]) == asked_for
    assert len(rows) == len(asked_for)
    assert np.isfinite(rows["probability"]).all()
    assert {name.split(".")[1] for name in delta_of(bench, asked)} == {"vision_tower", "multi_modal_projector"}
    assert not list(bench.root.rglob("*.draft"))


def test_a_trial_on_disk_is_not_run_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _, record = run(bench, ASCENT)
    monkeypatch.setattr(GradientAscent, "__call__", lambda *_: pytest.fail("ran again"))
    monkeypatch.setattr(trials, "load_learned", lambda *_: pytest.fail("loaded a model"))
    lending.put_away()
    assert run(bench, ASCENT)[1] == record


def test_a_trial_does_not_depend_on_what_ran_before_it(bench: Bench, tmp_path: Path) -> None:
    """Workers keep the model; the next trial starts from vanilla all the same, bit for bit."""
    shutil.copytree(bench.root, tmp_path / "alone")
    alone = replace(bench, root=tmp_path / "alone")
    run(bench, ASCENT)
    asked, _ = run(bench, VISUAL)
    torch.manual_seed(123)
    lending.put_away()
    run(alone, VISUAL)
    assert same_bits(delta_of(bench, asked), delta_of(alone, asked))
    one, other = (
        read_rows(b.folder.rows(asked.key, "select")).set_index("question").sort_index() for b in (bench, alone)
    )
    pictured = one["modality"] == "image_text"
    pd.testing.assert_frame_equal(one[pictured], other[pictured], check_exact=True)


def test_the_worker_s_model_is_vanilla_again(bench: Bench) -> None:
    model = lending.held(bench.root, VANILLA.key, "cpu").vlm
    before = snapshot(model)
    run(bench, ASCENT)
    assert lending.held(bench.root, VANILLA.key, "cpu").vlm is model
    assert same_bits(before, snapshot(model))


def test_no_method_leaves_an_empty_delta(bench: Bench) -> None:
    """Which is a file like any other: it is written, checked and applied."""
    asked, record = run(bench, NoMethod())
    assert record["state"] == "complete"
    assert delta_of(bench, asked) == {}
    trials.report(bench, asked, blind=True)
    blind = read_rows(bench.folder.rows(asked.key, "blind"))
    assert set(blind["modality"]) == {"image_text"}
    assert set(blind["half"]) == {"select", "report"}


def test_the_yardsticks_judge_a_trial(bench: Bench) -> None:
    """Vanilla keeps everything, the reference is at distance 0 from itself."""
    vanilla, _ = run(bench, NoMethod())
    reference, _ = run(bench, NoMethod(), start=REFERENCE)
    asked, _ = run(bench, VISUAL)
    for one in (asked, vanilla, reference):
        assert trials.judged(bench, one, vanilla.key, reference.key).keys() == DIRECTIONS.keys()
    assert trials.judged(bench, vanilla, vanilla.key, reference.key)["utility"] == pytest.approx(1.0, abs=1e-6)
    assert trials.judged(bench, reference, vanilla.key, reference.key)["forgetting"] == 0.0
    assert trials.judged(bench, asked, vanilla.key, reference.key)["forgetting"] > 0.0


# ---- text rows -------------------------------------------------------------------------------------------------
def test_text_is_asked_once_while_the_llm_is_vanilla_s(bench: Bench, scored: list[set[str]]) -> None:
    run(bench, VISUAL)
    assert sorted(scored, key=sorted) == [{"image_text"}, {"text"}]
    scored.clear()
    run(bench, VISUAL, seed=1)
    assert scored == [{"image_text"}]
    scored.clear()
    run(bench, NoMethod(), start=REFERENCE)
    assert {"text"} in scored  # another model's answers are not taken for it


@pytest.mark.parametrize("method", [ASCENT, Prompting()])
def test_text_is_asked_again_of_another_llm_or_another_prompt(
    method: Method, bench: Bench, scored: list[set[str]]
) -> None:
    shared = run(bench, VISUAL)[0]
    scored.clear()
    asked = run(bench, method)[0]
    assert scored == [{"text", "image_text"}]
    before, after = (read_rows(bench.folder.rows(t.key, "select")).set_index("question") for t in (shared, asked))
    texts = before.index[before["modality"] == "text"]
    assert not np.allclose(before.loc[texts, "probability"], after.loc[texts, "probability"], atol=1e-5)


def test_shared_text_rows_are_those_of_asking(bench: Bench) -> None:
    """The row of every text question equals the one that the unlearned model itself gets, on both halves."""
    run(bench, NoMethod())
    asked, _ = run(bench, VISUAL)
    trials.report(bench, asked)
    questions = [q for q in bench.benchmark.split(10).questions if q.modality == "text"]
    with lending.lent(bench.root, VANILLA.key, "cpu") as (vlm, _):
        unlearned, _ = trials.unlearned_model(bench.folder, asked.key, vlm)
        for half in ("select", "report"):
            kept = read_rows(bench.folder.rows(asked.key, half)).set_index("question")
            own = score(unlearned, [q for q in questions if q.half == half and q.id in kept.index]).set_index(
                "question"
            )
            kept = kept.loc[own.index]
            assert len(own) > 100
            np.testing.assert_allclose(kept["probability"], own["probability"], atol=1e-5)
            assert kept["reply"].tolist() == own["reply"].tolist()
            assert kept["score"].tolist() == own["score"].tolist()


def test_the_report_asks_what_the_search_never_saw(bench: Bench, scored: list[set[str]]) -> None:
    """Every task, of the other half alone; and once."""
    asked, _ = run(bench, ASCENT)
    trials.report(bench, asked)
    rows = read_rows(bench.folder.rows(asked.key, "report"))
    assert set(rows["half"]) == {"report"}
    assert set(rows["task"]) == {"classification", "generation", "cloze"}
    assert set(rows["question"]) == {q.id for q in bench.benchmark.split(10).questions if q.half == "report"}
    assert not bench.folder.rows(asked.key, "blind").exists()
    calls = len(scored)
    trials.report(bench, asked)
    assert len(scored) == calls


@pytest.mark.parametrize("method", [VISUAL, ASCENT, Prompting(), NoMethod()])
def test_the_unlearned_model_is_rebuilt_from_disk(method: Method, bench: Bench) -> None:
    """In another process, from delta and instruction: weights bit for bit, prompts word for word."""
    asked, _ = run(bench, method)
    request = bench.request(asked, REFERENCE.key)
    with lending.lent(bench.root, VANILLA.key, "cpu") as (vlm, _):
        torch.manual_seed(asked.seed)
        made = method(vlm, request)
        weights, instruction = snapshot(made), made.instruction
    lending.put_away()
    with lending.lent(bench.root, VANILLA.key, "cpu") as (vlm, _):
        rebuilt, _ = trials.unlearned_model(bench.folder, asked.key, vlm)
        assert same_bits(weights, snapshot(rebuilt))
        assert rebuilt.instruction == instruction
    assert (instruction == INSTRUCTIONS["refuse"]) == isinstance(method, Prompting)


# ---- a trial that ends otherwise -------------------------------------------------------------------------------
@dataclass(frozen=True)
class Impossible:
    """A method that cannot be done with its hyper-parameters."""

    error: str = "threshold=3: nothing is left"

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        vlm.model.lm_head.weight.data.zero_()
        raise ValueError(self.error)


@dataclass(frozen=True)
class Broken:
    """A method with a bug."""

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        vlm.model.lm_head.weight.data.zero_()
        raise KeyError("a bug")


@dataclass(frozen=True)
class Overflown:
    """A method whose last step throws the weights out of all bounds: no loss is looked at any more."""

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        vlm.model.lm_head.weight.data.fill_(float("inf"))
        return vlm


@pytest.mark.parametrize(
    ("method", "state", "reason"),
    [
        (replace(ASCENT, schedule=replace(SHORT, worst_loss=1e-6)), "diverged", "diverged at step 0: the loss is"),
        (Impossible(), "failed", "threshold=3: nothing is left"),
        (VKD(schedule=SHORT, saliency_threshold=1e30), "failed", "saliency_threshold=1e+30 selects no weight"),
        (Overflown(), "diverged", "after the last step the probabilities of the answers are not numbers"),
    ],
)
def test_a_bad_end_is_a_record_with_its_reason(method: Method, state: str, reason: str, bench: Bench) -> None:
    """It is not run again, and the model is vanilla's afterwards."""
    before = snapshot(lending.held(bench.root, VANILLA.key, "cpu").vlm)
    asked, record = run(bench, method)
    assert record["state"] == state
    assert reason in record["reason"]
    assert read_json(bench.folder.record(asked.key)) == record
    assert same_bits(before, snapshot(lending.held(bench.root, VANILLA.key, "cpu").vlm))
    lending.put_away()
    assert run(bench, method)[1] == record


def test_a_bug_is_not_a_result(bench: Bench) -> None:
    """It is raised and leaves no record, so that the trial runs once the bug is gone; vanilla is unharmed."""
    before = snapshot(lending.held(bench.root, VANILLA.key, "cpu").vlm)
    with pytest.raises(KeyError, match="a bug"):
        run(bench, Broken())
    assert not bench.folder.record(of(Broken()).key).exists()
    assert same_bits(before, snapshot(lending.held(bench.root, VANILLA.key, "cpu").vlm))


def test_a_trial_killed_half_way_is_run_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is written last."""

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(trials, "keep_record", killed)
        with pytest.raises(KeyboardInterrupt):
            run(bench, ASCENT)
    assert run(bench, ASCENT)[1]["state"] == "complete"


def test_a_damaged_model_is_named(bench: Bench) -> None:
    (weights,) = bench.folder.learned(VANILLA.key).rglob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: remove .* and run the study again"):
        run(bench, ASCENT)
    assert not bench.folder.record(of(ASCENT).key).exists()


def _report(bench: Bench, asked: Trial) -> None:
    trials.report(bench, asked)


def _attack(bench: Bench, asked: Trial) -> None:
    trials.attack(bench, asked, Relearning(), REFERENCE.key)


@pytest.mark.parametrize("use", [_report, _attack])
def test_a_damaged_delta_is_named(use: Callable[[Bench, Trial], None], bench: Bench) -> None:
    asked, _ = run(bench, ASCENT)
    path = bench.folder.trial(asked.key) / "delta.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"delta\.safetensors is damaged .* remove it and run the study again"):
        use(bench, asked)


# ---- attacks ---------------------------------------------------------------------------------------------------
RELEARN = Relearning(score_at=(1, 2), schedule=SHORT)


def test_an_attack_leaves_the_rows_of_every_stage(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget pictures under the visual goal, marked by what the attacker was given; and is made once."""
    asked, _ = run(bench, VISUAL)
    trials.attack(bench, asked, RELEARN, REFERENCE.key)
    path = bench.folder.attack(asked.key, content_key(RELEARN))
    everything = read_rows(path)
    rows = everything[everything["role"] == "forget"]
    split = bench.benchmark.split(10)
    wanted = {q.id for q in split.questions if q.role == "forget" and q.task == "classification" and q.picture}
    assert rows.groupby("step")["question"].agg(set).to_dict() == {0: wanted, 1: wanted, 2: wanted}
    others = everything[everything["role"] != "forget"]
    assert set(others["held_out"]) == {"person"}
    asked_of_others = others.groupby(["step", "role", "half"])["question"].agg(set)
    assert {(role, half) for _, role, half in asked_of_others.index} == set(product(("retain", "real"), HALVES))
    assert set(asked_of_others.map(len)) == {trials.UTILITY_QUESTIONS}
    assert len({frozenset(some) for some in asked_of_others}) == 4  # the same at every step
    assert set(rows["held_out"]) == {"person", "fact", ""}
    assert (rows["seen"] == (rows["held_out"] == "")).all()
    given = {lesson.person for lesson in RELEARN.given(bench.request(asked, REFERENCE.key))}
    assert set(rows.loc[rows["held_out"] == "person", "person"]) == split.forget_people - given
    assert set(rows.loc[rows["held_out"] != "person", "person"]) == given
    settings = read_json(path.with_suffix(".json"))
    assert (settings["attack"], settings["settings"]) == ("relearning", canonical(RELEARN))
    monkeypatch.setattr(Relearning, "__call__", lambda *_: pytest.fail("attacked again"))
    trials.attack(bench, asked, RELEARN, REFERENCE.key)


def test_step_0_is_the_trial_itself(bench: Bench) -> None:
    asked, _ = run(bench, ASCENT)
    trials.report(bench, asked)
    trials.attack(bench, asked, RELEARN, REFERENCE.key)
    attacked = read_rows(bench.folder.attack(asked.key, content_key(RELEARN))).query("step == 0").set_index("question")
    for half in ("select", "report"):
        rows = read_rows(bench.folder.rows(asked.key, half)).set_index("question")
        there = rows.index.intersection(attacked.index)
        assert len(there) == len(attacked) / 2
        np.testing.assert_allclose(attacked.loc[there, "probability"], rows.loc[there, "probability"], atol=1e-5)


def test_an_attacker_who_learns_nothing_recovers_nothing(bench: Bench) -> None:
    """Exactly: the later rows are those of step 0, to the last bit."""
    asked, _ = run(bench, ASCENT)
    idle = replace(RELEARN, schedule=replace(SHORT, learning_rate=0.0))
    trials.attack(bench, asked, idle, REFERENCE.key)
    rows = read_rows(bench.folder.attack(asked.key, content_key(idle)))
    stages = [stage.drop(columns="step").reset_index(drop=True) for _, stage in rows.groupby("step")]
    assert len(stages) == 3
    for stage in stages[1:]:
        pd.testing.assert_frame_equal(stage, stages[0], check_exact=True)


def test_every_model_meets_the_same_attacker(bench: Bench) -> None:
    """The same questions count as seen, of every trial, seed and yardstick."""
    marks = []
    for method, fields in ((VISUAL, {}), (ASCENT, {"seed": 4}), (NoMethod(), {"start": REFERENCE})):
        asked, _ = run(bench, method, **fields)
        trials.attack(bench, asked, RELEARN, REFERENCE.key)
        rows = read_rows(bench.folder.attack(asked.key, content_key(RELEARN)))
        marks.append(rows.set_index(["step", "question"])["held_out"].to_dict())
    assert marks[0] == marks[1] == marks[2]


def test_the_seed_of_a_trial_is_not_that_of_its_attacker(bench: Bench) -> None:
    """Equal models that were made with other seeds are attacked in the same way, to the last bit."""
    rows = []
    for seed in (0, 4):
        asked, _ = run(bench, NoMethod(), seed=seed)
        trials.attack(bench, asked, RELEARN, REFERENCE.key)
        rows.append(read_rows(bench.folder.attack(asked.key, content_key(RELEARN))))
    pd.testing.assert_frame_equal(rows[0], rows[1], check_exact=True)


def test_under_full_text_is_asked_of_the_attacked_too(bench: Bench) -> None:
    asked = replace(of(NoMethod()), goal="full")
    trials.run(bench, asked, REFERENCE.key)
    trials.attack(bench, asked, RELEARN, REFERENCE.key)
    rows = read_rows(bench.folder.attack(asked.key, content_key(RELEARN)))
    assert set(rows["modality"]) == {"image_text", "text"}
    assert {("forget", "text"), ("retain", "text")} <= set(zip(rows["role"], rows["modality"], strict=True))


def test_a_study_can_be_moved(bench: Bench, tmp_path: Path) -> None:
    """Only relative paths are stored: trials are found, reported and attacked at the new place."""
    asked, record = run(bench, VISUAL)
    bench.root.rename(tmp_path / "moved")
    moved = replace(bench, root=tmp_path / "moved")
    lending.put_away()
    assert run(moved, VISUAL)[1] == record
    trials.report(moved, asked)
    trials.attack(moved, asked, RELEARN, REFERENCE.key)
    for path in moved.root.rglob("*.json"):
        assert str(tmp_path) not in path.read_text()
