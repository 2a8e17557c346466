"""Plug-ins as they are written on the command line: NAME, NAME:PATH or NAME:FIELD=VALUE,FIELD=VALUE.

`npo:modality=text,lora_rank=16` is NPO with two fixed settings; fields of the schedule are named like the others.
Slashes compose attacks: in `swap_back/quantization:format=nf4` the second attacks the result of the first. A base model
may also be written as a folder, or as OWNER/NAME@COMMIT on the Hugging Face hub.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from study.core.plugins import Kind, check, find, known, name_of
from study.core.terms import PARTS

T = TypeVar("T")


def name_in(text: str) -> str:
    """The plug-in's name in a specification."""
    return text.partition(":")[0]


def links(text: str) -> tuple[str, ...]:
    """The attacks that `text` composes, in order; only itself if it is a single attack.

    Raises `ValueError` for `chain`, which is not an attack by itself.
    """
    found = tuple(text.split("/"))
    if "chain" in map(name_in, found):
        raise ValueError(f"{text!r}: write composed attacks with slashes, such as swap_back/quantization:format=nf4")
    return found


def plugin(kind: Kind, text: str) -> Any:
    """The model, benchmark or attack that a setting names.

    Raises `ValueError` for an unknown name or field, with the nearest known one, for a path that is missing or
    superfluous, and for a value of the wrong type.
    """
    if kind == "base_models":
        text = _brought(text)
    found = find(kind, name_in(text))
    fields = {field.name for field in dataclasses.fields(found)}
    if "path" in fields:
        return _placed(found, fields, text)
    return adjusted(found(), text)


def _brought(text: str) -> str:
    """A base model written as a folder or as OWNER/NAME@COMMIT on the hub, rewritten for the plug-in that reads it."""
    if name_in(text) in known("base_models"):
        return text
    owner, _, commit = text.partition("@")
    if Path(text).expanduser().is_dir() or text.startswith(("/", "./", "../", "~")):
        return f"hf:{text}"
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", owner):
        return text
    if not commit:
        raise ValueError(f"{text!r}: no such folder; for a model on the hub pin its revision, write {owner}@COMMIT")
    return f"hf:hub={owner},revision={commit}"


def _placed(found: type[Any], fields: set[str], text: str) -> Any:
    """A plug-in that reads a folder: NAME:PATH, or fields by name, possibly with a repository of the hub."""
    written = text.partition(":")[2]
    if not written:
        name = name_in(text)
        hub = f" or {name}:hub=OWNER/NAME,revision=COMMIT" if "hub" in fields else ""
        raise ValueError(f"{text!r}: {name} needs a folder, write {name}:PATH{hub}")
    default = found(path=Path())
    if written.partition("=")[0] in fields and "=" in written:
        return adjusted(default, text)
    settings = (setting.partition("=")[0] for setting in written.split(",")[1:])
    if not fields.isdisjoint(settings) and not _folder(written).exists():
        raise ValueError(f"{text!r}: with settings the folder is named too, write {name_in(text)}:path={written}")
    return dataclasses.replace(default, path=_folder(written))


def adjusted(default: T, text: str) -> T:
    """`default` with the settings after the colon of `text`. Raises `ValueError` as `plugin` does."""
    changed: T = _with(default, _values(default, text))
    return changed


def made(kind: type[T], given: Mapping[str, Any], text: str) -> T:
    """A plug-in with the fields `given` by a preset and the settings after the colon of `text`.

    It is made with all of them at once, since what neither sets may depend on what they do set. Raises `ValueError` as
    `plugin` does.
    """
    assert dataclasses.is_dataclass(kind)
    values = _values(kind(**given), text)
    own = {field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values}
    changed: T = _with(kind(**{**given, **own}), values)
    return changed


def _values(default: object, text: str) -> dict[str, Any]:
    """The settings after the colon of `text`, in the types that they have in `default`."""
    there = flat(default)
    values: dict[str, Any] = {}
    for name, value in _pairs(text):
        check(f"settings of {name_in(text)}", name, tuple(there))
        values[name] = _read(text, name, value, there[name])
    return values


