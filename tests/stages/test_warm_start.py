"""A search that begins at the winners of an earlier study: what is taken, refused, proposed, kept and reported."""

from __future__ import annotations

import dataclasses
import io
import math
import pickle
import random
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from analysis import report
from analysis.sections import warm_start as bought
from analysis.study_folder import read
from search_spaces import fitted
from study.attacks.relearning import Relearning
from study.contracts import Method
from study.core.errors import Refused
from study.core.files import read_json, write_json
from study.core.layout import StudyFolder
from study.core.plugins import search_space
from study.core.records import MethodProposal, Observation, write_record
from study.core.specs import adjusted
from study.experiment import method_search
from study.experiment.context import StudyContext
from study.experiment.method_search import MethodSearch
from study.experiment.trial_spec import RATIO, Trial
from study.methods.gradient_ascent import GradientAscent
from study.methods.npo import NPO
from study.methods.vkd import VKD
from study.presets import PRESETS
from study.settings import Study
from study.stages import printed_plan as plans
from study.stages import search as search_stage
from study.stages.manifest import settle
from study.stages.preflight import validate_study
from study.stages.race import race
from study.stages.warm_start import Warm, WarmStart, earlier_trials, warm_start
from study.training.schedule import Schedule
from tests.engine.test_optuna_search import Run, judged, search_in, written
from tests.helpers.page import page_of
from tests.helpers.planted import VANILLA, Model, Planter
from tests.helpers.studies import searching

