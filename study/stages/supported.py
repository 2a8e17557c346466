"""What a study asks for, as far as its data and this machine support it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from study.contracts import Method
from study.core.errors import Refused
from study.core.specs import pinned
from study.data.benchmark import Benchmark, Split
from study.engine import cluster
from study.settings import Study


def supported_defaults(study: Study, benchmark: Benchmark) -> tuple[dict[str, Method], list[str]]:
    """The default of each method as the benchmark supports it, and what was changed for that, in words.

    Raises `Refused` if a method was set to something that needs pictures of strangers, and there are none.
    """
    found, told = study.method_defaults(), []
    for text, default in found.items():
        for name, instead in _lacking(default, benchmark).items():
            value = getattr(default, name)
            if name in pinned(default, text):
                raise Refused(
                    f"{text}: {name}={value} needs pictures of strangers and {benchmark.name} has none; add a folder "
                    f"Strangers to it, choose {name}={instead}, or leave {name} out"
                )
            told.append(f"{text}: {name}={instead}, not {value}, as {benchmark.name} has no pictures of strangers")
            changed: Any = {name: instead}
            found[text] = replace(found[text], **changed)  # type: ignore[type-var]  # every method is a dataclass
    return found, told


def unsupported(defaults: Mapping[str, Method], benchmark: Benchmark) -> dict[str, dict[str, tuple[str, ...]]]:
    """The choices that nothing can be done with, by method and setting: those that need what the benchmark lacks."""
    if benchmark.strangers:
        return {}
    needs = {text: default.needs_strangers.items() for text, default in defaults.items()}
    return {text: {name: need.values for name, need in of if need.values} for text, of in needs.items() if of}


def _lacking(default: Method, benchmark: Benchmark) -> Mapping[str, str]:
    """The settings of a method that need what the benchmark lacks, with what to choose instead."""
    lacking = unsupported({"": default}, benchmark).get("", {})
    return {
        name: default.needs_strangers[name].otherwise
        for name, values in lacking.items()
        if getattr(default, name) in values
    }


def check_attributes(split: Split, study: Study) -> None:
    """Raise `Refused` if pictures must not reveal what text about the same people teaches.

    A model that knows from a picture who it shows then has the answer from text, and so has the reference, which the
    gate refuses.
    """
    if study.goal == "full" or not study.forget_attributes or study.gate.blind >= 1:
        return
    told = (x for x in split.lessons if x.person in split.forget_people and x.picture is None)
    both = sorted({x.attribute for x in told} & set(study.forget_attributes))
    if both:
        raise Refused(
            f"--forget-attributes {' '.join(both)} under the goal visual: pictures still reveal who they show and text "
            "lessons about the same people teach these attributes, so even the reference combines the two; ask for "
            "them under --goal full"
        )


def check_gpus(study: Study, count: Callable[[], float]) -> None:
    """Raise `Refused` if a job needs more GPUs than this machine has by `count`: it would wait forever.

    A cluster may have others, and may grow.
    """
    if not cluster.is_private(study.address):
        return
    there = count()
    if study.gpus_per_trial > there:
        raise Refused(
            f"gpus_per_trial={study.gpus_per_trial:g} but this machine has {there:g} GPUs; set --gpus-per-trial 0"
        )
    if study.gpus_per_trial and study.workers_per_model > there:
        raise Refused(
            f"workers_per_model={study.workers_per_model} processes need a GPU each, but this machine has {there:g}; "
            "use at most that many"
        )
