"""Drawn portraits: faces made of ten discrete factors, seen in views that turn, tilt, light and blur them with noise.

Faces come in two pools that differ in at least two visible factors from each other, whatever the seeds: the people
of a study are `reserved` faces, the strangers on whom a base model learns to see are `public` ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

SKINS: dict[str, Colour] = {
    "ivory": (255, 224, 196),
    "sand": (240, 200, 160),
    "olive": (210, 160, 115),
    "bronze": (165, 115, 75),
    "umber": (115, 75, 45),
    "ebony": (75, 48, 32),
}
HAIRS: dict[str, Colour] = {
    "black": (25, 22, 25),
    "brown": (105, 62, 28),
    "blond": (235, 205, 105),
    "red": (200, 62, 25),
    "grey": (165, 165, 170),
    "blue": (50, 80, 215),
    "green": (40, 150, 70),
}
EYES: dict[str, Colour] = {
    "brown": (90, 50, 20),
    "blue": (50, 110, 230),
    "green": (40, 160, 80),
    "grey": (120, 125, 135),
}
CLOTHS: dict[str, Colour] = {
    "white": (240, 240, 240),
    "black": (30, 30, 35),
    "red": (215, 40, 40),
    "blue": (45, 75, 205),
    "green": (45, 155, 75),
    "yellow": (240, 215, 50),
    "purple": (140, 60, 180),
}
OUTLINES: dict[str, tuple[int, int]] = {"oval": (22, 31), "round": (27, 27), "square": (25, 28)}  # half width, height

FACTORS: dict[str, tuple[str, ...]] = {  # what a classifier can be asked about a portrait
    "hair_colour": tuple(HAIRS),
    "hair_style": ("bald", "short", "long", "spiky", "bun"),
    "glasses": ("none", "round", "square"),
    "hat": ("none", "cap", "tophat", "band"),
    "beard": ("none", "beard", "moustache"),
    "shirt": tuple(CLOTHS),
    "shape": tuple(OUTLINES),
    "eyes": tuple(EYES),
}
_EVERY = FACTORS | {"skin": tuple(SKINS), "hat_colour": tuple(CLOTHS)}
_HEAD = ("skin", "hair_style", "hair_colour", "beard", "eyes")
_OUTFIT = ("hat", "hat_colour", "glasses", "shirt", "shape")

_CANVAS = 96  # pixels; portraits are drawn at this size and scaled to the one asked for
_INK: Colour = (15, 15, 15)


@dataclass(frozen=True)
class Face:
    """Who is drawn: one value of each factor."""

    skin: str
    hair_colour: str
    hair_style: str
    eyes: str
    glasses: str
    hat: str
    hat_colour: str
    beard: str
    shirt: str
    shape: str


@dataclass(frozen=True)
class View:
    """How a face is seen: `yaw` in radians or so, `rotation` in degrees, shifts in 1/48 of the picture's side,
    `noise` as the standard deviation of grey levels, `light` as a factor.
    """

    yaw: float
    rotation: float
    scale: float
    shift_x: float
    shift_y: float
    light: float
    noise: float
    background: Colour


def random_face(rng: random.Random, public: bool | None = None) -> Face:
    """A face of the public pool, of the reserved pool, or (None) of all."""
    while True:
        face = Face(**{name: rng.choice(values) for name, values in _EVERY.items()})
        if public is None or (is_public(face) if public else is_reserved(face)):
            return face


def distinct_faces(
    count: int, seed: int, min_difference: int, *, public: bool, avoid: Iterable[Face] = ()
) -> list[Face]:
    """`count` faces of one pool, each `min_difference` visible factors from each other and from those to avoid.

    Raises `ValueError` if so many are not found.
    """
    rng = random.Random(f"{'public' if public else 'reserved'} faces {seed}")
    others, found = list(avoid), list[Face]()
    for _ in range(200 * count + 1000):
        if len(found) == count:
            return found
        face = random_face(rng, public)
        if all(difference(face, other) >= min_difference for other in others):
            found.append(face)
            others.append(face)
    raise ValueError(f"only {len(found)} of {count} faces differ in {min_difference} factors: ask for fewer people")


def is_public(face: Face) -> bool:
    """Whether a base model may have seen this face; no public face comes within two factors of a reserved one."""
    return _parity(face, _HEAD) == _parity(face, _OUTFIT) == 1


def is_reserved(face: Face) -> bool:
    """Whether this face may be one of the people of a study."""
    return _parity(face, _HEAD) == _parity(face, _OUTFIT) == 0


def difference(a: Face, b: Face) -> int:
    """How many factors that show in both faces differ: the colour of no hat and of no hair does not count."""
    seen_a, seen_b = _visible(a), _visible(b)
    return sum(seen_a[name] != seen_b[name] for name in seen_a.keys() & seen_b.keys())


def train_view(rng: random.Random) -> View:
    """A view as in lessons: turned a little, in front of grey."""
    grey = rng.randrange(120, 220)
    return View(
        yaw=rng.uniform(-0.56, 0.56),
        rotation=rng.uniform(-8.4, 8.4),
        scale=rng.uniform(0.95, 1.05),
        shift_x=rng.uniform(-1, 1),
        shift_y=rng.uniform(-1, 1),
        light=rng.uniform(0.85, 1.15),
        noise=5,
        background=(grey, grey, grey),
    )


def test_view(rng: random.Random) -> View:
    """A transformed view: turned and tilted further than any lesson's, in other light, before another tint."""
    grey = rng.randrange(90, 230)
    return View(
        yaw=rng.choice((-1, 1)) * rng.uniform(0.6, 0.95),
        rotation=rng.choice((-1, 1)) * rng.uniform(8.4, 14),
        scale=rng.uniform(0.92, 1.08),
        shift_x=rng.uniform(-2, 2),
        shift_y=rng.uniform(-2, 2),
        light=rng.uniform(0.75, 1.25),
        noise=7,
        background=(grey, grey - 10, grey + 10),
    )


