"""How likely answers are by the official protocol of CLEAR: the right one, the same in other words, and wrong ones.

As in the authors' code (mm/dataset.py and mm/trainer_utils.py of somvy/multimodal_unlearning) an answer stands where
the chat template puts what an assistant said, and counts with all that the template writes behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

import torch

from study.data.official_protocol import IMAGE, OfficialPrompt
from study.engine.microbatches import map_halving_on_oom
from study.engine.world import world
from study.evaluation.scoring import NAN, Cells, candidates
from study.metrics.formulas import average, truth_ratio
from study.model.likelihood import answer_lengths, answer_sums, logps
from study.model.packing import TOKENS_PER_BATCH, Row, as_batch
from study.model.vlm import VLM


class _Asked(NamedTuple):
    """Answers to one prompt that share a row."""

    prompt: int
    """Its number."""
    begin: tuple[int, ...]
    """The tokens before an answer."""
    answers: dict[int, tuple[int, ...]]
    """The tokens of each, by its place among the candidates."""

    @property
    def length(self) -> int:
        """The tokens of the row."""
        return len(self.begin) + sum(map(len, self.answers.values()))


@torch.no_grad()
def answer_means(vlm: VLM, asks: Sequence[OfficialPrompt]) -> list[list[float]]:
    """The mean log-probability, in nats, of the tokens of each candidate (`study.evaluation.scoring.candidates`).

    One list for each prompt, all of which are graded. Processes that do a job together share the prompts.
    """
    mine = world().share(list(enumerate(asks)))
    rows = [row for number, ask in mine for row in _rows(vlm, number, ask)]
    with vlm.independent_passes():
        read = list(map_halving_on_oom(_batches(rows, vlm.across), partial(_read, vlm, asks)))
    found = {place: mean for some in world().all_gather_objects(read) for place, mean in some}
    return [[found[number, i] for i in range(len(candidates(ask.question)))] for number, ask in enumerate(asks)]


def grades(asks: Sequence[OfficialPrompt], means: Sequence[Sequence[float]]) -> list[Cells]:
    """The cells `likelihood`, `probability` and `truth_ratio` of each prompt, from the means of its candidates.

    The probability of a name is its share of that of all candidates; captions have none. In CLEAR's truth ratio the
    loss of wrong answers is one mean over all questions of a set, not one for each as in TOFU (calculate_metrics.py).
    Here, as in all rows, it is wrong over right, the inverse of CLEAR's.
    """
    wrong: dict[tuple[str, str], list[float]] = {}
    for ask, its in zip(asks, means, strict=True):
        wrong.setdefault(_set(ask), []).extend(its[1 + bool(ask.question.paraphrased) :])
    found: list[Cells] = []
    for ask, its in zip(asks, means, strict=True):
        reworded = bool(ask.question.paraphrased)
        mean = [average(wrong[_set(ask)])] if wrong[_set(ask)] else []
        chances = torch.tensor(its, dtype=torch.float64).softmax(0)
        found.append({
            "likelihood": math.exp(its[0]),
            "probability": NAN if reworded or len(its) == 1 else float(chances[0]),
            "truth_ratio": truth_ratio(its[reworded], mean),
        })  # fmt: skip
    return found


def _set(ask: OfficialPrompt) -> tuple[str, str]:
    return ask.question.role, ask.graded_in


def user_turn(vlm: VLM, ask: OfficialPrompt) -> dict[str, Any]:
    """A prompt for the chat template; the instruction of the model, if it has one, comes before the words."""
    begin = f"{vlm.instruction}\n" if vlm.instruction else ""
    if ask.asked:
        return vlm.family.turn(begin + ask.asked, bool(ask.pictures))
    said = ask.text.partition("USER:")[2].rstrip().removesuffix("ASSISTANT:").replace("USER:", "").strip()
    first, *others = (begin + said).split(IMAGE)
    content = [{"type": "text", "text": first}] * bool(first.strip())
    for other in others:
        content += [{"type": "image"}, {"type": "text", "text": other}]
    return {"role": "user", "content": content}


def _rows(vlm: VLM, number: int, ask: OfficialPrompt) -> Iterator[_Asked]:
    """The rows of a prompt: one for all answers that begin alike, or one for each in a recurrent model.

    An answer begins where what the template writes of it parts from the prompt: after all of that, but in templates
    that write more before a reply than they keep of one.
    """
    shown, turn = len(ask.pictures), user_turn(vlm, ask)
    asked = vlm.written_ids(vlm.chat([turn]), shown)
    alike: dict[tuple[int, ...], dict[int, tuple[int, ...]]] = {}
    for i, answer in enumerate(candidates(ask.question)):
        whole = vlm.written_ids(vlm.chat([turn, vlm.family.reply(answer)], answered=True), shown)
        before = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(asked, whole, strict=False)))
        alike.setdefault(whole[:before], {})[i] = whole[before:]
    for begin, answers in alike.items():
        for some in ({i: its} for i, its in answers.items()) if vlm.recurrent else (answers,):
            yield _Asked(number, begin, some)


def _batches(rows: Sequence[_Asked], beside: int) -> Iterator[list[_Asked]]:
    """Rows of similar length, of at most `TOKENS_PER_BATCH` padded tokens, each with so many `beside` it."""
    batch: list[_Asked] = []
    for row in sorted(rows, key=lambda row: (-row.length, row.prompt)):
        if batch and (batch[0].length + beside) * (len(batch) + 1) > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _read(vlm: VLM, asks: Sequence[OfficialPrompt], batch: Sequence[_Asked]) -> list[tuple[tuple[int, int], float]]:
    """The mean of each answer of a batch, by the number of its prompt and its place among the candidates."""
    rows: list[Row] = []
    tokens: list[tuple[int, int, int, int]] = []  # row, source, target, owner
    owners: list[tuple[int, int]] = []
    for one in batch:
        row = Row([], [], [], [])
        root = row.add(-1, one.begin, 0)
        row.grid = vlm.grid_positions(one.begin)
        after = 1 + max(map(max, row.grid)) if row.grid else len(one.begin)
        prompt, last = row.add(root, (), after), len(one.begin) - 1
        for i, answer in one.answers.items():
            tokens += [(len(rows), s, t, len(owners)) for s, t in row.answer(prompt, answer, after, last)]
            owners.append((one.prompt, i))
        rows.append(row)
    pictures = [picture for one in batch for picture in asks[one.prompt].pictures]
    packed = as_batch(vlm, rows, tokens, [], vlm.pixels(pictures) if pictures else None, len(owners))
    means = answer_sums(logps(vlm, packed), packed) / answer_lengths(packed)
    return list(zip(owners, means.tolist(), strict=True))