SHORT = Schedule(steps=30, learning_rate=1e-4)
ASCENT = {"learning_rate": 2e-4, "steps": 20}
SMOKE = PRESETS["smoke"][1]
"""Two methods, vkd and gradient ascent, at 10 and 15 %; its schedules have two steps at a rate of 1e-3."""


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The objectives of a trial are a fixed function of its key."""
    monkeypatch.setattr(method_search, "judged", judged)


def earlier(root: Path, winners: Mapping[str, Mapping[int, Mapping[str, Any]]], **settings: Any) -> Path:
    """A finished study of JSON files alone; the default, which lost, is the first proposal of each winner."""
    write_json(
        root / "study.json", {"name": root.name, "settings": {"model": {"type": "Other"}, "seed": 0, **settings}}
    )
    keys: dict[str, dict[str, Any]] = {}
    for method, ratios in winners.items():
        for turn, (ratio, params) in enumerate(ratios.items()):
            for number, (key, asked) in enumerate((("lost", {"steps": 1}), ("won", params)), 2 * turn):
                proposal = MethodProposal(number, {RATIO: ratio, **asked}, f"{key} {ratio}", ratio)
                write_record(StudyFolder(root).proposal(method, number), proposal)
            keys.setdefault(method, {})[str(ratio)] = {"trials": [f"won {ratio}", f"seed 1 of {ratio}"]}
    write_json(root / "winners.json", keys)
    return root


def asking(source: Path | None, **changes: Any) -> Study:
    """A study of gradient ascent around a default of 30 steps at a rate of 1e-4, with room for a warm start."""
    defaults = {"gradient_ascent": {"schedule": SHORT}, "npo": {"schedule": SHORT}}
    study = dataclasses.replace(SMOKE, methods=("gradient_ascent",), defaults=defaults, warm_start=source)
    return dataclasses.replace(study, **changes)


def begun(source: Path, there: Path = Path("none"), **changes: Any) -> WarmStart:
    study = asking(source, **changes)
    found = warm_start(study, study.method_defaults(), {}, there)
    assert found
    return found


# ---- what is taken ---------------------------------------------------------------------------------------------
def test_what_won_is_taken_at_each_ratio(tmp_path: Path) -> None:
    """Of the proposal that led to the winner, not of another; without the ratio, which is dealt anew."""
    second = {"learning_rate": 5e-5, "steps": 50}
    found = begun(earlier(tmp_path / "tiny", {"gradient_ascent": {10: ASCENT, 15: second}}))
    assert found.study == "tiny"
    assert found.found == {"gradient_ascent": {10: Warm(ASCENT, 10), 15: Warm(second, 15)}}


@pytest.mark.parametrize(
    ("there", "taken"), [((5, 10), 10), ((10, 50), 10), ((20, 50), 20), ((10, 20), 10), ((20, 10), 10), ((15, 16), 15)]
)
def test_another_ratio_begins_at_the_nearest(there: tuple[int, ...], taken: int, tmp_path: Path) -> None:
    """Asked for 15 %; of two that are equally near the smaller."""
    source = earlier(
        tmp_path / "tiny", {"gradient_ascent": {r: {"learning_rate": 1e-4, "steps": r + 5} for r in there}}
    )
    warm = begun(source, forget_ratios=(15,)).found["gradient_ascent"][15]
    assert warm == Warm({"learning_rate": 1e-4, "steps": taken + 5}, taken)


@pytest.mark.parametrize(
    ("name", "value"), [("vanilla", "abc"), ("reference", ["abc"]), ("measure", "known"), ("scored_error", 0.03)]
)
def test_what_an_earlier_study_was_measured_by_is_part_of_what_it_is(name: str, value: Any, tmp_path: Path) -> None:
    """Where it is set: else a study is known by the same key as before there was such a setting."""
    won = {"gradient_ascent": {10: ASCENT}}
    before, unset, other = (
        begun(earlier(tmp_path / str(number) / "tiny", won, **settings)).key
        for number, settings in enumerate(({}, {name: None}, {name: value}))
    )
    assert before == unset != other


def test_a_method_that_was_not_there_begins_cold(tmp_path: Path) -> None:
    source = earlier(tmp_path / "tiny", {"gradient_ascent": {10: ASCENT}})
    found = begun(source, methods=("gradient_ascent", "npo", "gradient_ascent:lora_rank=4"))
    assert found.found["npo"][10] == Warm(note="tiny has no winner of npo")
    assert found.params["npo"] == found.params["gradient_ascent:lora_rank=4"] == {}
    assert list(found.lines(["npo", "gradient_ascent"])) == [
        "npo 10 % starts cold (tiny has no winner of npo)",
        "npo 15 % starts cold (tiny has no winner of npo)",
        "gradient_ascent 10 % starts from the winner of tiny at 10 %",
        "gradient_ascent 15 % starts from the winner of tiny at 10 %",
    ]


def test_what_lies_outside_is_refused_by_name(tmp_path: Path) -> None:
    """Both parameters that do, at that ratio alone."""
    source = earlier(tmp_path / "tiny", {"gradient_ascent": {10: {"learning_rate": 1.0, "steps": 500}, 15: ASCENT}})
    warm = begun(source).found["gradient_ascent"]
    assert warm[10].params == {}
    assert re.search(r"learning_rate: The value 1\.0 .* out of .*; steps: The value 500 .* out of ", warm[10].note)
    assert warm[15] == Warm(ASCENT, 15)


VKD_WON = {
    "teacher": "stranger", "forget_weight": 0.3, "beta": 0.4, "layers": "projector", "distance": "mse",
    "erase_weight": 1.0, "keep_weight": 5.0, "retain_weight": 0.1, "saliency_threshold": 2.0, "neurons": "all",
    "augment": 0.5, "learning_rate": 1e-4, "steps": 20,
}  # fmt: skip


@pytest.mark.parametrize(
    ("rank", "changes", "kept", "note"),
    [
        (0, {}, set(VKD_WON), ""),
        (4, {}, {*VKD_WON} - {"neurons", "saliency_threshold"}, "without neurons, saliency_threshold"),
        (0, {"old": 1}, set(VKD_WON), "without old"),
        (0, {"augment": None}, {*VKD_WON} - {"augment"}, "the default's augment"),
        (0, {"augment": None, "old": 1}, {*VKD_WON} - {"augment"}, "the default's augment, without old"),
        (0, {"prune": 0.05}, set(VKD_WON), "without prune"),
        (0, {"forget_weight": 0.0}, set(), "forget_weight: `0.0` is invalid"),
        (0, {"teacher": "reference"}, set(), "teacher: 'reference' not in ("),
        (0, {"teacher": "pruned", "prune": 0.5}, set(), "'0.5' not in (0.05"),
    ],
)
def test_parameters_are_taken_as_far_as_they_are_searched(
    rank: int, changes: dict[str, Any], kept: set[str], note: str
) -> None:
    """Missing and new ones are told; one that cannot be proposed, or only because of another, refuses all."""
    default = VKD(saliency_threshold=0.0 if rank else 1.0, schedule=dataclasses.replace(SHORT, lora_rank=rank))
    values = {name: value for name, value in {**VKD_WON, **changes}.items() if value is not None}
    params, said = fitted(search_space("vkd").space, default, values)
    assert params == {name: values[name] for name in kept}
    assert said == note if kept else note in said


def test_a_choice_that_these_data_do_not_support_is_the_defaults(tmp_path: Path) -> None:
    """The rest of what won is taken, and the plan says what is not."""
    source = earlier(tmp_path / "tiny", {"vkd": {10: {**VKD_WON, "learning_rate": 1e-3, "steps": 3}}})
    study = asking(source, methods=("vkd",), forget_ratios=(10,), trials=2)
    default = VKD(teacher="other_person", schedule=dataclasses.replace(SHORT, learning_rate=1e-3, steps=3))
    found = warm_start(study, {"vkd": default}, {"vkd": {"teacher": ("stranger",)}}, Path("none"))
    assert found
    warm = found.found["vkd"][10]
    assert warm.params == {**VKD_WON, "teacher": "other_person", "learning_rate": 1e-3, "steps": 3}
    assert warm.note == "teacher=other_person, not stranger, which these data do not support"


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("study.json", r"warm_start=\S*tiny is not a study: it has no study\.json"),
        ("winners.json", r"winners\.json is missing; run that study until its search has ended"),
        ("search/gradient_ascent/0001.json", "no proposal in search/gradient_ascent led to its winner won 10"),
    ],
)
def test_a_study_without_winners_is_refused(missing: str, said: str, tmp_path: Path) -> None:
    source = earlier(tmp_path / "tiny", {"gradient_ascent": {10: ASCENT}})
    (source / missing).unlink()
    with pytest.raises(ValueError, match=said):
        begun(source)


def test_too_few_trials_are_refused(tmp_path: Path) -> None:
    """Two ratios need a default and an earlier winner each; without a warm start the defaults are enough."""
    with pytest.raises(ValueError, match=r"trials=3 leaves no room for warm_start=.* are 4 trials"):
        asking(tmp_path, trials=3)
    asking(tmp_path, trials=4)
    asking(None, trials=2)


# ---- what is proposed ------------------------------------------------------------------------------------------
WARM: dict[str, dict[int, dict[str, Any]]] = {
    "gradient_ascent": {10: {"learning_rate": 2e-5, "steps": 20}, 15: {"learning_rate": 3e-5, "steps": 50}}
}
START: dict[str, Method] = {"gradient_ascent": GradientAscent(schedule=Schedule(steps=30)), "npo": NPO()}


def test_earlier_winners_follow_the_defaults(tmp_path: Path) -> None:
    """A method that begins cold, and the sampler after them, go on as ever."""
    search = Run(search_in(tmp_path / "warm", START, warm=WARM, startup_trials=2))().search
    ascent, npo = search.proposals("gradient_ascent"), search.proposals("npo")
    assert [p.ratio for p in ascent] == [10, 15] * 4
    assert [(p.default, p.warm) for p in ascent] == [(True, False)] * 2 + [(False, True)] * 2 + [(False, False)] * 4
    assert [p.params for p in ascent[2:4]] == [{RATIO: ratio, **WARM["gradient_ascent"][ratio]} for ratio in (10, 15)]
    taught = [search.job("gradient_ascent", p.params).method for p in ascent[2:4]]
    assert [adjusted(START["gradient_ascent"], f"x:learning_rate={rate},steps={steps}") for rate, steps in (
        (2e-5, 20), (3e-5, 50))] == taught  # fmt: skip
    cold = Run(search_in(tmp_path / "cold", START, startup_trials=2))().search
    assert npo == cold.proposals("npo")
    assert ascent[:2] == cold.proposals("gradient_ascent")[:2]
    assert ascent[4:] != cold.proposals("gradient_ascent")[4:]


def test_one_ratio_may_begin_cold(tmp_path: Path) -> None:
    """Its second proposal is the sampler's."""
    warm = {"gradient_ascent": {15: WARM["gradient_ascent"][15]}}
    ascent = Run(search_in(tmp_path / "warm", START, warm=warm))().search.proposals("gradient_ascent")
    assert [p.warm for p in ascent] == [False] * 3 + [True] + [False] * 4
    cold = Run(search_in(tmp_path / "cold", START))().search.proposals("gradient_ascent")
    assert ascent[:3] == cold[:3]


