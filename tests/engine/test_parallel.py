"""Several processes teach one model: what they learn is what one process learns, to float rounding."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from study.benchmarks.synthetic import Synthetic
from study.core.errors import Failed
from study.core.files import read_json, write_json
from study.core.layout import StudyFolder
from study.core.terms import PARTS
from study.data.benchmark import Benchmark
from study.engine import cluster
from study.engine.jobs import Job, run_all
from study.engine.sharded_tensors import full_tensor
from study.engine.world import World, sharding, world
from study.experiment import teach
from study.experiment.checkpoints import load_learned
from study.experiment.context import StudyContext
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, lessons_for
from study.model.likelihood import token_logps
from study.model.loading import load
from study.model.packing import logits, pack
from study.model.vlm import VLM
from study.settings import Study
from study.training.lesson_sampler import Lessons
from study.training.loop import Diverged, train
from study.training.schedule import Schedule
from tests.conftest import TWO
from tests.helpers.families import FAMILIES
from tests.helpers.processes import apart, forked, join, spawn
from tests.helpers.small import Given, same_bits, snapshot

# Three pictures on two processes are two and one; a single text group leaves the second process without any.
UNEVEN = Schedule(steps=4, learning_rate=1e-3, pictures=3, lessons_per_picture=3, texts=1, warmup=2, weight_decay=0.01)
VANILLA = Learned("vanilla", "base", "benchmark", None, None, UNEVEN, ("projector", "llm"), 0)
# Adam and a clipped gradient both forget the scale of gradients; only plain descent says whether sums are sums.
CASES = {
    "adamw": VANILLA,
    "sgd": replace(VANILLA, schedule=replace(UNEVEN, optimizer="sgd", learning_rate=0.01, clip=1e9), seed=1),
    "accumulated": replace(VANILLA, schedule=replace(UNEVEN, steps=2, accumulate=2), seed=2),
    "lora": replace(VANILLA, schedule=replace(UNEVEN, lora_rank=2, lora_dropout=0.0, learning_rate=1e-2), seed=3),
}
EVERYTHING = replace(CASES["sgd"], parts=PARTS, seed=5)
SHARDED = {
    "sharded": replace(VANILLA, seed=4),
    "sharded, all parts": EVERYTHING,
    "sharded, lora": replace(CASES["lora"], seed=6),
    "sharded, checkpoint": replace(VANILLA, schedule=replace(UNEVEN, checkpoint=True), seed=7),
}
ALL = {**CASES, **SHARDED}
FURTHER = tuple(name for name in FAMILIES if name not in TWO)
DIVERGING = replace(VANILLA, schedule=replace(UNEVEN, worst_loss=1e-3))


def study_of(root: Path, benchmark: Benchmark, base: Path) -> StudyContext:
    """A study of a benchmark that was read already."""
    return StudyContext(root, Given(benchmark), base)


def process(rank: int, root: Path, port: int, benchmark: Benchmark, base: Path) -> None:
    """What each of two processes does: learn every case, then add up planted gradients; all is kept in a file."""
    join(rank, port)
    context = study_of(root, benchmark, base)
    kept: dict[str, Any] = {}

    def recorded(vlm: VLM, *arguments: Any, **options: Any) -> list[float]:
        curve = train(vlm, *arguments, **options)
        weights = {name: full_tensor(tensor).clone() for name, tensor in vlm.tensors().items()}
        largest = max(tensor.numel() for tensor in map(_held, vlm.tensors().values()))
        kept["last"] = {"curve": curve, "weights": weights, "largest": largest}
        return curve

    teach.train = recorded  # type: ignore[attr-defined]
    for name, learned in ALL.items():
        with sharding(name in SHARDED):
            learn(context, learned)
        kept[name] = kept.pop("last")
    for sharded in (False, True):
        try:
            with sharding(sharded):
                learn(context, DIVERGING)
        except Diverged as error:
            kept[f"diverged {sharded}"] = str(error)
    kept["planted"] = planted(rank)
    kept["told"] = (
        world().broadcast_from_first(lambda: rank),
        world().all_gather_objects(rank),
        world().broadcast_float(rank + 5.0),
    )
    kept["gathered"] = [gathered(rank, dtype) for dtype in (torch.float32, torch.bfloat16)]
    torch.save(kept, root / f"{rank}.pt")
    dist.destroy_process_group()


def shard(rank: int, root: Path, port: int, benchmark: Benchmark, bases: dict[str, Path]) -> None:
    """Let each of two processes learn a model of every family, sharded."""
    join(rank, port)
    for family, base in bases.items():
        with sharding():
            learn(study_of(root / family, benchmark, base), EVERYTHING)
    dist.destroy_process_group()


def planted(rank: int) -> list[Tensor | None]:
    """Averaged gradients of a weight that has one everywhere, on the second process only, and nowhere."""
    weights = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    weights[0].grad = torch.tensor([1.0, 10.0]) * (rank + 1)
    if rank == 1:
        weights[1].grad = torch.tensor([5.0, 7.0])
    return world().average_gradients([weight.grad for weight in weights], weights)


def gathered(rank: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Three rows on the first process and none on the second, and the gradient of the first process's."""
    rows = torch.arange(6.0, dtype=dtype).reshape(3, 2)[: 3 - 3 * rank].requires_grad_()
    (out,) = world().gathered([rows])
    (gradient,) = torch.autograd.grad((out.float() * torch.tensor([[1.0], [2.0], [3.0]])).sum(), rows)
    return out.detach(), gradient


