"""What scoring costs, the released way and ours: the same model, the same questions, one run.

    python -m tests.cost.scoring runs/tiny         # vanilla of a study, its choices about the forget and test people
    python -m tests.cost.scoring runs/tiny --all   # every question of the benchmark, replies included

Three ways to answer multiple-choice questions, each in one thread:
- released: the prompts of the benchmark's authors with their few-shot examples, one greedy reply at a time, every
  picture encoded again for every question;
- plain: the bare question, each option in a forward of its own: our protocol without any sharing;
- ours: `study.evaluation.scoring`.
Ours must give the answers of plain, to float rounding; those of released are another protocol's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from study.core.console import console, table
from study.core.files import read_json
from study.core.layout import StudyFolder
from study.core.specs import plugin
from study.data.benchmark import Question
from study.data.official_protocol import OfficialPrompt
from study.evaluation.official_scoring import generated
from study.evaluation.scoring import readings
from study.experiment.checkpoints import load_learned
from study.model.flop_counter import ComputeCount, counted
from study.model.vlm import VLM

RATIO = 15


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns 1 if ours and plain disagree on an answer."""
    parser = argparse.ArgumentParser(prog="python -m tests.cost.scoring", description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="a study folder whose vanilla model has been taught")
    parser.add_argument("--benchmark", default="synthetic", help="its benchmark, as on the study's command line")
    parser.add_argument(
        "--all", action="store_true", help="every question and task, not only choices about forget people"
    )
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    source = plugin("benchmarks", given.benchmark)
    data = StudyFolder(given.study).data
    asks = [a for a in source.released(source(data).split(RATIO), data, 0) if given.all or _is_measured(a.question)]
    done = compared(load_learned(given.study, _vanilla(given.study), given.device), asks)
    ours, questions = done["ours"], [ask.question for ask in asks]
    lines: list[list[object]] = [
        [
            name, d.work.images, d.work.prompt_tokens, d.work.generated_tokens, d.work.flops / 1e9, d.seconds,
            *(f"{a / b:.1f}x" for a, b in ((d.work.tokens, ours.work.tokens), (d.work.flops, ours.work.flops),
                                           (d.seconds, ours.seconds))),
        ]
        for name, d in done.items()
    ]  # fmt: skip
    columns = ["way", "images", "prompt tokens", "generated", "GFLOP", "CPU s", "tokens", "FLOP", "CPU time"]
    table(f"{len(questions)} questions, {sum(bool(q.options) for q in questions)} of them choices", columns, lines)
    choices = [q.id for q in questions if q.options]
    same = sum(done["plain"].said[key] == ours.said[key] for key in choices)
    console.print(f"ours and plain choose the same option in {same} of {len(choices)} questions")
    return int(same < len(choices))


class Done(NamedTuple):
    """What one way said to each question, by its id, and what that took in work and seconds of CPU time."""

    said: dict[str, str]
    work: ComputeCount
    seconds: float


def compared(vlm: VLM, asks: Sequence[OfficialPrompt]) -> dict[str, Done]:
    """The three ways on the same questions, one after another."""
    ways = {"released": _released(asks), "plain": _plain, "ours": _ours}
    return {name: _measured(vlm.forgetful(), [ask.question for ask in asks], way) for name, way in ways.items()}


def _is_measured(question: Question) -> bool:
    return bool(question.options) and question.role in ("forget", "test")


def _vanilla(root: Path) -> str:
    """The key of the model that was taught everybody with the study's own seed; others check metrics."""
    seed = read_json(StudyFolder(root).settings)["settings"]["seed"]
    for path in root.glob("learned/*/learned.json"):
        taught = read_json(path)
        if (taught["kind"], taught["seed"]) == ("vanilla", seed):
            return path.parent.name
    raise SystemExit(f"{root}: no vanilla model has been taught there; run the study first")


Way = Callable[[VLM, Sequence[Question]], dict[str, str]]


def _measured(vlm: VLM, questions: Sequence[Question], way: Way) -> Done:
    vlm.pixels([q.picture for q in questions if q.picture])  # decoding a file is no part of the comparison
    with counted(vlm) as work:
        started = time.process_time()
        said = way(vlm, questions)
        return Done(said, work, time.process_time() - started)


def _released(asks: Sequence[OfficialPrompt]) -> Way:
    by_id = {ask.question.id: ask for ask in asks}

    def way(vlm: VLM, questions: Sequence[Question]) -> dict[str, str]:
        return {q.id: generated(vlm, [by_id[q.id]], shared=False)[0] for q in questions}

    return way


@torch.no_grad()
def _plain(vlm: VLM, questions: Sequence[Question]) -> dict[str, str]:
    """Each option, and each reply, in forwards of its own; the picture anew in each."""
    said = {}
    for question in questions:
        shown = vlm.pixels([question.picture]).inputs(vlm.model.dtype) if question.picture else {}
        before = vlm.prompt_ids(question.prompt, question.picture is not None)
        means = {}
        for option in question.options:
            reply = vlm.answer_ids(question.prompt, question.picture is not None, option)
            ids = torch.tensor([[*before, *reply]], device=vlm.device)
            types = vlm.token_types(ids) if shown else {}
            logits = vlm.model(input_ids=ids, use_cache=False, **shown, **types).logits[0, len(before) - 1 : -1]
            logps = logits.float().log_softmax(-1)
            means[option] = float(logps.gather(1, ids[0, len(before) :, None]).mean())
        if question.options:
            said[question.id] = max(means, key=means.__getitem__)
        else:
            said |= {key: str(reading.reply) for key, reading in readings(vlm, [question]).items()}
    return said


def _ours(vlm: VLM, questions: Sequence[Question]) -> dict[str, str]:
    found = readings(vlm, questions)
    return {
        q.id: q.options[found[q.id].means.index(max(found[q.id].means))] if q.options else str(found[q.id].reply)
        for q in questions
    }


if __name__ == "__main__":
    raise SystemExit(main())
