"""What the site adds to the pages of docs/: those that lie above it, and a place in the navigation for new ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
BESIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
"""Pages of the project that lie above docs/."""


def listed(nav: Any) -> Iterator[str]:
    """The pages of a navigation."""
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from listed(part)


def on_config(config: Any) -> Any:
    """Put pages that mkdocs.yml does not list at the end of the navigation."""
    docs = Path(config["docs_dir"])
    there = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    if more := sorted(there - {*listed(config["nav"])}):
        config["nav"].append({"More": more})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add these pages, as if they lay in docs/."""
    for name in BESIDE:
        content = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to them lead one folder less far up."""
    for name in BESIDE:
        markdown = markdown.replace(f"](../../{name}", f"](../{name}").replace(f"](../{name}", f"]({_up(page)}{name}")
    return markdown


def _up(page: Any) -> str:
    return "../" * page.file.src_uri.count("/")
