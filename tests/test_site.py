"""The pages: every link leads somewhere, every page is on the site, and the site is built without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
ABOVE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def pages() -> list[Path]:
    return [*(ROOT / name for name in ABOVE), *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as they are made from their words."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def broken(page: Path) -> Iterator[str]:
    """Links of a page within the project that lead nowhere."""
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            yield link


def listed(nav: Any) -> Iterator[str]:
    """The pages of the navigation."""
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from listed(part)


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken(page)) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A title: here\n")
    (tmp_path / "page.md").write_text(
        "[a](other.md#a-title-here) [b](nowhere.md) [c](other.md#gone)\n```\n[d](e.md)\n```\n"
    )
    assert list(broken(tmp_path / "page.md")) == ["nowhere.md", "other.md#gone"]


def test_the_navigation_lists_pages_that_are_there_once() -> None:
    found = list(listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert len(found) == len(set(found)) > 20
    assert [name for name in found if not (ROOT / "docs" / name).is_file() and name not in ABOVE] == []


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="requirements-test.lock has it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "tutorials" / "first-study" / "index.html").read_text(encoding="utf-8")
    assert "<strong>forget gap</strong>" in first
    front = (tmp_path / "index.html").read_text(encoding="utf-8")
    for page in pages()[1:]:  # the first is the front page itself
        name = page.relative_to(ROOT / "docs" if page.is_relative_to(ROOT / "docs") else ROOT).with_suffix("")
        assert f'href="{name}/"' in front, page
