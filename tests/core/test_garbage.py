"""Garbage is looked for seldom while a block lasts, and as before after it."""

from __future__ import annotations

import gc

import pytest

from study.core.garbage import NEW_OBJECTS, seldom_collected


def test_garbage_is_looked_for_seldom_and_then_as_before() -> None:
    @seldom_collected()
    def stopped() -> None:
        raise ValueError(gc.get_threshold()[0])

    before = gc.get_threshold()
    assert before[0] < NEW_OBJECTS
    with pytest.raises(ValueError, match=f"^{NEW_OBJECTS}$"):
        stopped()
    assert gc.get_threshold() == before
