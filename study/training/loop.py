"""The one training loop, which learning, unlearning and relearning share."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor

from study.core.errors import Refused
from study.core.terms import Part
from study.engine.microbatches import activation_checkpointing
from study.engine.sharded_tensors import full_tensor
from study.engine.world import world
from study.model.vlm import VLM
from study.training.master_weights import MasterWeights
from study.training.schedule import Schedule

MOMENTUM = 0.9
"""Of SGD, and the first moment of AdamW: torch's default for the latter and the usual value for the former."""


class Diverged(RuntimeError):
    """Loss, gradient or weights are no longer finite or exceed their bounds; the trial has diverged and never wins."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"diverged at step {step}: {what}")
        self.step, self.what = step, what

    def __reduce__(self) -> tuple[type[Diverged], tuple[int, str]]:
        return type(self), (self.step, self.what)


Loss = Callable[[int], Tensor]
OnStep = Callable[[int, float], None]
Watch = Callable[[VLM, int, int, float], None]
"""Called with the model, ready to score, the number of steps done, that of all steps, and the loss of the last one."""

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Within the block `watch` is called after every step of `train`: a method need not know that it is watched.

    It may raise, which ends the training; it may not change the model or draw random numbers.
    """
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def frozen(vlm: VLM, parts: Sequence[Part], schedule: Schedule) -> VLM:
    """A frozen copy of the model as it is now, to compare with while `parts` are trained under `schedule`.

    Only what the training will change is copied; while adapters are trained that is nothing.
    """
    return vlm.frozen_copy(() if schedule.lora_rank else parts)


def train(
    vlm: VLM,
    parts: Sequence[Part],
    schedule: Schedule,
    loss: Loss,
    *,
    seed: int = 0,
    masks: Mapping[str, Tensor] | None = None,
    on_step: OnStep | None = None,
) -> list[float]:
    """Minimize `loss(step)` over the parameters of `parts`, in place; returns the loss of every step.

    Like `steps`, whose errors it raises; `on_step(done, loss)` is called after every optimizer step.
    """
    curve, watch = [], _watch.get()
    for done, value in steps(vlm, parts, schedule, loss, seed=seed, masks=masks):
        curve.append(value)
        if on_step:
            on_step(done, value)
        if watch:
            watch(vlm, done, schedule.steps, value)
    return curve


def steps(
    vlm: VLM,
    parts: Sequence[Part],
    schedule: Schedule,
    loss: Loss,
    *,
    seed: int = 0,
    masks: Mapping[str, Tensor] | None = None,
) -> Generator[tuple[int, float]]:
    """Train as `train` does, one optimizer step at a time; yields (steps done, loss) with the model ready to score.

    `masks` maps parameter names to 0/1 tensors: an entry under 0 keeps its value bit for bit. Weights in bfloat16 are
    moved in float32 and rounded after every step (`MasterWeights`). `seed` seeds adapters, if there are any: nothing
    else here is random. Several processes compute the same loss, sharing every forward pass, and take the same steps.
    Raises `Diverged` within the step in which loss, gradient or weights stop being finite or exceed the schedule's
    bounds, and `Refused` if nothing would be trained.
    """
    trained = _chosen(vlm, parts, schedule, masks)
    layers = activation_checkpointing(vlm.model) if schedule.checkpoint else nullcontext()
    # 1. What is trained: the parameters themselves, or adapters that are merged into them when the block ends.
    with _weights(vlm, trained, schedule, seed) as weights, layers:
        for name, parameter in vlm.model.named_parameters():
            parameter.requires_grad_(name in weights)
        # 2. All processes start from the bits of the first: on a GPU even equal computations may differ in the last.
        world().broadcast_([*weights.values(), *(masks or {}).values()])
        masters, modules = MasterWeights(weights), list(vlm.model.modules())
        optimizer = _optimizer(list(masters.held.values()), schedule)
        try:
            for step in range(schedule.steps):
                # 3. One step in training mode; the caller, which may score the model, gets it in evaluation mode.
                for group in optimizer.param_groups:
                    group["lr"] = schedule.learning_rate * schedule.rate(step)
                with _training(modules), _dropout_seeded(vlm, schedule, seed, step * world().size + world().rank):
                    value = _step(vlm, masters, schedule, loss, step, optimizer, masks)
                yield step + 1, value
        finally:  # 4. Also if the caller stops early: nothing requires a gradient or holds on to one.
            for parameter in weights.values():
                parameter.requires_grad_(False)
                parameter.grad = None


