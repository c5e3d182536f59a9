"""A matplotlib figure as SVG for a page: in the page's own colours, with a title.

    <svg role="img" aria-labelledby="NAME-title">  <title id="NAME-title">...  text, lines

What is drawn in `INK` takes the colour of the text around it, in light and dark, and black in a
file of its own.
"""

import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

__all__ = ["INK", "STYLE", "inline"]

INK = "#010203"
"""Stands for the colour of text; nothing else is drawn in it."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "legend.framealpha": 0,
    "legend.fontsize": 9,
}
"""matplotlib's settings for a figure that is passed to `inline`."""

_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"


def inline(figure: Any, name: str, title: str) -> str:
    """The figure as an `svg` element; the figure is closed.

    Args:
        figure: drawn with `STYLE`.
        name: unlike that of the page's other figures: the element's ids begin with it.
        title: what the figure shows, for those who do not see it.
    """
    file = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):  # the same figures, the same ids
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    pyplot.close(figure)
    root = ElementTree.fromstring(file.getvalue())
    _remove(root, "metadata")
    _remove(root, "style")  # it would hold for the whole page
    for element in root.iter():
        _rename(element, name)
    for size in ("width", "height"):
        del root.attrib[size]
    root.attrib |= {
        "role": "img",
        "aria-labelledby": f"{name}-title",
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    }
    heading = ElementTree.Element(f"{{{_SVG}}}title", id=f"{name}-title")
    heading.text = title
    root.insert(0, heading)
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode").replace(INK, "currentColor")


def _remove(root: ElementTree.Element, tag: str) -> None:
    for parent in root.iter():
        for child in parent.findall(f"{{{_SVG}}}{tag}"):
            parent.remove(child)


def _rename(element: ElementTree.Element, name: str) -> None:
    """Ids that no other figure of the page has, and references to them."""
    attributes = element.attrib
    if "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    if _HREF in attributes:
        attributes["href"] = attributes.pop(_HREF).replace("#", f"#{name}-")
    if "clip-path" in attributes:
        attributes["clip-path"] = re.sub(r"url\(#", f"url(#{name}-", attributes["clip-path"])
