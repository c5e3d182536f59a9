"""The dog of the README's examples and of the page's picture, drawn by numbers: no photo.

`python -m tests.drawing` writes `docs/drawing.jpg` anew.
"""

import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from app.settings import PROJECT

__all__ = ["DRAWING", "draw", "jpeg"]

DRAWING = PROJECT / "docs" / "drawing.jpg"
WIDTH, HEIGHT = 480, 360
SCALE = 3
"""Pixels drawn for each pixel kept, in both directions: the edges come out smooth."""

Colour = tuple[int, int, int]
Ellipse = tuple[float, float, float, float]
"""Centre x, centre y, half width, half height; pixels of the drawing."""

INK: Colour = (28, 24, 26)
SHADE: Colour = (196, 190, 184)
WHITE: Colour = (246, 244, 240)

BODY: Ellipse = (236, 318, 128, 132)
CHEST: Ellipse = (236, 268, 96, 84)
HEAD: Ellipse = (236, 146, 92, 82)
CHEEKS: Ellipse = (236, 172, 108, 58)
MUZZLE: Ellipse = (236, 186, 40, 34)


def draw(seed: int = 0) -> Image.Image:
    """A white, fluffy dog that looks at you, on grass; 480 x 360 pixels, RGB."""
    rng = np.random.default_rng(seed)
    canvas = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE))
    pen = ImageDraw.Draw(canvas)
    _meadow(pen, rng)
    _fur(pen, rng, BODY, 9000, 26, 0.82)
    _fur(pen, rng, CHEST, 6000, 24, 0.94)
    for side in (-1, 1):
        _ear(pen, rng, side)
    _fur(pen, rng, CHEEKS, 6000, 20, 0.9)
    _fur(pen, rng, HEAD, 8000, 16, 0.97)
    _fur(pen, rng, MUZZLE, 2500, 8, 1.0)
    _face(pen)
    small = canvas.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    return small.filter(ImageFilter.GaussianBlur(1))


def jpeg(picture: Image.Image) -> bytes:
    """The picture as a JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def _meadow(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Green out of focus above, blades of grass below."""
    for row in range(HEIGHT * SCALE):
        share = row / (HEIGHT * SCALE)
        colour = _mix((96, 128, 92), (86, 122, 48), share)
        pen.line([(0, row), (WIDTH * SCALE, row)], fill=colour)
    for x, y in rng.uniform((0, 190), (WIDTH, HEIGHT + 20), (6000, 2)):
        length, lean = rng.uniform(8, 26), rng.normal(0, 5)
        colour = _mix((52, 88, 30), (142, 172, 84), rng.uniform())
        _stroke(pen, x, y, x + lean, y - length, colour, 1.4)


def _fur(
    pen: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    ellipse: Ellipse,
    hairs: int,
    length: float,
    light: float,
) -> None:
    """Hairs from the rim inwards: they point away from the centre and down, and darken outwards."""
    x0, y0, width, height = ellipse
    radius = np.sqrt(rng.uniform(0, 1, hairs))
    angle = rng.uniform(0, 2 * np.pi, hairs)
    order = np.argsort(-radius)
    for r, a in zip(radius[order], angle[order], strict=True):
        x, y = x0 + width * r * math.cos(a), y0 + height * r * math.sin(a)
        direction = math.atan2(math.sin(a) + 0.7, math.cos(a)) + rng.normal(0, 0.35)
        shade = light * (1 - 0.28 * r**3) + rng.normal(0, 0.07) - 0.06 * math.sin(a)
        colour = _mix(SHADE, WHITE, shade * 1.6 - 0.6)
        end = (x + length * math.cos(direction) * 0.8, y + length * math.sin(direction) * 0.8)
        _stroke(pen, x, y, *end, colour, 1.6)


def _ear(pen: ImageDraw.ImageDraw, rng: np.random.Generator, side: int) -> None:
    """An upright triangle with a rosy inside."""
    base, tip = 236 + side * 56, (236 + side * 84, 38)
    outer = [(base - side * 34, 84), tip, (236 + side * 96, 128)]
    pen.polygon([(x * SCALE, y * SCALE) for x, y in outer], fill=(226, 221, 214))
    inner = [(base - side * 8, 92), (tip[0] - side * 3, 58), (236 + side * 86, 116)]
    pen.polygon([(x * SCALE, y * SCALE) for x, y in inner], fill=(205, 170, 160))
    for share in rng.uniform(0, 1, 900):
        edge = rng.integers(2)
        start, end = (outer[0], tip) if edge else (tip, outer[2])
        x = start[0] + (end[0] - start[0]) * share + rng.normal(0, 3)
        y = start[1] + (end[1] - start[1]) * share + rng.normal(0, 3)
        colour = _mix(SHADE, WHITE, rng.uniform(0.4, 1))
        _stroke(pen, x, y, x + rng.normal(0, 4), y + rng.uniform(4, 12), colour, 1.5)


def _face(pen: ImageDraw.ImageDraw) -> None:
    """Eyes, nose, mouth and tongue."""
    for side in (-1, 1):
        x = 236 + side * 34
        _ellipse(pen, (x, 138, 10.8, 9), (120, 110, 104))
        _ellipse(pen, (x, 138, 9, 8), INK)
        _ellipse(pen, (x - 3, 135, 2.4, 2.4), (250, 250, 250))
    _ellipse(pen, (236, 214, 15, 20), (214, 108, 116))
    for side in (-1, 1):
        box = [236 + side * 20 - 20, 178, 236 + side * 20 + 20, 210]
        pen.arc([edge * SCALE for edge in box], 10, 170, fill=INK, width=3 * SCALE)
    _ellipse(pen, (236, 172, 18, 13), INK)
    _ellipse(pen, (230, 166, 5, 2.5), (96, 92, 94))
    pen.line([(236 * SCALE, 180 * SCALE), (236 * SCALE, 200 * SCALE)], fill=INK, width=3 * SCALE)


def _ellipse(pen: ImageDraw.ImageDraw, ellipse: Ellipse, colour: Colour) -> None:
    x, y, width, height = ellipse
    box = (x - width, y - height, x + width, y + height)
    pen.ellipse([edge * SCALE for edge in box], fill=colour)


def _stroke(
    pen: ImageDraw.ImageDraw,
    x: float,
    y: float,
    end_x: float,
    end_y: float,
    colour: Colour,
    width: float,
) -> None:
    points = [(x * SCALE, y * SCALE), (end_x * SCALE, end_y * SCALE)]
    pen.line(points, fill=colour, width=round(width * SCALE))


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of the second colour, the rest of the first."""
    mixed: npt.NDArray[np.float64] = np.array(first) + np.clip(share, 0, 1) * np.subtract(
        second, first
    )
    red, green, blue = (round(value) for value in mixed)
    return red, green, blue


if __name__ == "__main__":
    DRAWING.write_bytes(jpeg(draw()))
