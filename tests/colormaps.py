"""The page's colour maps, made of the service's: `python -m tests.colormaps` writes them anew."""

import base64

from app.overlay import COLORMAPS
from app.settings import PROJECT

__all__ = ["PATH", "source"]

PATH = PROJECT / "app" / "static" / "colormaps.js"

_HEAD = """\
// The colours of the levels 0 to 255: base64 of 256 times red, green and blue, a byte each.
// Written by `python -m tests.colormaps`.
"""


def source() -> str:
    """The JavaScript module."""
    lines = [
        f'  {name}:\n    "{base64.b64encode(table.tobytes()).decode("ascii")}",'
        for name, table in COLORMAPS.items()
    ]
    return "\n".join([f"{_HEAD}export const COLORMAPS = {{", *lines, "};", ""])


if __name__ == "__main__":
    PATH.write_text(source(), encoding="utf-8")
