"""Several processes do a trial together: it is the trial that one process does, to float rounding."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from study.attacks.relearning import Relearning
from study.contracts import Method
from study.core import files
from study.core.failures import Failure
from study.core.files import read_json, silent
from study.core.hashing import Json, content_key
from study.core.layout import record_beside
from study.core.plugins import find, known
from study.core.records import to_json
from study.core.rows import read_rows
from study.engine import cluster
from study.engine import jobs as ray_jobs
from study.engine.microbatches import DoesNotFit, MicroBatching, RestartFiner, retry_on_oom
from study.engine.world import sharding
from study.experiment import attack as attacking
from study.experiment import checkpoints, trial
from study.experiment.context import StudyContext
from study.experiment.sequential import run_sequential
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, Trial
from study.methods.gradient_difference import GradientDifference
from study.methods.none import NoMethod
from study.model import tensor_files
from study.model.adapter import adapters_in, weight_of
from study.model.loading import load
from study.model.tensor_files import load_tensors
from study.stages import winners
from study.training import loop
from tests.helpers.families import FAMILIES
from tests.helpers.processes import apart, forked, join, spawn
from tests.helpers.small import QUICK, FewQuestions, quick, same_bits

# Plain descent: Adam would make a step of the rate out of a gradient that is rounding alone.
PLAIN = replace(QUICK, optimizer="sgd", learning_rate=0.02, pictures=3)
VANILLA = Learned("vanilla", "base", "benchmark", None, None, QUICK, ("projector", "llm"), 0)
REFERENCE = replace(VANILLA, kind="reference", goal="visual", ratio=10)
RELEARNING = Relearning(score_at=(2,), schedule=PLAIN)
SOURCE = FewQuestions()
Spread = Literal["whole", "sharded"]
"""Whether each of two processes holds the whole model, or a part of it."""


def merged(kept: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that a stored delta makes of those that it starts from."""
    found = {name: tensor for name, tensor in kept.items() if weight_of(name) == name}
    for name, adapter in adapters_in(kept).items():
        found[name] = start[name].clone()
        adapter.merge_into(found[name])
    return found


def methods() -> dict[str, Method]:
    """Every method, and what is particular to some."""
    found: dict[str, Any] = {name: quick(find("methods", name)(), PLAIN) for name in known("methods")}
    found["rmu"] = replace(found["rmu"], layer=1)
    found["vkd, features"] = quick(find("methods", "vkd")(variant="features"), PLAIN)
    found["vkd, neurons"] = replace(found["vkd"], neurons="pruned")
    found["mmunlearner, released"] = replace(found["mmunlearner"], variant="released")
    found["vkd, pruned"] = replace(found["vkd"], teacher="pruned")
    found["vkd, no mask"] = replace(found["vkd"], saliency_threshold=0.0)
    found["adapters"] = quick(GradientDifference(), replace(PLAIN, lora_rank=2, lora_dropout=0.0))
    return found


METHODS = methods()
BAD: dict[str, Method] = {
    "impossible": replace(METHODS["rmu"], layer=99),  # type: ignore[type-var]
    "diverging": quick(METHODS["npo"], replace(PLAIN, worst_loss=1e-9)),
}
"""They end before and within a step; what is done after them is done right."""

# One picture and one text a step: of two processes one has the picture, and no gradient of the LLM's text rows.
ONE_OF_EACH = replace(PLAIN, pictures=1, texts=1)
METHODS |= {
    f"{name}, apart": quick(METHODS[name], ONE_OF_EACH) for name in ("mmunlearner, released", "gradient_difference")
}
METHODS |= {
    f"{'+'.join(parts)}, apart": quick(METHODS["gradient_difference"], ONE_OF_EACH, trains=parts)
    for parts in (("vision", "projector"), ("projector",))
}


def of(name: str) -> Trial:
    return Trial(VANILLA, {**METHODS, **BAD}[name], "full" if name.endswith("apart") else "visual", 10, 0, name)


def attacks() -> dict[str, Any]:
    """Every attack, in short."""
    found: dict[str, Any] = {name: quick(find("attacks", name)(), PLAIN) for name in known("attacks")}
    found["relearning"] = RELEARNING
    found["swap_back, head"] = replace(found["swap_back"], head=True)
    found["pruning, global"] = replace(found["pruning"], scope="global")
    found["probe, llm"] = replace(found["probe"], where="llm")
    return found


ATTACKS = attacks()


def victim(attack: str) -> Trial:
    """Whom an attack is tried on."""
    return of("adapters" if attack == "adapter_scaling" else "vkd")


