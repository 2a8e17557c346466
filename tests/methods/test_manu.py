"""MANU: scores are those of the paper's formulas on the activations themselves, and what is pruned is dead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from study.contracts import Request
from study.core.errors import Refused
from study.core.terms import Part
from study.data.benchmark import Benchmark, Lesson
from study.methods._neurons import MLP, mlps, tokens
from study.methods.manu import BATCH, MANU
from study.model.likelihood import cross_entropy
from study.model.loading import load
from study.model.packing import Group, Prompt, logits, pack
from study.model.vlm import VLM
from study.training.lesson_sampler import Lessons
from tests.helpers.families import FAMILIES, family_folder
from tests.helpers.small import changed, fresh, request_on, same_bits, snapshot

TOWER: tuple[Part, ...] = ("vision", "llm")
NAMES = [
    *(f"model.vision_tower.encoder.layers.{i}.mlp.fc2" for i in (0, 1)),
    *(f"model.language_model.layers.{i}.mlp.down_proj" for i in (0, 1)),
]


@pytest.fixture
def request_(benchmark: Benchmark, tiny_folder: Path, tmp_path: Path) -> Request:
    return request_on(benchmark, tmp_path / "cache", tiny_folder)


def found(vlm: VLM) -> list[MLP]:
    return [mlp for part in TOWER for mlp in mlps(vlm, part)]


def recorded(vlm: VLM, names: Sequence[str], lessons: Sequence[Lesson], batches: int, seed: int) -> list[np.ndarray]:
    """What the named layers read, one row per token that is no padding: (tokens, neurons), no rows if never called."""
    heard: list[list[np.ndarray]] = [[] for _ in names]
    real = torch.zeros(0)

    def hook(i: int, z: Tensor) -> None:
        heard[i].append((z[real] if "language_model" in names[i] else z.flatten(0, 1)).double().numpy())

    handles = [
        vlm.model.get_submodule(name).register_forward_pre_hook(lambda _, inputs, i=i: hook(i, inputs[0]))
        for i, name in enumerate(names)
    ]
    drawn = Lessons(lessons, BATCH, seed)
    with torch.no_grad():
        for _ in range(batches):
            batch = pack(vlm, drawn.draw())
            real = batch.input_ids != vlm.tokenizer.pad_token_id
            assert not real.all()
            logits(vlm, batch)
    for handle in handles:
        handle.remove()
    return [np.concatenate(rows) if rows else np.zeros((0, 64)) for rows in heard]


def four_sets(vlm: VLM, request: Request, batches: int) -> list[list[np.ndarray]]:
    """Activations on forget pictures, forget text, retain pictures and retain text, by person."""
    real, gone = request.split.real_people, request.split.forget_people
    sets = []
    for wanted, seed in ((True, request.seed), (False, request.seed + 1)):
        lessons = [x for x in request.split.lessons if x.person not in real and (x.person in gone) == wanted]
        for pictured in (True, False):
            chosen = [x for x in lessons if (x.picture is not None) == pictured]
            assert chosen
            sets.append(recorded(vlm, NAMES, chosen, batches, seed))
    return sets


def importance(m: np.ndarray, t: np.ndarray, tau: float, eps: float, w: Sequence[float]) -> np.ndarray:
    """I of every neuron, term by term as the paper has it; of no activations all statistics are 0."""
    out = np.zeros(m.shape[1])
    for n in range(m.shape[1]):
        stats = []
        for z in (m[:, n], t[:, n]):
            stats.append((abs(z).mean(), (abs(z) > tau).sum(), z.var(), (z**2).sum()) if len(z) else (0, 0, 0, 0))
        (zm, nm, vm, em), (zt, nt, vt, et) = stats
        terms = (
            abs(zm - zt) / (zm + zt + eps),
            abs(int(nm) - int(nt)) / (nm + nt + eps),
            np.sqrt(vm + vt),
            np.sqrt(abs(em - et) / (em + et + eps)),
        )
        out[n] = sum(a * b for a, b in zip(w, terms, strict=True))
    return out


@pytest.mark.parametrize("weights", [(), (0.5, 2.0, 1.0, 0.25)])
def test_the_scores_are_the_formula(tiny: VLM, request_: Request, weights: tuple[float, ...]) -> None:
    method = MANU(batches=2, weights=weights, active_above=0.05, eps=1e-4)
    scores = method.scores(tiny, request_, found(tiny))
    forget_m, forget_t, retain_m, retain_t = four_sets(tiny, request_, 2)
    w = weights or (1, 1, 1, 1)
    assert len(scores) == len(NAMES)
    for i, score in enumerate(scores):
        top = importance(forget_m[i], forget_t[i], 0.05, 1e-4, w)
        bottom = importance(retain_m[i], retain_t[i], 0.05, 1e-4, w)
        np.testing.assert_allclose(score.numpy(), top / (bottom + 1e-4), rtol=1e-4)
        assert score.std() > 1e-3


def test_the_released_score_is_its_formula(tiny: VLM, request_: Request) -> None:
    """Pictures for the tower, text for the language model, and ratios of each statistic by itself."""
    scores = MANU(batches=2, variant="released").scores(tiny, request_, found(tiny))
    forget_m, forget_t, retain_m, retain_t = four_sets(tiny, request_, 2)
    for i, name in enumerate(NAMES):
        text = "language_model" in name
        forget, retain = (forget_t[i], retain_t[i]) if text else (forget_m[i], retain_m[i])
        wanted = np.zeros(64)
        statistics: list[Callable[[np.ndarray], np.ndarray]] = [
            lambda z: abs(z).mean(0),
            lambda z: z.std(0),
            lambda z: (z**2).mean(0) ** 0.5,
        ]
        for of in statistics:
            wanted += 2 * (of(forget) / (of(retain) + 1e-5) - 1)
        np.testing.assert_allclose(scores[i].numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_the_visual_module_is_silent_in_text(tiny: VLM, request_: Request) -> None:
    _, forget_t, _, retain_t = four_sets(tiny, request_, 1)
    assert [len(z) > 0 for z in forget_t] == [len(z) > 0 for z in retain_t] == [False, False, True, True]


def dead(mlp: MLP) -> Tensor:
    """Which neurons have no weight that is not 0, in or out."""
    gone = (mlp.writes.weight == 0).all(0)
    for layer in mlp.reads:
        gone &= (layer.weight == 0).all(1) & (torch.ones(mlp.width) if layer.bias is None else layer.bias == 0).bool()
    return gone


@pytest.mark.parametrize(("share", "count"), [(0.05, 6), (0.1, 13), (0.5, 64), (0.001, 1)])
def test_the_share_of_each_part_with_the_highest_scores_dies(
    tiny: VLM, request_: Request, share: float, count: int
) -> None:
    """128 neurons in each: their scores are compared across layers, not across parts."""
    method = MANU(share=share, batches=2)
    chosen = found(tiny)
    scores = method.scores(tiny, request_, chosen)
    before = [mlp.writes.weight.clone() for mlp in chosen]
    method(tiny, request_)
    for part in TOWER:
        ours = [i for i, mlp in enumerate(chosen) if mlp.part == part]
        together = torch.cat([scores[i] for i in ours])
        assert torch.cat([dead(chosen[i]) for i in ours]).equal(together >= together.sort().values[-count])
    for mlp, weight in zip(chosen, before, strict=True):
        assert torch.equal(mlp.writes.weight[:, ~dead(mlp)], weight[:, ~dead(mlp)])


def test_rows_are_scored_by_what_they_put_out_and_die_alone(tiny: VLM, request_: Request) -> None:
    """As in the released code: before the activation, every linear layer of an MLP by itself."""
    rows = [row for mlp in found(tiny) for row in mlp.rows()]
    assert {row.name.rpartition(".")[2] for row in rows} == {"fc1", "fc2", "gate_proj", "up_proj", "down_proj"}
    method = MANU(share=0.1, batches=1, variant="released", unit="row")
    scores = method.scores(tiny, request_, rows)
    before = [row.layer.weight.clone() for row in rows]
    tower = next(i for i, row in enumerate(rows) if row.name.endswith("fc1"))
    said: list[Tensor] = []
    handle = rows[tower].layer.register_forward_hook(lambda _, inputs, out: said.append(out.flatten(0, 1).double()))
    four_sets(tiny, request_, 1)
    handle.remove()
    forget, retain = said  # the tower says nothing of text
    wanted = torch.zeros(rows[tower].width)
    statistics: list[Callable[[Tensor], Tensor]] = [
        lambda z: z.abs().mean(0),
        lambda z: z.std(0, correction=0),
        lambda z: z.square().mean(0).sqrt(),
    ]
    for of in statistics:
        wanted += 2 * (of(forget) / (of(retain) + 1e-5) - 1)
    torch.testing.assert_close(scores[tower].float(), wanted.float(), rtol=1e-4, atol=1e-4)
    method(tiny, request_)
    for part in TOWER:
        ours = [i for i, row in enumerate(rows) if row.part == part]
        together = torch.cat([scores[i] for i in ours])
        gone = torch.cat([(rows[i].layer.weight == 0).all(1) for i in ours])
        assert gone.equal(together >= together.sort().values[-round(0.1 * len(together))])
    for row, weight in zip(rows, before, strict=True):
        stays = (row.layer.weight != 0).any(1)
        assert torch.equal(row.layer.weight[stays], weight[stays])


def groups_of(request: Request) -> list[Group]:
    lessons = [*request.forget[:2], *(x for x in request.split.lessons if x.picture is None)][:4]
    return [Group(x.picture, (Prompt(x.prompt, (x.answer,)),)) for x in lessons]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dead_neuron_says_nothing_and_learns_nothing(family: str, tmp_path: Path, request_: Request) -> None:
    """In every family: all MLPs of both towers are found, the answer is that of the model without these neurons, and
    neither side of them has any influence or gets any gradient."""
    vlm = load(family_folder(family, tmp_path))
    batch = pack(vlm, groups_of(request_))
    chosen = found(vlm)
    layers = vlm.model.config.get_text_config().num_hidden_layers
    assert sum(mlp.part == "llm" for mlp in chosen) == layers
    assert len(chosen) - layers == len(vlm.features(vlm.grey()).layers)
    neurons = torch.tensor([1, 5, 20])
    hooks = [
        mlp.writes.register_forward_pre_hook(
            lambda _, inputs: (inputs[0].index_fill(-1, neurons, 0.0),)  # the neurons cut out of an intact model
        )
        for mlp in chosen
    ]
    with torch.no_grad():
        cut = logits(vlm, batch)
        for hook in hooks:
            hook.remove()
        before = logits(vlm, batch)
        for mlp in chosen:
            mlp.kill(neurons)
        after = logits(vlm, batch)
    torch.testing.assert_close(after, cut, rtol=0, atol=1e-6)
    assert not torch.allclose(before, after, atol=1e-4)
    vlm.model.requires_grad_(True)
    cross_entropy(vlm, batch).backward()
    for mlp in chosen:
        grads = [mlp.writes.weight.grad.T, *(layer.weight.grad for layer in mlp.reads)]  # type: ignore[union-attr]
        assert not any(grad[neurons].any() for grad in grads if grad is not None)
        assert any(grad.any() for grad in grads if grad is not None)
        with torch.no_grad():
            for layer in mlp.reads:
                layer.weight[neurons] = 3.0
    torch.testing.assert_close(logits(vlm, batch).detach(), cut, rtol=0, atol=1e-6)


def test_padding_is_no_token(tiny: VLM, request_: Request) -> None:
    lessons = [x for x in request_.split.lessons if x.picture is None]
    long = Group(None, tuple(Prompt(x.prompt, (x.answer, "Lisbon")) for x in lessons[:9]))
    batch = pack(tiny, [*groups_of(request_), long])
    assert torch.equal(tokens(batch), batch.input_ids != tiny.tokenizer.pad_token_id)
    assert not tokens(batch).all()


def test_the_goal_does_not_matter(
    tiny: VLM, benchmark: Benchmark, tiny_folder: Path, tmp_path: Path, request_: Request
) -> None:
    """Both modalities of the forget people are compared with both of the others', as in the paper."""
    other = fresh(tiny_folder)
    MANU(batches=2)(tiny, request_)
    MANU(batches=2)(other, request_on(benchmark, tmp_path, tiny_folder, goal="full"))
    assert same_bits(snapshot(tiny), snapshot(other))


