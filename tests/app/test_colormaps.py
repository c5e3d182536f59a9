"""The page's colour maps are the service's."""

import base64
import re

import numpy as np

from app.overlay import COLORMAPS
from tests import colormaps


def test_the_page_has_the_colours_of_the_service() -> None:
    text = colormaps.PATH.read_text(encoding="utf-8")
    tables = dict(re.findall(r'^  (\w+):\s+"([\w+/=]+)",$', text, re.M))
    assert list(tables) == list(COLORMAPS)
    for name, table in COLORMAPS.items():
        colours = np.frombuffer(base64.b64decode(tables[name]), np.uint8)
        np.testing.assert_array_equal(colours.reshape(256, 1, 3), table)


def test_the_file_is_as_it_is_written() -> None:
    assert colormaps.PATH.read_text(encoding="utf-8") == colormaps.source()
