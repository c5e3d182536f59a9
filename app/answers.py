"""What an answer holds beside its figures, and its body.

    Form.check       refuses parameters that contradict each other  before any work
    Form.check_size  refuses heatmaps that would be too large       once the photo's size is known
    draw             panels -> the picture, or the masks, in a row  on an image thread
    numbers, photo   heatmaps, pixels -> members of the JSON        the same
    file             the picture, or panels -> a body without JSON  the same

A body is JSON, a picture alone, or the heatmaps alone as a NumPy file (NEP 1).
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app import images, overlay, panels
from app.bundle import ModelCard
from app.decoder import Decoded
from app.errors import RequestError
from app.evidence import Evidence, MethodAtLayers
from app.heatmaps import Heatmap
from app.panels import Panel
from app.schemas import (
    MAX_EXPLANATIONS,
    MAX_PICTURES,
    CompareQuery,
    ExplainQuery,
    HeatmapData,
    ImageInfo,
    Overlay,
    Photo,
)
from app.settings import Settings

__all__ = ["MEDIA_TYPES", "NPY", "Form", "Picture", "draw", "file", "numbers", "photo"]

Map = npt.NDArray[np.float32]

NPY = "application/x-npy"

MEDIA_TYPES = (*overlay.MEDIA_TYPES, NPY)
"""What a body can be beside JSON: a picture, or the heatmaps, with the figures in headers."""

MAX_VALUES = 1 << 24
"""Of all heatmaps that `space=photo` enlarges, together: a photo of 16 megapixels. 64 MiB."""

MAX_VALUES_IN_JSON = 1 << 22
"""The same where JSON holds them: base64 makes it 21 MiB, of which there are copies."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form in which a request wants its explanations.

    Attributes:
        query: the request's parameters.
        media_type: one of `MEDIA_TYPES`, for a picture or the heatmaps alone; None: JSON.
        settings: the service's.
    """

    query: ExplainQuery | CompareQuery
    media_type: str | None
    settings: Settings

    @property
    def has_picture(self) -> bool:
        """Whether a picture is drawn: of the photo, or a mask."""
        return self.query.overlay and self.media_type != NPY

    @property
    def decoded_size(self) -> int | None:
        """The longest side of the photo's pixels, for drawing; None where none are needed."""
        query = self.query
        needed = query.photo or (self.has_picture and not query.mask)
        return (query.size or self.settings.overlay_size) if needed else None

    def heatmap_size(self, photo: ImageInfo) -> tuple[int, int] | None:
        """Width and height of heatmaps as numbers; None: their layers'."""
        if self.query.space == "layer":
            return None
        if self.query.size is None:
            return photo.width, photo.height
        return images.fitted(photo.width, photo.height, self.query.size)

    def mask_size(self, photo: ImageInfo) -> tuple[int, int]:
        """Width and height of a mask: those of an overlay, or with `space=photo` the photo's."""
        size = self.query.size or self.settings.overlay_size
        return self.heatmap_size(photo) or images.fitted(photo.width, photo.height, size)

    def check(self, card: ModelCard, specs: Sequence[MethodAtLayers], targets: int) -> None:
        """Refuse what cannot be answered, whatever the photo.

        Args:
            card: the model's.
            specs: the methods of the request.
            targets: how many classes each of them explains.

        Raises:
            RequestError: parameters contradict each other, or there are too many explanations.
        """
        query, explanations = self.query, targets * len(specs)
        if query.mask and not query.overlay:
            raise RequestError("`mask` asks for a picture, and `overlay=false` for none.")
        if query.mask and self.media_type == NPY:
            raise RequestError(f"`mask` asks for a picture, and `Accept: {NPY}` for none.")
        if query.space == "photo" and not (query.mask or query.heatmap or self.media_type == NPY):
            raise RequestError(
                "`space=photo` is for heatmaps as numbers and for masks. Send `heatmap=true` or "
                f"`mask=true`, or `Accept: {NPY}`."
            )
        count = (
            f"`target`: {targets} classes by {len(specs)} methods are {explanations} explanations,"
        )
        if explanations > MAX_EXPLANATIONS:
            raise RequestError(
                f"{count} and {MAX_EXPLANATIONS} are the most. Send fewer of either."
            )
        if self.has_picture and explanations > MAX_PICTURES:
            raise RequestError(
                f"{'`method`:' if targets == 1 else f'{count} and'} an overlay shows "
                f"{MAX_PICTURES} explanations at most. For more, send `overlay=false`."
            )
        if self.media_type == NPY and query.space == "layer":
            _check_one_size(card, specs)

    def check_size(self, photo: ImageInfo, explanations: int) -> None:
        """Refuse heatmaps at the photo's size that are too large to answer with.

        Raises:
            RequestError: they are.
        """
        query, size = self.query, self.heatmap_size(photo)
        if size is None:
            return
        width, height = size
        room = self.settings.max_pending_bytes // 8  # an answer has to fit in
        maps = [(explanations, MAX_VALUES)]
        if query.heatmap:  # with the foreground's
            maps.append((explanations + 1, MAX_VALUES_IN_JSON))
        for count, most in maps:
            if count * width * height > (limit := min(most, room)):
                several = f"{count} heatmaps" if count > 1 else "a heatmap"
                raise RequestError(
                    f"`space=photo`: {several} of {width} x {height} would have more values than "
                    f"{limit}. Limit the longest side with `size`."
                )
        if self.has_picture and query.mask and self.media_type in overlay.MAX_SIDES:
            longest = max(overlay.row_width(explanations, width), height)
            if longest > (side := overlay.MAX_SIDES[self.media_type]):
                raise RequestError(
                    f"`space=photo`: {self.media_type} has {side} pixels a side at most, and the "
                    f"mask would have {longest}. Limit them with `size`, or ask for image/png."
                )


