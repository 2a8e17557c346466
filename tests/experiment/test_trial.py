"""One trial from vanilla to rows, on disk: run once, kept whole, rebuilt from its delta, honest about its end."""

from __future__ import annotations

import math
import re
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

from study import verify
from study.attacks.adapter_scaling import AdapterScaling
from study.attacks.nothing import Nothing
from study.attacks.relearning import Relearning
from study.attacks.sampled_extraction import SampledExtraction
from study.benchmarks.synthetic import Synthetic
from study.contracts import Attack, Method, Request
from study.core import inventory
from study.core.errors import Damaged, Refused
from study.core.files import read_json, write_json
from study.core.hashing import canonical, content_key
from study.core.layout import record_beside
from study.core.provenance import code_of, cpu, revision, versions
from study.core.records import AttackRecord, KnownRecord, TrialRecord, read_record, to_json
from study.core.rows import ROW_COLUMNS, read_rows
from study.core.terms import HALVES, Half
from study.data.benchmark import Question
from study.data.facts import asked_facts, states
from study.engine.isolation import PlugInExited
from study.evaluation import sampling, scoring
from study.evaluation.scoring import Reading, readings, score
from study.experiment import attack, checkpoints
from study.experiment import context as contexts
from study.experiment import trial as trials
from study.experiment.context import StudyContext
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_ascent import GradientAscent
from study.methods.none import NoMethod
from study.methods.prompting import INSTRUCTIONS, Prompting
from study.methods.vkd import VKD
from study.metrics import recovery
from study.metrics.objectives import DIRECTIONS
from study.model.vlm import VLM
from study.training.schedule import Schedule
from tests.helpers.small import changed, same_bits, snapshot

TAUGHT = Schedule(steps=3, learning_rate=1e-3, pictures=3, texts=2)
SHORT = Schedule(steps=2, learning_rate=1e-3, pictures=2, lessons_per_picture=3)
VISUAL = VKD(variant="features", schedule=SHORT)
DESCRIBED = VKD(teacher="stranger", schedule=SHORT)
ASCENT = GradientAscent(schedule=SHORT)
ADAPTER = GradientAscent(schedule=replace(SHORT, lora_rank=2, learning_rate=1e-2))
VANILLA = Learned("vanilla", "base", "benchmark", None, None, TAUGHT, ("projector", "llm"), 0)
REFERENCE = replace(VANILLA, kind="reference", goal="visual", ratio=10)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudyContext:
    """A study that has learned its models."""
    root = tmp_path_factory.mktemp("study")
    context = StudyContext(root, Synthetic(people=20, celebrities=8, views=2, strangers=8), tiny_folder)
    for learned in (VANILLA, REFERENCE):
        learn(context, learned)
    return context


@pytest.fixture
def context(study: StudyContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StudyContext]:
    """A copy of that study of which nothing is in memory but the benchmark, which nobody changes."""
    shutil.copytree(study.root, tmp_path / "study")
    benchmark = study.benchmark
    monkeypatch.setattr(contexts, "_benchmark", lambda *_: benchmark)
    checkpoints.evict()
    yield replace(study, root=tmp_path / "study")
    checkpoints.evict()


def of(method: Method, *, seed: int = 0, start: Learned = VANILLA) -> Trial:
    return Trial(start, method, "visual", 10, seed)


def run(context: StudyContext, method: Method, **fields: Any) -> tuple[Trial, TrialRecord]:
    asked = of(method, **fields)
    return asked, trials.run(context, asked, REFERENCE.key)


