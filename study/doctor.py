"""`mus doctor /models/llava-1.5-7b-hf`: examine a base model before it is studied.

Prints its parts, prompts and tokens, the memory that each kind of training needs, whether a Ray on this machine can be
used without a token, and the results of a smoke test of half a minute.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from study.core.console import console, table
from study.core.errors import Refused
from study.core.files import check_writable
from study.core.plugins import known
from study.core.specs import plugin
from study.core.terms import PARTS, Quantized
from study.data.benchmark import Question
from study.engine.cluster import asks_for_token
from study.experiment.smoke_test import Check, group_of, of_nobody, tried
from study.model import memory_estimate
from study.model.families import read_layers, why_apart
from study.model.loading import SAMPLE, Loading, load, without_weights
from study.model.memory_estimate import GIB, Estimate, Shape
from study.model.vlm import VLM
from study.model.weight_files import check_weights, read_settings

USUAL = (24, 48, 80, 141)
"""GiB of GPUs in use: RTX 4090 and L4; L40S and A6000; A100 and H100; H200."""
ALTERNATIVE: Quantized = "nf4"
CHOOSING = frozenset({
    "do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "num_beams", "length_penalty", "min_length",
    "min_new_tokens", "repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens",
    "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "sequence_bias", "guidance_scale",
})  # fmt: skip
"""What a generation config may say about which token comes next."""
LAYOUT = 300
"""Seconds to lay a model out without its weights: the largest take tens."""
GCS = 6379  # where a Ray's control store listens by default


def main(arguments: list[str] | None = None) -> int:
    """Examine the model; returns the exit status: 0 sound, 1 something failed, 2 the model cannot be studied."""
    asked = parse(sys.argv[1:] if arguments is None else arguments)
    logging.disable_progress_bar()
    try:
        if asked.data:
            check_writable(asked.data, "data folder", "--data")
        with tempfile.TemporaryDirectory() as made:
            return examine(asked, asked.data or Path(made))
    except (Refused, ValueError, OSError) as error:
        console.print(f"error: {error}", style="bold red", markup=False)
        return 2
    except Exception as error:  # transformers fails in ways of its own, and each is a finding
        console.print(f"failed: {type(error).__name__}: {error}", style="bold red", markup=False)
        return 2


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="mus doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a base model as a study names it: a folder, OWNER/NAME@COMMIT, tiny:width=32")
    parser.add_argument("--benchmark", default="", help="take the sample questions from it, such as own:my-people")
    parser.add_argument(
        "--memory-gb", type=float, help="GiB of memory available (default: this machine's GPU, else its main memory)"
    )
    parser.add_argument("--pictures", type=int, default=memory_estimate.PICTURES, help="pictures of a training step")
    parser.add_argument("--questions", type=int, default=memory_estimate.QUESTIONS, help="lessons of each of them")
    parser.add_argument("--no-smoke", action="store_true", help="skip the smoke test, which loads the weights")
    parser.add_argument("--data", type=Path, help="folder for generated datasets and models (default: temporary)")
    asked = parser.parse_args(arguments)
    for name in ("memory_gb", "pictures", "questions"):
        value = getattr(asked, name)
        if value is not None and not 0 < value < math.inf:
            parser.error(f"--{name.replace('_', '-')}={value}: use a positive number")
    return asked


def examine(asked: argparse.Namespace, data: Path) -> int:
    """Print everything; the exit status. Raises `ValueError` if the model or the benchmark cannot be read."""
    model = plugin("base_models", asked.model)
    folder = model(data)
    loading = Loading.of(model if model.path is None else model.at(folder))
    with _within(LAYOUT, folder):
        empty = without_weights(folder, loading)
    questions = _sample(asked.benchmark, data)
    shape, limit = memory_estimate.shape(empty, loading.quantized), (asked.memory_gb or _memory_here()) * GIB
    kind = empty.model.config.model_type
    told = (
        f"family {kind} (study/model/families/{kind}.py)"
        if kind in known("families")
        else "no family of its own: parts found by their structure"
    )
    console.print(f"{folder}: {type(empty.model).__name__}, {kind}, {loading.dtype}, {told}", markup=False)
    if loading.quantized:
        held = f"After learning the LLM's linear layers are quantized ({loading.quantized}) and frozen."
        console.print(held, markup=False)
    _print_parts(empty, shape)
    _print_tokens(empty)
    _print_lines("Left out", list(_left_out(folder, empty)) or ["nothing"])
    _print_prompts(empty, questions)
    found = memory_estimate.estimates(shape, asked.pictures, asked.questions)
    _print_memory(found, limit, f"{asked.pictures} pictures a step, {asked.questions} lessons each")
    _print_fits(found, [] if loading.quantized else memory_estimate.estimates(
        memory_estimate.shape(empty, ALTERNATIVE), asked.pictures, asked.questions
    ))  # fmt: skip
    sound = _print_ray()
    if asked.no_smoke:
        return 0 if sound else 1
    loaded = partial(load, folder, loading=loading)
    outcomes = _smoke(loaded, found, limit, questions)
    table("Smoke test of at most 30 s", ["check", "outcome", "note"], [[x.name, x.state, x.note] for x in outcomes])
    return 0 if sound and not any(outcome.state == "failed" for outcome in outcomes) else 1


# ---- what is printed ---------------------------------------------------------------------------------------------
def _print_parts(vlm: VLM, shape: Shape) -> None:
    rows = [
        [part, vlm.prefixes[part], f"{shape.parameters[part]:,}", f"{shape.parameters[part] - shape.trainable[part]:,}"]
        for part in PARTS
    ]
    table("Parts", ["part", "module", "parameters", "unused parameters"], rows)


def _print_tokens(vlm: VLM) -> None:
    tower = vlm.model.get_submodule(vlm.prefixes["vision"])
    read, every = read_layers(tower, vlm.model.config), vlm.family.layers(tower)
    lines = [
        f"{len(read)} of {len(every)} vision layers feed the LLM",
        f"a picture has {vlm.side} x {vlm.side} pixels and {_tokens(vlm)}",
        "questions about a picture share a row" if vlm.packs else why_apart(vlm.family, vlm.model.config),
        f"image token {vlm.image_id}, end {vlm.eos_id}, padding {vlm.tokenizer.pad_token_id}",
        f"a vocabulary of {vlm.vocabulary} tokens",
    ]
    _print_lines("Pictures and tokens", lines)


def _tokens(vlm: VLM) -> str:
    if not vlm.across:
        return f"{vlm.image_tokens} tokens"
    return f"{vlm.across} tokens that the LLM attends to across; in a row of words it has {vlm.image_tokens}"


def _left_out(folder: Path, vlm: VLM) -> Iterator[str]:
    """What is in the folder and changes no number, or those of one protocol only."""
    if unused := check_weights(folder, vlm.model):
        yield f"tensors that the model has no use for, such as {unused[0]} ({len(unused)} in all)"
    path = folder / "generation_config.json"
    asked = read_settings(path) if path.exists() else {}
    if odd := sorted(CHOOSING.intersection(asked)):
        yield f"{', '.join(odd)} of generation_config.json: replies are greedy; only --released heeds penalties"


def _print_prompts(vlm: VLM, questions: Sequence[Question]) -> None:
    for with_picture in (True, False):
        prompt = next((q.prompt for q in questions if (q.picture is not None) == with_picture), SAMPLE)
        text, ids = vlm.chat([vlm.family.turn(prompt, with_picture)]), vlm.prompt_ids(prompt, with_picture)
        unknown = vlm.tokenizer.unk_token_id
        note = f", {ids.count(unknown)} of them unknown" if unknown is not None and unknown in ids else ""
        title = f"A question {'with' if with_picture else 'without'} a picture, {len(ids)} tokens{note}"
        _print_lines(title, [repr(text)])


def _print_memory(found: Sequence[Estimate], limit: float, batch: str) -> None:
    columns = ["GiB (calculated)", "weights", "states", "copies", "a row", "rows", "at most", "here"]
    rows = [
        [e.kind, *(f"{size / GIB:.2f}" for size in (e.weights, e.states, e.copies, e.step.row)), e.step.rows,
         f"{e.peak() / GIB:.1f}", memory_estimate.fit(e, limit)]
        for e in found
    ]  # fmt: skip
    table(f"Memory, of {limit / GIB:.0f} GiB; {batch}", columns, rows)
    console.print(
        "A row is a picture with its questions. The maximum includes the gradients that a mask is made of, before the "
        "first step. The base model as a teacher and the weights to restore after a trial stay in main memory."
    )


def _print_fits(found: Sequence[Estimate], quantized: Sequence[Estimate]) -> None:
    """How each kind of work fits on usual GPUs."""
    instead = {estimate.kind: estimate for estimate in quantized}
    rows = [[e.kind, *(memory_estimate.fit(e, gib * GIB, instead.get(e.kind)) for gib in USUAL)] for e in found]
    table("On one GPU, or several", ["work", *(f"{gib} GB" for gib in USUAL)], rows)
    console.print(
        f"Fewer rows at once are micro-batches; nf4 is quantized={ALTERNATIVE} of the model; FSDP on n is "
        "--gpus-per-trial n --sharded. Calculated, not tried."
    )


def _print_ray() -> bool:
    safe, found = ray_guard(os.environ.get("RAY_ADDRESS", ""), os.environ.get("RAY_AUTH_MODE", "token"))
    _print_lines("Ray", [found if safe else f"failed: {found}"])
    return safe


def _print_lines(title: str, lines: Sequence[str]) -> None:
    console.print(f"\n{title}", style="italic", markup=False)
    for line in lines:
        console.print(f"- {line}", markup=False)


def ray_guard(address: str, mode: str) -> tuple[bool, str]:
    """Whether the Ray at `address`, or on this machine, requires a token to run code, with an explanation.

    `mode` is the authentication mode of Rays that are started from here.
    """
    if mode != "token":
        return False, f"RAY_AUTH_MODE={mode} starts Rays that anyone can use: unset it, or set it to token"
    if address.startswith("ray://"):
        return True, f"whether {address} requires a token cannot be checked from here: run this on its head node"
    gcs = address if ":" in address else f"127.0.0.1:{GCS}"
    asks = asks_for_token(gcs)
    if asks is None:
        return True, f"none answers at {gcs}; a study starts a private one with its own token"
    return asks, f"the one at {gcs} requires a token" if asks else (
        f"the one at {gcs} lets anyone run code: start it with RAY_AUTH_MODE=token on every node"
    )


# ---- what is tried -----------------------------------------------------------------------------------------------
def _smoke(
    loaded: Callable[..., VLM], found: Sequence[Estimate], limit: float, questions: Sequence[Question]
) -> list[Check]:
    """Load the weights and run the smoke test, if they fit with what the steps need."""
    needed = min(e.weights + e.states + e.step.row for e in found if e.states)
    if needed > limit:
        note = f"needs {needed / GIB:.0f} of {limit / GIB:.0f} GiB; set --memory-gb, or run it on a larger machine"
        return [Check("loading", "not tried", note)]
    asked = next((q for q in questions if q.picture is not None), None)
    group = group_of(asked.picture, asked.prompt, asked.answer) if asked and asked.picture else of_nobody()
    try:
        vlm = loaded(device="cuda" if torch.cuda.is_available() else "cpu")
    except Exception as error:  # transformers fails in ways of its own, and each is a finding
        return [Check("loading", "failed", f"{type(error).__name__}: {error}")]
    return list(tried(vlm, group))


def _sample(benchmark: str, data: Path) -> list[Question]:
    """The questions of a benchmark's smallest split, or none."""
    if not benchmark:
        return []
    read: Any = plugin("benchmarks", benchmark)(data)
    return list(read.split(min(read.splits)).questions)


@contextmanager
def _within(seconds: int, folder: Path) -> Iterator[None]:
    """Raises `TimeoutError` if the block takes longer; only the main thread can be interrupted."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"{folder}: to lay it out takes more than {seconds} s: look at the sizes in config.json")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _memory_here() -> float:
    """GiB of the GPU, or of the machine if there is none."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / GIB
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


if __name__ == "__main__":
    sys.exit(main())
