"""What a study needs of the disk of its folder: said in the plan, and refused where it does not fit.

Weights are counted: learned models, the tensors in which each trial differs from its start, masks in the cache. Rows
are estimated. A base model from the hub lies in the cache of `huggingface_hub` and is not in these numbers.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from study.contracts import BaseModel, Method
from study.core.errors import Refused
from study.core.layout import StudyFolder
from study.core.specs import flat
from study.core.terms import Part
from study.data.benchmark import Benchmark
from study.experiment.attack import UTILITY_QUESTIONS
from study.settings import Study
from study.stages.counts import Counts

GIB = 2**30
FLOAT32, BFLOAT16 = 4, 2
"""Bytes of a number; adapters and masks are float32 whatever the model is in."""
ROW = 64
"""Bytes of a row in its compressed file: 48 in the default study, whose replies are short."""
STAGES = 6
"""Stages at which an attack is scored: more than most have."""


@dataclass(frozen=True)
class Sizes:
    """A model in numbers, by part."""

    itemsize: int
    """Bytes of a number."""
    parameters: Mapping[Part, int]
    adapted: Mapping[Part, int]
    """Parameters of adapters of rank 1 on every linear layer."""
    generated: bool = False
    """Whether the base model is made in the study's folder."""

    @property
    def model(self) -> int:
        """Bytes of a learned model."""
        return self.itemsize * sum(self.parameters.values())


@dataclass(frozen=True)
class Need:
    """The bytes of each kind at the time when they are most."""

    models: int
    trials: int
    masks: int
    rows: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, field.name) for field in fields(self))


def sizes_of(model: BaseModel) -> Sizes | None:
    """The sizes of a base model; None if it is yet to be generated and does not say."""
    if model.path is None:  # adapters of a model so small are counted as the weights under them
        return Sizes(FLOAT32, model.parameters, model.parameters, generated=True) if model.parameters else None
    from study.model.loading import Loading, without_weights  # to find its files, the plan did that before

    vlm = without_weights(model.path, Loading.of(model).as_taught)
    parts: dict[Part, int] = dict.fromkeys(vlm.prefixes, 0)
    for name, parameter in vlm.model.named_parameters():
        parts[vlm.part_of(name)] += parameter.numel()
    adapted = {
        part: sum(layer.in_features + layer.out_features for layer in vlm.linear((part,)).values()) for part in parts
    }
    return Sizes(vlm.model.dtype.itemsize, parts, adapted)


def stored(method: Method, sizes: Sizes) -> int:
    """The bytes in which the model of a trial differs from its start."""
    whole = sizes.itemsize * sum(sizes.parameters[part] for part in method.changes)
    if method.schedule is None or not method.schedule.lora_rank:
        return whole
    factors = FLOAT32 * method.schedule.lora_rank * sum(sizes.adapted[part] for part in method.changes)
    return min(whole, factors)