def delta_of(context: StudyContext, asked: Trial) -> dict[str, torch.Tensor]:
    return load_file(context.folder.trial(asked.key) / "delta.safetensors")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The modalities of the questions of every call to the scorer."""
    calls: list[set[str]] = []

    def record(vlm: VLM, questions: Sequence[Question], *, blind: bool = False, reply: bool = True) -> pd.DataFrame:
        calls.append({q.modality for q in questions})
        return score(vlm, questions, blind=blind, reply=reply)

    monkeypatch.setattr(trials, "score", record)
    return calls


# ---- fewer questions ------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_with_an_error_trials_are_asked_less_than_the_baselines(context: StudyContext) -> None:
    """Text answers of a frozen language model are shared among trials that are asked the same, and with no others."""
    fewer = replace(context, scored_error=0.2)
    vanilla, reference = (run(fewer, NoMethod(), start=start)[0] for start in (VANILLA, REFERENCE))
    trial, record = run(fewer, VISUAL)
    mine, all_of = (read_rows(fewer.folder.rows(t.key, "select")) for t in (trial, vanilla))
    assert set(mine["question"]) < set(all_of["question"])
    left_out = all_of[~all_of["question"].isin(mine["question"])]
    assert set(left_out["role"]) <= {"retain", "real", "forget"}
    assert not ((left_out["role"] == "forget") & (left_out["modality"] == "image_text")).any()
    values = trials.judged(fewer, trial, [vanilla, reference])
    assert record.state == "complete"
    assert 0 <= values["utility"] <= 1


# ---- a trial that ends well ------------------------------------------------------------------------------------
def test_a_trial_leaves_its_record_weights_and_rows(context: StudyContext) -> None:
    asked, record = run(context, VISUAL, seed=3)
    stored = read_json(context.folder.record(asked.key))
    assert stored == to_json(record)
    costs = stored.pop("cost")
    assert stored.pop("origin") == {
        "revision": revision(), "versions": versions(), "cpu": cpu(), "gpu": "", "dtype": "float32", "threads": 1,
        "code": code_of(canonical(VISUAL)),
    }  # fmt: skip
    assert stored == {
        "key": asked.key, "state": "complete", "reason": "", "method": "vkd", "hyperparameters": canonical(VISUAL),
        "instruction": "", "goal": "visual", "ratio": 10, "seed": 3, "chunks": 1, "processes": 1,
        "start": {"kind": "vanilla", "key": VANILLA.key},
    }  # fmt: skip
    seconds = {"unlearn_seconds", "score_seconds", "overhead_seconds"}
    counts = {"images", "prompt_tokens", "generated_tokens", "flops"}
    assert costs.keys() == seconds | counts | {f"unlearn_{name}" for name in counts}
    nothing = {"generated_tokens", "unlearn_generated_tokens", "unlearn_prompt_tokens"}
    assert {name for name in costs if costs[name] == 0} == nothing  # only choices select, and VKD calls no LLM
    rows = read_rows(context.folder.rows(asked.key, "select"))
    asked_for = {
        q.id
        for q in context.benchmark.split(10).questions
        if q.half == "select"
        and (q.task == "classification" or (q.role in ("forget", "test") and q.modality == "image_text"))
    }
    assert list(rows.columns) == list(ROW_COLUMNS)
    assert set(rows["question"]) == asked_for
    assert len(rows) == len(asked_for)
    free = rows["task"] != "classification"
    assert (rows.loc[free, "reply"] == "").all()  # a search reads likelihoods and generates nothing
    assert rows.loc[free, "likelihood"].between(0, 1).all()
    assert np.isfinite(rows.loc[rows["task"] == "classification", "probability"]).all()
    assert {name.split(".")[1] for name in delta_of(context, asked)} == {"vision_tower", "multi_modal_projector"}
    assert not list(context.root.rglob("*.draft"))


@pytest.mark.slow
def test_the_work_of_unlearning_is_counted(context: StudyContext) -> None:
    """Ascent encodes two pictures a step; VKD that also descends and ascends on answers does all of that, and more."""
    visual = replace(ASCENT, trains=("vision", "projector"))
    whole, through, alone, added, none = (
        run(context, method)[1].cost
        for method in (ASCENT, visual, VISUAL, replace(DESCRIBED, saliency_threshold=0.0), NoMethod())
    )
    assert whole["unlearn_images"] == through["unlearn_images"] == SHORT.steps * SHORT.pictures
    assert whole["unlearn_prompt_tokens"] == through["unlearn_prompt_tokens"] > 0
    assert whole["unlearn_flops"] > through["unlearn_flops"]  # the LLM's weights have gradients too
    assert added["unlearn_flops"] > through["unlearn_flops"] + alone["unlearn_flops"]
    assert alone["unlearn_prompt_tokens"] == 0 < alone["unlearn_flops"]
    assert {none[name] for name in none if name.startswith("unlearn_") and name != "unlearn_seconds"} == {0}


def test_a_trial_that_diverges_has_worked(context: StudyContext) -> None:
    record = run(context, replace(ASCENT, schedule=replace(SHORT, worst_weight=1e-9)))[1]
    assert record.state == "diverged"
    assert record.cost["unlearn_flops"] > record.cost["flops"] == 0


@pytest.mark.slow
def test_a_trial_on_disk_is_not_run_again(context: StudyContext, monkeypatch: pytest.MonkeyPatch) -> None:
    _, record = run(context, ASCENT)
    monkeypatch.setattr(GradientAscent, "__call__", lambda *_: pytest.fail("ran again"))
    monkeypatch.setattr(checkpoints, "load_learned", lambda *_: pytest.fail("loaded a model"))
    checkpoints.evict()
    assert run(context, ASCENT)[1] == record


@pytest.mark.slow
def test_a_trial_does_not_depend_on_what_ran_before_it(context: StudyContext, tmp_path: Path) -> None:
    """Workers keep the model; the next trial starts from vanilla all the same, bit for bit."""
    shutil.copytree(context.root, tmp_path / "alone")
    alone = replace(context, root=tmp_path / "alone")
    run(context, ASCENT)
    asked, _ = run(context, VISUAL)
    torch.manual_seed(123)
    checkpoints.evict()
    run(alone, VISUAL)
    assert same_bits(delta_of(context, asked), delta_of(alone, asked))
    one, other = (
        read_rows(b.folder.rows(asked.key, "select")).set_index("question").sort_index() for b in (context, alone)
    )
    pictured = one["modality"] == "image_text"
    pd.testing.assert_frame_equal(one[pictured], other[pictured], check_exact=True)


def test_the_worker_s_model_is_vanilla_again(context: StudyContext) -> None:
    model = checkpoints.cached(context.root, VANILLA.key, "cpu").vlm
    before = snapshot(model)
    run(context, ASCENT)
    assert checkpoints.cached(context.root, VANILLA.key, "cpu").vlm is model
    assert same_bits(before, snapshot(model))


@pytest.mark.slow
def test_no_method_leaves_an_empty_delta(context: StudyContext) -> None:
    """Which is a file like any other: it is written, checked and applied."""
    asked, record = run(context, NoMethod())
    assert record.state == "complete"
    assert delta_of(context, asked) == {}
    trials.report(context, asked, blind=True)
    blind = read_rows(context.folder.rows(asked.key, "blind"))
    assert set(blind["modality"]) == {"image_text"}
    assert set(blind["half"]) == {"select", "report"}


@pytest.mark.slow
def test_the_yardsticks_judge_a_trial(context: StudyContext) -> None:
    """Vanilla keeps everything, the reference is at distance 0 from itself."""
    vanilla, _ = run(context, NoMethod())
    reference, _ = run(context, NoMethod(), start=REFERENCE)
    asked, _ = run(context, VISUAL)
    for one in (asked, vanilla, reference):
        assert trials.judged(context, one, [vanilla, reference]).keys() == DIRECTIONS.keys()
    assert trials.judged(context, vanilla, [vanilla, reference])["utility"] == pytest.approx(1.0, abs=1e-6)
    assert trials.judged(context, reference, [vanilla, reference])["forget_gap"] == 0.0
    assert trials.judged(context, asked, [vanilla, reference])["forget_gap"] > 0.0


def test_what_a_trial_came_to_is_read_once(context: StudyContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every proposal asks for the results of all earlier trials; what an answer is used for does not change it."""
    asked, other = (run(context, method)[0] for method in (NoMethod(), VISUAL))
    before = trials.judged(context, other, [asked, asked])
    monkeypatch.setattr(trials, "read_rows", lambda path: pytest.fail(f"read {path} again"))
    trials.judged(context, other, [asked, asked]).clear()
    assert trials.judged(context, other, [asked, asked]) == before


