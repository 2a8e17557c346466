"""The script that measures on a GPU, at tiny shapes on the CPU: every case runs, and a speed is units over seconds."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from study.model.vlm import VLM
from tests.cost import gpu
from tests.cost.flops import Step
from tests.cost.gpu import CASES, VIEWS, Case, clocked, main, measured, run
from tests.helpers.small import fresh, same_bits, snapshot

BY_KEY = {case.key: replace(case, rows=1) for case in CASES}
SECONDS = 0.5


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is taken once and said to take half a second."""

    def once(step: Callable[[], object], seconds: float, wait: Callable[[], object]) -> float:
        step()
        return SECONDS

    monkeypatch.setattr(gpu, "clocked", once)


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
def test_it_runs_to_its_end_and_writes_both_tables(tmp_path: Path) -> None:
    main(tmp_path, shape="tiny", device="cpu", minutes=60.0)
    with (tmp_path / "gpu.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == [case.key for case in CASES]
    assert {float(row["per_second"]) for row in rows} == {1 / SECONDS, gpu.REPLY / SECONDS}
    assert {row["case"] for row in rows if not float(row["tflop"])} == {"read"}  # which computes nothing
    assert {row["mfu"] + row["peak_gib"] for row in rows} == {""}  # a CPU has neither
    work = {row["case"]: float(row["tflop"]) for row in rows}
    assert work["through"] == work["through_nf4"] == work["through_fsdp"]  # the same step on the same shapes
    assert work["features"] > 2 * work["encode"]
    (scored,) = (row["note"] for row in rows if row["note"])
    assert scored == f"{VIEWS} pictures take {VIEWS * SECONDS:.0f} s"
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8").splitlines()
    assert page[0].startswith("A tiny LLaVA in bfloat16, CPU, torch ")
    assert [line.split(" | ")[0].removeprefix("| ") for line in page[4:]] == list(BY_KEY)


@pytest.mark.usefixtures("planted")
def test_learning_leaves_an_ordinary_model(tiny: VLM) -> None:
    before = snapshot(tiny)
    measured(tiny, BY_KEY["learn"], 0.0, 1.0)
    assert before.keys() == snapshot(tiny).keys()  # the adapters are gone, merged
    assert not same_bits(before, snapshot(tiny))


def test_steps_are_timed_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one that is not; the clock is planted: a step of 3 s, another of 3 s, and 5 s are over."""
    ticks, done = iter((10.0, 13.0, 16.0)), list[str]()
    monkeypatch.setattr(gpu, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert clocked(lambda: done.append("step"), 5.0, lambda: done.append("wait")) == 3.0
    assert done == ["step", "wait"] * 3


@pytest.mark.usefixtures("planted")
def test_on_a_gpu_operations_in_a_second_are_a_share_of_the_peak(tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    monkeypatch.setattr(VLM, "device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(torch.cuda, "synchronize", nothing)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", nothing)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
    case = Case("x", "a layer", "sample", 2, _layer)
    found = measured(tiny, replace(case, rows=5), 0.0, peak_tflops=1e-9)
    assert (found.per_second, found.peak_gib) == (20.0, 3.0)
    assert found.tflop == pytest.approx(2 * 8 * 8 / 10 / 1e12)
    assert found.mfu == pytest.approx(2 * 8 * 8 / SECONDS / 1e12 / 1e-9)


@contextmanager
def _layer(vlm: VLM, rows: int) -> Iterator[Step]:
    layer = torch.nn.Linear(8, 8)
    yield torch.no_grad()(lambda: layer(torch.ones(1, 8)))


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
def test_what_does_not_fit_or_comes_too_late_says_so(tiny_folder: Path) -> None:
    @contextmanager
    def short(vlm: VLM, rows: int) -> Iterator[Step]:
        raise torch.OutOfMemoryError("short")
        yield vlm.tensors

    cases = [Case("large", "x", "sample", 1, short), BY_KEY["encode"]]
    large, encode = run(lambda: fresh(tiny_folder), cases, "cpu", 60.0, 1.0)
    assert (large.note, large.per_second) == ("out of memory", None)
    assert encode.per_second == 1 / SECONDS
    (late,) = run(lambda: fresh(tiny_folder), cases[1:], "cpu", -1.0, 1.0)
    assert (late.note, late.per_second) == ("not measured: the time was over", None)


def test_without_a_gpu_nothing_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "llava", lambda _: pytest.fail("it was made"))
    with pytest.raises(SystemExit, match="device='cuda': torch finds no GPU here; try the script with --shape tiny"):
        main(tmp_path)