def _optimizer(weights: list[torch.nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    """The optimizer, which handles all tensors at once, as torch does on a GPU by default: no bit differs."""
    rate, decay = schedule.learning_rate, schedule.weight_decay
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(weights, lr=rate, momentum=MOMENTUM, weight_decay=decay, foreach=True)
    return torch.optim.AdamW(weights, lr=rate, betas=(0.9, schedule.beta2), weight_decay=decay, foreach=True)


@contextmanager
def _training(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Within the block modules are in training mode.

    `Module.train` walks through all of them and checks every value's type: a tenth of the time of a small model's step.
    """
    for module in modules:
        vars(module)["training"] = True
    try:
        yield
    finally:
        for module in modules:
            vars(module)["training"] = False


def _chosen(
    vlm: VLM, parts: Sequence[Part], schedule: Schedule, masks: Mapping[str, Tensor] | None
) -> dict[str, torch.nn.Parameter]:
    """The parameters that are to change."""
    if not parts:
        raise Refused("no part is trained: name at least one of vision, projector and llm")
    trained = vlm.trainable(parts)
    if masks is not None:
        if schedule.weight_decay:
            raise Refused(f"weight_decay={schedule.weight_decay} would move masked weights: set it to 0")
        if schedule.lora_rank:
            raise Refused(
                f"lora_rank={schedule.lora_rank}: a saliency mask selects weights, and adapters change all weights of "
                "a layer; set lora_rank=0 or leave the mask out"
            )
        trained = {name: p for name, p in trained.items() if name in masks and bool(full_tensor(masks[name].any()))}
    if not trained:
        raise Refused(f"no parameter of {', '.join(parts)} is left to train: lower the saliency threshold")
    return trained


def _weights(
    vlm: VLM, trained: Mapping[str, torch.nn.Parameter], schedule: Schedule, seed: int
) -> AbstractContextManager[Mapping[str, torch.nn.Parameter]]:
    """What the optimizer updates: the parameters themselves, or adapters that are merged into them at the end."""
    if not schedule.lora_rank:
        return nullcontext(trained)
    from study.model.lora import lora_adapters  # peft takes seconds to import and most studies do without

    return lora_adapters(
        vlm,
        trained.keys(),
        rank=schedule.lora_rank,
        alpha=schedule.lora_alpha,
        dropout=schedule.lora_dropout,
        seed=seed,
    )


@contextmanager
def _dropout_seeded(vlm: VLM, schedule: Schedule, seed: int, draw: int) -> Iterator[None]:
    """Seed the dropout of adapters, which alone draw random numbers in a forward pass: equal seeds drop the same.

    Processes that share a batch drop independently, so with dropout their number changes the result like a seed.
    """
    if not schedule.lora_rank:
        yield
        return
    generator = _generator(vlm.device)
    before = generator.get_state()
    generator.manual_seed(1 + seed + 1_000_003 * draw)  # a prime above any seed in use: no two (seed, draw) collide
    try:
        yield
    finally:
        generator.set_state(before)


def _generator(device: torch.device) -> torch.Generator:
    """Where the random numbers of a device come from; `torch.manual_seed` seeds those of all devices."""
    return torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator


def _step(
    vlm: VLM,
    masters: MasterWeights,
    schedule: Schedule,
    loss: Loss,
    step: int,
    optimizer: torch.optim.Optimizer,
    masks: Mapping[str, Tensor] | None,
) -> float:
    """One optimizer step; returns its loss."""
    optimizer.zero_grad(set_to_none=True)
    trained, total = masters.held, 0.0
    # 1. Loss and backward pass of each batch. The processes share its rows and agree on its loss, so that all of them
    #    stop in the same step if it diverges. A loss may be constant, as that of a batch without lessons.
    for _ in range(schedule.accumulate):
        with (
            vlm.chunks.shared() as here,
            torch.autocast(vlm.device.type, torch.bfloat16, enabled=schedule.precision == "bfloat16"),
        ):
            value = loss(step) / schedule.accumulate
        total += here.broadcast_float(float(value.detach()))
        if not math.isfinite(total) or abs(total) > schedule.worst_loss:
            raise Diverged(step, f"the loss is {total:.4g} (limit {schedule.worst_loss:g})")
        if value.requires_grad:
            value.backward()
            masters.take_gradients()
    # 2. Gradients are averaged over the processes, then masked: a weight under 0 gets none, so AdamW leaves it alone.
    gradients = [parameter.grad for parameter in trained.values()]
    for parameter, mean in zip(
        trained.values(), here.average_gradients(gradients, list(trained.values())), strict=True
    ):
        parameter.grad = mean
    for name, parameter in trained.items():
        if masks is not None and parameter.grad is not None:
            parameter.grad.mul_(masks[name])
    # 3. The step, with clipped gradients, unless they are not finite; afterwards no weight may have exploded.
    norm = full_tensor(torch.nn.utils.clip_grad_norm_(trained.values(), schedule.clip))
    if not torch.isfinite(norm):
        raise Diverged(step, f"the gradient norm is {float(norm):.4g}")
    optimizer.step()
    masters.write()
    with torch.no_grad():
        largest = here.largest(trained.values())
    if not largest <= schedule.worst_weight:
        raise Diverged(step, f"a weight is {largest:.4g} (limit {schedule.worst_weight:g})")
    return total