def test_a_damaged_baseline_is_not_blamed_on_the_trial(context: StudyContext) -> None:
    """What is to be removed is the baseline's; once it is run again, so is the judgement."""
    vanilla, _ = run(context, NoMethod())
    asked, _ = run(context, VISUAL)
    rows = context.folder.rows(vanilla.key, "select")
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=rf"select\.parquet is damaged \(.*\): remove \S+{vanilla.key} and"):
        trials.judged(context, asked, [vanilla, vanilla])
    inventory.take(context.folder)  # between two runs the next one knows what was made together with the file
    with pytest.raises(ValueError, match=r"select\.parquet is damaged \(.*\): remove it and"):
        trials.judged(context, asked, [vanilla, vanilla])
    rows.write_bytes(whole)
    assert trials.judged(context, asked, [vanilla, vanilla]).keys() == DIRECTIONS.keys()


def test_the_remedy_for_damaged_weights_brings_them_back_while_a_run_is_in_progress(context: StudyContext) -> None:
    asked, _ = run(context, VISUAL)
    write_json(context.folder.settings, {"settings": {}})
    path = context.folder.delta(asked.key)
    before = {name: tensor.clone() for name, tensor in delta_of(context, asked).items()}  # pages of the file
    path.write_bytes(path.read_bytes()[:-1])
    [told] = verify.problems(context.folder)
    remedy = re.search(r"remove (\S+) and run", told)
    assert remedy is not None
    shutil.rmtree(remedy[1])
    run(context, VISUAL)
    assert list(verify.problems(context.folder)) == []
    assert same_bits(delta_of(context, asked), before)


