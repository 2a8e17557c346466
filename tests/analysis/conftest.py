"""Figures of tests are drawn coarsely: nobody prints them."""

from collections.abc import Iterator

import pytest

from analysis import plots

COARSE = 60
"""Dots per inch: words can still be read, should somebody look."""


@pytest.fixture(scope="session", autouse=True)
def coarse() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plots, "DPI", COARSE)
        yield
