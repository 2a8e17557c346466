"""A model folder on disk: `--model llava:/models/llava-1.5-7b-hf`, or any other family that `study.families` names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Llava:
    """A folder that `AutoModelForImageTextToText.from_pretrained` reads; nothing is ever downloaded."""

    path: Path

    def __call__(self, folder: Path) -> Path:
        """The folder. Raises `ValueError` if it lacks a configuration, a processor or safetensors weights."""
        if not (self.path / "config.json").exists():
            raise ValueError(f"{self.path}: no config.json there; give a local Hugging Face model folder")
        if not any(self.path.glob("*.safetensors")):
            raise ValueError(f"{self.path}: no .safetensors weights there; pickled .bin weights are not loaded")
        if not any((self.path / name).exists() for name in ("processor_config.json", "preprocessor_config.json")):
            raise ValueError(f"{self.path}: no processor_config.json there; save the processor beside the model")
        return self.path