# ---- text rows -------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_text_is_asked_once_while_the_llm_is_vanilla_s(context: StudyContext, scored: list[set[str]]) -> None:
    run(context, VISUAL)
    assert sorted(scored, key=sorted) == [{"image_text"}, {"text"}]
    scored.clear()
    run(context, VISUAL, seed=1)
    assert scored == [{"image_text"}]
    scored.clear()
    run(context, NoMethod(), start=REFERENCE)
    assert {"text"} in scored  # another model's answers are not taken for it
    scored.clear()
    full = replace(of(NoMethod()), goal="full")
    trials.run(context, full, REFERENCE.key)
    assert {"text"} in scored  # another goal asks other questions
    asked_of = trials.validation_questions(context.benchmark.split(10).questions, "full")
    assert set(read_rows(context.folder.rows(full.key, "select"))["question"]) == {q.id for q in asked_of}


@pytest.mark.parametrize("method", [ASCENT, Prompting()])
def test_text_is_asked_again_of_another_llm_or_another_prompt(
    method: Method, context: StudyContext, scored: list[set[str]]
) -> None:
    shared = run(context, VISUAL)[0]
    scored.clear()
    asked = run(context, method)[0]
    assert scored == [{"text", "image_text"}]
    before, after = (read_rows(context.folder.rows(t.key, "select")).set_index("question") for t in (shared, asked))
    texts = before.index[before["modality"] == "text"]
    assert not np.allclose(before.loc[texts, "probability"], after.loc[texts, "probability"], atol=1e-5)


@pytest.mark.slow
def test_shared_text_rows_are_those_of_asking(context: StudyContext) -> None:
    """The row of every text question equals the one that the unlearned model itself gets, on both halves."""
    run(context, NoMethod())
    asked, _ = run(context, VISUAL)
    trials.report(context, asked)
    questions = [q for q in context.benchmark.split(10).questions if q.modality == "text"]
    with checkpoints.borrowed(context.root, VANILLA.key, "cpu") as (vlm, _):
        unlearned, _ = checkpoints.unlearned_model(context.folder, asked.key, vlm)
        for half in ("select", "report"):
            kept = read_rows(context.folder.rows(asked.key, half)).set_index("question")
            own = score(unlearned, [q for q in questions if q.half == half and q.id in kept.index]).set_index(
                "question"
            )
            kept = kept.loc[own.index]
            assert len(own) > 100
            np.testing.assert_allclose(kept["probability"], own["probability"], atol=1e-5)
            assert kept["reply"].tolist() == own["reply"].tolist()
            assert kept["score"].tolist() == own["score"].tolist()


def test_the_report_asks_what_the_search_never_saw(context: StudyContext, scored: list[set[str]]) -> None:
    """Every task, of the other half alone; and once."""
    asked, _ = run(context, ASCENT)
    trials.report(context, asked)
    rows = read_rows(context.folder.rows(asked.key, "report"))
    assert set(rows["half"]) == {"report"}
    assert set(rows["task"]) == {"classification", "generation", "cloze"}
    assert set(rows["question"]) == {q.id for q in context.benchmark.split(10).questions if q.half == "report"}
    assert not context.folder.rows(asked.key, "blind").exists()
    calls = len(scored)
    trials.report(context, asked)
    assert len(scored) == calls


@pytest.mark.slow
@pytest.mark.parametrize("method", [VISUAL, ASCENT, ADAPTER, Prompting(), NoMethod()])
def test_the_unlearned_model_is_rebuilt_from_disk(method: Method, context: StudyContext) -> None:
    """In another process, from delta and instruction: weights bit for bit, prompts word for word."""
    asked, _ = run(context, method)
    request = context.request(asked, REFERENCE.key)
    with checkpoints.borrowed(context.root, VANILLA.key, "cpu") as (vlm, _):
        torch.manual_seed(asked.seed)
        made = method(vlm, request)
        weights, instruction = snapshot(made), made.instruction
    checkpoints.evict()
    with checkpoints.borrowed(context.root, VANILLA.key, "cpu") as (vlm, _):
        before = snapshot(vlm)
        rebuilt, names = checkpoints.unlearned_model(context.folder, asked.key, vlm)
        assert same_bits(weights, snapshot(rebuilt))
        assert set(names) == changed(before, weights) - {"lm_head.weight"}  # one tensor with the embeddings
        assert rebuilt.instruction == instruction
    assert (instruction == INSTRUCTIONS["refuse"]) == isinstance(method, Prompting)