def test_a_modality_without_lessons_is_silence(tiny: VLM, request_: Request) -> None:
    scores = MANU(batches=2).scores(tiny, request_.only("image_text"), found(tiny))
    forget_m, _, retain_m, _ = four_sets(tiny, request_, 2)
    none = np.zeros((0, 64))
    for i, score in enumerate(scores):
        top, bottom = (importance(z[i], none, 0.1, 1e-5, (1, 1, 1, 1)) for z in (forget_m, retain_m))
        np.testing.assert_allclose(score.numpy(), top / (bottom + 1e-5), rtol=1e-4)


def test_the_last_layers_alone_can_be_pruned(tiny: VLM, request_: Request) -> None:
    before = snapshot(tiny)
    MANU(last_layers=1, batches=1)(tiny, request_)
    moved = changed(before, snapshot(tiny))
    assert {name.split("layers.")[1][0] for name in moved} == {"1"}
    assert {tiny.part_of(name) for name in moved} == set(TOWER)


def test_no_gradient_is_taken(tiny: VLM, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: pytest.fail("a gradient"))
    monkeypatch.setattr(Tensor, "backward", lambda *_, **__: pytest.fail("a gradient"))
    assert MANU(batches=1)(tiny, request_) is tiny


def test_hooks_are_gone_afterwards(tiny: VLM, request_: Request) -> None:
    MANU(batches=1)(tiny, request_)
    assert not any(module._forward_pre_hooks for module in tiny.model.modules())


