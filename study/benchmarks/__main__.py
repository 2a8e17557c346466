"""`mus check-data mllmu:/data/MLLMU-Bench`: check a dataset before it is studied.

Prints counts of lessons and questions, every defect with its file and row, and what makes the dataset hard to memorize
or results uncertain, all with the halves as a study deals them. With `--model` also a question of each kind, as that
model sees it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.markup import escape

from study.benchmarks import _check as checking
from study.benchmarks._shared.defects import collected, strict_data
from study.core.console import console, table
from study.core.errors import Refused
from study.core.files import check_writable
from study.core.specs import plugin
from study.data.benchmark import Benchmark, Split
from study.data.halves import prepared
from study.data.special_tokens import special_tokens_in, unknown_words_in
from study.model.loading import Loading, without_weights
from study.model.vlm import VLM


def main(arguments: list[str] | None = None) -> int:
    """Check; returns the exit status: 0 sound, 1 there are defects, 2 it cannot be read at all."""
    asked = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        if asked.data:
            check_writable(asked.data, "data folder", "--data")
        with tempfile.TemporaryDirectory() as made:
            return check(asked.dataset, asked.model, asked.data or Path(made), asked.strict_data)
    except (Refused, ValueError, OSError) as error:
        console.print(f"error: {error}", style="bold red", markup=False)
        return 2


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line; the word `check` may come first."""
    parser = argparse.ArgumentParser(
        prog="mus check-data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="a benchmark as a study names it, such as own:~/people or synthetic:people=30")
    parser.add_argument("--model", default="", help="show questions as this model sees them, such as /models/x")
    parser.add_argument(
        "--strict-data", action="store_true", help="count what the authors' code passes over among the defects"
    )
    parser.add_argument("--data", type=Path, help="folder for generated datasets and models (default: temporary)")
    return parser.parse_args(arguments[1:] if arguments[:1] == ["check"] else arguments)


def check(dataset: str, model: str, data: Path, strict: bool = False) -> int:
    """Print all there is to say about a dataset; the exit status. Raises `ValueError` if it cannot be read at all."""
    source = plugin("benchmarks", dataset)
    with collected() as defects, strict_data(strict):
        try:
            read: Benchmark = source(data)
        except ValueError:
            if defects:
                _print_defects(defects)
            raise
    defects += _damaged(read)
    console.print(f"{dataset}: fingerprint {read.fingerprint}", markup=False)
    used = prepared(read)
    _print_counts(used)
    _print_training(source, read, data)
    _print_lines("Hints", checking.hints(used))
    if model:
        named = plugin("base_models", model)
        vlm = without_weights(named(data), Loading.of(named))
        defects += special_tokens_in(used, named.special_tokens) + unknown_words_in(used, named.unknown)
        for split in _smallest(used):
            _print_examples(vlm, split)
    if read.skipped:
        _print_lines(f"{len(read.skipped)} places that a study skips, as the authors' code does", read.skipped)
    _print_defects(defects)
    return 1 if defects else 0


def _damaged(benchmark: Benchmark) -> list[str]:
    """The pictures that do not decode, in the order of their places."""
    found = []
    for picture in sorted(benchmark.pictures(), key=lambda picture: picture.where):
        try:
            picture.open().close()
        except ValueError as error:
            found.append(str(error))
    return found


def _print_counts(benchmark: Benchmark) -> None:
    ratios = [f"{ratio} %" for ratio in benchmark.splits]
    table("What is taught", ["", "number"], checking.taught(benchmark))
    table(
        "What is asked: people, and questions of the validation + test half",
        ["role", "modality", "task", *ratios],
        checking.asked(benchmark),
    )
    found = [dict(checking.memorability(split).rows()) for split in benchmark.splits.values()]
    names = dict.fromkeys(name for numbers in found for name in numbers)
    rows = [[name, *(numbers.get(name, "-") for numbers in found)] for name in names]
    table("What there is to memorize, and how precisely it can be measured", ["", *ratios], rows)


def _print_training(source: Any, benchmark: Benchmark, data: Path) -> None:
    """Whether the lessons of a separate training split equal those of the dataset."""
    if source.train_split != Path():
        with collected():
            same = dataclasses.replace(source, train_split=Path())(data).fingerprint == benchmark.fingerprint
        said = "the same lessons, split by ID: it changes nothing" if same else "other lessons, which are used instead"
        console.print(f"{source.train_split} has {said}\n", markup=False)


def _print_examples(vlm: VLM, split: Split) -> None:
    console.print(f"\nOne question of each kind at {split.ratio} %, as the model sees it")
    for question in checking.examples(split):
        ids = vlm.prompt_ids(question.prompt, question.picture is not None)
        console.print(f"\n[bold]{question.role} {question.modality} {question.task}[/bold] {escape(question.id)}")
        unknown = " (tokens that the model does not know)" * (vlm.tokenizer.unk_token_id in ids)
        console.print(checking.shown(ids, vlm.image_id, vlm.tokenizer.decode) + unknown, markup=False)
        for option in question.options:
            console.print(f"  {'*' if option == question.answer else '-'} {option}", markup=False)
        if not question.options:
            console.print(f"  * {question.answer}", markup=False)


def _smallest(benchmark: Benchmark) -> list[Split]:
    return [benchmark.splits[min(benchmark.splits)]] if benchmark.splits else []


def _print_defects(defects: list[str]) -> None:
    if defects:
        _print_lines(f"{len(defects)} defects, because of which a study refuses it", defects)
    else:
        console.print("No defect: every row and every picture can be read.")


def _print_lines(title: str, lines: Iterable[str]) -> None:
    console.print(f"\n{title}", style="italic", markup=False)
    for line in lines:
        console.print(f"- {line}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