def _held(tensor: Tensor) -> Tensor:
    local: Tensor = getattr(tensor, "to_local", lambda: tensor)()
    return local


@dataclass(frozen=True)
class Both:
    """What one process and what two made of the same cases."""

    one: Path
    two: Path
    ranks: tuple[dict[str, Any], ...]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, benchmark: Benchmark, tiny_folder: Path) -> Both:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    spawn(process, two, benchmark, tiny_folder)
    for learned in ALL.values():
        learn(study_of(one, benchmark, tiny_folder), learned)
    return Both(one, two, tuple(torch.load(two / f"{rank}.pt") for rank in range(2)))


def curve(root: Path, learned: Learned) -> list[float]:
    found: list[float] = read_json(StudyFolder(root).learned(learned.key) / "curve.json")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL)
def test_two_processes_learn_what_one_learns(case: str, both: Both, tiny: VLM) -> None:
    """Adam moves a weight by about the rate whatever its gradient, so rounding may turn one that has none."""
    learned = ALL[case]
    assert curve(both.two, learned) == pytest.approx(curve(both.one, learned), rel=1e-5)
    one, two = (load_learned(root, learned.key) for root in (both.one, both.two))
    assert apart(one.tensors(), two.tensors(), tiny.tensors()) < (1e-4 if learned.schedule.optimizer == "sgd" else 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL)
def test_all_processes_hold_the_same_model(case: str, both: Both) -> None:
    """Bit for bit, and the first keeps just that."""
    first, second = (rank[case] for rank in both.ranks)
    assert first["curve"] == second["curve"] == curve(both.two, ALL[case])
    assert same_bits(first["weights"], second["weights"])
    kept = load_learned(both.two, ALL[case].key).tensors()
    assert same_bits(first["weights"], {name: kept[name] for name in first["weights"]})


@pytest.mark.slow
def test_a_sharded_model_is_spread(both: Both, tiny: VLM) -> None:
    """Row by row: of an odd number of rows one process has one more."""
    tensors = tiny.tensors().values()
    halves = [math.ceil(len(tensor) / 2) * tensor[0].numel() for tensor in tensors]
    assert {rank["adamw"]["largest"] for rank in both.ranks} == {max(tensor.numel() for tensor in tensors)}
    assert max(rank["sharded"]["largest"] for rank in both.ranks) == max(halves)


@pytest.mark.slow
@pytest.mark.parametrize("names", [TWO, pytest.param(FURTHER, marks=pytest.mark.combinations)], ids=["two", "further"])
def test_every_family_can_be_sharded(
    names: Sequence[str], tmp_path: Path, benchmark: Benchmark, family_folders: dict[str, Path]
) -> None:
    """Qwen and Gemma read out with the weights of their embedding."""
    one, two = tmp_path / "one", tmp_path / "two"
    bases = {name: family_folders[name] for name in names}
    spawn(shard, two, benchmark, bases)
    for family, base in bases.items():
        learn(study_of(one / family, benchmark, base), EVERYTHING)
        assert curve(two / family, EVERYTHING) == pytest.approx(curve(one / family, EVERYTHING), rel=1e-5), family
        ours, theirs = (load_learned(root / family, EVERYTHING.key) for root in (one, two))
        assert apart(ours.tensors(), theirs.tensors(), load(base).tensors()) < 1e-3, family


@pytest.mark.slow
def test_all_processes_diverge_at_once(both: Both) -> None:
    for name in ("diverged False", "diverged True"):
        first, second = (rank[name] for rank in both.ranks)
        assert first == second
        assert first.startswith("diverged at step 0: the loss is ")


@pytest.mark.slow
def test_gradients_are_averaged(both: Both) -> None:
    for rank in both.ranks:
        everywhere, second, nowhere = rank["planted"]
        assert everywhere.tolist() == [1.5, 15]
        assert second.tolist() == [2.5, 3.5]
        assert nowhere is None


@pytest.mark.slow
def test_rows_are_gathered_and_gradients_go_back_to_whose_they_are(both: Both) -> None:
    """Times the number of processes, as the average that follows divides by it."""
    for number, rank in enumerate(both.ranks):
        for rows, gradient in rank["gathered"]:
            assert rows.tolist() == [[0, 1], [2, 3], [4, 5]]
            assert gradient.tolist() == [[2, 2], [4, 4], [6, 6]][: 3 - 3 * number]


@pytest.mark.slow
def test_the_first_process_decides(both: Both) -> None:
    assert [rank["told"] for rank in both.ranks] == [(0, [0, 1], 5.0)] * 2


