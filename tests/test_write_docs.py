"""The page about methods is what the code says, and the passes it tells of were counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from study import write_docs
from study.core.plugins import known
from study.core.terms import PARTS
from study.data.benchmark import Benchmark
from study.methods.gradient_ascent import GradientAscent
from study.methods.kl_minimization import KLMinimization
from study.methods.prompting import Prompting
from study.methods.vkd import VKD
from study.model.vlm import VLM
from study.write_docs import cost
from tests.helpers.small import request_on


@pytest.mark.slow
def test_the_page_is_up_to_date() -> None:
    """`python -m study.write_docs` writes it."""
    assert (write_docs.DOCS / "methods.md").read_text(encoding="utf-8") == write_docs.methods_page()


def test_every_method_is_on_the_page() -> None:
    page = (write_docs.DOCS / "methods.md").read_text(encoding="utf-8")
    for name in known("methods"):
        assert f"\n## {name}\n" in page


@pytest.mark.parametrize(
    ("method", "step"),
    [
        (GradientAscent(), {(part, True): 1 for part in PARTS}),
        (GradientAscent(trains=("llm",)), {("vision", False): 1, ("projector", False): 1, ("llm", True): 1}),
        (KLMinimization(), {(part, grad): 1 + grad for part in PARTS for grad in (True, False)}),
        (
            VKD(variant="features", teacher="strangers_mean"),
            {(p, grad): 1 for p in ("vision", "projector") for grad in (True, False)},
        ),
        (
            VKD(),
            {
                **{(p, grad): 3 for p in ("vision", "projector") for grad in (True, False)},
                **{("llm", True): 2, ("llm", False): 1},
            },
        ),
        (Prompting(), {}),
    ],
    ids=str,
)
def test_passes_of_a_step_are_counted(
    method: Any, step: dict[tuple[str, bool], int], tiny: VLM, benchmark: Benchmark, tiny_folder: Path, tmp_path: Path
) -> None:
    """Ascent asks once; KL asks both models on retain lessons and one on forget lessons; features need no LLM."""
    request = request_on(benchmark, tmp_path / "cache", tiny_folder, goal="full")
    assert cost(method, tiny, request).step == Counter(step)