ASKING = ("figstep", "image_transform", "in_context", "jailbreak", "name_hint", "nothing", "prefill", "second_turn",
          "typographic")  # fmt: skip
"""Attacks that ask otherwise, as "paraphrase" does, and leave sharing the questions to the scorer."""
LOSSES = ("gradient_ascent", "gradient_difference", "kl_minimization", "satimp", "simnpo", "undial", "wga",
          "preference_optimization")  # fmt: skip
"""Methods that leave all to the training loop, as "npo" does."""
WHOLE = ("npo", "vkd", "mmunlearner", "mmunlearner, released", "gradient_difference, apart", "manu", "adapters",
         "relearning", "adapter_scaling", "pruning, global")  # fmt: skip
"""One of each kind: a loss, features, masks, gradients that one process has none of, no training, adapters; an attack
that trains, and two that change weights."""
NAMES = (*METHODS, *ATTACKS)
FIRST: dict[Spread, tuple[str, ...]] = {
    "whole": tuple(name for name in NAMES if name in WHOLE),
    "sharded": tuple(name for name in NAMES if name not in (*ASKING, *LOSSES)),
}
"""What is done first; what is left for `rest` repeats it. Always in the order of `NAMES`: what trials share is counted
as the work of the first."""


def done(context: StudyContext, names: Iterable[str]) -> None:
    """Some methods and attacks, each only once."""
    for name in names:
        if name in ATTACKS:
            attacking.attack_trial(context, victim(name), ATTACKS[name], REFERENCE.key)
        else:
            trial.run(context, of(name), REFERENCE.key)


def around(context: StudyContext) -> None:
    """What is done besides: scores of the test half, requests in turn, and trials that end badly."""
    done(context, BAD)
    trial.report(context, of("vkd"), blind=True)
    winners._score(context, of("vkd"))
    run_sequential(context, of("npo"), 2, REFERENCE.key)


@contextmanager
def one_of_two(rank: int, port: int, sharded: bool) -> Iterator[None]:
    """The second of two processes may write no file."""
    join(rank, port)
    with sharding(sharded), pytest.MonkeyPatch.context() as patch:
        if rank:
            for module in (files, tensor_files):
                patch.setattr(module, "written", _never)
        with nullcontext() if rank == 0 else silent():
            yield
    dist.destroy_process_group()


def left(team: Spread) -> list[str]:
    return [name for name in NAMES if name not in FIRST[team]]


def rest(rank: int, root: Path, port: int, context: StudyContext, team: Spread) -> None:
    """What each of two processes does that was left."""
    with one_of_two(rank, port, team == "sharded"):
        done(replace(context, root=root), left(team))


def member(rank: int, root: Path, port: int, context: StudyContext, team: Spread) -> None:
    """What each of two processes does first."""
    with one_of_two(rank, port, team == "sharded"):
        here = replace(context, root=root)
        done(here, FIRST[team])
        around(here)
        try:
            retry_on_oom(_short, lambda: "a lot")
        except (DoesNotFit, RestartFiner) as error:
            (root / f"{rank}.txt").write_text(str(error))
        with pytest.MonkeyPatch.context() as patch:
            if rank == 1:
                patch.setattr(loop, "_step", _no_memory)
            try:
                with silent():
                    trial.run(here, replace(of("npo"), seed=1), REFERENCE.key)
            except (DoesNotFit, RestartFiner, RuntimeError) as error:  # the other is told when this one has gone
                (root / f"{rank} alone.txt").write_text(f"{type(error).__name__} {error}")


def _never(path: Path) -> None:
    raise AssertionError(f"{path} is the first process's to write")


def _no_memory(*_: Any) -> float:
    raise torch.OutOfMemoryError("too little")


def _short(chunks: MicroBatching) -> None:
    chunks.rows = 4
    raise torch.OutOfMemoryError("too little")


@dataclass(frozen=True)
class Both:
    """The same study by one process, and by two, of which each may hold but a part of the model."""

    one: StudyContext
    two: StudyContext
    sharded: StudyContext

    def by(self, team: Spread) -> StudyContext:
        """What two processes made."""
        return self.sharded if team == "sharded" else self.two


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Both:
    one, two, sharded = (tmp_path_factory.mktemp("teams") / name for name in ("one", "two", "sharded"))
    context = StudyContext(one, SOURCE, tiny_folder)
    for learned in (VANILLA, REFERENCE):
        learn(context, learned)
    teams: dict[Spread, Path] = {"whole": two, "sharded": sharded}
    for team, root in teams.items():
        shutil.copytree(one, root)
        spawn(member, root, context, team)
    done(context, FIRST["sharded"])
    around(context)
    checkpoints.evict()
    return Both(context, replace(context, root=two), replace(context, root=sharded))


