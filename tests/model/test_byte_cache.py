"""A cache that never holds more than it may."""

from __future__ import annotations

import pytest
from PIL import Image

from study.data.benchmark import Benchmark
from study.data.picture import Picture
from study.model.byte_cache import ByteCache
from study.model.vlm import VLM


def test_what_was_asked_for_last_stays() -> None:
    cache = ByteCache[str](6, len)
    for key in "abc":
        assert cache.put(key, 2 * key) == 2 * key
    assert cache.get("a") == "aa"
    cache.put("d", "dd")
    assert set(cache.kept) == {"a", "c", "d"}  # b had been asked for the longest ago
    assert cache.get("b") is None
    assert cache.bytes == 6


def test_a_value_replaces_its_own_and_one_too_large_is_not_kept() -> None:
    cache = ByteCache[str](6, len)
    cache.put("a", "aa")
    cache.put("a", "aaaa")
    assert (cache.get("a"), cache.bytes) == ("aaaa", 4)
    assert cache.put("b", 7 * "b") == 7 * "b"
    assert (set(cache.kept), cache.bytes) == ({"a"}, 4)  # and nothing had to make room for it
    cache.put("a", 7 * "a")
    assert (set(cache.kept), cache.bytes) == (set(), 0)


def test_pictures_that_do_not_fit_are_prepared_again_with_the_same_pixels(
    tiny: VLM, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = list({q.picture: None for q in benchmark.split(5).questions if q.picture is not None})[:5]
    wanted = tiny.forgetful().pixels(pictures).tensors["pixel_values"]
    one, opened, true = wanted[0].nbytes, list[str](), Picture.open
    tiny._pixels.most = 2 * one

    def noted(picture: Picture) -> Image.Image:
        opened.append(picture.key)
        return true(picture)

    monkeypatch.setattr(Picture, "open", noted)
    for _ in range(2):
        assert tiny.pixels(pictures).tensors["pixel_values"].equal(wanted)
        assert tiny._pixels.bytes == 2 * one
    assert len(opened) == 5 + 3  # the last two were still there
    kept = [pixels.tensors["pixel_values"].untyped_storage() for pixels in tiny._pixels.kept.values()]
    assert {storage.nbytes() for storage in kept} == {one}