def spelled(name: str, values: Mapping[str, Any]) -> str:
    """A plug-in with settings as text: `adjusted` reads back exactly these, with every digit of a number.

    Raises `ValueError` for a setting that has no such text.
    """
    pairs = [f"{key}={_value(key, value)}" for key, value in values.items()]
    return f"{name}:{','.join(pairs)}" if pairs else name


def _value(name: str, value: Any) -> str:
    if isinstance(value, tuple | list):
        return "+".join(_value(name, part) for part in value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, float):  # 1e+16 would read as two members of a tuple
        text = text.replace("e+", "e")
    if "," in text or "/" in text:
        raise ValueError(f"{name}={text}: a setting with a comma or a slash cannot be written in one line with others")
    return text


def settings_in(text: str) -> dict[str, str]:
    """The settings after the colon of `text`, as they are written."""
    return dict(_pairs(text))


def pinned(default: object, text: str) -> dict[str, Any]:
    """The values after the colons of `text`, in the form of `parameters`: the search does not change them."""
    there, several = parameters(default), links(text)
    single = len(several) == 1
    prefixes = [""] if single else [link_prefix(at, name_in(link)) for at, link in enumerate(several, 1)]
    names = [f"{prefix}{name}" for prefix, link in zip(prefixes, several, strict=True) for name, _ in _pairs(link)]
    return {name: there[name] for name in names}


def link_prefix(position: int, name: str) -> str:
    """What precedes the parameters of a link of composed attacks: two links of one kind differ by their position."""
    return f"{position}.{name}."


def flat(plugin: object) -> dict[str, Any]:
    """Every field of a plug-in by its name, including those of nested dataclasses; those of links with their prefix."""
    found: dict[str, Any] = {}
    assert dataclasses.is_dataclass(plugin)
    for field in dataclasses.fields(plugin):
        value = getattr(plugin, field.name)
        if dataclasses.is_dataclass(value):
            found |= flat(value)
        elif isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
            for at, link in enumerate(value, 1):
                found |= {f"{link_prefix(at, name_of(link))}{name}": set_to for name, set_to in flat(link).items()}
        else:
            found[field.name] = value
    return found


def parameters(plugin: object) -> dict[str, Any]:
    """The fields of a plug-in as a search space suggests them: tuples are one text, joined by plus signs."""
    return {name: "+".join(map(str, v)) if isinstance(v, tuple) else v for name, v in flat(plugin).items()}


def _pairs(text: str) -> list[tuple[str, str]]:
    settings = text.partition(":")[2].split(",")
    return [(name, value) for name, _, value in (setting.partition("=") for setting in filter(None, settings))]


def _with(plugin: Any, values: dict[str, Any]) -> Any:
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(plugin):
        value = getattr(plugin, field.name)
        if dataclasses.is_dataclass(value):
            changed[field.name] = _with(value, values)
        elif field.name in values:
            changed[field.name] = values[field.name]
    return dataclasses.replace(plugin, **changed)


def _read(text: str, name: str, value: str, default: Any) -> Any:
    """A value in the type of the default; the members of a tuple are joined by plus signs."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[value.lower()]
        if isinstance(default, tuple):
            return tuple(_member(name, part, default) for part in value.split("+") if part)
        if isinstance(default, Path):
            return _folder(value)
        return type(default)(value)
    except (KeyError, ValueError, TypeError) as error:
        wanted = "list of values joined by plus signs" if isinstance(default, tuple) else type(default).__name__
        wanted = "folder" if isinstance(default, Path) else wanted
        raise ValueError(f"{text!r}: {name}={value} is not a {wanted}") from error


def _folder(written: str) -> Path:
    """A path made absolute, because workers have their own working directories."""
    if not written:
        raise ValueError(written)
    return Path(written).expanduser().absolute()


def _member(name: str, value: str, default: tuple[Any, ...]) -> Any:
    """One member of a tuple: a part of a model, or a value in the type of the default's (a number if that is empty)."""
    if name in ("trains", "parts"):
        if value not in PARTS:
            raise ValueError(value)
        return value
    return type(default[0])(value) if default else float(value)
