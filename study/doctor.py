"""`python -m study.doctor /models/llava-1.5-7b-hf`: examine a base model before it is studied.

Prints its parts, prompts and tokens, the memory that each kind of training needs, whether a Ray on this machine can be
used without a token, and the results of a smoke test of half a minute.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from study.core.console import console, table
from study.core.plugins import known
from study.core.specs import plugin
from study.core.terms import PARTS
from study.data.benchmark import Question
from study.engine.cluster import asks_for_token
from study.experiment.smoke_test import Check, group_of, of_nobody, tried
from study.model import memory_estimate
from study.model.families import left_to_right, read_layers
from study.model.loading import SAMPLE, Loading, load, without_weights
from study.model.memory_estimate import GIB, Shape
from study.model.vlm import VLM

GCS = 6379  # where a Ray's control store listens by default


def main(arguments: list[str] | None = None) -> int:
    """Examine the model; returns the exit status: 0 sound, 1 something failed, 2 the model cannot be studied."""
    asked = parse(sys.argv[1:] if arguments is None else arguments)
    logging.disable_progress_bar()
    try:
        with tempfile.TemporaryDirectory() as made:
            return examine(asked, asked.data or Path(made))
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="bold red", markup=False)
        return 2


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m study.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a base model as a study names it: a folder, OWNER/NAME@COMMIT, tiny:width=32")
    parser.add_argument("--benchmark", default="", help="take the sample questions from it, such as own:my-people")
    parser.add_argument(
        "--memory-gb", type=float, help="GiB of memory available (default: this machine's GPU, else its main memory)"
    )
    parser.add_argument("--no-smoke", action="store_true", help="skip the smoke test, which loads the weights")
    parser.add_argument("--data", type=Path, help="folder for generated datasets and models (default: temporary)")
    return parser.parse_args(arguments)


def examine(asked: argparse.Namespace, data: Path) -> int:
    """Print everything; the exit status. Raises `ValueError` if the model or the benchmark cannot be read."""
    model = plugin("base_models", asked.model)
    loading, folder = Loading.of(model), model(data)
    empty = without_weights(folder, loading)
    questions = _sample(asked.benchmark, data)
    shape, limit = memory_estimate.shape(empty, loading.quantized), (asked.memory_gb or _memory_here()) * GIB
    kind = empty.model.config.model_type
    told = (
        f"family {kind} (study/model/families/{kind}.py)"
        if kind in known("families")
        else "no family of its own: parts found by their usual names"
    )
    console.print(f"{folder}: {type(empty.model).__name__}, {kind}, {loading.dtype}, {told}", markup=False)
    if loading.quantized:
        held = f"After learning the LLM's linear layers are quantized ({loading.quantized}) and frozen."
        console.print(held, markup=False)
    _print_parts(empty, shape)
    _print_tokens(empty)
    _print_prompts(empty, questions)
    _print_memory(shape, limit)
    sound = _print_ray()
    if asked.no_smoke:
        return 0 if sound else 1
    loaded = partial(load, folder, loading=loading)
    outcomes = _smoke(loaded, shape, limit, questions)
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
        f"a picture has {vlm.side} x {vlm.side} pixels and {vlm.image_tokens} tokens",
        "questions about a picture share a row" if vlm.packs else left_to_right(vlm.family, vlm.model.config),
        f"image token {vlm.image_id}, end {vlm.eos_id}, padding {vlm.tokenizer.pad_token_id}",
        f"a vocabulary of {vlm.vocabulary} tokens",
    ]
    _print_lines("Pictures and tokens", lines)


def _print_prompts(vlm: VLM, questions: Sequence[Question]) -> None:
    for with_picture in (True, False):
        prompt = next((q.prompt for q in questions if (q.picture is not None) == with_picture), SAMPLE)
        text, ids = vlm.chat([vlm.family.turn(prompt, with_picture)]), vlm.prompt_ids(prompt, with_picture)
        unknown = vlm.tokenizer.unk_token_id
        note = f", {ids.count(unknown)} of them unknown" if unknown is not None and unknown in ids else ""
        title = f"A question {'with' if with_picture else 'without'} a picture, {len(ids)} tokens{note}"
        _print_lines(title, [repr(text)])


def _print_memory(shape: Shape, limit: float) -> None:
    columns = ["GiB (calculated)", "weights", "states", "copies", "per picture", "pictures that fit"]
    rows = [
        [e.kind, *(f"{size / GIB:.2f}" for size in (e.weights, e.states, e.copies, e.picture)), e.batch(limit)]
        for e in memory_estimate.estimates(shape)
    ]
    table(f"Memory, of {limit / GIB:.0f} GiB", columns, rows)
    console.print("One question per picture. The weights to restore after a trial are memory-mapped and not counted.")


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
def _smoke(loaded: Callable[..., VLM], shape: Shape, limit: float, questions: Sequence[Question]) -> list[Check]:
    """Load the weights and run the smoke test, if they fit with what the steps need."""
    needed = min(e.weights + e.states + e.picture for e in memory_estimate.estimates(shape))
    if needed > limit:
        note = f"needs {needed / GIB:.0f} of {limit / GIB:.0f} GiB; set --memory-gb, or run it on a larger machine"
        return [Check("loading", "not tried", note)]
    asked = next((q for q in questions if q.picture is not None), None)
    group = group_of(asked.picture, asked.prompt, asked.answer) if asked and asked.picture else of_nobody()
    return list(tried(loaded(device="cuda" if torch.cuda.is_available() else "cpu"), group))


def _sample(benchmark: str, data: Path) -> list[Question]:
    """The questions of a benchmark's smallest split, or none."""
    if not benchmark:
        return []
    read: Any = plugin("benchmarks", benchmark)(data)
    return list(read.split(min(read.splits)).questions)


def _memory_here() -> float:
    """GiB of the GPU, or of the machine if there is none."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / GIB
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


if __name__ == "__main__":
    sys.exit(main())