def test_a_trial_of_adapters_keeps_their_factors_and_the_attack_that_scales_them_sees_the_same(
    context: StudyContext,
) -> None:
    asked, _ = run(context, ADAPTER)
    kept = delta_of(context, asked)
    assert kept
    assert all(".lora_" in name for name in kept)
    attacker = AdapterScaling(scales=(1.0, 0.0))
    assert attack.try_attack(context, asked, attacker, REFERENCE.key) == ""
    rows = read_rows(context.folder.attack(asked.key, content_key(attacker)))
    left, scaled, off = (rows[rows["step"] == step].set_index("question")["probability"] for step in range(3))
    assert scaled.tolist() == pytest.approx(left.tolist(), abs=1e-5)  # asked in other batches: rounding
    assert (off - left).abs().max() > 1e-3


# ---- a trial that ends otherwise -------------------------------------------------------------------------------
@dataclass(frozen=True)
class Impossible(Method):
    """A method that cannot be done with its hyper-parameters."""

    error: str = "threshold=3: nothing is left"

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        vlm.model.lm_head.weight.data.zero_()
        raise Refused(self.error)


ACCIDENTS: dict[str, BaseException] = {}


@dataclass(frozen=True)
class Broken(Method):
    """A method with a bug, or one that something happens to."""

    error: str

    def __call__(self, vlm: VLM, request: Request) -> VLM:
        vlm.model.lm_head.weight.data.zero_()
        raise ACCIDENTS[self.error]


@dataclass(frozen=True)
class Shapeless(Method):
    """A method that returns no model."""

    def __call__(self, vlm: VLM, request: Request) -> Any:
        return vlm.tensors()


@dataclass(frozen=True)
class Overflown(Method):
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
def test_a_bad_end_is_a_record_with_its_reason(method: Method, state: str, reason: str, context: StudyContext) -> None:
    """It is not run again, and the model is vanilla's afterwards."""
    before = snapshot(checkpoints.cached(context.root, VANILLA.key, "cpu").vlm)
    asked, record = run(context, method)
    assert record.state == state
    assert record.failure == ("refused" if state == "failed" else "")
    assert reason in record.reason
    assert read_json(context.folder.record(asked.key)) == to_json(record)
    assert same_bits(before, snapshot(checkpoints.cached(context.root, VANILLA.key, "cpu").vlm))
    checkpoints.evict()
    assert run(context, method)[1] == record


