"""What work takes on a GPU, measured at 7B shapes with random weights, in at most eight minutes.

    python -m tests.cost.gpu docs                             # LLaVA-1.5-7B on the GPU: docs/gpu.csv and docs/gpu.md
    python -m tests.cost.gpu /tmp --shape tiny --device cpu   # the same on any machine: its numbers mean nothing

Each case runs a step of the project's own code once, which is counted (`study.model.flop_counter`), and then for some
seconds. Random pictures and words, random weights in bfloat16: no number depends on what they say. MFU is counted
operations in a second over `--peak-tflops`; an optimizer step is timed and not counted. A case that runs out of memory,
or whose turn comes after the time is over, says so.
"""

from __future__ import annotations

import csv
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
import tyro

from study.base_models.tiny import Tiny
from study.core.console import table
from study.engine.microbatches import release
from study.model.decoding import replies
from study.model.flop_counter import counted
from study.model.likelihood import cross_entropy
from study.model.loading import Loading, load
from study.model.packing import begun
from study.model.quantization import quantize
from study.model.vlm import VLM
from study.training.loop import steps
from study.training.schedule import Schedule
from tests.cost.flops import ASKED, DISTILLED, SCORED, THROUGH, Setting, Step, pixels, samples
from tests.cost.llava import llava

PICTURES = 4
"""Of a training step: the published batch, that of the 7B presets."""
VIEWS = 680
"""Pictures that MLLMU-Bench asks about at one forget ratio."""
REPLY = 16
"""Tokens of a reply that is decoded."""

Shape = Literal["7b", "tiny"]
Device = Literal["cuda", "cpu"]
Kind = Literal["plain", "nf4", "sharded"]
"""How the model is held."""


@dataclass(frozen=True)
class Case:
    """A kind of work: what a step does, on which model, and for how many units."""

    key: str
    about: str
    unit: str
    units: int
    """Units of a row."""
    setting: Setting
    kind: Kind = "plain"
    rows: int = PICTURES


@dataclass(frozen=True)
class Speed:
    """What was measured of a case; empty where nothing was."""

    case: str
    about: str
    unit: str
    rows: int
    per_second: float | None = None
    """Units in a second."""
    tflop: float | None = None
    """Counted operations of a unit, in 10^12."""
    mfu: float | None = None
    peak_gib: float | None = None
    """The most GPU memory that was allocated."""
    note: str = ""


# ---- what is measured --------------------------------------------------------------------------------------------
@contextmanager
def learning(vlm: VLM, rows: int) -> Iterator[Step]:
    """Adapters of rank 16 on projector and LLM are trained as vanilla is: autocast, clipping and optimizer included."""
    batch = samples(vlm, rows)
    schedule = Schedule(steps=10**6, pictures=rows, lessons_per_picture=1, precision="bfloat16", lora_rank=16)
    taught = steps(vlm, ("projector", "llm"), schedule, lambda _: cross_entropy(vlm, batch))
    try:
        yield lambda: next(taught)
    finally:
        taught.close()  # the adapters are merged and gone


@contextmanager
def encoding(vlm: VLM, rows: int) -> Iterator[Step]:
    """The features of a teacher are computed."""
    shown = pixels(vlm, rows)
    yield torch.no_grad()(lambda: vlm.features(shown))


@contextmanager
def reading(vlm: VLM, rows: int) -> Iterator[Step]:
    """The same features are brought from pages in main memory, as a cache on disk would at best."""
    with torch.no_grad():
        made = vlm.features(pixels(vlm, rows))
    kept = [tensor.cpu() for tensor in (*made.layers, made.projected)]
    yield lambda: [tensor.clone().to(vlm.device) for tensor in kept]


@contextmanager
def replying(vlm: VLM, rows: int) -> Iterator[Step]:
    """A prompt for each picture is read and answered greedily."""
    batch = samples(vlm, rows)

    @torch.no_grad()
    def step() -> object:
        return replies(vlm, batch, range(rows), begun(vlm, batch), REPLY)

    yield step


_THROUGH, _DECODED = "the visual module is trained through the frozen LLM", f"replies of {REPLY} tokens"
CASES = (
    Case("learn", "adapters of rank 16 on projector and LLM, optimizer included", "sample", 1, learning),
    Case("features", "VKD's distances, the teacher's features are there", "picture", 1, DISTILLED.setting),
    Case("encode", "a teacher's features, computed", "picture", 1, encoding),
    Case("read", "a teacher's features, brought from main memory", "picture", 1, reading),
    Case("through", _THROUGH, "sample", 1, THROUGH.setting),
    # as many rows of 576 + 18 x 96 tokens as a batch of scoring has
    Case("score", f"{ASKED} questions of a picture in one row", "picture", 1, SCORED.setting, rows=7),
    Case("decode", _DECODED, "token", REPLY, replying),
    Case("through_nf4", f"{_THROUGH}, which is in nf4", "sample", 1, THROUGH.setting, "nf4"),
    Case("decode_nf4", f"{_DECODED}, the LLM in nf4", "token", REPLY, replying, "nf4"),
    Case("through_fsdp", f"{_THROUGH}, sharded over one process", "sample", 1, THROUGH.setting, "sharded"),
)
KINDS: tuple[Kind, ...] = ("plain", "nf4", "sharded")