@pytest.fixture(scope="module")
def everything(both: Both) -> Both:
    """With what was left."""
    for team in FIRST:
        spawn(rest, both.by(team).root, both.one, team)
        done(both.one, left(team))
    checkpoints.evict()
    return both


@pytest.fixture
def taken(request: pytest.FixtureRequest) -> Both:
    """What a test that `cases` parametrises looks at."""
    asked = request.node.callspec.params
    found: Both = request.getfixturevalue("both" if asked["name"] in FIRST[asked["team"]] else "everything")
    return found


def cases(names: Iterable[str]) -> list[Any]:
    """Teams and names; what is left after `FIRST` repeats that for another name."""
    return [
        pytest.param(team, name, marks=() if name in first else pytest.mark.combinations)
        for name in names
        for team, first in FIRST.items()
    ]


@pytest.fixture(params=["whole", "sharded"])
def team(request: pytest.FixtureRequest, both: Both) -> StudyContext:
    """What two processes made."""
    return both.by(request.param)


@pytest.mark.slow
@pytest.mark.parametrize(("team", "name"), cases(METHODS))
def test_two_processes_unlearn_what_one_unlearns(team: Spread, name: str, taken: Both) -> None:
    one, two = taken.one, taken.by(team)
    records = [read_json(context.folder.record(of(name).key)) for context in (one, two)]
    assert [record["state"] for record in records] == ["complete"] * 2, records
    kept = [load_tensors(b.folder.trial(of(name).key) / "delta.safetensors") for b in (one, two)]
    start = load(one.folder.learned(VANILLA.key) / "model").tensors()
    assert kept[0].keys() == kept[1].keys()
    assert (name == "adapters") == any(".lora_" in tensor for tensor in kept[0])
    if kept[0]:
        first, second = (merged(delta, start) for delta in kept)
        assert apart(first, second, {tensor: start[tensor] for tensor in first}) < 1e-3
    rows, theirs = (read_rows(b.folder.rows(of(name).key, "select")) for b in (one, two))
    assert theirs["question"].tolist() == rows["question"].tolist()
    assert (theirs["likelihood"] - rows["likelihood"]).abs().max(skipna=False) < 1e-4
    alone, together = (record["cost"] for record in records)
    assert alone["images"] == together["images"]
    # Some rows are computed by both; one that leads to nothing that is trained has no way back when it is alone.
    assert alone["unlearn_flops"] / 2 <= together["unlearn_flops"] <= 2 * alone["unlearn_flops"]


@pytest.mark.slow
def test_what_cannot_be_done_is_told_alike(both: Both, team: StudyContext) -> None:
    for name, state in (("impossible", "failed"), ("diverging", "diverged")):
        one, two = (read_json(context.folder.record(of(name).key)) for context in (both.one, team))
        assert one["state"] == two["state"] == state
        assert one["reason"] == two["reason"]


@pytest.mark.slow
def test_what_one_process_alone_cannot_do_is_told_at_once(both: Both) -> None:
    """It does not wait for the others to put the model back together."""
    first, second = ((both.sharded.root / f"{rank} alone.txt").read_text() for rank in range(2))
    assert second.startswith("DoesNotFit out of memory with one row at a time (too little). Calculated requirement")
    assert first.startswith("RuntimeError")
    assert (both.two.root / "1 alone.txt").read_text().startswith("DoesNotFit")


@pytest.mark.slow
def test_two_processes_serve_requests_in_turn_as_one_does(both: Both, team: StudyContext) -> None:
    _alike(*(read_rows(context.folder.sequence(of("npo").key, 2)) for context in (both.one, team)))


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["report", "blind", "released"])
def test_two_processes_score_as_one_does(rows: str, both: Both, team: StudyContext) -> None:
    _alike(*(read_rows(context.folder.rows(of("vkd").key, rows)) for context in (both.one, team)))


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["report", "released"])
def test_the_work_of_both_processes_is_noted(rows: str, both: Both, team: StudyContext) -> None:
    paths = (record_beside(context.folder.rows(of("vkd").key, rows)) for context in (both.one, team))
    alone, together = (read_json(path)["images"] for path in paths)
    assert alone == together > 0


@pytest.mark.slow
@pytest.mark.parametrize(("team", "name"), cases(ATTACKS))
def test_two_processes_attack_as_one_does(team: Spread, name: str, taken: Both) -> None:
    key, attack = victim(name).key, content_key(ATTACKS[name])
    _alike(*(read_rows(context.folder.attack(key, attack)) for context in (taken.one, taken.by(team))))


