"""Trials on one node share the pages of the weights they load: each has for itself only what it writes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from study.core.hashing import file_digest
from study.model.loading import load

MAPS = Path("/proc/self/smaps")
pytestmark = pytest.mark.skipif(not MAPS.exists(), reason="needs Linux")


def pages(path: Path) -> dict[str, int]:
    """KiB of this process's pages of a file: mapped at all, and its own because it wrote to them."""
    found = {"Rss": 0, "Anonymous": 0}
    for mapping in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", MAPS.read_text()):
        if mapping.partition("\n")[0].endswith(str(path)):
            for name in found:
                (kib,) = re.findall(rf"^{name}:\s+(\d+) kB", mapping, re.MULTILINE)
                found[name] += int(kib)
    return found


def test_loaded_weights_are_pages_of_the_file_and_writing_never_reaches_it(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    weights = folder / "model.safetensors"
    digest, size = file_digest(weights), weights.stat().st_size / 1024
    vlm = load(folder)
    parameters = dict(vlm.model.named_parameters())
    total = sum(float(p.sum()) for p in parameters.values())
    assert total == pytest.approx(sum(float(p.sum()) for p in load(folder).model.parameters()))
    before = pages(weights)
    assert before["Rss"] >= size  # every weight was read, and none from a copy
    assert before["Anonymous"] == 0
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(1.0)
    assert pages(weights)["Anonymous"] >= 0.9 * size  # what was written is this process's own
    assert file_digest(weights) == digest