def test_a_set_without_lessons_is_refused(tiny: VLM, request_: Request) -> None:
    split = request_.split
    gone = tuple(x for x in split.lessons if x.person in split.forget_people)
    with pytest.raises(Refused, match="no retain lessons"):
        MANU(batches=1)(tiny, replace(request_, split=replace(split, lessons=gone)))


@pytest.mark.parametrize(("family", "count"), [("llava", 1), ("idefics2", 2), ("qwen2_vl", 1), ("qwen2_5_vl", 1)])
def test_neurons_of_projectors_are_found_too(family: str, count: int, tmp_path: Path) -> None:
    assert len(mlps(load(family_folder(family, tmp_path)), "projector")) == count


def test_a_part_without_neurons_is_refused(tmp_path: Path) -> None:
    vlm = load(family_folder("gemma3", tmp_path))
    with pytest.raises(Refused, match=r"projector has no MLP with neurons.*leave projector out"):
        mlps(vlm, "projector")
    assert {mlp.part for mlp in mlps(vlm, "projector", "vision")} == {"vision"}  # enough if one has some


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("share", 0.0),
        ("share", 1.5),
        ("variant", "mine"),
        ("weights", (1.0, 1.0)),
        ("weights", (0.0, 0.0, 0.0, 0.0)),
        ("weights", (1.0, -1.0, 1.0, 1.0)),
        ("last_layers", -1),
        ("active_above", float("nan")),
        ("eps", 0.0),
        ("batches", 0),
        ("trains", ()),
        ("trains", ("projector",)),
    ],
)
def test_a_wrong_hyperparameter_is_named_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field) as caught:
        MANU(**{field: value})
    assert f"{field}={value!r}" in str(caught.value)
