"""Stock processors without what only videos and audio need, which they cannot be made without otherwise."""

from __future__ import annotations

from functools import cache
from typing import Any

from transformers.processing_utils import ProcessorMixin


class _Absent:
    """What stands for a processor of videos or audio: it can be given to an initializer and asked for anything."""

    font = ""
    """A file for stamps on videos (Ernie), which a processor saves beside itself if there is one."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


ABSENT = _Absent()


class _ImagesAndText(ProcessorMixin):
    """Beneath the stock class of a processor: drops what only videos and audio need before it is asked for.

    Stock classes cannot be made without their video processors, these not without torchvision, and none of them takes
    `backend`.
    """

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The processors of pictures and of text."""
        return [name for name in cls.every_attribute() if _kept(name)]

    @classmethod
    def every_attribute(cls) -> list[str]:
        """All that the stock class takes."""
        named: list[str] = cls.__bases__[0].get_attributes()  # type: ignore[attr-defined]
        return named

    @classmethod
    def _get_arguments_from_pretrained(cls, *given: Any, **options: Any) -> list[Any]:
        loaded = super()._get_arguments_from_pretrained(*given, **options)  # type: ignore[no-untyped-call]
        made = dict(zip(cls.get_attributes(), loaded, strict=True))
        return [made.get(name, ABSENT) for name in cls.every_attribute()]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        every = {**dict(zip(self.every_attribute(), args, strict=False)), **kwargs}
        kept = {name: value for name, value in every.items() if name not in self.every_attribute()}
        super().__init__(**kept, **{name: every[name] for name in self.get_attributes()})  # type: ignore[no-untyped-call]


@cache
def images_and_text(stock: Any) -> Any:
    """The stock class without videos and audio, called like it so that a saved folder names the stock class."""
    absent = [name for name in stock.get_attributes() if not _kept(name)]
    if not absent:
        return stock
    its: dict[str, Any] = dict.fromkeys(absent, ABSENT)  # the class's and not the instance's, so that none is saved
    return type(stock.__name__, (stock, _ImagesAndText), its | {"__module__": stock.__module__})


def _kept(attribute: str) -> bool:
    return "image" in attribute or "tokenizer" in attribute
