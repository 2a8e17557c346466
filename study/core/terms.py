"""The terms that every room uses: roles, modalities, tasks, halves, goals, parts of a model.

The half `select` is the validation half, which guides the search; `report` is the test half.
"""

from __future__ import annotations

from typing import Literal

Part = Literal["vision", "projector", "llm"]
PARTS: tuple[Part, ...] = ("vision", "projector", "llm")

Dtype = Literal["float32", "bfloat16"]
"""The type of the weights."""
Attention = Literal["sdpa", "eager"]
"""How attention is computed: torch's own, or eager, which is slow and exists for every model."""
Codes = Literal["int8", "nf4"]
Quantized = Literal["", Codes]
"""How the LLM's linear layers are stored after learning: in one of these formats; empty for not quantized."""

Held = Literal["nothing", "copy", "mask", "features"]
"""What takes memory while a method trains, besides its losses on answers: nothing, a copy of the model to compare with,
or a mask. `features`: it has no losses on answers, and compares features of the visual module alone."""

Keep = Literal["all", "winners"]
"""The trials whose weights stay on disk."""

Tracker = Literal["tensorboard", "wandb", "mlflow"]
"""What shows the trials of a search while it runs, beside the study's own report."""

Role = Literal["forget", "test", "spared", "retain", "real"]
Modality = Literal["image_text", "text"]
Task = Literal["classification", "generation", "cloze"]
Half = Literal["select", "report"]
Goal = Literal["visual", "full"]
Group = tuple[Role, Modality]
"""Questions about one set of people in one modality."""

ROLES: tuple[Role, ...] = ("forget", "test", "spared", "retain", "real")
MODALITIES: tuple[Modality, ...] = ("image_text", "text")
HALVES: tuple[Half, ...] = ("select", "report")
TASKS: tuple[Task, ...] = ("classification", "generation", "cloze")

Model = Literal["sobol", "tpe", "gp", "random", "nsga2"]
"""What draws a proposal; see `study.engine.samplers`."""
SamplerName = Literal["auto", Model]
"""What draws the proposals of a search; see `study.core.sampling`."""
EarlyStopping = Literal["off", "collapse", "pareto"]
"""Which trials a search ends at a rung: none, those that collapsed, or also those that are behind others."""
BASE_MODEL = "base model"
"""What stands for the references in a study whose vanilla was brought without any, as its settings say it."""
