"""How Brook's world looks. In: a scene and a media time. Out: a picture, `(size, size, 3)` uint8 RGB.

A picture is drawn at twice its size and reduced, so edges are smooth. A `Lens` makes of it what a cheap camera and a
JPEG file would. It does not know what is asked about a picture.
"""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from .world import Scene, Thing

PAINTS = {
    "red": (220, 40, 40),
    "orange": (245, 140, 25),
    "yellow": (240, 225, 50),
    "green": (45, 165, 70),
    "blue": (45, 85, 220),
    "purple": (135, 55, 180),
    "pink": (250, 150, 190),
    "white": (240, 240, 240),
}


class Painter:
    """Draws one scene. The last clean picture is kept: most frames show what the one before them showed."""

    def __init__(self, scene: Scene, size: int) -> None:
        self._scene = scene
        self._size = size
        self._random = np.random.default_rng(scene.seed)
        backdrop = _backdrop(self._random, size)
        self._shades = self._random.integers(-12, 13, (64, 3))
        self._turns = self._random.uniform(-0.15, 0.15, 64)
        self._backdrops = [backdrop, *(_backdrop(self._random, size) for _ in scene.cuts)]
        self._last: tuple[int, list[Thing], np.ndarray] | None = None

    def picture(self, time: float) -> np.ndarray:
        """The clean picture at `time`."""
        if foreign := self._scene.foreign_at(time):
            return _foreign(foreign, self._scene.seed, time, self._size)
        things = self._scene.at(time)
        cuts = sum(cut <= time for cut in self._scene.cuts)
        if self._last is None or self._last[:2] != (cuts, things):
            self._last = (cuts, things, self._draw(self._backdrops[cuts], things))
        return self._last[2]

    def _draw(self, backdrop: np.ndarray, things: list[Thing]) -> np.ndarray:
        canvas = Image.fromarray(backdrop).resize((2 * self._size, 2 * self._size))
        pen = ImageDraw.Draw(canvas)
        for thing in things:
            shade = np.clip(np.array(PAINTS[thing.colour]) + self._shades[thing.number % 64], 0, 255)
            _paint(pen, thing, 2 * self._size, (int(shade[0]), int(shade[1]), int(shade[2])), self._turn(thing))
        return np.asarray(canvas.reduce(2))

    def _turn(self, thing: Thing) -> float:
        return float(self._turns[thing.number % 64])


def _paint(pen: ImageDraw.ImageDraw, thing: Thing, size: int, paint: tuple[int, int, int], turn: float) -> None:
    x, y, radius = thing.x * size, thing.y * size, thing.radius * size
    box = (x - radius, y - radius, x + radius, y + radius)
    if thing.shape == "circle":
        pen.ellipse(box, fill=paint)
    elif thing.shape == "ring":
        pen.ellipse(box, outline=paint, width=max(round(radius * 0.42), 1))
    else:
        corners = [
            (math.cos(a + turn) * r * radius + x, math.sin(a + turn) * r * radius + y) for a, r in _corners(thing)
        ]
        pen.polygon(corners, fill=paint)


def _corners(thing: Thing) -> list[tuple[float, float]]:
    """Corners as (angle, share of the radius); angles run clockwise from the right."""
    quarter = math.pi / 2
    if thing.shape == "square":
        return [(quarter / 2 + quarter * i, 1.15) for i in range(4)]
    if thing.shape == "triangle":
        return [(-quarter + 2 * math.pi / 3 * i, 1.15) for i in range(3)]
    if thing.shape == "star":
        return [(-quarter + math.pi / 5 * i, 1.15 if i % 2 == 0 else 0.48) for i in range(10)]
    arm = 0.36  # half the width of a cross's arm
    tip, notch = (math.atan2(arm, 1.0), math.hypot(arm, 1.0)), (quarter / 2, math.hypot(arm, arm))
    side = [(-tip[0], tip[1]), tip, notch]
    return [(angle + quarter * i, share) for i in range(4) for angle, share in side]