def test_what_was_not_among_the_winners_parameters_is_the_defaults(tmp_path: Path) -> None:
    search = Run(search_in(tmp_path, {"npo": NPO(beta=0.7)}, warm={"npo": {10: {"steps": 60}}}, trials=4))().search
    method = search.job("npo", search.proposals("npo")[2].params).method
    assert method == dataclasses.replace(NPO(beta=0.7), schedule=dataclasses.replace(NPO().schedule, steps=60))


def test_a_warm_search_is_the_same_however_it_is_run(tmp_path: Path) -> None:
    """Killed after every second trial, by three workers."""
    whole = Run(search_in(tmp_path / "whole", START, warm=WARM))().search
    search = search_in(tmp_path / "killed", START, warm=WARM)
    for _ in range(4):
        Run(search, 3)(stop_after=2)
    Run(search, 3)()
    assert written(search) == written(whole)


def smooth(context: StudyContext, trial: Trial, baselines: Sequence[Trial]) -> dict[str, float]:
    """Objectives that follow two parameters, whatever the model."""
    assert isinstance(trial.method, NPO)
    return {"forget_gap": trial.method.beta / 2, "utility": 1 - trial.method.retain_weight / 10}


def observed(number: int, sign: float) -> list[Observation]:
    """Trials of an earlier study whose objectives are the same, or the other way round."""
    drawn, found = random.Random(3), []
    for _ in range(number):
        beta, weight = 0.05 * 40 ** drawn.random(), 0.3 * 33 ** drawn.random()
        params = {"beta": beta, "retain_weight": weight, "learning_rate": 3e-5, "steps": 60}
        values = {"forget_gap": 0.5 + sign * (beta / 2 - 0.5), "utility": 0.5 + sign * (0.5 - weight / 10)}
        found.append(Observation(params, values))
    return found