def test_a_wrong_option_that_is_no_number_is_a_divergence(
    context: StudyContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the likelihood of every right answer is one."""
    spoilt: list[str] = []

    def spoiling(vlm: VLM, questions: Sequence[Question], **asked: Any) -> dict[str, Reading]:
        found = readings(vlm, questions, **asked)
        if not spoilt:
            q = next(q for q in questions if q.options)
            right = q.options.index(q.answer)
            means = [mean if i == right else math.nan for i, mean in enumerate(found[q.id].means)]
            found[q.id] = replace(found[q.id], means=means)
            spoilt.append(q.id)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(scoring, "readings", spoiling)
        asked, record = run(context, ASCENT)
    rows = read_rows(context.folder.rows(asked.key, "select"))
    assert rows["likelihood"].notna().all()
    assert rows.loc[rows["probability"].isna() & (rows["task"] == "classification"), "question"].tolist() == spoilt
    assert (record.state, "are not numbers" in record.reason) == ("diverged", True)


@pytest.mark.parametrize(
    "error",
    [KeyError("a bug"), ValueError("of a library"), Damaged("x is damaged"), OSError(5, "no disk"), SystemExit()],
)
def test_an_accident_is_not_a_result(error: BaseException, context: StudyContext) -> None:
    """It is raised and leaves no record, so that the trial runs once the cause is gone; vanilla is unharmed."""
    before = snapshot(checkpoints.cached(context.root, VANILLA.key, "cpu").vlm)
    raising = Broken(repr(error))
    ACCIDENTS[raising.error] = error
    with pytest.raises(PlugInExited if isinstance(error, SystemExit) else type(error)):
        run(context, raising)
    assert not context.folder.record(of(raising).key).exists()
    assert same_bits(before, snapshot(checkpoints.cached(context.root, VANILLA.key, "cpu").vlm))


def test_a_method_that_returns_no_model_leaves_no_result(context: StudyContext) -> None:
    with pytest.raises(TypeError, match="the method returned dict, which is no model"):
        run(context, Shapeless())
    assert not context.folder.trial(of(Shapeless()).key).exists()


def test_an_attack_that_meets_an_accident_is_tried_again(
    context: StudyContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what it refuses itself is written down."""
    asked, _ = run(context, NoMethod())
    attacker = Nothing()
    for error, state in ((ValueError("a bug"), "unfinished"), (Refused("no layer"), "failed")):

        def raising(*_: Any, error: Exception = error) -> Iterator[Any]:
            raise error

        monkeypatch.setattr(Nothing, "__call__", raising)
        if state == "failed":
            assert attack.try_attack(context, asked, attacker, REFERENCE.key) == "no layer"
        else:
            with pytest.raises(ValueError, match="a bug"):
                attack.try_attack(context, asked, attacker, REFERENCE.key)
        assert attack.attack_state(context.folder, asked, attacker) == state


def test_a_trial_killed_half_way_is_run_again(context: StudyContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is written last."""

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(trials, "keep_record", killed)
        with pytest.raises(KeyboardInterrupt):
            run(context, ASCENT)
    assert run(context, ASCENT)[1].state == "complete"


def test_a_damaged_model_is_named(context: StudyContext) -> None:
    (weights,) = context.folder.learned(VANILLA.key).rglob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: remove .* and run the study again"):
        run(context, ASCENT)
    assert not context.folder.record(of(ASCENT).key).exists()


def _report(context: StudyContext, asked: Trial) -> None:
    trials.report(context, asked)


def _attack(context: StudyContext, asked: Trial) -> None:
    attack.attack_trial(context, asked, Relearning(), REFERENCE.key)


@pytest.mark.parametrize("use", [_report, _attack])
def test_a_damaged_delta_is_named(use: Callable[[StudyContext, Trial], None], context: StudyContext) -> None:
    asked, _ = run(context, ASCENT)
    path = context.folder.trial(asked.key) / "delta.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"delta\.safetensors is damaged .*: remove \S+{asked.key} and"):
        use(context, asked)


# ---- attacks ---------------------------------------------------------------------------------------------------
RELEARN = Relearning(score_at=(1, 2), schedule=SHORT)


def test_an_attack_leaves_the_rows_of_every_stage(context: StudyContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget pictures under the visual goal, marked by what the attacker was given; and is made once."""
    asked, _ = run(context, VISUAL)
    attack.attack_trial(context, asked, RELEARN, REFERENCE.key)
    path = context.folder.attack(asked.key, content_key(RELEARN))
    everything = read_rows(path)
    rows = everything[everything["role"] == "forget"]
    split = context.benchmark.split(10)
    wanted = {q.id for q in split.questions if q.role == "forget" and q.task == "classification" and q.picture}
    assert rows.groupby("step")["question"].agg(set).to_dict() == {0: wanted, 1: wanted, 2: wanted}
    others = everything[everything["role"] != "forget"]
    assert set(others["held_out"]) == {"person"}
    asked_of_others = others.groupby(["step", "role", "half"])["question"].agg(set)
    assert {(role, half) for _, role, half in asked_of_others.index} == set(product(("retain", "real"), HALVES))
    assert set(asked_of_others.map(len)) == {attack.UTILITY_QUESTIONS}
    assert len({frozenset(some) for some in asked_of_others}) == 4  # the same at every step
    assert set(rows["held_out"]) == {"person", "fact", ""}
    assert (rows["seen"] == (rows["held_out"] == "")).all()
    given = {lesson.person for lesson in RELEARN.given(context.request(asked, REFERENCE.key))}
    assert set(rows.loc[rows["held_out"] == "person", "person"]) == split.forget_people - given
    assert set(rows.loc[rows["held_out"] != "person", "person"]) == given
    settings = read_json(path.with_suffix(".json"))
    assert (settings["attack"], settings["settings"]) == ("relearning", canonical(RELEARN))
    taught = read_json(context.folder.learned_record(VANILLA.key))["origin"]
    assert taught["code"] == code_of(None)
    assert settings["origin"] == {**taught, "code": code_of(settings["settings"])}
    assert settings["origin"]["code"] != taught["code"]
    monkeypatch.setattr(Relearning, "__call__", lambda *_: pytest.fail("attacked again"))
    attack.attack_trial(context, asked, RELEARN, REFERENCE.key)


def step_0(context: StudyContext, asked: Trial) -> pd.DataFrame:
    """The first rows of the attack by question, without what only an attack says of them."""
    rows = read_rows(context.folder.attack(asked.key, content_key(RELEARN)))
    return rows[rows["step"] == 0].set_index("question").drop(columns=["seen", "held_out"])


@pytest.fixture
def attacked_with(monkeypatch: pytest.MonkeyPatch) -> list[list[Question]]:
    """The questions that attacks ask, one list each time."""
    asked: list[list[Question]] = []

    def recording(vlm: VLM, questions: Sequence[Question]) -> pd.DataFrame:
        asked.append(list(questions))
        return score(vlm, questions)

    monkeypatch.setattr(attack, "score", recording)
    return asked


@pytest.mark.slow
@pytest.mark.parametrize("method", [ASCENT, Prompting()])
def test_step_0_is_the_trial_itself(method: Method, context: StudyContext, attacked_with: list[list[Question]]) -> None:
    """Its own rows, to the bit; only the later steps are asked, in the same order."""
    asked, _ = run(context, method)
    trials.report(context, asked)
    attack.attack_trial(context, asked, RELEARN, REFERENCE.key)
    attacked = step_0(context, asked)
    for half in HALVES:
        rows = read_rows(context.folder.rows(asked.key, half)).set_index("question").drop(columns=["seen", "held_out"])
        there = attacked[attacked["half"] == half]
        assert len(there) == len(attacked) / 2
        pd.testing.assert_frame_equal(there, rows.loc[there.index], check_exact=True)
    assert [[q.id for q in questions] for questions in attacked_with] == [list(attacked.index)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"no parquet")])
