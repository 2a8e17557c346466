"""Augmented pictures: the stated share, each in its own way, and still the picture that it was."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from study.data.benchmark import Benchmark
from study.data.picture import Picture
from study.model.vlm import VLM
from study.training.views import Views, augmented


def noise_picture(width: int = 24, height: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))


def drawn(image: Image.Image, count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [np.asarray(augmented(image, random)).astype(float) for _ in range(count)]


@pytest.mark.parametrize("size", [(24, 24), (40, 24), (7, 31)])
def test_augmented_pictures_keep_their_size(size: tuple[int, int]) -> None:
    image = noise_picture(*size)
    for made in drawn(image, 4):
        assert made.shape == np.asarray(image).shape
        assert np.abs(made - np.asarray(image)).mean() > 6


def test_augmentation_depends_on_its_generator_alone() -> None:
    np.random.seed(1)
    first = drawn(noise_picture(), 3)
    np.random.seed(2)
    assert np.array_equal(first, drawn(noise_picture(), 3))
    assert not np.array_equal(first, drawn(noise_picture(), 3, seed=1))


def test_every_picture_is_augmented_in_its_own_way() -> None:
    made = drawn(noise_picture(), 4)
    assert all(not np.array_equal(made[i], made[j]) for i in range(4) for j in range(i))


def test_an_augmented_picture_is_still_that_picture() -> None:
    """A smooth picture stays nearer to itself than to another: nothing is turned upside down or thrown out."""
    ramp = np.repeat(np.linspace(0, 255, 48).astype(np.uint8)[None, :, None], 48, 0).repeat(3, 2)
    for made in drawn(Image.fromarray(ramp), 8):
        assert np.abs(made - ramp).mean() < 51 < np.abs(made - (255.0 - ramp)).mean()


def test_a_picture_is_turned_about_its_middle_and_by_no_more_than_is_said() -> None:
    """A bright dot at a distance from the middle stays within what turning, scaling, stretching and shifting allow."""
    canvas = np.zeros((101, 101, 3), np.uint8)
    canvas[49:52, 79:82] = 255
    angles = []
    for made in drawn(Image.fromarray(canvas), 40):
        y, x = np.unravel_index(made.sum(2).argmax(), made.shape[:2])
        angles.append(math.degrees(math.atan2(y - 50, x - 50)))
        assert 30 / (1.12 * 1.25) - 7 < math.hypot(y - 50, x - 50) < 30 / 0.88 + 7
    assert max(map(abs, angles)) < 16 + 22  # up to 5 pixels of shift and the stretch come on top
    assert min(angles) < -5
    assert max(angles) > 5


def test_what_comes_in_from_outside_has_the_colour_of_the_edge() -> None:
    canvas = np.full((40, 40, 3), (200, 150, 100), np.uint8)
    canvas[15:25, 15:25] = 0
    for made in drawn(Image.fromarray(canvas), 8):
        corners = made[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert np.abs(corners - np.median(corners, 0)).max() < 40  # noise only
        assert (corners.mean(0)[0] - corners.mean(0)[2]) > 40


@pytest.mark.parametrize(("augment", "plain"), [(0.0, 4), (0.5, 2), (1.0, 0)])
def test_the_stated_share_is_augmented(augment: float, plain: int, tiny: VLM, benchmark: Benchmark) -> None:
    pictures = benchmark.strangers[:4]
    pixels, keys = Views(tiny, augment, 0)(pictures)
    found, unchanged = (p.tensors["pixel_values"] for p in (pixels, tiny.pixels(pictures)))
    same = [torch.equal(a, b) for a, b in zip(found, unchanged, strict=True)]
    assert same == [True] * plain + [False] * (4 - plain)
    assert keys == [picture.key for picture in pictures[:plain]] + [None] * (4 - plain)


def test_large_pictures_are_kept_no_larger_than_they_are_seen(tiny: VLM) -> None:
    data = io.BytesIO()
    noise_picture(300, 200).save(data, "PNG")
    views = Views(tiny, 1.0, 0)
    views([Picture(data.getvalue(), "x")])
    assert [image.size for image in views._decoded.kept.values()] == [(72, 48)]