def primed(root: Path, sign: float, **fields: Any) -> MethodSearch:
    found = {"npo": {10: observed(60, sign)}}
    asked = {"ratios": (10,), "trials": 14, "sampler": "auto", "startup_trials": 0, "earlier": found, **fields}
    return search_in(root, {"npo": NPO()}, **asked)


def test_earlier_trials_are_told_once_they_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the seventh trial on, which is then drawn from a model; not those that predict the contrary."""
    monkeypatch.setattr(method_search, "judged", smooth)
    alike = Run(primed(tmp_path / "alike", 1.0))().search.proposals("npo")
    contrary = Run(primed(tmp_path / "contrary", -1.0))().search.proposals("npo")
    cold = Run(primed(tmp_path / "cold", 1.0, earlier={}))().search.proposals("npo")
    assert [bool(proposal.priors) for proposal in alike] == [False] * 6 + [True] * 8
    assert 20 < alike[6].priors <= 60
    assert contrary == cold
    assert alike[:6] == cold[:6]
    far = [math.fsum(math.hypot(p.params["beta"] / 2, p.params["retain_weight"] / 10) for p in found[6:]) for found in
           (alike, cold)]  # fmt: skip
    assert far[0] < 0.7 * far[1]  # what is good is known before it is tried


def test_nothing_is_told_that_lacks_an_objective(tmp_path: Path) -> None:
    robust = primed(tmp_path, 1.0, attacker=Relearning())
    assert len(primed(tmp_path, 1.0).priors("npo", 6)) == 60
    assert robust.priors("npo", 6) == []


def test_a_primed_search_is_the_same_however_it_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told is decided by what was known when a proposal was drawn, not by what is on disk by then."""
    monkeypatch.setattr(method_search, "judged", smooth)
    whole = Run(primed(tmp_path / "whole", 1.0))().search
    search = primed(tmp_path / "killed", 1.0)
    for number in range(6):
        Run(search, 3, random.Random(number))(stop_after=2)
    Run(search, 3)()
    assert written(search) == written(whole)


