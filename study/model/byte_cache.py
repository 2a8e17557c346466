"""Values that are expensive to make, kept for as long as there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class ByteCache(Generic[T]):
    """Values by key; those that were not asked for the longest are dropped once all exceed `most` bytes."""

    def __init__(self, most: int, size: Callable[[T], int]) -> None:
        self.most, self.size = most, size
        self.bytes = 0
        self.kept: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str) -> T | None:
        """The value, if it is still there."""
        if key in self.kept:
            self.kept.move_to_end(key)
        return self.kept.get(key)

    def put(self, key: str, value: T) -> T:
        """Keep a value, which is returned; one that is larger than all the room is not kept."""
        self._drop(key)
        if self.size(value) > self.most:
            return value
        self.kept[key] = value
        self.bytes += self.size(value)
        while self.bytes > self.most:
            self._drop(next(iter(self.kept)))
        return value

    def _drop(self, key: str) -> None:
        if key in self.kept:
            self.bytes -= self.size(self.kept.pop(key))
