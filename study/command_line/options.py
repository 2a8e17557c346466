"""The command line of a study: its options with their meanings, where its preset stands, and its help in groups.

tyro reads the values; what its help cannot do, groups and texts that wrap, is done here from the same fields.
"""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from tyro.conf import Suppress

from study.core.documented import field_docs
from study.core.plugins import check
from study.settings import HEADINGS, Study

WIDEST = 120
"""Columns of the help on a wide terminal: longer lines are hard to read."""
COLUMN, INDENT = 36, 6
"""Where the text of an option begins: beside it on a wide terminal, below it on others."""
UNBROKEN: Any = {"break_long_words": False, "break_on_hyphens": False}
FIRST = (
    ("--config FILE", "Python file that defines a Study, in place of a preset; options override what it sets."),
    ("--print-config", "Print such a file for these settings and stop."),
    ("-h, --help", "Show this and stop."),
)
"""The options that are not settings of a study."""


@dataclass(frozen=True)
class Option:
    """One setting on the command line."""

    heading: str
    flags: tuple[str, ...]
    values: Literal["none", "one", "many"]
    metavar: str
    meaning: str
    default: str


def options(study: Study) -> Iterator[Option]:
    """Every option, in the order and under the headings of the settings, with its default in `study`."""
    heading = ""
    for field, annotation, meaning in _fields(study):
        heading = HEADINGS.get(field.name, heading)
        value, flag = getattr(study, field.name), f"--{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            for part, kind, said in _fields(value):
                name = f"{flag}.{part.name.replace('_', '-')}"
                yield _option(f"{heading}: {meaning}", (name,), kind, said, getattr(value, part.name))
        else:
            aliases = [alias for extra in get_args(annotation)[1:] for alias in getattr(extra, "aliases", None) or ()]
            yield _option(heading, (flag, *aliases), annotation, meaning, value)


def _fields(settings: Any) -> Iterator[tuple[dataclasses.Field[Any], Any, str]]:
    """The fields that can be set on the command line, with their annotation and their meaning."""
    hints, docs = get_type_hints(type(settings), include_extras=True), field_docs(type(settings))
    for field in dataclasses.fields(settings):
        if Suppress not in get_args(hints[field.name]):
            yield field, hints[field.name], docs.get(field.name, "")


def _option(heading: str, flags: tuple[str, ...], annotation: Any, meaning: str, value: Any) -> Option:
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if kind is bool:
        unset = tuple(f"--no-{flag.removeprefix('--')}" for flag in flags)
        return Option(heading, (*flags, *unset), "none", "", meaning, "on" if value else "off")
    several = get_origin(kind) is tuple
    name = _metavar(get_args(kind)[0] if several else kind)
    return Option(
        heading, flags, "many" if several else "one", f"[{name} ...]" if several else name, meaning, _shown(value)
    )


def _metavar(kind: Any) -> str:
    """What stands for a value: the names among which it is chosen, or its type."""
    named = [part for part in (kind, *get_args(kind)) if get_origin(part) is Literal]
    if named:
        return "{" + ",".join(map(str, get_args(named[0]))) + "}"
    whole = next((part for part in (kind, *get_args(kind)) if part in (int, float, str, Path)), str)
    return {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}[whole]


def _shown(value: Any) -> str:
    match value:
        case None | "" | ():
            return "none"
        case tuple():
            return " ".join(map(str, value))
        case float():
            return f"{value:g}"
    return str(value)


def split(arguments: Sequence[str], presets: Collection[str]) -> tuple[str, list[str]]:
    """The preset, wherever it stands, and the other arguments; an empty preset if there is none.

    A word is the preset unless an option takes it as its value. Raises `ValueError` for a word that is no preset, with
    the nearest one, and for a second preset.
    """
    takes = {flag: option.values for option in options(Study()) for flag in option.flags} | {
        "-h": "none",
        "--help": "none",
    }
    found, rest, wanted = "", [], "none"
    for text in arguments:
        if text.startswith("--") or text == "-h":
            wanted = "none" if "=" in text else takes.get(_plain(text), "one")
            wanted = "any" if _plain(text) == "--reference" else wanted  # a base model may be called as a preset is
        elif wanted == "none" or (wanted == "more" and text in presets):
            check("presets", text, tuple(presets))
            if found:
                raise ValueError(f"two presets, {found} and {text}: name one, and set what differs by options")
            found, wanted = text, "none"
            continue
        else:
            wanted = {"one": "none", "many": "more"}.get(wanted, wanted)
        rest.append(text)
    return found, rest


def _plain(flag: str) -> str:
    """A flag as it is listed: tyro takes underscores for hyphens."""
    return flag.replace("_", "-")


def page(study: Study, prog: str, about: str, presets: Collection[str], examples: Sequence[tuple[str, str]]) -> str:
    """The help: what it does, the presets, examples, then every option under its heading."""
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    names = f"PRESET, anywhere among the options: {', '.join(presets)} (`mus list presets` says what each is)"
    lines = [f"usage: {prog} [PRESET] [OPTIONS]", "", *_wrapped(about, width), "", *_wrapped(names, width, 2)]
    lines += ["", "Examples:"]
    for command, what in examples:
        lines += [f"  {prog} {command}", *_wrapped(f"{'':{INDENT}}{what}", width, INDENT)]
    lines += ["", "Beside the settings:"]
    for flag, what in FIRST:
        lines += _entry(flag, what, width)
    heading = ""
    for option in options(study):
        if option.heading != heading:
            heading = option.heading
            lines += ["", *_wrapped(f"{heading.rstrip('.')}:", width)]
        default = "" if (option.default, "Default: " in option.meaning) == ("none", True) else option.default
        shown = f"{option.meaning} (default: {default})" if default else option.meaning
        lines += _entry(f"{', '.join(option.flags)} {option.metavar}".rstrip(), shown.strip(), width)
    return "\n".join(lines)


def _entry(flag: str, what: str, width: int) -> list[str]:
    """A flag with its text: beside it if there is room, else below."""
    column = COLUMN if width == WIDEST else INDENT
    text = textwrap.wrap(f"{'':{column}}{what}", width, subsequent_indent=" " * column, **UNBROKEN)
    first = textwrap.wrap(f"  {flag}", width, subsequent_indent=" " * INDENT, **UNBROKEN)
    if len(first) > 1 or len(first[0]) > column - 2:
        return [*first, *text]
    return [f"{first[0]:{column}}{text[0].lstrip()}", *text[1:]]


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=" " * indent, **UNBROKEN)
