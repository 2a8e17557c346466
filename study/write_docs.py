"""`python -m study.write_docs` writes docs/methods.md and docs/metrics.md from the code.

The cost of a step is counted, not declared: each method runs two and three steps on a small random model, and the
forward passes of each part are counted. A pass through which the loss is differentiated counts as one with gradient.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from search_spaces import ranges
from study.base_models.tiny import Tiny
from study.benchmarks.synthetic import Synthetic
from study.contracts import Method, Request
from study.core.documented import field_docs, first_line, first_sentence
from study.core.plugins import find, known, search_space
from study.core.terms import PARTS, Part
from study.metrics.registry import METRICS
from study.model.delta import restored
from study.model.flop_counter import counted
from study.model.loading import load
from study.model.vlm import VLM
from study.settings import REFERENCES
from study.training.schedule import Schedule

DOCS = Path(__file__).parents[1] / "docs"
STEPS = (2, 3)

_METHODS_HEAD = """# Methods

Written by `python -m study.write_docs` from the code; do not edit. Gradient methods train the parts in `trains`, either
all weights or, unless a mask or penalty acts on single weights, low-rank adapters (`lora_rank`). Methods with a
`modality` train on all lessons of a request or on those of one modality:
`--methods npo npo:modality=text npo:trains=llm,lora_rank=16`. "Searched" is the range that the search proposes around
the default shown; presets have defaults of their own. What is set on the command line is not searched.

Cost is counted on a small LLaVA of eight layers: forward passes of vision tower, projector and LLM in one optimizer
step, "grad" for passes through which the loss is differentiated; a pass is a batch, whatever its size. "Before" counts
what runs once, before the first step, or altogether where there are no steps.
"""


class Cost(NamedTuple):
    """Forward passes by (part, with gradient): of one step, and of what comes before the first."""

    step: Counter[tuple[Part, bool]]
    before: Counter[tuple[Part, bool]]


def methods_page() -> str:
    """docs/methods.md: every method with its loss, source, hyper-parameters and counted cost."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        vlm, request = _small(Path(folder))
        names = sorted(known("methods"), key=lambda name: (name in REFERENCES, name))
        costs = {name: cost(find("methods", name)(), vlm, request) for name in names}
    return "\n".join([_METHODS_HEAD, _overview(costs), *(_section(name, spent) for name, spent in costs.items())])


def cost(method: Method, vlm: VLM, request: Request) -> Cost:
    """The forward passes of a method on a model, from a run of two steps and one of three."""
    runs, start = [], {name: tensor.clone() for name, tensor in vlm.tensors().items()}
    for steps in STEPS:
        cache = request.cache / str(steps)  # what one run keeps for later ones must not make the next one cheaper
        with restored(vlm, start), counted(vlm) as count:
            _quick(method, steps)(vlm, replace(request, cache=cache))
        runs.append(count.passes)
    step = runs[1] - runs[0]
    before = Counter({key: runs[0][key] - STEPS[0] * step[key] for key in runs[0]})
    return Cost(+step, +before)


def _small(folder: Path) -> tuple[VLM, Request]:
    benchmark = Synthetic(people=20, celebrities=8, views=2, strangers=8)(folder)
    base = Tiny(steps=0, width=16, layers=8)(folder)

    def loaded() -> VLM:
        return load(base)

    request = Request(benchmark.split(10), "full", benchmark.strangers, 0, folder / "made", loaded, loaded, dict)
    return load(base), request


def _quick(method: Any, steps: int) -> Any:
    if method.schedule is None:
        return method
    return replace(method, schedule=replace(method.schedule, steps=steps, pictures=2, lessons_per_picture=2, texts=1))


_METRICS_HEAD = """# Metrics

Written by `python -m study.write_docs` from `METRICS` in `study/metrics/registry.py`; do not edit. Each metric is a
mean over questions unless its formula says otherwise; the report has the mean over seeds. "On" says where it is shown:
on what had to be forgotten, on what had to be kept, or both. "Better" is the direction on what had to be forgotten, or,
for metrics shown only on what had to be kept, there. Metrics with a direction for forgetting should keep vanilla's
value on what had to be kept. The direction is that of the papers: a value beyond the reference's is overshoot, which
the study's own objective, the forget gap (`study/metrics/forget_gap.py`), counts as a gap. `ks`, `forget_quality`, `js`
and `js_released` compare with the first reference.
"""

