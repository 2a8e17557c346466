"""An LLM held in codes: what it says is what rounded numbers say, and nothing changes it or pretends to."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from study import doctor
from study.attacks.adapter_scaling import AdapterScaling
from study.attacks.chain import Chain
from study.attacks.interpolation import Interpolation
from study.attacks.pruning import Pruning
from study.attacks.quantization import Quantization
from study.attacks.relearning import Relearning
from study.attacks.swap_back import SwapBack
from study.base_models.hf import Hf
from study.contracts import Attack, Request
from study.core.console import console
from study.core.errors import Refused
from study.core.files import read_json, write_json
from study.core.hashing import content_key
from study.core.plugins import find, known, name_of
from study.core.rows import read_rows
from study.core.terms import PARTS, Codes, Dtype, Part, Quantized
from study.data.benchmark import Benchmark
from study.evaluation.scoring import score
from study.experiment import attack as attacking
from study.experiment import checkpoints, smoke_test
from study.experiment import trial as trials
from study.experiment.checkpoints import load_learned, save
from study.experiment.context import StudyContext
from study.experiment.teach import learn
from study.experiment.trial_spec import Learned, Trial
from study.export import export
from study.methods.gradient_difference import GradientDifference
from study.methods.none import NoMethod
from study.methods.prompting import Prompting
from study.methods.rmu import RMU
from study.methods.visual_anchor import VisualAnchor
from study.methods.vkd import VKD
from study.model.delta import apply_delta, delta
from study.model.flop_counter import counted
from study.model.likelihood import cross_entropy
from study.model.loading import Loading, load, without_weights
from study.model.memory_estimate import GIB, estimates, shape
from study.model.packing import logits, pack
from study.model.quantization import QuantizedLinear
from study.model.tensor_files import load_tensors
from study.model.vlm import VLM
from study.presets import PRESETS
from study.settings import Study
from study.stages.meta_evaluation import states
from study.stages.plan import identity_of
from study.stages.preflight import validate_study
from study.training.lesson_sampler import Lessons
from study.training.schedule import Schedule
from tests.cost.llava import llava
from tests.helpers.families import FAMILIES
from tests.helpers.processes import apart, join, spawn
from tests.helpers.small import QUICK, FewQuestions, changed, quick, request_on, same_bits, snapshot, variants
from tests.helpers.studies import searching
from tests.helpers.study_path import UNLIMITED

CODES: tuple[Codes, ...] = ("int8", "nf4")
WAYS: tuple[Quantized, ...] = ("", *CODES)
VISUAL: tuple[Part, ...] = ("vision", "projector")
TAUGHT = Schedule(steps=2, learning_rate=1e-3, pictures=2, texts=1)
SHORT = Schedule(steps=2, learning_rate=1e-3, pictures=2, lessons_per_picture=2)
VANILLA = Learned("vanilla", "base", "benchmark", None, None, TAUGHT, ("projector", "llm"), 0)
REFERENCE = replace(VANILLA, kind="reference", goal="visual", ratio=10)


def layer(rows: int = 6, columns: int = 50, *, bias: bool = True, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(columns, rows, bias=bias, dtype=dtype).requires_grad_(False)


def codes(vlm: VLM) -> dict[str, Tensor]:
    """What the LLM is held in."""
    found = {name: t for name, t in snapshot(vlm).items() if name.endswith((".codes", ".scales"))}
    assert {name.rpartition(".")[2] for name in found} == {"codes", "scales"}
    return found


def rounded(folder: Path, dtype: Dtype, format: Codes) -> VLM:
    """The model as numbers, its LLM rounded by the attack."""
    vlm = load(folder, loading=Loading(dtype))
    for module in vlm.linear(("llm",)).values():
        module.weight.copy_(Quantization(format).rounded(module.weight))
    return vlm


@pytest.fixture
def held(tiny_folder: Path) -> VLM:
    return load(tiny_folder, loading=Loading(quantized="int8"))


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    request = request_on(benchmark, tmp_path / "cache", tiny_folder)

    def loaded() -> VLM:
        return load(tiny_folder, loading=Loading(quantized="int8"))

    return replace(request, base=loaded, reference=loaded, start=lambda: loaded().tensors())


# ---- one layer -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("format", CODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(6, 50), (4, 64), (1, 3)])
def test_codes_stand_for_what_the_attack_rounds_to(rows: int, columns: int, dtype: torch.dtype, format: Codes) -> None:
    plain = layer(rows, columns, dtype=dtype)
    plain.weight[0] = 0  # a group without a largest weight
    found = QuantizedLinear(plain, format)
    assert same_bits({"": found.held()}, {"": Quantization(format).rounded(plain.weight)})
    assert found.codes.nbytes == (rows * columns if format == "int8" else 32 * -(-rows * columns // 64))
    assert {name for name, _ in found.named_parameters()} == {"bias"}
    assert (found.in_features, found.out_features) == (columns, rows)


@pytest.mark.parametrize("format", CODES)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_reach_what_it_is_given_and_no_weight_is_kept(format: Codes, bias: bool) -> None:
    plain = layer(bias=bias)
    found, kept = QuantizedLinear(plain, format), list[Tensor]()
    plain.weight.copy_(found.held())
    one = torch.randn(2, 3, 50).requires_grad_()
    other = one.detach().clone().requires_grad_()
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):  # type: ignore[func-returns-value]
        said = found(one)
    assert not [tensor for tensor in kept if tensor.numel() >= plain.weight.numel() and tensor.is_floating_point()]
    assert torch.equal(said, plain(other))
    slope = torch.randn_like(said)
    said.backward(slope)
    plain(other).backward(slope)
    assert one.grad is not None
    assert other.grad is not None
    assert torch.allclose(one.grad, other.grad, atol=1e-6)
    assert torch.autograd.gradcheck(found, torch.randn(3, 50, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_computes_in_bfloat16_as_it_does_for_a_linear_layer(dtype: torch.dtype) -> None:
    plain = layer(dtype=dtype)
    found = QuantizedLinear(plain, "int8")
    plain.weight.copy_(found.held())
    one = torch.randn(4, 50).requires_grad_()
    other = one.detach().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        said, wanted = found(one), plain(other)
    assert said.dtype == torch.bfloat16
    assert torch.equal(said, wanted)
    said.sum().backward()
    wanted.sum().backward()
    assert one.grad is not None
    assert other.grad is not None
    assert one.grad.dtype == torch.float32
    assert torch.allclose(one.grad, other.grad, atol=1e-2)


# ---- a model ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "format"), [("float32", "nf4"), ("bfloat16", "int8")])
def test_a_family_says_what_its_rounded_numbers_say(
    family: str, dtype: Dtype, format: Codes, family_folders: dict[str, Path]
) -> None:
    """Bit for bit, and all linear layers of the LLM are held in codes, but for the head."""
    folder, group = family_folders[family], smoke_test.of_nobody()
    found, wanted = load(folder, loading=Loading(dtype, quantized=format)), rounded(folder, dtype, format)
    held = {name for name, module in found.model.named_modules() if isinstance(module, QuantizedLinear)}
    assert held == set(wanted.linear(("llm",)))
    assert all(name.startswith(found.prefixes["llm"]) for name in held)
    assert (found.quantized, wanted.quantized) == (format, "")
    with torch.no_grad():
        assert torch.equal(logits(found, pack(found, [group])), logits(wanted, pack(wanted, [group])))
    left = set(wanted.tensors()) - {f"{name}.weight" for name in held}
    assert set(found.tensors()) == left
    assert same_bits(found.tensors(), {name: tensor for name, tensor in wanted.tensors().items() if name in left})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("format", CODES)
def test_a_gpu_makes_the_same_codes_and_numbers_of_them(format: Codes, tiny_folder: Path) -> None:
    here, there = (load(tiny_folder, device, Loading(quantized=format)) for device in ("cpu", "cuda"))
    assert same_bits(codes(here), {name: tensor.cpu() for name, tensor in codes(there).items()})
    for ours, theirs in zip(here.model.modules(), there.model.modules(), strict=True):
        if isinstance(ours, QuantizedLinear) and isinstance(theirs, QuantizedLinear):
            assert same_bits({"": ours.held()}, {"": theirs.held().cpu()})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_tower_gets_the_gradient_that_rounded_numbers_give_it(
    precision: str, tiny_folder: Path, benchmark: Benchmark
) -> None:
    groups = Lessons(benchmark.split(10).lessons, SHORT, 0).draw()
    found = []
    for vlm in (load(tiny_folder, loading=Loading(quantized="nf4")), rounded(tiny_folder, "float32", "nf4")):
        weights = vlm.trainable(VISUAL)
        for weight in weights.values():
            weight.requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = cross_entropy(vlm, pack(vlm, groups))
        found.append(torch.autograd.grad(loss, list(weights.values()), allow_unused=True))
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert torch.equal(ours, theirs)


def test_copies_share_the_codes(held: VLM) -> None:
    ours, theirs = (dict(vlm.model.named_buffers()) for vlm in (held, held.frozen_copy(VISUAL)))
    assert all(ours[name] is theirs[name] for name in codes(held))


def test_its_operations_are_counted_like_those_of_numbers(held: VLM, tiny: VLM) -> None:
    work = []
    for vlm in (held, tiny):
        with counted(vlm) as done, torch.no_grad():
            logits(vlm, pack(vlm, [smoke_test.of_nobody()]))
        work.append(done)
    assert work[0] == work[1]


# ---- a study's models ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[StudyContext]:
    """A study that has learned its models, to be loaded in int8."""
    root = tmp_path_factory.mktemp("study")
    source = FewQuestions()
    context = StudyContext(root, source, tiny_folder, loading=Loading(quantized="int8"))
    for learned in (VANILLA, REFERENCE):
        learn(context, learned)
    checkpoints.evict()
    yield context
    checkpoints.evict()


def test_learning_is_not_quantised_and_what_comes_after_is(
    context: StudyContext, tmp_path: Path, tiny_folder: Path
) -> None:
    learn(replace(context, root=tmp_path, loading=Loading()), VANILLA)
    plain, taught = load_learned(tmp_path, VANILLA.key), load_learned(context.root, VANILLA.key, as_taught=True)
    assert same_bits(snapshot(plain), snapshot(taught))
    assert read_json(context.folder.learned(VANILLA.key) / "learned.json")["quantized"] == "int8"
    request = context.request(Trial(VANILLA, NoMethod(), "visual", 10, 0), REFERENCE.key)
    assert (request.base().quantized, request.reference().quantized) == ("", "int8")  # of the base, tensors are taken
    held = checkpoints.cached(context.root, VANILLA.key, "cpu")
    assert held.vlm.quantized == "int8"
    assert same_bits(held.weights, held.vlm.tensors())


def test_a_study_from_before_there_were_codes_is_loaded_as_numbers(context: StudyContext, tmp_path: Path) -> None:
    learn(replace(context, root=tmp_path, loading=Loading()), VANILLA)
    record = tmp_path / "learned" / VANILLA.key / "learned.json"
    write_json(record, {name: value for name, value in read_json(record).items() if name != "quantized"})
    assert load_learned(tmp_path, VANILLA.key).quantized == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        VKD(schedule=SHORT),
        VKD(saliency_threshold=0.0, schedule=replace(SHORT, lora_rank=2, precision="bfloat16")),
        GradientDifference(trains=VISUAL, schedule=SHORT),
    ],
)
def test_a_trial_leaves_every_code_as_it_was_and_can_be_rebuilt(context: StudyContext, method: Any) -> None:
    asked = Trial(VANILLA, method, "visual", 10, 0)
    vlm = checkpoints.cached(context.root, VANILLA.key, "cpu").vlm
    before = snapshot(vlm)
    record = trials.run(context, asked, REFERENCE.key)
    assert record.state == "complete", record.reason
    assert same_bits(before, snapshot(vlm))
    found, kept = checkpoints.unlearned_model(context.folder, asked.key, load_learned(context.root, VANILLA.key))
    assert {found.part_of(name) for name in kept} <= set(VISUAL)
    assert kept
    assert same_bits(codes(found), codes(vlm))
    rows = read_rows(context.folder.rows(asked.key, "select"))
    questions = [q for q in context.benchmark.split(10).questions if q.id in set(rows["question"])]
    again = score(found, questions, reply=False).set_index("question").loc[rows["question"], "likelihood"]
    assert again.tolist() == rows["likelihood"].tolist()
    attack = Relearning(trains=VISUAL, schedule=SHORT, score_at=(2,))
    assert attacking.try_attack(context, asked, attack, REFERENCE.key) == ""
    assert same_bits(before, snapshot(vlm))


def pair(rank: int, root: Path, port: int, context: StudyContext, asked: Trial) -> None:
    """Let each of two processes do a trial together."""
    join(rank, port)
    record = trials.run(replace(context, root=root), asked, REFERENCE.key)
    (root / f"{rank}.txt").write_text(record.state)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_do_a_trial_as_one_does(context: StudyContext, tmp_path: Path) -> None:
    asked = Trial(VANILLA, VKD(schedule=SHORT, saliency_threshold=0.0), "visual", 10, 1)
    shutil.copytree(context.root / "learned", tmp_path / "learned")
    spawn(pair, tmp_path, context, asked)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["complete", "complete"]
    trials.run(context, asked, REFERENCE.key)
    one, two = (load_tensors(root / "trials" / asked.key / "delta.safetensors") for root in (context.root, tmp_path))
    before = load_learned(context.root, VANILLA.key).tensors()
    assert one.keys() == two.keys()
    assert apart(one, two, {name: before[name] for name in one}) < 0.02


def test_an_exported_model_is_an_ordinary_one_that_says_the_same(context: StudyContext, tmp_path: Path) -> None:
    asked = Trial(VANILLA, NoMethod(), "visual", 10, 0)
    record = trials.run(context, asked, REFERENCE.key)
    (context.root / "study.json").write_text('{"settings": {}}')
    export(context.root, record, tmp_path / "out")
    found, wanted, group = load(tmp_path / "out"), load_learned(context.root, VANILLA.key), smoke_test.of_nobody()
    assert found.quantized == ""
    with torch.no_grad():
        assert torch.equal(logits(found, pack(found, [group])), logits(wanted, pack(wanted, [group])))


def test_precision_of_the_llm_makes_another_study(tiny_folder: Path) -> None:
    assert len({content_key(identity_of(Hf(tiny_folder, quantized=format))) for format in WAYS}) == 3
    assert "quantized" not in identity_of(Hf(tiny_folder))  # studies of before go on


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_saved_as_the_numbers_it_was_held_as(
    family: str, family_folders: dict[str, Path], tmp_path: Path
) -> None:
    vlm = load(family_folders[family], loading=Loading(quantized="nf4"))
    wanted = rounded(family_folders[family], "float32", "nf4")
    save(vlm, tmp_path / "model")
    assert same_bits(snapshot(load(tmp_path / "model")), snapshot(wanted))
    assert vlm.quantized == "nf4"


@pytest.mark.slow
def test_a_folder_that_holds_a_study_of_numbers_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    study = study_on(tiny_folder, tmp_path, **QUIET)
    searching(replace(study, model=f"hf:{tiny_folder}"), tmp_path / "data")
    with pytest.raises(Refused, match=re.escape("model.quantized: None on disk, int8 requested")):
        plan(study, tmp_path)


def test_what_is_no_format_is_said() -> None:
    with pytest.raises(ValueError, match="quantized='int4': use int8 or nf4"):
        Hf(Path(), quantized="int4")  # type: ignore[arg-type]


# ---- what changes an LLM is refused ----------------------------------------------------------------------------
ALL = [
    *(plugin for name in known("methods") for plugin in variants(find("methods", name)())),
    *(quick(find("attacks", name)()) for name in known("attacks")),
    *(Interpolation(("llm",)), Pruning(parts=("llm",)), Quantization(parts=("llm", "vision"))),
    *(SwapBack(head=True), Relearning(trains=("llm",), schedule=QUICK), Chain((SwapBack(), Pruning()))),
]
VISIBLE = [plugin for plugin in ALL if plugin.trains and set(plugin.changes) == {"vision"}]
CHANGING = [plugin for plugin in ALL if "llm" in plugin.changes]


def named(plugin: Any) -> str:
    """What a case is called."""
    return f"{name_of(plugin)} {' '.join(plugin.changes)}"


def work(plugin: Any, vlm: VLM, request: Request) -> None:
    """Run a method or an attack to its end."""
    if isinstance(plugin, Attack):
        for _ in plugin(vlm, [], request):
            pass
    else:
        plugin(vlm, request)


@pytest.mark.parametrize("plugin", CHANGING, ids=named)
def test_whatever_would_change_it_is_refused(plugin: Any, held: VLM, request_: Request) -> None:
    """By itself, however it was reached: no weight is skipped for want of a parameter."""
    before = snapshot(held)
    with pytest.raises(Refused, match="loaded with quantized=int8, so its llm is frozen; name vision"):
        work(plugin, held, request_)
    assert not {name for name in changed(before, snapshot(held)) if held.part_of(name) == "llm"}


@pytest.mark.parametrize(
    "plugin",
    [
        *(NoMethod(), Prompting(), quick(VisualAnchor(), SHORT, anchor_steps=2)),
        *(replace(plugin, layer=1) if isinstance(plugin, RMU) else plugin for plugin in VISIBLE),
        *(SwapBack(VISUAL), Interpolation(), Pruning(parts=VISUAL), Quantization("nf4", VISUAL)),
        AdapterScaling(parts=VISUAL),
        Chain((SwapBack(), Quantization(parts=VISUAL))),
    ],
    ids=named,
)
def test_whatever_leaves_it_alone_goes_on(plugin: Any, held: VLM, request_: Request) -> None:
    assert "llm" not in plugin.changes
    before, start = snapshot(held), held.tensors()
    work(plugin, held, request_)
    assert same_bits(codes(held), {name: before[name] for name in codes(held)})
    assert {held.part_of(name) for name in delta(held, {n: before[n] for n in start})} <= set(VISUAL)


def test_its_weights_are_nowhere_to_be_asked_for(held: VLM) -> None:
    frozen = "llm: the base model was loaded with quantized=int8, so its llm is frozen"
    for parts in PARTS, ("llm",), ("vision", "llm"):
        with pytest.raises(Refused, match=frozen):
            held.trainable(parts)
    assert held.trainable(VISUAL)
    name = next(name.removesuffix(".codes") for name in codes(held))
    with pytest.raises(ValueError, match="do not fit this model"):
        apply_delta(held, {f"{name}.weight": torch.zeros(1)})


def study_on(folder: Path, tmp_path: Path, **fields: Any) -> Study:
    settings = {"model": f"hf:path={folder},quantized=int8", "study_dir": tmp_path / "study"}
    return replace(PRESETS["smoke"][1], **{**settings, **fields}).resolved()


def plan(study: Study, tmp_path: Path) -> None:
    validate_study(study, tmp_path / "data")


QUIET: dict[str, Any] = {"methods": ("vkd",), "attacks": ("swap_back",)}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"methods": ("vkd", "npo", "rmu", "manu")},
         "method npo (set trains=vision+projector), method rmu (set trains=vision), method manu (set trains=vision);"),
        ({"attacks": ("relearning",)}, "attack relearning (set trains=vision+projector);"),
        ({"attacks": ("swap_back/pruning:share=0.5",)}, "attack pruning:share=0.5 (set parts=vision+projector);"),
        ({"attacks": ("swap_back:head=true",)}, "attack swap_back:head=true (set head=false);"),
        ({"robustness": "relearning:steps=1"}, "robustness relearning:steps=1 (set trains=vision+projector);"),
        ({"searched_attacks": ("interpolation",), "attack_trials": 1},
         "searched attack interpolation (set parts=vision+projector);"),
        ({"searched_attacks": ("swap_back/relearning:trains=vision",), "attack_trials": 1},
         "searched attack swap_back (set head=false);"),
        ({"searched_attacks": ("swap_back:head=false/relearning:steps=1",), "attack_trials": 1},
         "searched attack relearning:steps=1 (set trains=vision+projector);"),
        ({"sharded": True, "workers_per_model": 2}, "sharded with quantized=int8 of the base model"),
    ],
)  # fmt: skip
def test_a_study_that_would_change_it_is_refused_before_any_work(
    fields: dict[str, Any], said: str, tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=re.escape(said)):
        plan(study_on(tiny_folder, tmp_path, **{**QUIET, **fields}), tmp_path)
    assert not (tmp_path / "study").exists()


def test_the_remedy_is_accepted(tiny_folder: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "methods": ("vkd", "npo:trains=vision+projector", "rmu:trains=vision", "manu:trains=vision", "prompting"),
        "attacks": ("relearning:trains=vision+projector", "swap_back/quantization:parts=vision+projector", "probe"),
        "searched_attacks": (
            "relearning:trains=vision+projector",
            "interpolation:parts=vision+projector",
            "swap_back:head=false/relearning:trains=vision+projector",
        ),
        "attack_trials": 2,
        "robustness": "relearning:trains=vision",
    }
    study = study_on(tiny_folder, tmp_path, **fields)
    plan(study, tmp_path)
    checked = states(study, frozen_llm=True)
    assert checked["quantized"] == Quantization("int4", VISUAL)
    assert not any("llm" in attack.changes for attack in checked.values() if attack)


# ---- memory ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("format", CODES)
def test_the_arithmetic_is_what_is_held(name: str, format: Codes, family_folders: dict[str, Path]) -> None:
    found = load(family_folders[name], loading=Loading(quantized=format))
    there = sum(tensor.nbytes for tensor in (*found.tensors().values(), *codes(found).values()))
    counted = shape(without_weights(family_folders[name]), format)
    learned, *later = estimates(counted)
    assert learned.weights == shape(without_weights(family_folders[name])).weights
    assert {estimate.weights for estimate in later} == {there}
    kinds = [estimate.kind.partition(",")[0] for estimate in later]
    assert kinds == ["unlearn: visual module"] * 2 + ["score: 18 questions of a picture"]


def test_llava_7b_takes_half_and_a_third() -> None:
    """In bfloat16; embeddings, head and the visual module stay as they are."""
    weights = [estimates(shape(llava("meta"), format))[-1].weights / GIB for format in WAYS]
    assert weights == pytest.approx([13.16, 7.13, 4.49], abs=0.01)


def test_the_doctor_tells_and_tries_it(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ray_guard", lambda *_: (True, "nothing there"))
    monkeypatch.setattr(doctor, "tried", partial(smoke_test.tried, seconds=UNLIMITED))
    with console.capture() as shown:
        status = doctor.main([f"hf:path={tiny_folder},quantized=nf4"])
    told = " ".join(shown.get().split())
    assert status == 0
    assert "quantized (nf4) and frozen" in told
    assert told.count(" ok ") == 5
    assert "not tried" in told
    assert "quantized=nf4: the LLM is frozen" in told