# ---- measuring ---------------------------------------------------------------------------------------------------
def measured(vlm: VLM, case: Case, seconds: float, peak_tflops: float) -> Speed:
    """The speed of a case over so many seconds, at least one step, after a step that is counted and one that warms up.

    An out-of-memory error is a result.
    """
    gpu = vlm.device.type == "cuda"
    empty = Speed(case.key, case.about, case.unit, case.rows)
    try:
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        with case.setting(vlm, case.rows) as step:
            with counted(vlm) as work:
                step()
            each = clocked(step, seconds, torch.cuda.synchronize if gpu else lambda: None)
        peak = torch.cuda.max_memory_allocated() / 2**30 if gpu else None
    except torch.OutOfMemoryError:
        return Speed(**{**asdict(empty), "note": "out of memory"})
    units = case.rows * case.units
    return Speed(**{
        **asdict(empty), "per_second": units / each, "tflop": work.flops / units / 1e12,
        "mfu": work.flops / each / 1e12 / peak_tflops if gpu else None, "peak_gib": peak,
        "note": f"{VIEWS} pictures take {VIEWS / units * each:.0f} s" if case.key == "score" else "",
    })  # fmt: skip


def clocked(step: Step, seconds: float, wait: Callable[[], object]) -> float:
    """Seconds of a step, the mean over as many as fit into `seconds`, at least one, after one that is not timed.

    A GPU computes while the program goes on: `wait` is for it to finish.
    """
    step()
    wait()
    started = time.perf_counter()
    for done in itertools.count(1):
        step()
        wait()
        if (passed := time.perf_counter() - started) >= seconds:
            return passed / done
    raise AssertionError


@contextmanager
def one_process(device: str) -> Iterator[None]:
    """A process group of this process alone, as sharded models need one."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo", init_method=f"file://{folder}/store", rank=0, world_size=1
        )
        try:
            yield
        finally:
            dist.destroy_process_group()


@contextmanager
def held(kind: Kind, made: Callable[[], VLM], device: str) -> Iterator[VLM]:
    """A model of its own, held in that way."""
    vlm = made()
    if kind == "nf4":
        quantize(vlm.model, list(vlm.linear(("llm",))), "nf4", device)
    if kind == "sharded":
        with one_process(device):
            yield vlm.shard()
    else:
        yield vlm


def run(made: Callable[[], VLM], cases: Sequence[Case], device: str, minutes: float, peak: float) -> Iterator[Speed]:
    """The speeds of all cases, each for an equal share of half the time; the rest is for models and first steps."""
    ends, share = time.monotonic() + 60 * minutes, 60 * minutes / 2 / len(cases)
    for kind in KINDS:
        with held(kind, made, device) as vlm:
            for case in (case for case in cases if case.kind == kind):
                if time.monotonic() > ends:
                    yield Speed(case.key, case.about, case.unit, case.rows, note="not measured: the time was over")
                else:
                    yield measured(vlm, case, share, peak)
        del vlm
        release()


# ---- the table ---------------------------------------------------------------------------------------------------
COLUMNS = ["case", "what is done", "unit", "rows", "units/s", "TFLOP a unit", "MFU", "peak GiB", "note"]


def cells(speed: Speed) -> list[str]:
    """A line of the table."""

    def told(value: float | None, form: str) -> str:
        return "" if value is None else f"{value:{form}}"

    return [
        speed.case, speed.about, speed.unit, str(speed.rows), told(speed.per_second, ".4g"), told(speed.tflop, ".3f"),
        told(speed.mfu, ".1%"), told(speed.peak_gib, ".1f"), speed.note,
    ]  # fmt: skip


def write(out: Path, title: str, speeds: Sequence[Speed]) -> None:
    """Write gpu.csv, with all digits, and gpu.md."""
    with (out / "gpu.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Speed)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(speed) for speed in speeds)
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(cells, speeds)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    (out / "gpu.md").write_text(f"{title}\n\n{text}\n", encoding="utf-8")


def main(
    out: tyro.conf.Positional[Path], /, shape: Shape = "7b", device: Device = "cuda", minutes: float = 8.0,
    peak_tflops: float = 989.0,
) -> None:  # fmt: skip
    """Measure training, scoring and decoding at the shapes of LLaVA-1.5-7B on a GPU; write gpu.csv and gpu.md.

    Args:
        out: The folder of the two files.
        shape: Of the model: `tiny` tries the script where there is no GPU, one row a step.
        device: Where it runs.
        minutes: After which no further case begins.
        peak_tflops: What MFU is a share of; 989 is the dense bfloat16 peak that NVIDIA gives for H100 and H200 SXM.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("device='cuda': torch finds no GPU here; try the script with --shape tiny --device cpu")
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    title = f"{'LLaVA-1.5-7B' if shape == '7b' else 'A tiny LLaVA'} in bfloat16, {name}, torch {torch.__version__}"
    cases = CASES if shape == "7b" else [replace(case, rows=1) for case in CASES]
    with tempfile.TemporaryDirectory() as folder:
        made = partial(llava, device) if shape == "7b" else partial(_tiny, Path(folder), device)
        speeds = list(run(made, cases, device, minutes, peak_tflops))
    write(out, title, speeds)
    table(title, COLUMNS, [cells(speed) for speed in speeds])


def _tiny(folder: Path, device: str) -> VLM:
    return load(Tiny(steps=0, width=32, layers=2)(folder), device, Loading("bfloat16"))


if __name__ == "__main__":
    tyro.cli(main, prog="python -m tests.cost.gpu")
