"""What a step costs at the true shapes of LLaVA-1.5-7B: `python -m tests.cost.flops` counts, on any machine.

The model has no weights: its tensors are on the meta device, where `study.model.flop_counter` counts the operations of
a forward and a backward like those of a trial. Optimizer steps are left out. docs/cost.md has the numbers, and
`tests.cost.gpu` times some of these steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from json import dumps
from pathlib import Path
from typing import Any

import torch
import tyro

from study.core.console import table
from study.core.terms import PARTS, Part
from study.data.picture import Picture
from study.methods._features import apart
from study.model.flop_counter import counted
from study.model.likelihood import answer_logps, cross_entropy
from study.model.lora import lora_adapters
from study.model.packing import Batch, Group, Prompt, answer_logits, hidden_states, pack
from study.model.vision import Pixels
from study.model.vlm import VLM
from study.training.losses import npo
from tests.cost.llava import llava, on_meta
from tests.cost.methods import METHODS, Name, StepCost, request, step_cost

TEXT = 96
"""Tokens of a question with its answer, chat template included; with a picture's 576 they are a sample of 672."""
ANSWER = 32
"""Of these, the tokens of the answer and the one that ends it."""
PACKED = 10
"""Questions in a packed row: what a picture of MLLMU-Bench has, about."""
ASKED = 18
"""Questions about one picture in the scoring rows."""
VISUAL: tuple[Part, ...] = ("vision", "projector")

Step = Callable[[], object]
Setting = Callable[[VLM, int], AbstractContextManager[Step]]


@dataclass(frozen=True)
class Regime:
    """A kind of step: what is computed for each row of a batch, and for how many units that is."""

    key: str
    about: str
    unit: str
    units: int
    """Units in a row."""
    setting: Setting
    """Given a model and a number of rows, lends the step."""


@dataclass(frozen=True)
class Cost:
    """What a regime was found to cost. All but `passes` are of one unit."""

    regime: str
    about: str
    unit: str
    tflop: float
    passes: int
    """Forward passes of the LLM in a step."""


# ---- what is asked -----------------------------------------------------------------------------------------------
def samples(vlm: VLM, rows: int, questions: int = 1) -> Batch:
    """`rows` pictures with `questions` questions each, packed: a question and its answer are `TEXT` tokens."""
    words = TEXT - ANSWER - (len(vlm.prompt_ids("", True)) - vlm.image_tokens)
    answer = " ".join(["word"] * (ANSWER - 1))
    asked = [Prompt(" ".join([f"q{i}", *["word"] * (words - 1)]), (answer,)) for i in range(questions)]
    group = Group(Picture(b"random", "random"), tuple(asked))
    return pack(vlm, [group] * rows, pixels(vlm, rows))


def pixels(vlm: VLM, rows: int) -> Pixels:
    """Random pictures."""
    return Pixels({"pixel_values": torch.randn(rows, 3, vlm.side, vlm.side, device=vlm.device)})


# ---- regimes -----------------------------------------------------------------------------------------------------
@contextmanager
def trained(vlm: VLM, parts: tuple[Part, ...]) -> Iterator[None]:
    """Ask for the gradients of the weights of `parts`, and forget them afterwards."""
    weights = vlm.trainable(parts).values()
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(False)
            weight.grad = None


@contextmanager
def answers(vlm: VLM, rows: int, parts: tuple[Part, ...], questions: int = 1) -> Iterator[Step]:
    """A loss on answers, differentiated for `parts`: back through the LLM, whether it is trained or frozen."""
    batch = samples(vlm, rows, questions)
    with trained(vlm, parts):
        yield lambda: cross_entropy(vlm, batch).backward()


@contextmanager
def referred(vlm: VLM, rows: int) -> Iterator[Step]:
    """NPO on the whole model: as `answers`, and a forward of the model as it was."""
    batch, before = samples(vlm, rows), vlm.frozen_copy()

    def step() -> None:
        with torch.no_grad():
            reference = answer_logps(before, batch)
        npo(answer_logps(vlm, batch), reference, beta=0.1).backward()

    with trained(vlm, PARTS):
        yield step


@contextmanager
def lora(vlm: VLM, rows: int) -> Iterator[Step]:
    """Adapters of rank 16 on every linear layer of the LLM; the visual module is frozen and gets no gradient."""
    batch = samples(vlm, rows)
    with vlm.device, lora_adapters(vlm, vlm.trainable(("llm",)), rank=16, alpha=16, dropout=0.0, seed=0):
        yield lambda: cross_entropy(vlm, batch).backward()


