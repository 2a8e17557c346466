"""What the source says of a class, a module or a field, for pages and help that are made from it."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any


def first_sentence(text: str | None) -> str:
    """The first sentence of a docstring, or what stands before its colon, without the mark at its end."""
    paragraph = " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[^.])[.:;] ", paragraph + " ", maxsplit=1)[0].rstrip(" .")


def first_line(text: str | None) -> str:
    """The first line of a docstring."""
    return inspect.cleandoc(text or "").partition("\n")[0]


def field_docs(kind: type[Any]) -> dict[str, str]:
    """The text that stands below each field in the source of a class, in one line."""
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        text = below.value if isinstance(below, ast.Expr) else None
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(text.value).split())
    return found