def _backdrop(random: np.random.Generator, size: int) -> np.ndarray:
    """Dark to middling, hardly coloured: plain, a slope, or faintly mottled."""
    light = random.uniform(12, 115)
    base = light + random.uniform(-1, 1, 3) * min(light * 0.5, 22)
    picture = np.broadcast_to(base, (size, size, 3)).astype(np.float32)
    kind = random.integers(3)
    if kind == 1:
        slope = np.linspace(-1, 1, size)[:, None, None] * random.uniform(5, 18)
        picture = picture + (slope if random.random() < 0.5 else slope.transpose(1, 0, 2))
    elif kind == 2:
        coarse = random.normal(0, random.uniform(2, 7), (7, 7)).astype(np.float32)
        picture = picture + np.asarray(Image.fromarray(coarse).resize((size, size)))[:, :, None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def _foreign(kind: str, seed: int, time: float, size: int) -> np.ndarray:
    """Pictures that hold nothing of this world: "noise", "texture" (stripes, checks) and "photo" (soft blobs)."""
    random = np.random.default_rng(seed)
    grain = int(random.choice([size, size // 2, size // 4, size // 8]))
    if kind == "noise":
        now = np.random.default_rng((seed, int(time * 15)))
        colours = 3 if random.random() < 0.6 else 1
        picture = np.broadcast_to(now.integers(0, 256, (grain, grain, colours), np.uint8), (grain, grain, 3))
        return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((size, size), Image.Resampling.NEAREST))
    first, second = random.integers(0, 256, 3), random.integers(0, 256, 3)
    while np.abs(first - second).sum() < 150:
        second = random.integers(0, 256, 3)
    y, x = np.mgrid[0:size, 0:size] / size
    drift = time * random.uniform(-0.05, 0.05)
    if kind == "texture":
        angle, waves = random.uniform(0, math.pi), random.uniform(4, 14)
        along = (x * math.cos(angle) + y * math.sin(angle) + drift) * waves
        across = (y * math.cos(angle) - x * math.sin(angle) + drift) * waves
        mix = np.sin(2 * np.pi * along)
        if random.random() < 0.5:
            mix = mix * np.sin(2 * np.pi * across)
        mix = (mix > 0).astype(float) if random.random() < 0.5 else (mix + 1) / 2
        return (first + (second - first) * mix[:, :, None]).astype(np.uint8)
    coarse = random.integers(0, 256, (int(random.integers(3, 9)), int(random.integers(3, 9)), 3)).astype(np.uint8)
    soft = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    return np.roll(soft, round(drift * size), axis=1)


class Lens(NamedTuple):
    """What happens to a picture on its way: brightness, tint, noise (standard deviation in grey levels), JPEG quality
    (0 for none)."""

    brightness: float
    tint: tuple[float, float, float]
    noise: float
    quality: int

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Lens:
        """A camera at random; one in four does nothing to a picture."""
        if random.random() < 0.25:
            return cls(1.0, (1.0, 1.0, 1.0), 0.0, 0)
        tint = random.uniform(0.95, 1.05, 3)
        quality = int(random.integers(35, 96)) if random.random() < 0.6 else 0
        noise = float(random.uniform(0, 12)) if random.random() < 0.7 else 0.0
        return cls(float(random.uniform(0.82, 1.15)), (tint[0], tint[1], tint[2]), noise, quality)

    def take(self, picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The picture as it arrives."""
        seen = picture
        if self.noise or self.brightness != 1.0:
            seen = picture.astype(np.float32) * (np.float32(self.brightness) * np.array(self.tint, np.float32))
            if self.noise:
                seen += random.standard_normal(picture.shape, np.float32) * np.float32(self.noise)
            seen = np.clip(seen, 0, 255).astype(np.uint8)
        if self.quality:
            file = io.BytesIO()
            Image.fromarray(seen).save(file, "JPEG", quality=self.quality)
            seen = np.asarray(Image.open(file))
        return seen


class Dusk:
    """A camera before which the light goes, in a film of `seconds` at `fps` frames a second: each frame is a little
    darker than the one before."""

    def __init__(self, seconds: float, fps: float = 12.0) -> None:
        self._count = max(1, round(seconds * fps) - 1)
        self._frames = 0

    def take(self, picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The next picture as it arrives."""
        light = 1.15 - 0.33 * min(1.0, self._frames / self._count)
        self._frames += 1
        return Lens(light, (1.0, 1.0, 1.0), 0.0, 0).take(picture, random)