@contextmanager
def distilled(vlm: VLM, rows: int, *, cached: bool) -> Iterator[Step]:
    """VKD's distillation term: student features against a teacher's, which are kept or computed anew."""
    shown, teacher = pixels(vlm, rows), vlm.frozen_copy(VISUAL)

    @torch.no_grad()
    def targets() -> Any:
        return teacher.features(shown)

    kept = targets()

    def step() -> None:
        apart(vlm.features(shown), kept if cached else targets(), "all", "mse").backward()

    with trained(vlm, VISUAL):
        yield step


@contextmanager
def scored(vlm: VLM, rows: int) -> Iterator[Step]:
    """Our own scoring: all questions about a picture in one row (`study.evaluation.scoring`), without the replies."""
    batch = samples(vlm, rows, ASKED)
    yield torch.no_grad()(lambda: answer_logits(vlm, batch, hidden_states(vlm, batch)))


@contextmanager
def asked_apart(vlm: VLM, rows: int) -> Iterator[Step]:
    """The released scoring: a prompt and a picture for every question, as `generate` begins, without the replies."""
    (ids,) = samples(vlm, 1).input_ids
    prompts = ids.expand(ASKED * rows, -1)
    shown = pixels(vlm, ASKED * rows).inputs(vlm.model.dtype)
    yield torch.no_grad()(lambda: vlm.model(input_ids=prompts, logits_to_keep=1, **shown))


FULL = Regime("full", "answers, everything is trained", "sample", 1, partial(answers, parts=PARTS))
REFERENCE = Regime("reference", "answers, everything is trained, and a forward of a reference model", "sample", 1,
                   referred)  # fmt: skip
LORA = Regime("lora", "answers, adapters of rank 16 on the LLM are trained", "sample", 1, lora)
THROUGH = Regime("through", "answers, the visual module is trained through the frozen LLM", "sample", 1,
                 partial(answers, parts=VISUAL))  # fmt: skip
PACKED_THROUGH = Regime("packed", f"the same, {PACKED} questions of a picture in one row", "question", PACKED,
                        partial(answers, parts=VISUAL, questions=PACKED))  # fmt: skip
RECOMPUTED = Regime("recomputed", "VKD's distillation term, the teacher is computed", "image", 1,
                    partial(distilled, cached=False))  # fmt: skip
DISTILLED = Regime("distilled", "VKD's distillation term, the teacher's features are kept", "image", 1,
                   partial(distilled, cached=True))  # fmt: skip
RELEASED = Regime("released", f"{ASKED} questions of a picture, each asked alone: prefill", "image", 1, asked_apart)
SCORED = Regime("scored", f"{ASKED} questions of a picture in one row: prefill", "image", 1, scored)
REGIMES = (FULL, REFERENCE, LORA, THROUGH, PACKED_THROUGH, RECOMPUTED, DISTILLED, RELEASED, SCORED)


# ---- counting ----------------------------------------------------------------------------------------------------
def count(vlm: VLM, regime: Regime) -> Cost:
    """The cost of a regime on a model of meta tensors."""
    with on_meta(), regime.setting(vlm, 1) as step, counted(vlm) as done:
        step()
    return Cost(regime.key, regime.about, regime.unit, done.flops / 1e12 / regime.units, done.passes_of("llm"))


# ---- the command line --------------------------------------------------------------------------------------------
def main(methods: tuple[Name, ...] = METHODS, json: Path | None = None) -> None:
    """Count the operations of training and scoring at the shapes of LLaVA-1.5-7B.

    Args:
        methods: Methods of which a step is counted, at the default schedule.
        json: Where to write the numbers too.
    """
    empty = llava("meta")
    costs = [count(empty, regime) for regime in REGIMES]
    print_costs(costs)
    found: dict[str, Any] = {"regimes": [asdict(cost) for cost in costs]}
    if methods:
        with tempfile.TemporaryDirectory() as folder:
            asked = request(empty, Path(folder))
            spent = [step_cost(empty, name, asked) for name in methods]
        print_steps(spent)
        found["methods"] = [asdict(cost) for cost in spent]
    if json:
        json.write_text(dumps(found, indent=1) + "\n", encoding="utf-8")


def print_costs(costs: Sequence[Cost]) -> None:
    """Print what was counted of the regimes."""
    rows = [[cost.regime, cost.about, cost.unit, cost.tflop, cost.passes] for cost in costs]
    columns = ["regime", "what is computed", "per", "TFLOP", "LLM passes"]
    table(f"Counted at the shapes of LLaVA-1.5-7B; a sample is {576 + TEXT} tokens", columns, rows)


def print_steps(costs: Sequence[StepCost]) -> None:
    """Print what was counted of the methods."""
    rows = [[cost.method, cost.tflop, cost.passes] for cost in costs]
    table("One step of a method at the default schedule", ["method", "TFLOP", "LLM passes"], rows)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m tests.cost.flops")