def _check_one_size(card: ModelCard, specs: Sequence[MethodAtLayers]) -> None:
    """Refuse methods whose heatmaps are of several sizes at their layers."""
    sides = {layer.name: (layer.height, layer.width) for layer in card.layers}
    sizes = {max(sides[name] for name in spec.layer_names) for spec in specs}
    if len(sizes) > 1:
        shown = ", ".join(f"{height} x {width}" for height, width in sorted(sizes))
        raise RequestError(
            f"`space`: the heatmaps are of several sizes, {shown}, and a NumPy file holds one "
            "array. Send `space=photo`, or methods at the same layers."
        )


@dataclass(frozen=True, slots=True)
class Picture:
    """The panels side by side: as a file, and as JSON has it."""

    file: bytes
    overlay: Overlay


def draw(
    form: Form,
    decoded: Decoded,
    info: ImageInfo,
    boxes: Sequence[images.Box],
    located: Sequence[Panel],
) -> Picture | None:
    """The panels in a row; None where the request wants no picture.

    Where the picture alone is the body, its JSON holds no data.

    Args:
        form: what is drawn.
        decoded: the photo.
        info: its upright size.
        boxes: the request's.
        located: what is drawn, left to right.
    """
    if not form.has_picture:
        return None
    if form.query.mask:
        drawn = [panels.mask(panel, *form.mask_size(info)) for panel in located]
    else:
        assert decoded.pixels is not None  # by `decoded_size`
        drawn = [panels.draw(panel, decoded.pixels, form.query, info, boxes) for panel in located]
    row = overlay.side_by_side(drawn)
    file = overlay.encode(row, form.media_type or overlay.MEDIA_TYPES[0])
    data = "" if form.media_type else base64.b64encode(file).decode("ascii")
    height, width = row.shape[:2]
    return Picture(
        file, Overlay(width=width, height=height, panel_width=drawn[0].shape[1], data=data)
    )


def numbers(
    form: Form, info: ImageInfo, heatmap: Heatmap | None, enlarged: Map | None
) -> HeatmapData | None:
    """A heatmap for JSON; None where the request does not want it. See `panels.values_at`."""
    if heatmap is None or not form.query.heatmap:
        return None
    return panels.numbers(panels.values_at(form.heatmap_size(info), heatmap, enlarged))


def photo(form: Form, decoded: Decoded) -> Photo | None:
    """The scaled photo for JSON; None where the request does not want it."""
    pixels = decoded.pixels
    if pixels is None or not form.query.photo:
        return None
    height, width = pixels.shape[:2]
    data = base64.b64encode(overlay.encode(pixels, overlay.JPEG)).decode("ascii")
    return Photo(width=width, height=height, data=data)


def file(
    form: Form, info: ImageInfo, located: Sequence[Panel], picture: Picture | None
) -> bytes | None:
    """The picture or the heatmaps as a body of their own; None where the request wants JSON."""
    if form.media_type == NPY:
        return _npy(form, info, [panel.evidence for panel in located])
    return picture.file if form.media_type and picture else None


def _npy(form: Form, info: ImageInfo, shown: Sequence[Evidence]) -> bytes:
    """Heatmaps of one size as a file that `numpy.load` reads: float32, little-endian, C order.

    The array is `[n, h, w]` for `/compare`, else `[h, w]`. Each heatmap is enlarged in its place,
    so that large ones take the file's memory alone.
    """
    size = form.heatmap_size(info)
    height, width = shown[0].heatmap.values.shape if size is None else size[::-1]
    shape = (len(shown), height, width)
    target = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        target,
        {
            "descr": "<f4",
            "fortran_order": False,
            "shape": shape if isinstance(form.query, CompareQuery) else shape[1:],
        },
    )
    begin = target.tell()
    target.seek(4 * math.prod(shape) - 1, io.SEEK_CUR)
    target.write(b"\0")  # all of it at once: no more than its size is allocated
    maps = np.frombuffer(target.getbuffer(), "<f4", offset=begin).reshape(shape)
    for each, out in zip(shown, maps, strict=True):
        panels.values_at(size, each.heatmap, each.values, out)
    del maps, out  # while they are there, `getvalue` would copy
    return target.getvalue()