def _alike(one: pd.DataFrame, two: pd.DataFrame) -> None:
    assert two[["question", "step"]].equals(one[["question", "step"]])
    for number, most in (("likelihood", 1e-6), ("probability", 1e-5), ("score", 1e-6)):
        gap = (two[number] - one[number]).abs()
        assert two[number].isna().equals(one[number].isna()), number  # the released protocol has no likelihood
        assert (gap > most).mean() < 0.01, number  # two replies may be equally likely to the last bit
    assert (two["reply"] == one["reply"]).mean() > 0.99


@pytest.mark.slow
def test_a_process_among_several_does_not_start_anew_alone(both: Both) -> None:
    for rank in range(2):
        whole, sharded = ((context.root / f"{rank}.txt").read_text() for context in (both.two, both.sharded))
        assert whole == "out of memory (too little): to be restarted with 2 micro-batches"
        assert sharded.startswith(
            "out of memory (too little). Calculated requirement, for the whole of a sharded model:"
        )


# ---- of every family, spread ---------------------------------------------------------------------------------------
FAMILY_METHODS = ("vkd, no mask", "adapters")
TIED = ("qwen2_5_vl",)
"""Read out with the weights of its embedding, which are sharded once; what else differs is where the parts are."""
OTHERS = tuple(name for name in FAMILIES if name not in TIED)
"""LLaVA is unlearned above, and `test_parallel.py` shards the teaching of all."""


def unlearned(context: StudyContext, bases: dict[str, Path]) -> None:
    """Every family by what trains parts of it, compares it with a copy and changes its LLM."""
    for family, base in bases.items():
        for name in FAMILY_METHODS:
            trial.run(replace(context, root=context.root / family, base=base), of(name), REFERENCE.key)


def spread_member(rank: int, root: Path, port: int, context: StudyContext, bases: dict[str, Path]) -> None:
    """What each of two processes does."""
    join(rank, port)
    with sharding(), nullcontext() if rank == 0 else silent():
        unlearned(replace(context, root=root), bases)
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("families", [TIED, pytest.param(OTHERS, marks=pytest.mark.combinations)], ids="+".join)
def test_every_family_is_unlearned_sharded_as_whole(
    families: Sequence[str], tmp_path: Path, family_folders: dict[str, Path]
) -> None:
    bases = {family: family_folders[family] for family in families}
    # Each family is its own base: that of the context is replaced before anything is learned.
    one, two = (StudyContext(tmp_path / name, SOURCE, tmp_path) for name in ("one", "two"))
    for family, base in bases.items():
        learn(replace(one, root=one.root / family, base=base), VANILLA)
    shutil.copytree(one.root, two.root)
    spawn(spread_member, two.root, one, bases)
    unlearned(one, bases)
    checkpoints.evict()
    for family in bases:
        start = load(one.root / family / "learned" / VANILLA.key / "model").tensors()
        for name in FAMILY_METHODS:
            kept = [
                load_tensors(context.root / family / "trials" / of(name).key / "delta.safetensors")
                for context in (one, two)
            ]
            assert kept[0].keys() == kept[1].keys(), (family, name)
            alone, together = (merged(delta, start) for delta in kept)
            assert apart(alone, together, {tensor: start[tensor] for tensor in alone}) < 1e-3, (family, name)


# ---- on Ray --------------------------------------------------------------------------------------------------------
def _recorded(context: StudyContext, asked: Trial, reference: str) -> Json:
    """A trial's record as it is written: what a team returns is JSON."""
    return to_json(trial.run(context, asked, reference))


@dataclass(frozen=True)
class OnRay:
    """What teams of a private Ray did, and the study that they did it in."""

    context: StudyContext
    record: Any
    fitted: Any
    failed: str
    told: list[str]


@pytest.fixture(scope="module")
def on_ray(both: Both, tmp_path_factory: pytest.TempPathFactory) -> OnRay:
    """All in a process of its own: Ray reads once in a process whether it is to ask for a token."""
    root = tmp_path_factory.mktemp("ray") / "study"
    shutil.copytree(both.one.root, root, ignore=lambda *_: ["trials", "cache"])
    context = replace(both.one, root=root)
    with ProcessPoolExecutor(1, mp_context=forked()) as pool:
        return pool.submit(_led, context).result()