@pytest.mark.parametrize("half", HALVES)
def test_what_is_not_on_disk_of_step_0_is_asked(
    half: Half, damage: Callable[[Path], None], context: StudyContext, attacked_with: list[list[Question]]
) -> None:
    """And nothing else: the answers are those that are on disk otherwise, but for rounding."""
    asked, _ = run(context, ASCENT)
    trials.report(context, asked)
    rows = read_rows(context.folder.rows(asked.key, half)).set_index("question")
    damage(context.folder.rows(asked.key, half))
    attack.attack_trial(context, asked, RELEARN, REFERENCE.key)
    attacked = step_0(context, asked)
    assert {q.half for q in attacked_with[0]} == {half}
    assert {q.id for q in attacked_with[0]} == set(attacked.index[attacked["half"] == half])
    assert [len(questions) for questions in attacked_with] == [len(attacked) / 2, len(attacked), len(attacked)]
    found = attacked[attacked["half"] == half]
    np.testing.assert_allclose(found["probability"], rows.loc[found.index, "probability"], rtol=0, atol=1e-6)
    assert found["reply"].equals(rows.loc[found.index, "reply"])


@pytest.mark.parametrize("reported", [True, False])
def test_sampled_replies_are_compared_with_greedy_ones(
    reported: bool, context: StudyContext, attacked_with: list[list[Question]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 0 says which facts the greedy replies state: those on disk, and those that the search did not ask for."""
    monkeypatch.setattr(scoring, "MAX_NEW_TOKENS", 3)
    monkeypatch.setattr(sampling, "MAX_NEW_TOKENS", 3)
    asked, _ = run(context, VISUAL)
    if reported:
        trials.report(context, asked)
    sampler = SampledExtraction((1, 4), 4)
    attack.attack_trial(context, asked, sampler, REFERENCE.key)
    rows = read_rows(context.folder.attack(asked.key, content_key(sampler)))
    forget = rows[rows["role"] == "forget"].set_index("question")
    split = context.benchmark.split(10)
    wanted = [q for q in split.questions if q.role == "forget" and q.task != "classification" and q.picture]
    ids = {q.id for q in wanted}
    assert {step: set(part.index) for step, part in forget.groupby("step")} == {0: ids, 1: ids, 4: ids}
    assert set(forget["held_out"]) == {"person"}
    assert {q.half for q in attacked_with[0]} == {"select"} | ({"report"} if not reported else set())
    before = {row["question"]: row for row in rows[rows["step"] == 0].to_dict("records")}
    facts = asked_facts(split, wanted)
    left, _ = checkpoints.unlearned_model(
        context.folder, asked.key, checkpoints.load_learned(context.root, VANILLA.key)
    )
    greedy = readings(left, wanted)
    for q in wanted:
        reply = str(greedy[q.id].reply)
        assert (before[q.id]["reply"], before[q.id]["answer"]) == (reply, facts[q.id])
        assert before[q.id]["probability"] == before[q.id]["score"] == float(states(reply, facts[q.id]))
    others = rows[rows["role"] != "forget"]
    assert set(others["task"]) == {"classification"}
    assert recovery.kept(rows, "report").to_list() == pytest.approx([1.0] * 3)
    request = context.request(asked, REFERENCE.key)
    assert attack.holds_out(sampler, request)
    choices = replace(split, questions=tuple(q for q in split.questions if q.options))
    with pytest.raises(Refused, match="one half of the questions has no generation or cloze about what is to be"):
        attack.holds_out(sampler, replace(request, split=choices))


def test_an_attacker_who_learns_nothing_recovers_nothing(context: StudyContext) -> None:
    """Not one answer changes; numbers by no more than rounding from step 0, which was asked together with others."""
    asked, _ = run(context, ASCENT)
    idle = replace(RELEARN, schedule=replace(SHORT, learning_rate=0.0))
    attack.attack_trial(context, asked, idle, REFERENCE.key)
    rows = read_rows(context.folder.attack(asked.key, content_key(idle)))
    stages = [stage.drop(columns="step").reset_index(drop=True) for _, stage in rows.groupby("step")]
    assert len(stages) == 3
    pd.testing.assert_frame_equal(stages[1], stages[0], rtol=0, atol=1e-6)
    pd.testing.assert_frame_equal(stages[2], stages[1], check_exact=True)


@pytest.mark.slow
def test_every_model_meets_the_same_attacker(context: StudyContext) -> None:
    """The same questions count as seen, of every trial, seed and yardstick."""
    marks = []
    for method, fields in ((VISUAL, {}), (ASCENT, {"seed": 4}), (NoMethod(), {"start": REFERENCE})):
        asked, _ = run(context, method, **fields)
        attack.attack_trial(context, asked, RELEARN, REFERENCE.key)
        rows = read_rows(context.folder.attack(asked.key, content_key(RELEARN)))
        marks.append(rows.set_index(["step", "question"])["held_out"].to_dict())
    assert marks[0] == marks[1] == marks[2]


def test_the_seed_of_a_trial_is_not_that_of_its_attacker(context: StudyContext) -> None:
    """Equal models that were made with other seeds are attacked in the same way, to the last bit."""
    rows = []
    for seed in (0, 4):
        asked, _ = run(context, NoMethod(), seed=seed)
        attack.attack_trial(context, asked, RELEARN, REFERENCE.key)
        rows.append(read_rows(context.folder.attack(asked.key, content_key(RELEARN))))
    pd.testing.assert_frame_equal(rows[0], rows[1], check_exact=True)


def attack_record(context: StudyContext, asked: Trial, attacker: Attack) -> AttackRecord:
    attack.attack_trial(context, asked, attacker, REFERENCE.key)
    return read_record(AttackRecord, record_beside(context.folder.attack(asked.key, content_key(attacker))))


@pytest.mark.slow
def test_the_work_of_an_attack_is_counted_apart_from_its_scoring(context: StudyContext) -> None:
    """The same for every model and for the control. Who asks once more has done nothing, and is scored half as often.

    An attack that breaks the model has worked until then.
    """
    models = [run(context, NoMethod())[0], run(context, NoMethod(), start=REFERENCE)[0], run(context, ASCENT)[0]]
    records = [attack_record(context, asked, RELEARN) for asked in models]
    assert len({record.flops for record in records}) == len({record.score_flops for record in records}) == 1
    work, scoring = records[0].flops or 0.0, records[0].score_flops or 0.0
    idle = attack_record(context, models[0], Nothing())
    assert (idle.flops, idle.score_flops) == (0.0, scoring / 2)
    visual = attack_record(context, models[0], replace(RELEARN, trains=("vision", "projector")))
    assert 0.0 < (visual.flops or 0.0) < work  # no gradients of the LLM's weights
    broken = attack_record(context, models[0], replace(RELEARN, schedule=replace(SHORT, worst_weight=1e-9)))
    assert broken.diverged
    assert 0.0 < (broken.flops or 0.0) < work
    assert broken.score_flops == 0.0


def test_under_full_text_is_asked_of_the_attacked_too(context: StudyContext) -> None:
    asked = replace(of(NoMethod()), goal="full")
    trials.run(context, asked, REFERENCE.key)
    attack.attack_trial(context, asked, RELEARN, REFERENCE.key)
    rows = read_rows(context.folder.attack(asked.key, content_key(RELEARN)))
    assert set(rows["modality"]) == {"image_text", "text"}
    assert {("forget", "text"), ("retain", "text")} <= set(zip(rows["role"], rows["modality"], strict=True))


@pytest.mark.slow
def test_a_study_can_be_moved(context: StudyContext, tmp_path: Path) -> None:
    """Only relative paths are stored: trials are found, reported and attacked at the new place."""
    asked, record = run(context, VISUAL)
    context.root.rename(tmp_path / "moved")
    moved = replace(context, root=tmp_path / "moved")
    checkpoints.evict()
    assert run(moved, VISUAL)[1] == record
    trials.report(moved, asked)
    attack.attack_trial(moved, asked, RELEARN, REFERENCE.key)
    for path in moved.root.rglob("*.json"):
        assert str(tmp_path) not in path.read_text()


def test_text_that_all_trials_share_is_kept_by_what_was_asked(context: StudyContext) -> None:
    """Where only what is known counts, rows of all questions are not taken for those of fewer."""

    def kept() -> set[Path]:
        return set(context.folder.cache("any").parent.glob("*/select.parquet"))

    run(context, VISUAL)
    of_all = kept()
    write_json(context.folder.unknown, {"10": to_json(KnownRecord((), 9, 9, 2, 2, None))})
    run(replace(context, only_known=True), VISUAL, seed=1)
    assert len(of_all) == 1
    assert len(kept() - of_all) == 1
