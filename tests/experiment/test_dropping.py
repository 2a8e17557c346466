"""`--keep winners`: whose weights go and when. Records and rows stay; what needs missing weights names the remedy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from study.attacks.relearning import Relearning
from study.core.errors import Damaged
from study.core.hashing import content_key
from study.experiment import attack, checkpoints
from study.experiment import trial as trials
from study.experiment.context import StudyContext
from study.experiment.dropping import beaten, drop_losers, drop_weights
from study.experiment.method_search import MethodSearch
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_ascent import GradientAscent
from study.methods.none import NoMethod
from study.training.schedule import Schedule
from tests.helpers.small import FewQuestions, propose

SHORT = Schedule(steps=2, learning_rate=1e-3, pictures=2, lessons_per_picture=3)
ASCENT = GradientAscent(schedule=SHORT)
VANILLA = Learned("vanilla", "base", "benchmark", None, None, SHORT, ("projector", "llm"), 0)
REFERENCE = replace(VANILLA, kind="reference", goal="visual", ratio=10)


def of(steps: int) -> Trial:
    return Trial(VANILLA, replace(ASCENT, schedule=replace(SHORT, steps=steps)), "visual", 10, 0, "gradient_ascent")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudyContext:
    """Two learned models and their trials as baselines."""
    root = tmp_path_factory.mktemp("study")
    context = StudyContext(root, FewQuestions(), tiny_folder)
    for learned in (VANILLA, REFERENCE):
        learn(context, learned)
        trials.run(context, Trial(learned, NoMethod(), "visual", 10, 0), REFERENCE.key)
    return context


@pytest.fixture
def context(study: StudyContext, tmp_path: Path) -> Iterator[StudyContext]:
    shutil.copytree(study.root, tmp_path / "study")
    checkpoints.evict()
    yield replace(study, root=tmp_path / "study")
    checkpoints.evict()


BEST = 4


# ---- who is beaten -------------------------------------------------------------------------------------------------
def test_the_nearest_to_the_ideal_and_the_default_stay() -> None:
    ended = {of(n): {"forget_gap": n / 20, "utility": 1.0} for n in range(1, BEST + 5)}
    default = of(BEST + 3)
    assert beaten(ended, default, BEST) == [of(BEST + 1), of(BEST + 2), of(BEST + 4)]
    assert beaten({t: ended[t] for t in list(ended)[:BEST]}, default, BEST) == []


def test_where_recovery_is_an_objective_the_whole_front_stays() -> None:
    """Each of them is the best in one objective."""
    ended = {of(n): {"forget_gap": n / 20, "utility": 0.5 + n / 40, "recovery": 0.1} for n in range(1, BEST + 5)}
    assert beaten(ended, of(99), BEST) == []
    worse = {t: {**values, "utility": 0.5} for t, values in ended.items()}
    assert beaten(worse, of(99), BEST) == list(worse)[BEST:]


# ---- what goes and what stays --------------------------------------------------------------------------------------
def test_weights_go_and_nothing_else_and_what_needs_them_says_how_to_get_them(context: StudyContext) -> None:
    asked, folder = of(2), context.folder
    trials.run(context, asked, REFERENCE.key)
    before = {path: path.read_bytes() for path in folder.trial(asked.key).rglob("*") if path.is_file()}
    weights = {folder.delta(asked.key), folder.delta(asked.key).with_suffix(".sha256.json")}
    assert weights <= before.keys()
    drop_weights(folder, asked.key)
    after = {path: path.read_bytes() for path in folder.trial(asked.key).rglob("*") if path.is_file()}
    assert after.keys() == before.keys() - weights | {folder.dropped(asked.key)}
    assert all(after[path] == before[path] for path in before.keys() - weights)
    remedy = (
        f"trial {asked.key} were deleted .* remove the folder .*{asked.key} and run the study again with --keep all"
    )
    attacker = Relearning(score_at=(1,), schedule=SHORT)
    for need in (
        lambda: trials.report(context, asked),
        lambda: attack.try_attack(context, asked, attacker, REFERENCE.key),  # which notes what is a result
    ):
        with pytest.raises(Damaged, match=remedy):
            need()
    assert not folder.attack(asked.key, content_key(attacker)).with_suffix(".json").exists()
    shutil.rmtree(folder.trial(asked.key))
    trials.run(context, asked, REFERENCE.key)
    assert {path: path.read_bytes() for path in weights} == {path: before[path] for path in weights}


def test_in_the_end_winners_and_baselines_have_weights(context: StudyContext) -> None:
    folder = context.folder
    for steps in (1, 2, 3):
        trials.run(context, of(steps), REFERENCE.key)
    drop_losers(folder, {of(2).key})
    has = {path.parent.name: folder.delta(path.parent.name).exists() for path in folder.trial_records()}
    assert has.pop(of(1).key) is False
    assert has.pop(of(3).key) is False
    assert has == dict.fromkeys(has, True)
    assert len(has) == 3  # the winner, vanilla and the reference


@pytest.mark.parametrize("keep", ["all", "winners"])
def test_a_search_deletes_as_it_goes(keep: str, context: StudyContext) -> None:
    baselines = [Trial(learned, NoMethod(), "visual", 10, 0) for learned in (VANILLA, REFERENCE)]
    search = MethodSearch(
        context=context, defaults={"gradient_ascent": ASCENT}, trials=4, ratios=(10,), baselines={10: baselines},
        goal="visual", seed=0, lookahead=1, early_stopping="off", race=1, keep=keep,  # type: ignore[arg-type]
    )  # fmt: skip
    jobs = []
    for number in range(4):
        jobs.append(search.job("gradient_ascent", propose(search, "gradient_ascent", number).params))
        search.execute(jobs[-1], "gradient_ascent", number, 0.0)
    ended = search.outcomes("gradient_ascent")
    assert len(ended) == 4  # a trial without weights is as good as any for the search
    lost = set(beaten(ended, search.default("gradient_ascent", 10), 1)) if keep == "winners" else set()
    assert keep == "all" or lost
    assert {t for t in jobs if not context.folder.delta(t.key).exists()} == lost
