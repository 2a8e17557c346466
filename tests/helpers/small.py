"""What the tests of methods and attacks share: requests, two-step settings, bit-wise comparison, plain formulas."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from study.benchmarks.synthetic import Synthetic
from study.contracts import Request, Source
from study.core.terms import PARTS, Goal, Part
from study.data.benchmark import Benchmark, Question, Split
from study.data.official_protocol import OfficialPrompt
from study.engine.microbatches import MicroBatching
from study.engine.optuna_search import J, P, Proposer, SearchProblem
from study.model.delta import restored
from study.model.loading import load
from study.model.packing import Group
from study.model.vlm import VLM
from study.training.schedule import Schedule

QUICK = Schedule(steps=2, learning_rate=1e-3, pictures=2, lessons_per_picture=3, texts=1, lessons_per_text=3)


@cache
def _loaded(folder: Path) -> VLM:
    return load(folder)


def fresh(folder: Path) -> VLM:
    """The model in `folder` with weights and a memory of its own, read from disk but once in a process."""
    return dataclasses.replace(twin(_loaded(folder)), chunks=MicroBatching(), _ids={}).forgetful()


def token_types(vlm: VLM, ids: Tensor, asked: int, pictured: bool) -> dict[str, Tensor]:
    """What transformers tells a model of tokens (1, L), the first of which are asked and the others a reply."""
    if not vlm.family.prefix:
        return vlm.token_types(ids) if pictured else {}
    types = torch.ones_like(ids)
    types[:, :asked] = 0
    return {"token_type_ids": types}


def without_norm(vlm: VLM) -> None:
    """Call the final norm of the LLM by another name, as some models do."""
    modules = vlm.model.get_submodule(vlm.prefixes["llm"])._modules
    modules["final_norm"] = modules.pop("norm")


@dataclasses.dataclass(frozen=True, eq=False)
class Given(Source):
    """A benchmark that is there already."""

    benchmark: Benchmark

    def __call__(self, folder: Path) -> Benchmark:
        return self.benchmark


@dataclasses.dataclass(frozen=True)
class FewQuestions(Synthetic):
    """Twenty people and eight celebrities, of whom as much is taught as ever and little is asked: of every group of
    questions (role, modality, task and half) the same number, by the official protocol too."""

    people: int = 20
    celebrities: int = 8
    views: int = 2
    strangers: int = 8
    each: int = 6

    def __call__(self, folder: Path) -> Benchmark:
        return few_questions(self._whole(folder), self.each)

    def released(self, split: Split, folder: Path, seed: int) -> Iterator[OfficialPrompt]:
        asks = list(self._whole.released(split, folder, seed))
        kept = _few([ask.question for ask in asks], self.each)
        return (ask for ask in asks if ask.question.id in kept)

    @property
    def _whole(self) -> Synthetic:
        """Whose files it reads."""
        return Synthetic(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Synthetic)})


def few_questions(benchmark: Benchmark, each: int) -> Benchmark:
    """The benchmark with at most `each` questions of every group, from all over the group."""
    splits = {}
    for ratio, split in benchmark.splits.items():
        kept = _few(split.questions, each)
        splits[ratio] = dataclasses.replace(split, questions=tuple(q for q in split.questions if q.id in kept))
    return dataclasses.replace(benchmark, splits=splits)


def _few(questions: Sequence[Question], each: int) -> set[str]:
    """Which of the questions are asked."""
    groups: dict[tuple[str, ...], list[Question]] = {}
    for question in questions:
        groups.setdefault((question.role, question.modality, question.task, question.half), []).append(question)
    return {q.id for group in groups.values() for q in group[:: max(1, len(group) // each)][:each]}


def request_on(
    benchmark: Benchmark, cache: Path, folder: Path, *, goal: Goal = "visual", ratio: int = 10, seed: int = 0
) -> Request:
    """A request whose base model, reference and start are the model in `folder`."""

    def copied() -> VLM:
        return fresh(folder)

    def start() -> dict[str, Tensor]:
        return fresh(folder).tensors()

    return Request(benchmark.split(ratio), goal, benchmark.strangers, seed, cache, copied, copied, start)


def quick(plugin: Any, schedule: Schedule = QUICK, **fields: Any) -> Any:
    """The same plug-in with a short schedule, if it has one, and few of what else it repeats."""
    there = {field.name for field in dataclasses.fields(plugin)}
    if "schedule" in there:
        fields["schedule"] = schedule
    if "score_at" in there:
        fields["score_at"] = tuple(range(1, schedule.steps + 1))
    for name, few in (("anchor_steps", 5), ("batches", 2), ("steps", 2), ("ks", (1, 4)), ("draws", 4)):
        if name in there:
            fields.setdefault(name, few)
    return dataclasses.replace(plugin, **fields)


def variants(plugin: Any) -> Iterator[Any]:
    """The plug-in in a short form, and once for each single part that it can train."""
    yield quick(plugin)
    for part in PARTS if plugin.trains else ():
        try:
            yield quick(plugin, trains=(part,))
        except ValueError:
            continue


def trained(plugin: Any) -> set[Part]:
    """The parts that a plug-in says it trains."""
    return set(plugin.trains)


def snapshot(vlm: VLM) -> dict[str, Tensor]:
    """Every tensor of a model, buffers too, as it is now."""
    return {name: tensor.detach().clone() for name, tensor in vlm.model.state_dict(keep_vars=True).items()}


def twin(vlm: VLM) -> VLM:
    """A model of its own with the same weights."""
    return dataclasses.replace(vlm, model=copy.deepcopy(vlm.model))


@contextmanager
def borrowed(vlm: VLM) -> Iterator[tuple[VLM, dict[str, Tensor]]]:
    """A model that will be as it was, with its weights as they were."""
    before = {name: tensor.clone() for name, tensor in vlm.tensors().items()}
    with restored(vlm, before):
        yield vlm, before


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two models have the same tensors, bit for bit."""
    return one.keys() == other.keys() and not changed(one, other)


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """The names of the tensors of which a bit is not what it was."""
    return {
        name
        for name, tensor in before.items()
        if not torch.equal(tensor.view(torch.uint8), after[name].view(torch.uint8))
    }


def plain_logits(vlm: VLM, groups: Sequence[Group]) -> list[tuple[Tensor, Tensor]]:
    """For each answer of `groups`, asked all by itself without packing: its tokens' logits (T, V) and its tokens."""
    found = []
    for group in groups:
        pictured = group.picture is not None
        pixels = vlm.pixels([group.picture]).inputs(vlm.model.dtype) if group.picture else {}
        for prompt in group.prompts:
            for answer in prompt.answers:
                asked = vlm.prompt_ids(prompt.text, pictured)
                reply = (*vlm.answer_ids(prompt.text, pictured, answer), vlm.eos_id)
                ids = torch.tensor([[*asked, *reply]])
                out = vlm.model(input_ids=ids, **pixels, **(vlm.token_types(ids) if pixels else {})).logits[0]
                found.append((out[len(asked) - 1 : -1], torch.tensor(reply)))
    return found


def plain_logps(vlm: VLM, groups: Sequence[Group]) -> list[Tensor]:
    """The log-probabilities of the tokens of each answer, asked all by itself."""
    return [
        torch.stack([row.log_softmax(0)[token] for row, token in zip(rows, tokens, strict=True)])
        for rows, tokens in plain_logits(vlm, groups)
    ]


def propose(search: SearchProblem[J, P], label: str, number: int) -> P:
    """One proposal, by a proposer that knows no more than what is on disk."""
    return Proposer(search).propose(label, number)
