"""A model that somebody else fine-tuned, kept as a learned model of a study."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from study.core.files import visible, written_folder
from study.core.hub import MODEL_FILES
from study.core.layout import StudyFolder
from study.core.records import write_record
from study.experiment.records import learned_record
from study.experiment.trial_spec import Learned
from study.model.loading import Loading
from study.model.tensor_files import digests_in


def adopt(folder: StudyFolder, learned: Learned, source: Path, base: Path, loading: Loading) -> None:
    """Keep the model in `source` as a learned model; the record, written last, says that all is there.

    The study owns its files, so that it can be moved and continued without `source`: weights are linked where that is
    the same file system, else copied.
    """
    home = folder.model_dir(learned.key)
    with written_folder(home, sum(path.stat().st_size for path in _files(source)), over=True) as draft:
        completed(source, base, draft, _linked)
    write_record(folder.learned_record(learned.key), learned_record(learned, loading, digests_in(home)))


def completed(source: Path, base: Path, target: Path, place: Callable[[Path, Path], object]) -> None:
    """Put a fine-tuned model into the folder `target`, with the processor of its base model if it has none.

    Who saves a model often leaves the processor out. Weights are large: `place` puts a file of them where it is named.
    """
    small = [path for path in _files(base) if not _is_of_weights(path)]
    for path in [*small, *_files(source)]:
        if path.suffix == ".safetensors":
            place(path.resolve(), target / path.name)
        else:
            shutil.copyfile(path, target / path.name)


def _files(folder: Path) -> list[Path]:
    return sorted(path for pattern in MODEL_FILES for path in visible(folder, pattern))


def _is_of_weights(path: Path) -> bool:
    return path.suffix == ".safetensors" or path.name.endswith(".safetensors.index.json")


def _linked(source: Path, target: Path) -> None:
    """Weights are only read, so another name for them will do where the file system allows it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
