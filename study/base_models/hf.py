"""A downloaded model of any family that `study.model.families` names: `--model hf:/models/llava-1.5-7b-hf`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, get_args

from study.contracts import BaseModel
from study.core import hub
from study.core.terms import Attention, Dtype, Quantized
from study.model.families import special_tokens, unknown
from study.model.loading import Loading, published_dtype, without_weights

if TYPE_CHECKING:
    from transformers.processing_utils import ProcessorMixin


@dataclass(frozen=True)
class Hf(BaseModel):
    """A folder that `AutoModelForImageTextToText.from_pretrained` reads, or a repository on the Hugging Face hub.

    Weights are safetensors; code that a model brings is never run.
    """

    path: Path = Path()
    """The folder."""
    hub: str = ""
    """Instead of a folder, the name of a model on the Hugging Face hub, such as llava-hf/llava-1.5-7b-hf."""
    revision: str = ""
    """Its commit."""
    dtype: Dtype | Literal[""] = ""
    """The type of the weights, and so of every computation with them; empty for float32 if the folder was published in
    that, else bfloat16. What is trained in a bfloat16 model is trained in float32 and rounded after every step
    (`study/training/master_weights.py`)."""
    attention: Attention = "sdpa"
    """How attention is computed: by torch (sdpa), or eager, which is slow, for a model without."""
    quantized: Quantized = ""
    """The format of the LLM's linear layers once learning is over: int8, nf4, or empty for `dtype`. A quantized LLM is
    frozen: methods and attacks change vision and projector alone. Learning is not quantized."""

    def __post_init__(self) -> None:
        if not self.dtype and (found := published_dtype(self.path)):  # not if it is yet to be downloaded
            object.__setattr__(self, "dtype", found)
        if self.dtype and self.dtype not in get_args(Dtype):
            raise ValueError(
                f"dtype={self.dtype!r}: use float32 or bfloat16; in float16 AdamW divides by an epsilon that rounds to "
                "0 and losses are not scaled, so training ends in NaN"
            )
        if self.attention not in get_args(Attention):
            raise ValueError(
                f"attention={self.attention!r}: use sdpa, or eager for a model without it. Packed questions need a "
                "two-dimensional mask per row, which flash attention does not accept"
            )
        if self.quantized not in get_args(Quantized):
            raise ValueError(f"quantized={self.quantized!r}: use int8 or nf4, or leave it out")

    @property
    def special_tokens(self) -> frozenset[str]:
        """Those of the tokenizer in the folder, or in the hub's cache."""
        return special_tokens(self._processor)

    def at(self, folder: Path) -> Self:
        """The same, no longer on the hub."""
        return replace(self, path=folder, hub="", revision="")

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """None for a tokenizer that falls back to bytes, as most do."""
        return unknown(self._processor, texts)

    @property
    def _processor(self) -> ProcessorMixin:
        return without_weights(hub.folder(self.path, self.hub, self.revision, "model"), Loading.of(self)).processor

    def __call__(self, folder: Path) -> Path:
        """The folder, downloaded first if it is on the hub. Raises `ValueError` that names its defect."""
        found = hub.folder(self.path, self.hub, self.revision, "model")
        without_weights(found, Loading.of(self))
        return found