_METRICS_NOTES = """
## What to know when comparing with papers

- **Truth ratio.** R = mean likelihood of the wrong answers / likelihood of the paraphrased right one
  (`study/metrics/formulas.py`), for each question by itself: TOFU's orientation, in which R near 0 means knowledge. For
  multiple choice these are the options. CLEAR's code has the inverse, and takes one mean over all questions for the
  wrong answers. min(R, 1 / R) is the same for both; max(0, 1 - R) is that code's max(0, 1 - 1 / R).
- **Forget quality** is a p-value: it depends on the number of questions, so compare it only on the same set; `ks` does
  not.
- **js_released** is what CLEAR's code calls the Jensen-Shannon distance (its paper reports 1 minus it). It divides each
  model's ratios by their sum and compares question by question, so it cannot distinguish a model from one whose ratios
  are all doubled. `js` compares distributions.
- **ROUGE** of ASCII texts is that of rouge-score. Its tokenizer drops all other letters, so other texts are split into
  words of any script, or single characters where there are no spaces; equal texts score 1. **BLEU** of equal texts
  with fewer than four words is below 1, as published.
- **Membership scores** (`member_...`) compare the right answer with wrong ones to one question: 0.5 is chance. They
  are not the AUC of taught against untaught lessons; nor is that of the attack `membership_inference`, which also ranks
  within a question.
- **Model utility** uses the likelihood of generated answers for the retain set and the probability of the right option
  for the real set. A part without questions is left out: compare only studies with the same parts.
- **Pairs** of UMU-Bench need questions that name the fact they ask about; without these there are none. `rlf` and `rlr`
  take a and b for means over questions. UMU-Bench's code takes them pair by pair and then the mean, as the report's
  table of its official protocol does.
- **leak@k** (arXiv 2511.04934) is no metric of a model's rows but of the attack `sampled_extraction`, which replaces
  `score` and `probability` by it: the share of all choices of k among n >= k sampled replies of which one states the
  fact, 1 - C(n - c, k) / C(n, k). The power 1 - (1 - c / n)^k would be biased. Papers that let a judge decide whether a
  reply leaks have other numbers: here it must state the fact in the words of the shortest answer.
- **Refusals** are recognized by a list of English phrases (`study/metrics/text.py`).
"""


# ---- Markdown ------------------------------------------------------------------------------------------------------
def _overview(costs: Mapping[str, Cost]) -> str:
    lines = ["| method | source | trains | loss | cost of a step |", "|---|---|---|---|---|"]
    for name, spent in costs.items():
        plugin = find("methods", name)
        source, loss = first_line(inspect.getdoc(inspect.getmodule(plugin))), first_sentence(inspect.getdoc(plugin))
        step = _passed(spent.step) or "no steps"
        lines.append(f"| [`{name}`](#{name}) | {source} | {_trains(plugin())} | {_cell(loss)} | {step} |")
    return "\n".join(lines) + "\n"


def _section(name: str, spent: Cost) -> str:
    plugin = find("methods", name)
    about = [
        f"## {name}",
        first_line(inspect.getdoc(inspect.getmodule(plugin))),
        inspect.cleandoc(plugin.__doc__ or ""),
    ]
    about.append(f"Trains: {_trains(plugin())}. Cost: {_cost(spent)}.")
    rows = list(_hyperparameters(name, plugin))
    if rows:
        about.append("\n".join(["| hyper-parameter | default | searched | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join(about) + "\n"


def _hyperparameters(name: str, plugin: type[Any]) -> Iterator[str]:
    searched, default = _ranges(name, plugin), plugin()
    meanings = field_docs(Method) | field_docs(plugin)
    for field in fields(plugin):
        value = getattr(default, field.name)
        if field.name == "trains":
            continue
        if is_dataclass(value):
            inner = [key for key in ("learning_rate", "steps") if key in searched]
            for key in inner:
                meaning = field_docs(Schedule)[key]
                yield f"| `{key}` | {getattr(value, key)} | {searched[key]} | {meaning} |"
        else:
            asked, meaning = searched.get(field.name, ""), meanings.get(field.name, "")
            yield f"| `{field.name}` | {_shown(value)} | {asked} | {_cell(meaning)} |"


def _ranges(name: str, plugin: type[Any]) -> dict[str, str]:
    """What the search proposes for each hyper-parameter around the class's default."""
    if name in REFERENCES:
        return {}
    return {key: _range(asked) for key, asked in ranges(search_space(name).space, plugin()).items()}


def _range(asked: Any) -> str:
    """A distribution of Optuna in words."""
    if hasattr(asked, "choices"):
        return ", ".join(_shown(choice) for choice in asked.choices)
    return f"{asked.low:g} to {asked.high:g}{', log' * asked.log}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _trains(method: Method) -> str:
    return ", ".join(method.trains) or "nothing"


def _cost(spent: Cost) -> str:
    told = [f"{what} {_passed(count)}" for what, count in (("a step", spent.step), ("before", spent.before)) if count]
    return "; ".join(told) or "none"


def _passed(count: Counter[tuple[Part, bool]]) -> str:
    return ", ".join(_passes(count, part) for part in PARTS if count[part, True] or count[part, False])


def _passes(count: Counter[tuple[Part, bool]], part: Part) -> str:
    plain, graded = count[part, False], count[part, True]
    told = [f"{graded} grad"] * bool(graded) + [f"{plain} forward"] * bool(plain)
    return f"{part} {' + '.join(told)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def metrics_page() -> str:
    """docs/metrics.md: every metric with its formula, range, direction and source."""
    lines = ["| metric | formula | range | on | better | source |", "|---|---|---|---|---|---|"]
    for m in METRICS:
        on = {"forget": "forgotten", "kept": "kept", "both": "both"}[m.where]
        lines.append(f"| `{m.name}` | {m.formula} | {m.range} | {on} | {m.better} | {m.source} |")
    return "\n".join([_METRICS_HEAD, *lines, _METRICS_NOTES])


def main(arguments: list[str] | None = None) -> int:
    """Write both pages; returns the exit status."""
    argparse.ArgumentParser(prog="python -m study.write_docs", description=__doc__).parse_args(arguments)
    for name, page in (("methods.md", methods_page), ("metrics.md", metrics_page)):
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"wrote {DOCS / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