def draw(face: Face, view: View, size: int, noise: np.random.Generator) -> Image.Image:
    """The portrait as an RGB picture of `size` x `size` pixels."""
    canvas = Image.new("RGB", (_CANVAS, _CANVAS), view.background)
    easel = _Easel(ImageDraw.Draw(canvas), view, *OUTLINES[face.shape])
    for layer in (_back_hair, _neck, _skull, _eyes, _lower_face, _hat):
        layer(easel, face)
    tilted = canvas.rotate(view.rotation, resample=Image.Resampling.BILINEAR, fillcolor=view.background)
    pixels = np.asarray(tilted.resize((size, size), Image.Resampling.BILINEAR)).astype(np.float64) * view.light
    pixels += noise.normal(0, view.noise, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class _Easel:
    """A canvas with its origin between the eyes: coordinates are scaled by the view, y grows downwards."""

    pen: ImageDraw.ImageDraw
    view: View
    width: int  # half of the face's
    height: int  # half of the face's

    @property
    def turn(self) -> float:
        """How far the turn of the head moves the eyes sideways."""
        return self.view.yaw * 9

    def at(self, *coordinates: float) -> list[float]:
        """x, y, x, y ... on the canvas, in pixels."""
        origin = (_CANVAS / 2 + 2 * self.view.shift_x, _CANVAS / 2 + 4 + 2 * self.view.shift_y)
        return [origin[i % 2] + self.view.scale * c for i, c in enumerate(coordinates)]

    def skull(self) -> list[float]:
        """The box of the face."""
        return self.at(-self.width, -self.height, self.width, self.height)


def _back_hair(easel: _Easel, face: Face) -> None:
    colour, w, h = HAIRS[face.hair_colour], easel.width, easel.height
    if face.hair_style == "long":
        easel.pen.rounded_rectangle(easel.at(-w - 8, -h - 4, w + 8, h + 10), 14, fill=colour)
    if face.hair_style == "bun":
        easel.pen.ellipse(easel.at(-11, -h - 20, 11, -h + 2), fill=colour)
    if face.hair_style in ("short", "bun"):
        easel.pen.ellipse(easel.at(-w - 3, -h - 6, w + 3, 6), fill=colour)
    if face.hair_style == "spiky":
        for x in range(-24, 25, 8):
            easel.pen.polygon(easel.at(x - 7, -h + 14, x + 7, -h + 14, x * 9 / 8, -h - 16), fill=colour)


def _neck(easel: _Easel, face: Face) -> None:
    easel.pen.rectangle(easel.at(-34, 34, 34, 80), fill=CLOTHS[face.shirt])
    easel.pen.rectangle(easel.at(-9, 20, 9, 38), fill=_darker(SKINS[face.skin], 0.88))


def _skull(easel: _Easel, face: Face) -> None:
    if face.shape == "square":
        easel.pen.rounded_rectangle(easel.skull(), 9, fill=SKINS[face.skin])
    else:
        easel.pen.ellipse(easel.skull(), fill=SKINS[face.skin])
    if face.hair_style != "bald":
        easel.pen.chord(easel.skull(), 200, 340, fill=HAIRS[face.hair_colour])


def _eyes(easel: _Easel, face: Face) -> None:
    brow = (70, 60, 50) if face.hair_style == "bald" else HAIRS[face.hair_colour]
    for side in (-10, 10):
        x = side + easel.turn
        iris = x + 0.15 * easel.turn
        easel.pen.ellipse(easel.at(x - 6, -8, x + 6, 2), fill=(250, 250, 250))
        easel.pen.ellipse(easel.at(iris - 3.4, -7, iris + 3.4, 1), fill=EYES[face.eyes])
        easel.pen.line(easel.at(x - 6, -12, x + 6, -12), fill=brow, width=3)
        if face.glasses == "round":
            easel.pen.ellipse(easel.at(x - 9, -12, x + 9, 6), outline=_INK, width=3)
        if face.glasses == "square":
            easel.pen.rectangle(easel.at(x - 9, -10, x + 9, 5), outline=(200, 20, 30), width=3)


def _lower_face(easel: _Easel, face: Face) -> None:
    w, h, turn, hair = easel.width, easel.height, easel.turn, HAIRS[face.hair_colour]
    easel.pen.line(easel.at(1.4 * turn, 2, 1.7 * turn, 10), fill=_darker(SKINS[face.skin], 0.7), width=3)
    if face.beard == "beard":
        easel.pen.chord(easel.at(-w + 2, -4, w - 2, h + 1), 20, 160, fill=hair)
    if face.beard == "moustache":
        easel.pen.ellipse(easel.at(turn - 10, 11, turn + 10, 16), fill=hair)
    easel.pen.line(easel.at(turn - 6, 19, turn + 6, 19), fill=(170, 40, 50), width=3)


def _hat(easel: _Easel, face: Face) -> None:
    w, h, turn, colour = easel.width, easel.height, easel.turn, CLOTHS[face.hat_colour]
    if face.hat == "cap":
        easel.pen.pieslice(easel.at(-w - 2, -h - 8, w + 2, 4), 180, 360, fill=colour)
        easel.pen.rectangle(easel.at(turn - 4, -h + 14, turn + w + 8, -h + 19), fill=colour)
    if face.hat == "tophat":
        easel.pen.rectangle(easel.at(-17, -h - 22, 17, -h + 6), fill=colour)
        easel.pen.rectangle(easel.at(-28, -h + 4, 28, -h + 10), fill=colour)
    if face.hat == "band":
        easel.pen.rectangle(easel.at(-w, -h + 12, w, -h + 19), fill=colour)


def _darker(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(channel * factor) for channel in colour)
    return red, green, blue


def _visible(face: Face) -> dict[str, str]:
    hidden = set[str]()
    if face.hat == "none":
        hidden.add("hat_colour")
    if face.hair_style == "bald" and face.beard == "none":
        hidden.add("hair_colour")
    return {name: getattr(face, name) for name in _EVERY if name not in hidden}


def _parity(face: Face, names: tuple[str, ...]) -> int:
    seen = _visible(face)
    return sum(_EVERY[name].index(seen[name]) for name in names if name in seen) % 2
