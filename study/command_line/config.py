"""A study in a file of its own: Python that defines a `Study`, read by `--config` and written by `--print-config`."""

from __future__ import annotations

import dataclasses
import json
import runpy
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from study.settings import Study

FLAG = "--config"
WIDTH = 100
"""Columns up to which a value stays in one line."""
HEAD = '''"""Settings of a study, for `mus run --config`. What is not set here has the default of `Study`."""

from pathlib import Path

from study.settings import Cost, Gate, Study
from study.training.schedule import Schedule

'''


def taken(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The file that is named after `--config`, or nothing, and the other arguments. Raises `ValueError` without one."""
    rest, file = list(arguments), ""
    for at, text in enumerate(arguments):
        name, _, value = text.partition("=")
        if name == FLAG:
            value = value or "".join(arguments[at + 1 : at + 2])
            if file or not value or value.startswith("-"):
                raise ValueError(f"{FLAG} takes one file that defines a Study, such as {FLAG} my_study.py")
            file, rest = value, [*arguments[:at], *arguments[at + (1 if "=" in text else 2) :]]
    return file, rest


def read(file: str) -> Study:
    """The one study that a Python file defines. Raises `ValueError` that names the file, and the line if it fails."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"{FLAG} {file}: no such file; `mus run --print-config` prints one to begin with")
    try:
        found = [value for value in runpy.run_path(str(path)).values() if isinstance(value, Study)]
    except (Exception, SystemExit) as error:  # whatever the user's Python raises
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        lines += [error.lineno] if isinstance(error, SyntaxError) else []
        where = f", line {lines[-1]}" if lines else ""
        raise ValueError(f"{FLAG} {file}{where}: {type(error).__name__}: {error}") from error
    if len({id(study) for study in found}) != 1:
        raise ValueError(
            f"{FLAG} {file} defines {len(found)} studies: assign one Study to a name, as in study = Study(...)"
        )
    return found[0]


def source(study: Study) -> str:
    """A file that `read` reads back to the same study."""
    return f"{HEAD}study = {_written(study)}\n"


def _written(value: Any, indent: str = "", before: int = 0) -> str:
    """A value as Python: dataclasses with what differs from their defaults, on several lines if one is too short.

    So many characters stand `before` it in its line, behind the indent.
    """
    match value:
        case Mapping():
            parts, ends = [(f"{_written(key)}: ", part) for key, part in value.items()], "{}"
        case tuple():
            parts, ends = [("", part) for part in value], "()"
        case Path():
            return f"Path({_written(str(value))})"
        case str():
            return json.dumps(value, ensure_ascii=False)  # as Python writes it, too, always in double quotes
        case _ if dataclasses.is_dataclass(value):
            parts, ends = [(f"{name}=", part) for name, part in _changed(value)], f"{type(value).__name__}()"
        case _:
            return repr(value)
    begin, end = ends[:-1], ends[-1]
    single = "," if isinstance(value, tuple) and len(value) == 1 else ""
    line = begin + ", ".join(name + _written(part) for name, part in parts) + single + end
    if "\n" not in line and len(indent) + before + len(line) <= WIDTH:
        return line
    inner = f"{indent}    "
    return "\n".join(
        [begin, *(f"{inner}{name}{_written(part, inner, len(name))}," for name, part in parts), indent + end]
    )


def _changed(value: Any) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(value):
        given = getattr(value, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if repr(given) != repr(default):  # some fields are left out when two are compared
            yield field.name, given
