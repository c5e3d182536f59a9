import io

import numpy as np
from PIL import Image

from benchmarks.pictures import jpeg, pixels


def test_picture_is_the_same_for_the_same_seed_alone() -> None:
    assert pixels(40, 30).shape == (30, 40, 3)
    assert np.array_equal(pixels(40, 30, 1), pixels(40, 30, 1))
    assert not np.array_equal(pixels(40, 30, 1), pixels(40, 30, 2))


def test_jpeg_has_a_photos_bytes_for_each_pixel() -> None:
    data = jpeg(640, 480)
    assert Image.open(io.BytesIO(data)).size == (640, 480)
    assert 0.1 < len(data) / (640 * 480) < 0.6