def _led(context: StudyContext) -> OnRay:
    with cluster.started("local", 3, 1, preloaded="study.stages.worker_template"):
        from study.engine.team import Team, run_on_team

        team = Team(2, False, context.root / "ray")
        record = run_on_team(_recorded, (context, of("npo"), REFERENCE.key), replace(team, sharded=True))
        fitted, failed = run_on_team(_fits_in_halves, (), team), ""
        try:
            run_on_team(_fails, (), team)
        except RuntimeError as error:
            failed = str(error)
        return OnRay(context, record, fitted, failed, _searched(context))


def _fits_in_halves() -> int:
    """The second process has memory for half of the rows."""

    def attempt(chunks: MicroBatching) -> int:
        chunks.rows = 8
        if dist.get_rank() == 1 and chunks.count == 1:
            raise torch.OutOfMemoryError("too little")
        return chunks.count

    return retry_on_oom(attempt, lambda: "a lot")


def _fails() -> None:
    if dist.get_rank() == 1:
        raise ValueError("the second process cannot do this")
    dist.barrier()


def _searched(context: StudyContext) -> list[str]:
    """Two proposals of a search, each done by a team in a worker of Tune that is used again."""
    from study.engine.team import Team
    from study.engine.tune_runner import tune_search
    from study.experiment.method_search import MethodSearch

    yardsticks = [Trial(start, NoMethod(), "visual", 10, 0) for start in (VANILLA, REFERENCE)]
    for yardstick in yardsticks:
        trial.run(context, yardstick, REFERENCE.key)
    search = MethodSearch(
        context=context, defaults={"gradient_ascent": METHODS["gradient_ascent"]}, trials=2, ratios=(10,),
        baselines={10: yardsticks}, goal="visual", seed=0, lookahead=1, startup_trials=2,
    )  # fmt: skip
    told: list[str] = []
    logs = context.root / "ray"
    tell = lambda text, jobs: told.append(text)  # noqa: E731
    tune_search(search, at_once=1, gpus=0, logs=logs, tell=tell, team=Team(2, False, logs))
    return told


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray warns of its own settings when it is imported
def test_a_team_of_ray_does_a_trial_and_tells_its_result(both: Both, on_ray: OnRay) -> None:
    folder, key = on_ray.context.folder, of("npo").key
    assert on_ray.record == read_json(folder.record(key))
    expected, found = (load_tensors(f.trial(key) / "delta.safetensors") for f in (both.sharded.folder, folder))
    assert expected
    assert same_bits(found, expected)
    assert not list((on_ray.context.root / "ray").glob("team-*"))  # not even of a job that failed or began anew


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_search_is_done_by_teams(on_ray: OnRay) -> None:
    root, told = on_ray.context.root, on_ray.told
    assert len(told) == 2
    assert all("forget_gap 0." in line and "utility" in line for line in told)
    records = [read_json(path) for path in root.glob("trials/*/trial.json")]
    ran = [record for record in records if record["method"] == "gradient_ascent"]
    assert [(record["state"], record["processes"]) for record in ran] == [("complete", 2)] * 2
    assert not [path for path in (root / "ray").iterdir() if path.name.startswith("team-")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_team_of_which_one_runs_out_of_memory_starts_anew_in_chunks(on_ray: OnRay) -> None:
    assert on_ray.fitted == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_fails_in_one_of_a_team_fails_the_job(on_ray: OnRay) -> None:
    assert "the second process cannot do this" in on_ray.failed


def _noted(folder: Path, name: str) -> None:
    """Note which process does a job; the first time, one of the jobs takes its process with it."""
    if name == "b" and not (folder / "died").exists():
        (folder / "died").touch()
        os._exit(1)
    (folder / name).write_text(str(os.getpid()))


def _all(folder: Path, gpus: int) -> dict[str, Failure]:
    import ray

    ray.init(num_cpus=1, num_gpus=gpus, include_dashboard=False, log_to_driver=False)  # it does not look for the GPU
    jobs = [ray_jobs.Job(name, _noted, (folder, name)) for name in "abcd"]
    return ray_jobs.run_all(jobs, lambda job, error: None, at_once=2, gpus=gpus)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("gpus", [0, 1])
def test_jobs_that_are_more_than_fit_at_once_all_end(gpus: int, tmp_path: Path) -> None:
    """Two are asked for and one fits: the other's worker starts when the first one goes. One dies on the way."""
    with ProcessPoolExecutor(1, mp_context=forked()) as pool:
        assert pool.submit(_all, tmp_path, gpus).result(timeout=300) == {}
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", "d", "died"}
    assert len({(tmp_path / name).read_text() for name in "abcd"}) < 4  # a worker does one job after another