def test_workers_are_not_sent_what_proposals_need(tmp_path: Path) -> None:
    search = primed(tmp_path, 1.0)
    sent = pickle.loads(pickle.dumps(search))
    assert sent == dataclasses.replace(search, earlier={})


# ---- what is kept ----------------------------------------------------------------------------------------------
@pytest.fixture
def source(tmp_path: Path) -> Path:
    return earlier(tmp_path / "tiny", {"gradient_ascent": {10: ASCENT, 15: ASCENT}, "npo": {10: {"steps": 40}}})


def started(source: Path, folder: Path, **changes: Any) -> Study:
    """A warm study that has begun."""
    study = asking(source, study_dir=folder, **changes)
    searching(study, folder / "data")
    return study


def test_what_was_taken_is_kept_with_the_study(source: Path, tmp_path: Path, generated: Path) -> None:
    """By content, never by path: the earlier study may change or go, and this one move."""
    folder = tmp_path / "warm"
    study = started(source, folder)
    before = (folder / "study.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in before
    taken = {"gradient_ascent": {10: ASCENT, 15: ASCENT}}
    earlier(source, {"gradient_ascent": {10: {"learning_rate": 5e-5, "steps": 15}}}, trials=99)
    plan = searching(study, generated)
    assert plan.warm
    assert plan.warm.params == taken
    shutil.rmtree(source)
    moved = folder.rename(tmp_path / "moved")
    plan = searching(dataclasses.replace(study, study_dir=moved), moved / "data")
    assert plan.warm
    assert plan.warm.params == taken
    assert read_json(moved / "study.json")["warm_start"]["found"]["gradient_ascent"]["10"]["params"] == ASCENT


def test_a_study_that_an_earlier_version_began_goes_on(tmp_path: Path, generated: Path) -> None:
    """It holds a key without what its source was measured by."""
    won = {"gradient_ascent": {10: ASCENT, 15: ASCENT}}
    source, folder = earlier(tmp_path / "tiny", won, scored_error=0.03), tmp_path / "warm"
    study = started(source, folder)
    before, now = begun(earlier(tmp_path / "before" / "tiny", won)).key, begun(source).key
    record = folder / "study.json"
    record.write_text(record.read_text(encoding="utf-8").replace(now, before), encoding="utf-8")
    warm = validate_study(study, generated).warm
    assert warm
    assert warm.key == before
    assert warm.params == {"gradient_ascent": {10: ASCENT, 15: ASCENT}}


def test_a_method_that_is_added_is_looked_up_then(source: Path, tmp_path: Path, generated: Path) -> None:
    """What was taken before stays; without the earlier study it cannot be, and that is said."""
    folder = tmp_path / "warm"
    study = started(source, folder)
    earlier(source, {"gradient_ascent": {10: {"steps": 15}}, "npo": {15: {"steps": 50}}})
    more = dataclasses.replace(study, methods=("gradient_ascent", "npo"))
    plan = validate_study(more, generated)
    assert plan.warm
    assert plan.warm.params["gradient_ascent"] == {10: ASCENT, 15: ASCENT}
    assert plan.warm.params["npo"] == {10: {"steps": 50}, 15: {"steps": 50}}
    shutil.rmtree(source)
    with pytest.raises(ValueError, match=r"is not a study"):
        validate_study(more, generated)


@pytest.mark.slow
def test_another_start_is_another_study(source: Path, tmp_path: Path, generated: Path) -> None:
    """Another earlier study, none, or one where there was none; the same one under another name is the same."""
    folder = tmp_path / "warm"
    study = started(source, folder)
    other = earlier(tmp_path / "other", {"gradient_ascent": {10: ASCENT}}, seed=7)
    for changed, said in (
        (other, r"warm_start: tiny \(\w+\) on disk, other \(\w+\) requested"),
        (None, r"warm_start: tiny \(\w+\) on disk, None requested"),
    ):
        with pytest.raises(Refused, match=said):
            validate_study(dataclasses.replace(study, warm_start=changed), generated)
    namesake = earlier(tmp_path / "b" / "tiny", {"gradient_ascent": {10: ASCENT}}, seed=7)
    with pytest.raises(Refused, match=r"warm_start: tiny \(\w+\) on disk, tiny \(\w+\) requested"):
        validate_study(dataclasses.replace(study, warm_start=namesake), generated)
    renamed = shutil.copytree(source, tmp_path / "renamed")
    write_json(renamed / "study.json", {**read_json(renamed / "study.json"), "name": "renamed"})
    validate_study(dataclasses.replace(study, warm_start=renamed), generated)
    cold = asking(None, study_dir=tmp_path / "cold")
    searching(cold, generated)
    assert "warm_start" not in read_json(tmp_path / "cold" / "study.json")
    with pytest.raises(Refused, match=r"warm_start: None on disk, tiny \(\w+\) requested"):
        validate_study(dataclasses.replace(cold, warm_start=source), generated)


def test_the_plan_says_where_each_method_begins(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(plans, "console", Console(file=screen, width=300))
    plans.print_plan(
        validate_study(asking(source, methods=("gradient_ascent", "vkd"), study_dir=tmp_path / "warm"), tmp_path)
    )
    assert "gradient_ascent 15 % starts from the winner of tiny at 15 %" in screen.getvalue()
    assert "vkd 10 % starts cold (tiny has no winner of vkd)" in screen.getvalue()


def test_from_one_search_to_the_next(tmp_path: Path, generated: Path) -> None:
    """What the pipeline writes of one study is what the next begins with."""
    first = asking(None, study_dir=tmp_path / "first", race=1)  # by one seed: nothing is run
    plan = validate_study(first, generated)
    settle(plan)
    ended = Run(search_in(tmp_path / "first", first.method_defaults(), trials=6))().search
    judged = search_stage.judge(ended)
    won = {
        trial.ratio: trial
        for trial in search_stage.choose_winners(plan, judged, race(plan, ended, judged))
        if trial.seed == first.seed
    }
    second = asking(tmp_path / "first", study_dir=tmp_path / "second", seed=1)
    found = validate_study(second, generated).warm
    assert found
    search = Run(search_in(tmp_path / "second", second.method_defaults(), seed=1, warm=found.params))().search
    proposed = [search.job("gradient_ascent", p.params) for p in search.proposals("gradient_ascent") if p.warm]
    assert [(trial.ratio, trial.method) for trial in proposed] == [(ratio, won[ratio].method) for ratio in (10, 15)]


# ---- what it bought --------------------------------------------------------------------------------------------
LEVELS = {
    "warm": [None, 0.5, 0.305, 0.4, 0.3],
    "cold": [None, 0.7, 0.6, 0.4, 0.309, 0.45],
}
"""What the model of each proposal after the default answers of what is to be forgotten; the reference answers 0.3."""


def planted(root: Path, name: str, *, warm: bool, ratio: int = 10, **settings: Any) -> Path:
    """A study of one method whose distances to the ideal are the levels less 0.3, and 0.6 for the default."""
    planter = Planter(root / name)
    planter.study(["ascent", "other"], [ratio], **settings)
    planter.yardsticks(ratio)
    for number, level in enumerate(LEVELS[name]):
        model = VANILLA if level is None else Model(forget=level, test=level)
        key = planter.trial("ascent", ratio, model, strength=float(number))
        planter.proposal(
            "ascent",
            number,
            ratio,
            key,
            default=number == 0,
            **({"warm": True} if number == 1 and warm else {}),
            **({"priors": 2} if number == 4 and warm else {}),
        )
    if warm:
        trials = [{"params": {"strength": float(n)}, "values": {"forget_gap": 0.1, "utility": 0.9}} for n in range(3)]
        taken = {"params": {"strength": 1.0}, "ratio": 5, "note": "without old", "trials": trials}
        found = {"ascent": {str(ratio): taken}, "other": {str(ratio): {"params": {}, "ratio": None, "note": "none"}}}
        path = root / name / "study.json"
        write_json(path, {**read_json(path), "warm_start": {"study": "tiny", "key": "abc", "found": found}})
    return root / name


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return planted(tmp_path, "warm", warm=True), planted(tmp_path, "cold", warm=False)


def test_finished_trials_are_read_with_their_objectives(pair: tuple[Path, Path]) -> None:
    """One that collapsed with what it had at its last rung; one that was stopped tells nothing."""
    whole = earlier_trials(pair[1])["ascent"][10]
    gaps = [0.6, 0.4, 0.3, 0.1, 0.009, 0.15]
    assert [one.values for one in whole] == [{"forget_gap": pytest.approx(gap), "utility": 1.0} for gap in gaps]
    study = read(pair[1])
    rung = {"rung": 1, "step": 10, "forget_gap": 0.25, "utility": 0.4}
    for number, changed in ((2, {"state": "collapsed", "rungs": [rung]}), (3, {"state": "stopped", "rungs": [rung]})):
        path = study.folder.record(study.proposals[number].trial)
        write_json(path, {**read_json(path), **changed})
    rest = earlier_trials(pair[1])["ascent"][10]
    assert rest == [*whole[:2], Observation({}, {"forget_gap": 0.25, "utility": 0.4}), *whole[4:]]
    path = study.folder.settings
    found = read_json(path)
    write_json(path, {**found, "settings": {**found["settings"], "robustness": {"attack": "relearning", "key": "a"}}})
    attacked = earlier_trials(pair[1])["ascent"][10]  # the others have not met the attack
    assert attacked == [Observation({}, {"forget_gap": 0.25, "utility": 0.4, "recovery": 1.0})]


def test_what_the_warm_start_bought(pair: tuple[Path, Path]) -> None:
    """The default is 0.6 from the ideal, the earlier winner 0.2, the third all but as near as the winner."""
    ascent, other = bought.table(read(pair[0])).to_dict("records")
    assert (ascent["begins"], other["begins"]) == ("winner of tiny at 5 % (without old)", "cold (none)")
    distances = [ascent[name] for name in ("default_distance", "warm_distance", "gain", "winner_distance")]
    assert distances == pytest.approx([0.6, 0.2, 0.4, 0.0])
    assert (ascent["reached"], ascent["trials"]) == (3, 5)
    assert (ascent["observed"], ascent["told"]) == (3, 2)
    assert (other["observed"], other["told"]) == (0, 0)
    assert pd.isna([other["warm_distance"], other["winner_distance"], other["reached"]]).all()
    assert "cold_reached" not in ascent


def test_against_the_same_search_begun_cold(pair: tuple[Path, Path]) -> None:
    """Which came within 0.01 of the warm winner at its fifth proposal, and which never does for a nearer one."""
    ascent = bought.table(read(*pair)).to_dict("records")[0]
    assert (ascent["cold_reached"], ascent["cold_trials"]) == (5, 6)
    assert ascent["cold_winner_distance"] == pytest.approx(0.009)
    drawn = bought.data(read(*pair)).pivot(index="trials", columns="search", values="distance")
    assert drawn["cold start"].tolist() == pytest.approx([0.6, 0.4, 0.3, 0.1, 0.009, 0.009])
    assert drawn["warm start"].dropna().tolist() == pytest.approx([0.6, 0.2, 0.005, 0.005, 0.0])


def test_a_target_that_was_never_reached_is_told(pair: tuple[Path, Path]) -> None:
    (pair[1] / "search" / "ascent" / "0004.json").unlink()
    study = read(*pair)
    assert pd.isna(bought.table(study)["cold_reached"].iloc[0])
    assert bought.warm_start_table(study, bought.table(study)).shown["cold reached"].tolist()[0] == "n/a"


@pytest.mark.parametrize(
    ("ours", "theirs", "settings", "said"),
    [
        (False, False, {}, "began cold itself; leave --cold out"),
        (True, True, {}, "was itself begun with --warm-start"),
        (True, False, {"seed": 3, "model": "big"}, "model, seed differ"),
    ],
)
def test_only_the_same_study_begun_cold_is_compared(
    ours: bool, theirs: bool, settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    one, two = planted(tmp_path, "warm", warm=ours), planted(tmp_path, "cold", warm=theirs, **settings)
    with pytest.raises(ValueError, match=said):
        report.build(one, two)


@pytest.mark.slow
def test_the_report_shows_it_where_there_was_a_warm_start(pair: tuple[Path, Path]) -> None:
    shown = report.build(*pair).page.read_text(encoding="utf-8")
    assert "Gain from the warm start" in shown
    assert (pair[0] / "report" / "figures" / "warm_start.png").exists()
    assert "warm start bought" not in page_of(pair[1])