def needed(study: Study, benchmark: Benchmark, sizes: Sizes) -> Need:
    """What a study needs from its beginning to its end, if every method stays at the parts and ranks of its default."""
    counts, methods = Counts(study), list(study.method_defaults().values())
    each = sum(stored(method, sizes) for method in methods)
    searched = counts.each
    if study.keep == "winners" and not study.robustness:  # else a whole front stays
        searched = min(searched, counts.ratios * (study.race + 1) + study.lookahead)
    trials = each * (searched + counts.repeated // len(methods))
    masked = [method for method in methods if flat(method).get("saliency_threshold")]
    masks = {method.trains: FLOAT32 * sum(sizes.parameters[part] for part in method.trains) for method in masked}
    models = counts.learned + sizes.generated
    return Need(models * sizes.model, trials, counts.ratios * sum(masks.values()), ROW * _rows(counts, benchmark))


def _rows(counts: Counts, benchmark: Benchmark) -> int:
    """About how many rows of trials and attacks there will be."""
    study, rows = counts.study, 0
    models = counts.attacked // counts.ratios
    trials = math.ceil(counts.trials / counts.ratios) + models
    attacks = models * (len(study.attackers()) + len(study.attack_defaults())) + 2 * counts.hunted // counts.ratios
    for ratio in study.forget_ratios:
        questions = benchmark.split(ratio).questions
        attacked = STAGES * (sum(q.role == "forget" for q in questions) + 6 * UTILITY_QUESTIONS)
        rows += trials * len(questions) + attacked * (attacks + (trials if study.robustness else 0))
    return rows


@dataclass(frozen=True)
class Space:
    """What a study needs of the disk, and what it has there, in bytes."""

    sizes: Sizes | None
    """None for a base model that is yet to be generated and does not say how large it will be."""
    need: Need
    there: int
    """Of what is needed, on disk already."""
    free: int

    @property
    def room(self) -> int:
        """For all that is needed."""
        return self.there + self.free


def space_of(study: Study, model: BaseModel, benchmark: Benchmark) -> Space:
    """Look at a base model and at the disk of the study's folder."""
    sizes, root = sizes_of(model), study.study_dir.absolute()
    need = needed(study, benchmark, sizes) if sizes else Need(0, 0, 0, 0)
    return Space(sizes, need, _there(root), _free(root))


def told(space: Space) -> str:
    """The line of the plan."""
    if space.sizes is None:
        return "unknown: the base model is generated and does not say how large it will be"
    kinds = [(field.name, getattr(space.need, field.name)) for field in fields(space.need)]
    parts = ", ".join(f"{name} {_gib(size)}" for name, size in kinds if size)
    there = f"; {_gib(space.there)} are there" if space.there else ""
    return f"{_gib(space.need.total)} GiB: {parts}{there}; {_gib(space.free)} are free"


def check_disk(study: Study, model: BaseModel, benchmark: Benchmark, space: Space) -> None:
    """Refuse a study that does not fit on the disk of its folder, with the flag that would make it fit."""
    total, room = space.need.total, space.room
    if space.sizes is None or total <= room:
        return
    begun = StudyFolder(study.study_dir.absolute()).settings.exists()
    for flag, other, smaller in _smaller(study, model, space.sizes, begun=begun):
        if (less := needed(other, benchmark, smaller).total) <= room:
            remedy = f"{flag} needs {_gib(less)} GiB"
            break
    else:
        remedy = "choose a --study-dir on a larger disk"
    raise Refused(
        f"study_dir={study.study_dir}: the study needs {_gib(total)} GiB, and its disk has room for {_gib(room)} GiB; "
        f"{remedy}"
    )


def _smaller(study: Study, model: BaseModel, sizes: Sizes, *, begun: bool) -> Iterator[tuple[str, Study, Sizes]]:
    """Ways to need less, the least loss first: what to set, and what the study is then. One that began has fewer."""
    thrifty = replace(study, keep="winners")
    yield "--keep winners", thrifty, sizes
    if begun:
        return
    if model.path is not None and sizes.itemsize > BFLOAT16:
        half = replace(sizes, itemsize=BFLOAT16)
        yield "dtype=bfloat16 in --model", study, half
        yield "--keep winners with dtype=bfloat16 in --model", thrifty, half
    for trials in range(study.trials - 1, len(study.forget_ratios) - 1, -1):
        if not study.warm_start or trials >= 2 * len(study.forget_ratios):
            yield f"--keep winners --trials {trials}", replace(thrifty, trials=trials), sizes


def _there(root: Path) -> int:
    """The bytes of what is on disk of that."""
    folder = StudyFolder(root)
    others = {folder.ray, folder.report, folder.export("any").parent}
    tops = [top for top in root.iterdir() if top not in others] if root.exists() else []
    return sum(path.stat().st_size for top in tops for path in top.rglob("*") if path.is_file())


def _free(root: Path) -> int:
    """The bytes that the disk of a folder, which may not be there yet, has left."""
    return shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free


def _gib(size: int) -> str:
    gib = size / GIB
    return f"{gib:,.0f}" if gib >= 10 else f"{gib:.2g}"