# ---- a world of one ------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_world_of_one_is_the_plain_loop_bit_for_bit(both: Both, tiny: VLM, benchmark: Benchmark) -> None:
    """Batches, losses, clipping and AdamW written out, with nothing of the loop or of worlds in them."""
    drawn, plain = Lessons(lessons_for(VANILLA, benchmark), UNEVEN, VANILLA.seed), list[float]()
    weights = list(tiny.trainable(VANILLA.parts).values())
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.999), weight_decay=0.01)
    tiny.model.train()
    for step in range(UNEVEN.steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, (step + 1) / 2) * (0.03 + 0.97 * (1 - step / 4))
        groups = drawn.draw()
        loss = torch.zeros(())
        for part in ([g for g in groups if g.picture], [g for g in groups if not g.picture]):
            batch = pack(tiny, part)
            loss = loss - token_logps(logits(tiny, batch), batch).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        plain.append(loss.item())
    assert curve(both.one, VANILLA) == plain
    assert same_bits(snapshot(tiny), snapshot(load_learned(both.one, VANILLA.key)))


@given(st.integers(0, 20), st.integers(1, 6))
def test_shares_are_a_partition(items: int, size: int) -> None:
    shares = [World(rank, size).share(range(items)) for rank in range(size)]
    assert sorted(i for share in shares for i in share) == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    blocks = [range(items)[World(rank, size).row_slice(items)] for rank in range(size)]
    assert [i for block in blocks for i in block] == list(range(items))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


# ---- settings ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"gpus_per_trial": 1.5}, "gpus_per_trial=1.5: above 1, a job has one process per GPU"),
        ({"gpus_per_trial": 2, "workers_per_trial": 2}, "set gpus_per_trial=2 and leave workers_per_trial out"),
        ({"workers_per_trial": 0}, "workers_per_trial=0: use at least 1"),
        ({"workers_per_model": -1}, "workers_per_model=-1"),
        ({"workers_per_model": 2, "gpus_per_trial": 0.5}, "each of these processes needs a GPU of its own"),
        ({"sharded": True}, r"set gpus_per_trial \(on the CPU workers_per_trial\) to at least 2, or workers_per_model"),
    ],
)
def test_processes_that_cannot_work_together_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Study(**settings)


# ---- Ray Train -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Torn(Synthetic):
    """A benchmark that the second process cannot read."""

    def __call__(self, folder: Path) -> Benchmark:
        if dist.is_initialized() and dist.get_rank() == 1:
            raise ValueError("the second process cannot read this")
        return super().__call__(folder)


@dataclass(frozen=True)
class OnRay:
    """What two workers of a private Ray taught in one study, and what ended their work in another."""

    sound: Path
    torn: Path
    failed: str
    workers: tuple[int, int]
    """The processes of a job before, and of one after it."""


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> OnRay:
    """All in a process of its own: Ray reads once in a process whether it is to ask for a token."""
    sound, torn = (tmp_path_factory.mktemp(name) for name in ("sound", "torn"))
    contexts = (StudyContext(root, source(people=20, celebrities=8, views=2, strangers=8), tiny_folder)
               for root, source in ((sound, Synthetic), (torn, Torn)))  # fmt: skip
    with ProcessPoolExecutor(1, mp_context=forked()) as pool:
        return OnRay(sound, torn, *pool.submit(_teach, *contexts).result())


def _teach(sound: StudyContext, torn: StudyContext) -> tuple[str, tuple[int, int]]:
    with cluster.started("local", 2, 1, preloaded="study.stages.worker_template"):
        from study.stages.learn import learn_all

        def learned(context: StudyContext, models: Sequence[Learned]) -> None:
            learn_all(context, models, workers=2, cpus=1.0, gpus=0.0, on_progress=lambda *_: None, together=True)

        first = _process_of_a_job(sound.folder)
        learned(sound, [CASES["adamw"], CASES["sgd"]])
        try:
            learned(torn, [VANILLA])
        except Failed as error:
            return str(error), (first, _process_of_a_job(sound.folder))
        return "", (first, first)


def _process_of_a_job(folder: StudyFolder) -> int:
    run_all([Job("", _note_process, (folder.root / "process.json",))], lambda *_: None, at_once=1, gpus=0)
    return int(read_json(folder.root / "process.json"))


def _note_process(place: Path) -> None:
    write_json(place, os.getpid())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray warns of its own settings when it is imported
def test_two_workers_of_ray_teach_models_one_after_another(both: Both, on_ray: OnRay) -> None:
    for learned in (CASES["adamw"], CASES["sgd"]):
        assert curve(on_ray.sound, learned) == curve(both.two, learned)
        load_learned(on_ray.sound, learned.key)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_fails_in_one_worker_fails_the_run(on_ray: OnRay) -> None:
    assert re.match("learning: bug: ValueError: the second process cannot read this", on_ray.failed)
    assert not (StudyFolder(on_ray.torn).learned(VANILLA.key) / "learned.json").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_waits_for_the_next_stage(on_ray: OnRay) -> None:
    """Although the workers that taught meanwhile were more than Ray keeps without a job."""
    before, after = on_ray.workers
    assert before == after
