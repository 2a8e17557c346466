"""Models that somebody else fine-tuned, found and compared with the base model before a study begins with them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from study.contracts import BaseModel
from study.core import hub
from study.core.errors import Refused
from study.core.specs import plugin
from study.experiment.adopt import completed
from study.model.loading import without_weights
from study.settings import Study


@dataclass(frozen=True)
class Brought:
    """Vanilla and the references as they are; without references the base model stands for them."""

    vanilla: BaseModel
    references: tuple[BaseModel, ...] = ()


def brought_models(study: Study, base: BaseModel, data: Path) -> Brought | None:
    """The models that a study begins with instead of teaching any, if there are such.

    Raises `Refused` or `ValueError` that names what is wrong with one.
    """
    if not study.vanilla:
        return None
    vanilla, *references = (_found(text, base, data) for text in (study.vanilla, *study.reference))
    return Brought(vanilla, tuple(references))


def _found(text: str, base: BaseModel, data: Path) -> BaseModel:
    """A model that is loaded like the base model."""
    found: Any = plugin("base_models", text)
    if found.path is None:
        raise Refused(f"{text}: this makes a base model; give the folder of one that was fine-tuned")
    folder = hub.folder(found.path, found.hub, found.revision, "model")
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise Refused(f"{text}: an adapter without its model; merge it (peft: merge_and_unload) and save the whole")
    how = {"dtype": base.dtype, "attention": base.attention, "quantized": base.quantized}
    known: BaseModel = replace(found.at(folder), **how)
    if base.path is None:  # it is yet to be made
        known(data)
    else:
        _check_alike(text, folder, base.path)
    return known


def _check_alike(text: str, folder: Path, base: Path) -> None:
    """Raise `Refused` unless a model has the tensors of the base model: attacks put some of these back."""
    with tempfile.TemporaryDirectory() as made:
        completed(folder, base, Path(made), lambda source, target: target.symlink_to(source))
        try:
            theirs, ours = _shapes(Path(made)), _shapes(base)
        except ValueError as error:
            raise Refused(str(error).replace(made, str(folder))) from error
    other = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
    if other:
        first = other[0]
        raise Refused(
            f"{text} is not fine-tuned from {base}: {len(other)} tensors differ, such as {first} "
            f"({theirs.get(first, 'none')} and {ours.get(first, 'none')}); name its own base model with --model"
        )


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    named = without_weights(folder).model.named_parameters()
    return {name: tuple(parameter.shape) for name, parameter in named}
